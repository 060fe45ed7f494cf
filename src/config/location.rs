//! Where something stands in the file: the path of a key, and its line.

use std::{fmt, ops::Range};
use toml::de::{DeTable, DeValue};

/// A place in the file, as a chain on the stack: naming a place costs nothing until something is
/// wrong there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<&'a str>,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, Copy)]
enum Step<T> {
    /// Into the table's key.
    Key(T),
    /// Into the list's element.
    Index(usize),
    /// Into the list's element, which has a name.
    Entry(usize, T),
}

impl<'a> At<'a> {
    /// A table or key at the top.
    pub(crate) fn top(name: &'a str) -> Self {
        Self {
            parent: None,
            step: Step::Key(name),
        }
    }

    /// A key in this table.
    pub(crate) fn key(&'a self, name: &'a str) -> Self {
        self.step(Step::Key(name))
    }

    /// An element of this list.
    pub(crate) fn index(&'a self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    /// An element of this list; the name says it better than the index, when there is one.
    pub(crate) fn entry(&'a self, index: usize, name: Option<&'a str>) -> Self {
        self.step(name.map_or(Step::Index(index), |name| Step::Entry(index, name)))
    }

    fn step(&'a self, step: Step<&'a str>) -> Self {
        Self {
            parent: Some(self),
            step,
        }
    }

    /// The same, to keep.
    pub(crate) fn to_path(self) -> KeyPath {
        let mut steps = Vec::new();
        let mut at = Some(&self);
        while let Some(place) = at {
            steps.push(match place.step {
                Step::Key(name) => Step::Key(name.into()),
                Step::Index(index) => Step::Index(index),
                Step::Entry(index, name) => Step::Entry(index, name.into()),
            });
            at = place.parent;
        }
        steps.reverse();
        KeyPath(steps)
    }
}

/// The path of a key, such as `tenants "acme": keys[0].verifier`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyPath(Vec<Step<Box<str>>>);

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for step in &self.0 {
            match step {
                Step::Key(name) => write!(f, "{separator}{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Entry(_, name) => write!(f, " {name:?}")?,
            }
            separator = match step {
                Step::Entry(..) => ": ",
                Step::Key(_) | Step::Index(_) => ".",
            };
        }
        Ok(())
    }
}

/// The parsed text, to look up lines in. Made only when there is an error to tell.
#[derive(Debug)]
pub(crate) struct Lines<'t> {
    starts: Vec<usize>,
    table: DeTable<'t>,
}

impl<'t> Lines<'t> {
    /// Looks at a text that may be no TOML at all.
    pub(crate) fn new(text: &'t str) -> Self {
        let starts = memchr::memchr_iter(b'\n', text.as_bytes()).map(|end| end + 1);
        let (table, _errors) = DeTable::parse_recoverable(text);
        Self {
            starts: std::iter::once(0).chain(starts).collect(),
            table: table.into_inner(),
        }
    }

    /// The line (from 1) of a byte.
    pub(crate) fn line(&self, byte: usize) -> usize {
        self.starts.partition_point(|start| *start <= byte)
    }

    /// The line of a key; of what it would stand in, when it is not there.
    pub(crate) fn line_of(&self, path: &KeyPath) -> Option<usize> {
        let mut line = None;
        let mut value: Option<&DeValue<'_>> = None;
        for step in &path.0 {
            let found = match (step, value) {
                (Step::Key(name), None) => self.table.get_key_value(&**name),
                (Step::Key(name), Some(DeValue::Table(table))) => table.get_key_value(&**name),
                (Step::Index(index) | Step::Entry(index, _), Some(DeValue::Array(list))) => {
                    let Some(element) = list.get(*index) else {
                        break;
                    };
                    line = Some(self.line(element.span().start));
                    value = Some(element.get_ref());
                    continue;
                }
                _ => None,
            };
            let Some((key, inner)) = found else { break };
            line = Some(self.line(key.span().start));
            value = Some(inner.get_ref());
        }
        line
    }

    /// The path of the key that a parser's error points at.
    pub(crate) fn path_of(&self, span: &Range<usize>) -> KeyPath {
        let mut steps = Vec::new();
        find_in_table(&self.table, span, &mut steps);
        KeyPath(steps)
    }
}

fn find_in_table(
    table: &DeTable<'_>,
    span: &Range<usize>,
    steps: &mut Vec<Step<Box<str>>>,
) -> bool {
    table.iter().any(|(key, value)| {
        steps.push(Step::Key(key.get_ref().as_ref().into()));
        let found = key.span() == *span || find_in_value(value, span, steps);
        if !found {
            steps.pop();
        }
        found
    })
}

fn find_in_value(
    value: &toml::Spanned<DeValue<'_>>,
    span: &Range<usize>,
    steps: &mut Vec<Step<Box<str>>>,
) -> bool {
    let inside = match value.get_ref() {
        DeValue::Table(table) => find_in_table(table, span, steps),
        DeValue::Array(list) => list.iter().enumerate().any(|(index, element)| {
            steps.push(match name_of(element.get_ref()) {
                Some(name) => Step::Entry(index, name.into()),
                None => Step::Index(index),
            });
            let found = find_in_value(element, span, steps);
            if !found {
                steps.pop();
            }
            found
        }),
        _ => false,
    };
    inside || value.span() == *span
}

/// What a table of a list is called: its `id` or `name`.
fn name_of<'v>(value: &'v DeValue<'_>) -> Option<&'v str> {
    let table = value.as_table()?;
    let name = table.get("id").or_else(|| table.get("name"))?;
    name.get_ref().as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[proxy]\nworkers = 2\n\n[[tenants]]\nid = \"a\"\nkeys = [\n  { id = \"k\" },\n  { scope = 1 },\n]\n";

    #[test]
    fn a_path_reads_like_the_file() {
        let top = At::top("tenants");
        let named = top.entry(2, Some("acme"));
        let keys = named.key("keys");
        let key = keys.index(0);
        assert_eq!(
            key.key("verifier").to_path().to_string(),
            "tenants \"acme\": keys[0].verifier"
        );
        assert_eq!(
            top.entry(2, None).key("id").to_path().to_string(),
            "tenants[2].id"
        );
    }

    #[test]
    fn a_key_is_found_and_a_missing_one_has_the_line_of_its_table() {
        let lines = Lines::new(TEXT);
        let top = At::top("tenants");
        let tenant = top.index(0);
        let keys = tenant.key("keys");
        for (path, line) in [
            (At::top("proxy").key("workers").to_path(), Some(2)),
            (tenant.key("id").to_path(), Some(5)),
            (keys.index(1).key("scope").to_path(), Some(8)),
            (keys.index(0).key("scope").to_path(), Some(7)),
            (tenant.key("role").to_path(), Some(4)),
            (At::top("admin").to_path(), None),
        ] {
            assert_eq!(lines.line_of(&path), line, "{path}");
        }
    }

    #[test]
    fn the_place_of_a_span_is_found_again() {
        let lines = Lines::new(TEXT);
        let start = TEXT.find("scope = 1").unwrap() + "scope = ".len();
        assert_eq!(
            lines.path_of(&(start..start + 1)).to_string(),
            "tenants \"a\": keys[1].scope"
        );
        assert_eq!(lines.line(start), 8);
    }
}
