//! PgBouncer's ini files: sections, keys, `%include`; and its connection strings.

use super::ImportError;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Files within files; PgBouncer allows as many.
const INCLUDES_MAX: usize = 10;
/// No configuration is longer.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub(super) file: PathBuf,
    pub(super) line: usize,
}

impl std::fmt::Display for Spot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// `key = value` in a section. Not printable: a value may hold a password.
pub(super) struct Entry {
    pub(super) section: String,
    pub(super) key: String,
    pub(super) value: String,
    pub(super) spot: Spot,
}

/// A file that PgBouncer names. It looks in the directory where it was started; we don't know that
/// one, so ours comes first, then the directory of the file that names it.
pub(super) fn locate(named: &Path, by: &Path) -> PathBuf {
    if named.is_absolute() || named.exists() {
        return named.to_owned();
    }
    let beside = by.parent().unwrap_or(Path::new("")).join(named);
    if beside.exists() {
        beside
    } else {
        named.to_owned()
    }
}

/// Reads a text file, not too long.
pub(super) fn text_of(path: &Path) -> Result<String, ImportError> {
    let unreadable = |source| ImportError::Read {
        path: path.to_owned(),
        source,
    };
    if fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
        return Err(unreadable(std::io::ErrorKind::FileTooLarge.into()));
    }
    fs::read_to_string(path).map_err(unreadable)
}

/// Everything in a file and those that it includes, in order.
///
/// # Errors
/// What PgBouncer would not read either. No message shows a value.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, ImportError> {
    let mut reader = Reader {
        section: None,
        entries: Vec::new(),
    };
    reader.file(path, 0)?;
    Ok(reader.entries)
}

struct Reader {
    /// It goes on behind an included file.
    section: Option<String>,
    entries: Vec<Entry>,
}

impl Reader {
    fn file(&mut self, path: &Path, depth: usize) -> Result<(), ImportError> {
        let text = text_of(path)?;
        for (index, line) in text.lines().enumerate() {
            let spot = Spot {
                file: path.to_owned(),
                line: index + 1,
            };
            let wrong = |problem| ImportError::Syntax {
                spot: spot.to_string(),
                problem,
            };
            let mut line = line.trim();
            if let Some(named) = line.strip_prefix("%include").filter(|rest| is_blank(rest)) {
                if depth >= INCLUDES_MAX {
                    return Err(wrong("files include each other more than 10 deep"));
                }
                self.file(&locate(Path::new(named.trim()), path), depth + 1)?;
                continue;
            }
            if let Some(rest) = line.strip_prefix('[') {
                let (name, rest) = rest.split_once(']').ok_or(wrong("\"]\" is missing"))?;
                self.section = Some(name.to_owned());
                line = rest.trim_start();
            }
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let (key, rest) = key(line).ok_or(wrong("a key can't be read"))?;
            let value = rest.trim_start().strip_prefix('=');
            let value = value.ok_or(wrong("\"=\" is missing behind a key"))?;
            let section = self
                .section
                .clone()
                .ok_or(wrong("no section comes before"))?;
            self.entries.push(Entry {
                section,
                key,
                value: value.trim().to_owned(),
                spot,
            });
        }
        Ok(())
    }
}

fn is_blank(rest: &str) -> bool {
    rest.starts_with([' ', '\t'])
}

/// A key, plain or in quotes, and what stands behind it.
fn key(line: &str) -> Option<(String, &str)> {
    if let Some(rest) = line.strip_prefix('\'') {
        let (key, rest) = rest.split_once('\'')?;
        return (!key.is_empty()).then(|| (key.to_owned(), rest));
    }
    if let Some(rest) = line.strip_prefix('"') {
        let (key, rest) = doubled(rest, '"')?;
        return (!key.is_empty()).then_some((key, rest));
    }
    let is_key = |c: char| c.is_ascii_alphanumeric() || "_.-*".contains(c);
    let end = line.find(|c| !is_key(c)).unwrap_or(line.len());
    let (key, rest) = line.split_at(end);
    (!key.is_empty()).then(|| (key.to_owned(), rest))
}

