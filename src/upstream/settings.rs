//! Session settings that differ from what a server connection starts with.

use std::{
    fmt::Write as _,
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

    /// Names of the tenant's own settings: those with a dot.
    pub fn customs(&self) -> impl Iterator<Item = &str> {
        self.iter()
            .map(|(name, _)| name)
            .filter(|name| name.contains('.'))
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
        fn key(text: &str) -> impl Iterator<Item = u8> {
            text.bytes().map(|b| b.to_ascii_lowercase())
        }
        self.0
            .binary_search_by(|(other, _)| key(other).cmp(key(name)))
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

    /// One statement that takes a server from these settings to others; empty when nothing differs.
    pub fn sql_towards(&self, target: &Self) -> String {
        self.changes(target, false)
    }

    /// The same, and any error in it ends the connection (`exit_on_error`): what is sent behind it
    /// in the same write never runs under the settings that were there before.
    pub fn guarded_sql_towards(&self, target: &Self) -> String {
        self.changes(target, true)
    }

    fn changes(&self, target: &Self, is_guarded: bool) -> String {
        if self == target {
            return String::new();
        }
        let differs = |name: &str| self.value(name) != target.value(name);
        let names = self.iter().chain(target.iter()).map(|(name, _)| name);
        let mut names: Vec<&str> = names.filter(|name| differs(name)).collect();
        if names.is_empty() {
            return String::new();
        }
        names.sort_unstable_by_key(|name| name.to_ascii_lowercase());
        names.dedup_by(|a, b| a.eq_ignore_ascii_case(b));
        let identity = |name: &&str| IDENTITY.iter().any(|i| i.eq_ignore_ascii_case(name));
        let mut sql = String::from("SELECT ");
        if is_guarded {
            push_change(&mut sql, GUARD, Some("on"));
        }
        // Whoever the session is may decide what it may set: first back to the login, last away.
        for name in IDENTITY.iter().filter(|name| differs(name)) {
            push_change(&mut sql, name, None);
        }
        // What PostgreSQL says of the others is for who wants to hear it.
        names.sort_by_key(|name| !name.eq_ignore_ascii_case(VOLUME));
        for name in names
            .iter()
            .filter(|name| !identity(name) && **name != GUARD)
        {
            push_change(&mut sql, name, target.value(name));
        }
        for name in IDENTITY.iter().rev().filter(|name| differs(name)) {
            if let Some(value) = target.value(name) {
                push_change(&mut sql, name, Some(value));
            }
        }
        if is_guarded || differs(GUARD) {
            push_change(&mut sql, GUARD, target.value(GUARD));
        }
        sql.pop();
        sql
    }
}

/// Ends the session on any error while it is on (PostgreSQL 9.1 and later).
const GUARD: &str = "exit_on_error";

/// Which notices the client is sent.
const VOLUME: &str = "client_min_messages";

/// Who the session is, the innermost first.
const IDENTITY: [&str; 2] = ["role", "session_authorization"];

/// Appends the change of one setting and a comma; no value is what the server started with.
fn push_change(sql: &mut String, name: &str, value: Option<&str>) {
    sql.push_str("pg_catalog.set_config(");
    push_literal(sql, name);
    sql.push(',');
    match value {
        Some(value) => push_literal(sql, value),
        None => sql.push_str("NULL"),
    }
    sql.push_str(",false),");
}

/// The text as a literal.
pub(super) fn literal(text: &str) -> String {
    let mut sql = String::with_capacity(text.len() + 4);
    push_literal(&mut sql, text);
    sql
}

/// Appends a string literal in pure ASCII: it means the same whatever
/// `standard_conforming_strings` and `client_encoding` the server has at the moment.
pub(super) fn push_literal(sql: &mut String, text: &str) {
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
            c => {
                // Writing to a String can't fail.
                let written = write!(sql, "\\U{:08x}", u32::from(c));
                debug_assert!(written.is_ok(), "a String takes everything");
            }
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
    fn the_way_to_other_settings_is_one_statement() {
        let from = settings(&[("a.b", "1"), ("TimeZone", "UTC")]);
        let to = settings(&[("TimeZone", "UTC"), ("x", "it's \\ 1")]);
        assert_eq!(
            from.sql_towards(&to),
            "SELECT pg_catalog.set_config('a.b',NULL,false),pg_catalog.set_config('x', E'it''s \\\\ 1',false)"
        );
        assert_eq!(to.sql_towards(&to), "");
        assert_eq!(to.guarded_sql_towards(&to), "");
    }

    #[test]
    fn an_error_on_the_guarded_way_ends_the_connection() {
        let sql = settings(&[]).guarded_sql_towards(&settings(&[("a.b", "1")]));
        let guard = |value| format!("pg_catalog.set_config('exit_on_error',{value},false)");
        assert!(sql.starts_with(&format!("SELECT {},", guard("'on'"))));
        assert!(sql.ends_with(&guard("NULL")));
    }

    #[test]
    fn an_identity_is_left_first_and_taken_last() {
        let from = settings(&[("role", "a"), ("x.y", "1")]);
        let to = settings(&[("role", "b"), ("session_authorization", "c")]);
        let sql = from.sql_towards(&to);
        let names: Vec<&str> = sql
            .split("set_config('")
            .skip(1)
            .map(|rest| rest.split('\'').next().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "role",
                "session_authorization",
                "x.y",
                "session_authorization",
                "role"
            ]
        );
    }

    #[test]
    fn literals_are_pure_ascii() {
        let sql = Settings::default().sql_towards(&settings(&[("my.x", "é'😀")]));
        assert_eq!(
            sql,
            r"SELECT pg_catalog.set_config('my.x', E'\U000000e9''\U0001f600',false)"
        );
    }

    #[test]
    fn a_quote_in_a_name_stays_inside_the_name() {
        let from = settings(&[("a'); DROP TABLE t; --", "1")]);
        let sql = from.sql_towards(&Settings::default());
        assert_eq!(
            sql,
            "SELECT pg_catalog.set_config('a''); DROP TABLE t; --',NULL,false)"
        );
    }

    #[test]
    fn only_the_search_path_is_part_of_the_plan_context() {
        assert_eq!(settings(&[("TimeZone", "UTC")]).plan_context(), 0);
        let one = settings(&[("search_path", "a")]).plan_context();
        assert_ne!(one, settings(&[("search_path", "b")]).plan_context());
    }
}
