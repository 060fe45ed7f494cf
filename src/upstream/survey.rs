//! Which of a tenant's functions may leave session state behind that a statement's text doesn't name.
//!
//! PostgreSQL tells bodies and dependencies; from them follow, for each kind of state, the names that
//! a text must contain for it to be left, or that any statement may leave it (through a trigger, a
//! view, a default, a policy, …). Where bodies can't be read every function of the tenant's counts.

use super::{
    AskError, Server, Suspicion,
    clean::Row,
    survey_sql::{self, Scope, WRITES},
};
use crate::sql::{NAME_BYTES_MAX, is_name_byte};
use aho_corasick::{AhoCorasick, BuildError};
use std::time::Duration;

/// How long a server may take to tell; it reads the catalog of functions once.
const TIMEOUT: Duration = Duration::from_secs(10);

/// More suspected functions than this are not held by name: then every statement is suspected.
const NAMES_MAX: usize = 2000;

/// What a survey found.
#[derive(Debug, Clone)]
pub struct Survey {
    /// What any statement may leave.
    everywhere: Suspicion,
    /// What a statement that writes may leave.
    on_write: Suspicion,
    /// What a statement may leave whose text has one of these names.
    names: Option<Names>,
    is_known: bool,
    /// Names of the tenant's own settings that functions set.
    pub customs: Vec<Box<str>>,
    /// Whether `pg_locks` can be read.
    pub sees_locks: bool,
}

#[derive(Debug, Clone)]
struct Names {
    finder: AhoCorasick,
    kinds: Vec<Suspicion>,
    /// The first so many are names; those behind them are words of writing statements.
    count: usize,
}

impl Default for Survey {
    fn default() -> Self {
        Self::unknown()
    }
}

impl Survey {
    /// Before anything is known: any statement may leave anything.
    pub fn unknown() -> Self {
        Self {
            is_known: false,
            everywhere: Suspicion::NONE,
            on_write: Suspicion::NONE,
            names: None,
            customs: Vec::new(),
            sees_locks: false,
        }
    }

    /// Whether a survey was made at all; else a server must be asked for everything.
    #[inline]
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// What a statement may leave through functions, as far as they are known.
    #[inline]
    pub fn suspects(&self, text: &[u8]) -> Suspicion {
        let mut suspicion = self.everywhere;
        if let Some(names) = &self.names {
            suspicion |= names.suspects(text, self.on_write);
        }
        suspicion
    }

    fn new(found: &[Found], sees_locks: bool) -> Result<Self, BuildError> {
        let all = |kinds: fn(&Found) -> Suspicion| {
            found
                .iter()
                .map(kinds)
                .fold(Suspicion::NONE, Suspicion::with)
        };
        let mut everywhere = all(|f| f.everywhere);
        let on_write = all(|f| f.on_write);
        let is_many = found.len() > NAMES_MAX;
        for one in found.iter().filter(|one| is_many || !one.is_plain()) {
            everywhere |= one.kinds;
        }
        let names = if found.is_empty() || is_many {
            None
        } else {
            Some(Names::new(found)?)
        };
        Ok(Self {
            everywhere,
            on_write,
            is_known: true,
            names,
            customs: Vec::new(),
            sees_locks,
        })
    }
}

impl Names {
    fn new(found: &[Found]) -> Result<Self, BuildError> {
        let all = found.iter().fold(Suspicion::NONE, |all, f| all | f.kinds);
        // A name in Unicode escapes is not seen: such a text may mean any of them.
        let all_named: Vec<(&str, Suspicion)> = (found.iter().filter(|f| f.is_plain()))
            .map(|f| (f.name.as_str(), f.kinds))
            .chain([("u&\"", all)])
            .collect();
        let names = all_named.iter().map(|(name, _)| *name);
        let finder = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(names.chain(WRITES))?;
        Ok(Self {
            finder,
            count: all_named.len(),
            kinds: all_named.into_iter().map(|(_, kinds)| kinds).collect(),
        })
    }

    fn suspects(&self, text: &[u8], on_write: Suspicion) -> Suspicion {
        let mut suspicion = Suspicion::NONE;
        for found in self.finder.find_overlapping_iter(text) {
            let at = found.pattern().as_usize();
            let is_part = |byte: Option<&u8>| byte.is_some_and(|b| is_name_byte(*b));
            let before = found.start().checked_sub(1).and_then(|at| text.get(at));
            // PostgreSQL cuts what is longer than a name may be.
            let may_go_on = at + 1 == self.count || found.len() >= NAME_BYTES_MAX;
            if is_part(before) || is_part(text.get(found.end())) && !may_go_on {
                continue;
            }
            suspicion |= match self.kinds.get(at) {
                Some(kinds) => *kinds,
                None => on_write,
            };
        }
        suspicion
    }
}

/// A suspected function or relation.
struct Found {
    /// Empty where it is called without one.
    name: String,
    kinds: Suspicion,
    everywhere: Suspicion,
    on_write: Suspicion,
}