/// A text up to its closing quote, a doubled quote standing for one, and what is behind it.
pub(super) fn doubled(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let (part, behind) = rest.split_once(quote)?;
        value.push_str(part);
        let Some(more) = behind.strip_prefix(quote) else {
            return Some((value, behind));
        };
        value.push(quote);
        rest = more;
    }
}

/// The pairs of a connection string: `host=db port=5432 password='it''s'`.
///
/// # Errors
/// What is wrong with it, without a value.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, &'static str> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start_matches(' ');
    while !rest.is_empty() {
        let (name, behind) = rest.split_once('=').ok_or("\"=\" is missing")?;
        let name = name.trim_end_matches(' ');
        if name.is_empty() || name.contains(' ') {
            return Err("a name and \"=\" do not stand together");
        }
        let behind = behind.trim_start_matches(' ');
        let (value, behind) = match behind.strip_prefix('\'') {
            Some(quoted) => doubled(quoted, '\'').ok_or("a quote is not closed")?,
            None => match behind.split_once(' ') {
                Some((value, behind)) => (value.to_owned(), behind),
                None => (behind.to_owned(), ""),
            },
        };
        if value.is_empty() {
            return Err("a value is empty");
        }
        pairs.push((name.to_owned(), value));
        rest = behind.trim_start_matches(' ');
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<(String, String, String, usize)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgbouncer.ini");
        fs::write(&path, text).unwrap();
        let entries = read(&path).map_err(|error| error.to_string())?;
        let all = entries.into_iter();
        Ok(all
            .map(|entry| (entry.section, entry.key, entry.value, entry.spot.line))
            .collect())
    }

    #[test]
    fn comments_stand_at_the_start_of_a_line_only() {
        let text = "; one\n# two\n[a]\nkey = value ; not # a comment  \n\n  b=\n";
        let read = read_text(text).unwrap();
        assert_eq!(read[0].2, "value ; not # a comment");
        assert_eq!((read[0].3, read[1].3), (4, 6));
        assert_eq!(read[1].2, "");
    }

    #[test]
    fn a_key_may_be_quoted_and_follow_its_section_at_once() {
        let read = read_text("[databases] * = host=a\n'my db'=host=b\n\"x\"\"y\" = host=c\r\n");
        let keys: Vec<_> = read.unwrap().into_iter().map(|entry| entry.1).collect();
        assert_eq!(keys, ["*", "my db", "x\"y"]);
    }

    #[test]
    fn what_is_no_ini_is_told_with_its_line_and_without_its_value() {
        for (text, says) in [
            ("[a\n", ":1: \"]\" is missing"),
            ("[a]\nhunter2\n", ":2: \"=\" is missing"),
            ("a = hunter2\n", ":1: no section"),
            ("[a]\n'b = hunter2\n", ":2: a key"),
        ] {
            let error = read_text(text).unwrap_err();
            assert!(error.contains(says), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_included_file_is_read_in_its_place_and_goes_on_with_the_section() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("main.ini");
        fs::write(&main, "[a]\nx = 1\n%include more.ini\nz = 3\n").unwrap();
        fs::write(folder.path().join("more.ini"), "y = 2\n[b]\n").unwrap();
        let entries = read(&main).unwrap();
        let all: Vec<_> = entries
            .iter()
            .map(|entry| (entry.section.as_str(), entry.key.as_str()))
            .collect();
        assert_eq!(all, [("a", "x"), ("a", "y"), ("b", "z")]);
        fs::write(folder.path().join("more.ini"), "%include more.ini\n").unwrap();
        let error = read(&main).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("10 deep"), "{error}");
    }

    #[test]
    fn a_connection_string_has_quotes_as_pgbouncer_reads_them() {
        let read = pairs(" host=a  password='it''s a = b' port = 5 user=x'y").unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            read,
            [
                pair("host", "a"),
                pair("password", "it's a = b"),
                pair("port", "5"),
                pair("user", "x'y")
            ]
        );
        assert_eq!(pairs("").unwrap(), []);
        for wrong in ["host", "host=", "a='b", "a b=c", "=x"] {
            assert!(pairs(wrong).is_err(), "{wrong}");
        }
    }
}
