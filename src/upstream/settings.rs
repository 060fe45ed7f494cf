//! Session settings that differ from what a server connection starts with.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

/// Names (as PostgreSQL spells them) and values, sorted by name.
///
/// A session and a server each hold an `Arc` of one; the same `Arc` on both means that nothing is
/// to be done at checkout.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Settings(Vec<(Box<str>, Box<str>)>);

impl Settings {
    /// No difference.
    pub fn none() -> Arc<Self> {
        Arc::default()
    }

    /// From names and values; of two with one name the later counts.
    pub fn new(pairs: impl IntoIterator<Item = (Box<str>, Box<str>)>) -> Self {
        pairs
            .into_iter()
            .fold(Self::default(), |settings, (name, value)| {
                settings.with(&name, Some(&value))
            })
    }

    /// Whether there is no difference.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The value of a name, in any case of letters.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.position(name)
            .ok()
            .and_then(|at| self.0.get(at))
            .map(|(_, value)| &**value)
    }

    /// The same with one value changed, or taken out.
    #[must_use]
    pub fn with(&self, name: &str, value: Option<&str>) -> Self {
        let mut pairs = self.0.clone();
        match (self.position(name), value) {
            (Ok(at), Some(value)) => pairs
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|p| p.1 = value.into()),
            (Ok(at), None) => drop(pairs.remove(at)),
            (Err(at), Some(value)) => pairs.insert(at, (name.into(), value.into())),
            (Err(_), None) => {}
        }
        Self(pairs)
    }

    /// The same with values as a server spells them; without those that it starts with anyway.
    #[must_use]
    pub fn as_reported(
        &self,
        report: &[(Box<str>, Box<str>)],
        is_start_value: impl Fn(&str, &str) -> bool,
    ) -> Self {
        let spelled = report.iter().fold(self.clone(), |settings, (name, value)| {
            settings.with(name, Some(value))
        });
        let kept = spelled
            .0
            .into_iter()
            .filter(|(name, value)| !is_start_value(name, value));
        Self(kept.collect())
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        let key = |text: &str| {
            text.bytes()
                .map(|b| b.to_ascii_lowercase())
                .collect::<Vec<_>>()
        };
        let name = key(name);
        self.0.binary_search_by(|(other, _)| key(other).cmp(&name))
    }

    /// What prepared statements depend on: the path by which names are found.
    pub fn plan_context(&self) -> u64 {
        match self.value("search_path") {
            None => 0,
            Some(path) => {
                let mut hasher = DefaultHasher::new();
                path.hash(&mut hasher);
                hasher.finish().max(1)
            }
        }
    }

    /// SQL that takes a server from these settings to others; empty when nothing differs.
    pub fn sql_towards(&self, target: &Self) -> String {
        let mut sql = String::new();
        for (name, _) in self.iter().filter(|(name, _)| target.value(name).is_none()) {
            push_name(&mut sql, "RESET ", name);
            sql.push(';');
        }
        for (name, value) in target
            .iter()
            .filter(|(name, value)| self.value(name) != Some(*value))
        {
            sql.push_str("SELECT pg_catalog.set_config(");
            push_literal(&mut sql, name);
            sql.push(',');
            push_literal(&mut sql, value);
            sql.push_str(",false);");
        }
        sql
    }
}

/// Appends an identifier, quoted part by part (`app.tenant_id` is two).
fn push_name(sql: &mut String, before: &str, name: &str) {
    sql.push_str(before);
    for (at, part) in name.split('.').enumerate() {
        sql.push_str(if at == 0 { "\"" } else { ".\"" });
        sql.push_str(&part.replace('"', "\"\""));
        sql.push('"');
    }
}

/// Appends a string literal in pure ASCII: it means the same whatever
/// `standard_conforming_strings` and `client_encoding` the server has at the moment.
fn push_literal(sql: &mut String, text: &str) {
    let is_plain = |c: char| c.is_ascii() && c != '\\';
    sql.push_str(if text.chars().all(is_plain) {
        "'"
    } else {
        " E'"
    });
    for c in text.chars() {
        match c {
            '\0' => {}
            '\'' => sql.push_str("''"),
            '\\' => sql.push_str("\\\\"),
            c if c.is_ascii() => sql.push(c),
            c => sql.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    sql.push('\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::new(
            pairs
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into())),
        )
    }

    #[test]
    fn names_are_found_in_any_case() {
        let settings = settings(&[
            ("TimeZone", "UTC"),
            ("DateStyle", "ISO"),
            ("timezone", "CET"),
        ]);
        assert_eq!(settings.value("TIMEZONE"), Some("CET"));
        assert_eq!(settings.iter().count(), 2);
        assert!(
            settings
                .with("datestyle", None)
                .value("DateStyle")
                .is_none()
        );
    }

    #[test]
    fn the_way_to_other_settings_is_reset_and_set() {
        let from = settings(&[("a.b", "1"), ("TimeZone", "UTC")]);
        let to = settings(&[("TimeZone", "UTC"), ("x", "it's \\ 1")]);
        assert_eq!(
            from.sql_towards(&to),
            "RESET \"a\".\"b\";SELECT pg_catalog.set_config('x', E'it''s \\\\ 1',false);"
        );
        assert_eq!(to.sql_towards(&to), "");
    }

    #[test]
    fn literals_are_pure_ascii() {
        let sql = Settings::default().sql_towards(&settings(&[("my.x", "é'😀")]));
        assert_eq!(
            sql,
            r"SELECT pg_catalog.set_config('my.x', E'\U000000e9''\U0001f600',false);"
        );
    }

    #[test]
    fn a_quote_in_a_name_stays_inside_the_name() {
        let from = settings(&[("a\"; DROP TABLE t; --", "1")]);
        let sql = from.sql_towards(&Settings::default());
        assert_eq!(sql, "RESET \"a\"\"; DROP TABLE t; --\";");
    }

    #[test]
    fn only_the_search_path_is_part_of_the_plan_context() {
        assert_eq!(settings(&[("TimeZone", "UTC")]).plan_context(), 0);
        let one = settings(&[("search_path", "a")]).plan_context();
        assert_ne!(one, settings(&[("search_path", "b")]).plan_context());
    }
}