impl Server {
    /// Asks for the functions and relations of this scope that may leave something. Also returns what
    /// PostgreSQL had to say meanwhile: notifications, changes of its configuration.
    ///
    /// # Errors
    /// [`AskError`].
    ///
    /// # Cancel safety
    /// Not cancel safe: drop the server when the future is dropped.
    pub async fn survey(&mut self, scope: Scope) -> Result<(Survey, Vec<u8>), AskError> {
        let mut asides = Vec::new();
        let sight = self.look(survey_sql::SIGHT, &mut asides).await?;
        let sees = |at: usize| {
            let cell = sight.first().and_then(|row| row.get(at));
            matches!(cell, Some(Some(text)) if **text == *b"t")
        };
        let functions = survey_sql::suspected(sees(0), scope);
        let mut found = Found::all(&self.look(&functions, &mut asides).await?)?;
        let direct = if sees(2) {
            survey_sql::direct(scope)
        } else {
            survey_sql::views(scope)
        };
        found.extend(Found::all(&self.look(&direct, &mut asides).await?)?);
        let on_write = found.iter().map(|f| f.on_write);
        let on_write = on_write.fold(Suspicion::NONE, Suspicion::with);
        if sees(0) && !on_write.is_empty() {
            let writing = survey_sql::writing(on_write, scope);
            found.extend(Found::all(&self.look(&writing, &mut asides).await?)?);
        }
        let mut survey = Survey::new(&found, sees(1)).map_err(|_error| AskError::Protocol)?;
        if !found.is_empty() {
            let mut rows = Vec::new();
            let customs = [survey_sql::customs(), survey_sql::customs_of_views()];
            for (is_seen, question) in [sees(0), sees(2)].into_iter().zip(customs) {
                if is_seen {
                    rows.extend(self.look(&question, &mut asides).await?);
                }
            }
            let name = |row: &Row| {
                let name = row.first()?.as_deref()?;
                std::str::from_utf8(name).ok().map(Into::into)
            };
            survey.customs = rows.iter().filter_map(name).collect();
        }
        Ok((survey, asides))
    }

    async fn look(&mut self, sql: &str, asides: &mut Vec<u8>) -> Result<Vec<Row>, AskError> {
        let answer = self.ask_rows(sql, TIMEOUT).await?;
        asides.extend(answer.asides);
        self.is_outdated |= answer.is_outdated;
        Ok(answer.rows)
    }
}

impl Found {
    fn all(rows: &[Row]) -> Result<Vec<Self>, AskError> {
        let found: Option<Vec<Self>> = rows.iter().map(Self::read).collect();
        found.ok_or(AskError::Protocol)
    }

    /// Whether a text that means it has its name as it is.
    fn is_plain(&self) -> bool {
        !self.name.is_empty() && self.name.bytes().all(is_name_byte)
    }

    /// Name, what it leaves, what it leaves anywhere, what it leaves on writes.
    fn read(row: &Row) -> Option<Self> {
        let text = |at: usize| std::str::from_utf8(row.get(at)?.as_deref()?).ok();
        let kinds = |at: usize| Some(Suspicion::from_bits(text(at)?.parse().ok()?));
        // What is not UTF-8 in the client's encoding is not plain either.
        let name = row.first()?.as_deref().unwrap_or_default();
        Some(Self {
            name: String::from_utf8_lossy(name).into_owned(),
            kinds: kinds(1)?,
            everywhere: kinds(2)?,
            on_write: kinds(3)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, kinds: Suspicion) -> Found {
        Found {
            name: name.to_owned(),
            kinds,
            everywhere: Suspicion::NONE,
            on_write: Suspicion::NONE,
        }
    }

    #[test]
    fn a_name_that_a_text_may_show_otherwise_is_suspected_of_every_text() {
        let long = "l".repeat(63);
        for (name, text) in [
            ("f\"g", "select \"f\"\"g\"()"),
            ("f\u{e9}", "select 1"),
            ("", "select 1 === 2"),
            (long.as_str(), &format!("select {long}onger()")),
        ] {
            let survey = Survey::new(&[found(name, Suspicion::TEMP)], true).unwrap();
            assert_eq!(survey.suspects(text.as_bytes()), Suspicion::TEMP, "{text}");
        }
    }

    #[test]
    fn a_function_is_suspected_where_its_name_stands() {
        let survey = Survey::new(&[found("f", Suspicion::TEMP)], true).unwrap();
        assert_eq!(survey.suspects(b"select F(1)"), Suspicion::TEMP);
        assert_eq!(survey.suspects(b"select \"f\"()"), Suspicion::TEMP);
        assert_eq!(survey.suspects(b"select if(1), f_2()"), Suspicion::NONE);
        assert_eq!(survey.suspects(b"select U&\"\\0066\"()"), Suspicion::TEMP);
    }

    #[test]
    fn what_a_trigger_leaves_is_suspected_of_writes_alone() {
        let mut trigger = found("audit", Suspicion::SETTINGS);
        trigger.on_write = Suspicion::SETTINGS;
        let survey = Survey::new(&[trigger], true).unwrap();
        assert_eq!(survey.suspects(b"INSERT INTO t"), Suspicion::SETTINGS);
        assert_eq!(survey.suspects(b"select 1"), Suspicion::NONE);
    }

    #[test]
    fn nothing_is_suspected_where_there_is_no_function() {
        let survey = Survey::new(&[], true).unwrap();
        assert!(survey.is_known() && !Survey::unknown().is_known());
        let text = b"insert into t select f(u&\"\\0066\")";
        assert_eq!(survey.suspects(text), Suspicion::NONE);
    }
}
