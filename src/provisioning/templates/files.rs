//! The files of a tier: `<version>_<name>.sql`, read and checked before anything is applied.

use super::TemplateError;
use crate::{
    sql::{self, Kind},
    tenant::Tier,
};
use sha2::{Digest, Sha256};
use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

/// A longer file is no template.
const BYTES_MAX: u64 = 16 << 20;

/// One file.
#[derive(Debug, Clone)]
pub(super) struct Template {
    pub(super) version: i64,
    pub(super) name: String,
    pub(super) file: PathBuf,
    pub(super) text: String,
    pub(super) sha256: [u8; 32],
    /// Where its statements stand in the text.
    pub(super) statements: Vec<Range<usize>>,
}

impl Template {
    /// The line of a byte, from 1.
    pub(super) fn line(&self, byte: usize) -> usize {
        line(&self.text, byte)
    }
}

/// The files of a tier, in the order of their versions. A tier without a directory has none.
///
/// # Errors
/// [`TemplateError::Directory`], [`TemplateError::File`].
pub(super) fn read(directory: &Path, tier: Tier) -> Result<Vec<Template>, TemplateError> {
    let folder = directory.join(tier.as_str());
    let unreadable = |source| TemplateError::Directory {
        path: folder.clone(),
        source,
    };
    let entries = match fs::read_dir(&folder) {
        // The directory itself must be there.
        Err(error) if error.kind() == io::ErrorKind::NotFound && directory.is_dir() => {
            return Ok(Vec::new());
        }
        entries => entries.map_err(unreadable)?,
    };
    let mut templates: Vec<Template> = Vec::new();
    for entry in entries {
        let file = entry.map_err(unreadable)?.path();
        if file.extension().is_some_and(|extension| extension == "sql") {
            templates.push(template(file)?);
        }
    }
    templates.sort_by_key(|template| template.version);
    for pair in templates.windows(2) {
        if let [first, second] = pair
            && first.version == second.version
        {
            let other = first.file.file_name().unwrap_or_default();
            let problem = format!("{} has the same version", other.display());
            return Err(wrong(&second.file, None, problem));
        }
    }
    Ok(templates)
}

fn template(file: PathBuf) -> Result<Template, TemplateError> {
    let named = file.file_stem().and_then(|stem| stem.to_str());
    let named = named.and_then(|stem| stem.split_once('_'));
    let named = named.and_then(|(version, name)| Some((version.parse::<i64>().ok()?, name)));
    let Some((version, name)) = named.filter(|(version, name)| *version > 0 && !name.is_empty())
    else {
        let problem = "a template is named <version>_<name>.sql, such as 0001_accounts.sql";
        return Err(wrong(&file, None, problem));
    };
    let name = name.to_owned();
    let unreadable = |source| TemplateError::Directory {
        path: file.clone(),
        source,
    };
    if fs::metadata(&file).map_err(unreadable)?.len() > BYTES_MAX {
        return Err(wrong(&file, None, "it is longer than 16 MiB"));
    }
    let bytes = fs::read(&file).map_err(unreadable)?;
    let sha256 = Sha256::digest(&bytes).into();
    let text = match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => text,
        _ => return Err(wrong(&file, None, "it is not text in UTF-8")),
    };
    if let Some((byte, problem)) = fault(&text) {
        return Err(wrong(&file, Some(line(&text, byte)), problem));
    }
    Ok(Template {
        version,
        name,
        statements: sql::statements(text.as_bytes()).collect(),
        file,
        text,
        sha256,
    })
}

fn wrong(file: &Path, line: Option<usize>, problem: impl Into<String>) -> TemplateError {
    TemplateError::File {
        file: file.to_owned(),
        line,
        problem: problem.into(),
    }
}

fn line(text: &str, byte: usize) -> usize {
    let before = text.as_bytes().get(..byte).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

const IS_ONE_TRANSACTION: &str =
    "a template is one transaction of its own: take out what begins or ends one";
const HAS_ONE_ROLE: &str =
    "a template is run as who owns its tables: take out what changes the role";

/// What can't be in a template, and where.
fn fault(text: &str) -> Option<(usize, &'static str)> {
    let bytes = text.as_bytes();
    // Outside of strings SQL has no backslash.
    let meta = sql::tokens(bytes)
        .find(|token| token.kind == Kind::Other && token.of(bytes) == b"\\")
        .map(|token| {
            (
                token.range.start,
                "a command of psql: a template has SQL only",
            )
        });
    let statements = sql::statements(bytes).find_map(|range| {
        let statement = bytes.get(range.clone()).unwrap_or_default();
        let words: Vec<String> = sql::tokens(statement)
            .significant()
            .take(3)
            .map(|token| String::from_utf8_lossy(token.of(statement)).to_ascii_lowercase())
            .collect();
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        let problem = match (word(0), word(1)) {
            (
                "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint"
                | "release",
                _,
            )
            | ("prepare", "transaction") => IS_ONE_TRANSACTION,
            ("set" | "reset", "role") | ("set" | "reset", "session")
                if word(1) == "role" || word(2) == "authorization" =>
            {
                HAS_ONE_ROLE
            }
            ("set", "local" | "session") if word(2) == "role" => HAS_ONE_ROLE,
            ("copy", _) if is_from_stdin(statement) => {
                "COPY … FROM STDIN has no data here: write INSERT"
            }
            _ => return None,
        };
        Some((range.start, problem))
    });
    meta.into_iter().chain(statements).min_by_key(|(at, _)| *at)
}

fn is_from_stdin(statement: &[u8]) -> bool {
    sql::tokens(statement).any(|token| token.is_word(statement, b"stdin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_in_a_template_is_found_where_it_stands() {
        let at = |text: &str| fault(text).map(|(byte, _)| line(text, byte));
        assert_eq!(at("create table a (id int);\n\n COMMIT;"), Some(3));
        assert_eq!(at("-- x\n\\i other.sql\n"), Some(2));
        assert_eq!(at("begin;\n\\x"), Some(1));
        assert_eq!(at("set local role x"), Some(1));
        assert_eq!(at("set session authorization x"), Some(1));
        assert_eq!(at("reset role"), Some(1));
        assert_eq!(at("copy t from stdin"), Some(1));
        for good in [
            "select '\\', E'\\n'; -- \\i",
            "create function f() returns int language sql begin atomic select 1; end; select 1",
            "do $$ begin commit; end $$",
            "set local search_path = x; set role_x = 1",
        ] {
            assert_eq!(at(good), None, "{good}");
        }
    }

    #[test]
    fn files_are_in_the_order_of_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let row = folder.path().join("row");
        fs::create_dir(&row).unwrap();
        for name in ["10_c.sql", "0002_b.sql", "1_a.sql", "README.md"] {
            fs::write(row.join(name), "select 1; select 2").unwrap();
        }
        let templates = read(folder.path(), Tier::Row).unwrap();
        let versions: Vec<_> = templates.iter().map(|t| (t.version, &*t.name)).collect();
        assert_eq!(versions, [(1, "a"), (2, "b"), (10, "c")]);
        assert_eq!(templates[0].statements.len(), 2);
        assert!(read(folder.path(), Tier::Schema).unwrap().is_empty());
        assert!(read(&row.join("nowhere"), Tier::Schema).is_err());

        fs::write(row.join("01_again.sql"), "").unwrap();
        let error = read(folder.path(), Tier::Row).unwrap_err().to_string();
        assert!(error.contains("has the same version"), "{error}");
        fs::remove_file(row.join("01_again.sql")).unwrap();
        for bad in ["x_a.sql", "0_a.sql", "3_.sql", "3.sql", "-1_a.sql"] {
            fs::write(row.join(bad), "").unwrap();
            assert!(read(folder.path(), Tier::Row).is_err(), "{bad}");
            fs::remove_file(row.join(bad)).unwrap();
        }
    }
}
