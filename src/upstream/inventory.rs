//! What session state there really is on a server, by PostgreSQL's own account.
//!
//! Asked on an idle server behind a transaction that may have left something ([`Suspicion`]), never
//! on a client's way. As PostgreSQL itself says what is left, everything that undoes state (ROLLBACK,
//! savepoints, `SET LOCAL`, functions with settings of their own) needs no rules of ours.
//!
//! Every name is qualified and every text comes as hex, so that neither the client's search path nor
//! its encoding changes what is asked or answered.

use super::{AskError, Server, Settings, Suspicion, clean::Row, convert, settings::literal};
use std::time::Duration;

/// A setting that says whether the server listens to everything that its client does: it is set
/// together with that, and rolled back with it.
pub const LISTENS: &str = "pgusher.listens";

/// How long a server may take to tell.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest settings that are carried from server to server, in bytes; longer ones pin.
const CARRIED_BYTES_MAX: usize = 64 * 1024;

/// Most settings that are carried.
const CARRIED_MAX: usize = 256;

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// Settings that differ from what the server started with; `None` when not asked for.
    pub settings: Option<Settings>,
    /// Channels that are listened to; `None` when not asked for.
    pub channels: Option<Vec<Box<str>>>,
    /// The number that [`LISTENS`] has.
    pub listens: Option<u64>,
    /// State that can't be carried, of the kinds that were asked for.
    pub fixed: Suspicion,
    /// Notifications and changes of PostgreSQL's configuration that came meanwhile, as it sent them.
    pub asides: Vec<u8>,
}

/// What a pool knows about what can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight<'a> {
    /// The role that the server is logged in as.
    pub login: &'a str,
    /// It is a slot: the setting that names its tenant is not the client's.
    pub is_slot: bool,
    /// `pg_locks` can be read.
    pub locks: bool,
    /// Names of the tenant's own settings: PostgreSQL does not list them.
    pub customs: &'a [Box<str>],
}

impl Server {
    /// Asks what there is of these kinds. Lasting kinds ([`Suspicion::LASTING`]) are taken as there:
    /// no question tells about them.
    ///
    /// # Errors
    /// [`AskError`]; `Refused` when the client's own settings don't let the question through
    /// (a `statement_timeout` of a millisecond).
    ///
    /// # Cancel safety
    /// Not cancel safe: drop the server when the future is dropped.
    pub async fn take_stock(
        &mut self,
        kinds: Suspicion,
        sight: Sight<'_>,
    ) -> Result<Inventory, AskError> {
        let mut found = Inventory {
            fixed: kinds.and(Suspicion::LASTING),
            ..Inventory::default()
        };
        let mut asked = kinds.and(Suspicion::ASKABLE);
        if !sight.locks && asked.intersects(Suspicion::LOCKS) {
            asked = asked.without(Suspicion::LOCKS);
            // Where everything is suspected, locks are let go of unseen.
            if !kinds.intersects(Suspicion::UNSEEN) {
                found.fixed |= Suspicion::LOCKS;
            }
        }
        if asked.is_empty() {
            return Ok(found);
        }
        let mut answer = self.ask_rows(&question(asked, sight), TIMEOUT).await;
        if matches!(answer, Err(AskError::TooLong)) && asked.intersects(Suspicion::SETTINGS) {
            // More than is carried, in any case.
            found.fixed |= Suspicion::SETTINGS;
            asked = asked.without(Suspicion::SETTINGS);
            if asked.is_empty() {
                return Ok(found);
            }
            answer = self.ask_rows(&question(asked, sight), TIMEOUT).await;
        }
        let answer = answer?;
        found.asides = answer.asides;
        self.is_outdated |= answer.is_outdated;
        if asked.intersects(Suspicion::SETTINGS) {
            found.settings = Some(Settings::default());
        }
        if asked.intersects(Suspicion::CHANNELS) {
            found.channels = Some(Vec::new());
        }
        let mut settings = Vec::new();
        for row in &answer.rows {
            found.note(row, &mut settings).ok_or(AskError::Protocol)?;
        }
        found.carry(settings);
        Ok(found)
    }
}

impl Inventory {
    /// One row: the kind, a name, a value.
    fn note(&mut self, row: &Row, settings: &mut Vec<(Box<str>, Box<str>)>) -> Option<()> {
        let kind = row.first()?.as_deref()?;
        let text = |at: usize| {
            let hex = row.get(at)?.as_deref()?;
            unhex(hex)
        };
        match kind {
            b"setting" => match (text(1), text(2)) {
                (Some(name), Some(value)) => settings.push((name.into(), value.into())),
                // Not a text that we could write again.
                _ => self.fixed |= Suspicion::SETTINGS,
            },
            b"channel" => match text(1) {
                Some(name) => self.channels.get_or_insert_default().push(name.into()),
                None => self.fixed |= Suspicion::CHANNELS,
            },
            b"listens" => self.listens = text(1).and_then(|number| number.parse().ok()),
            b"temp" => self.fixed |= Suspicion::TEMP,
            b"cursor" => self.fixed |= Suspicion::CURSORS,
            b"lock" => self.fixed |= Suspicion::LOCKS,
            b"statement" => self.fixed |= Suspicion::STATEMENTS,
            _ => return None,
        }
        Some(())
    }

    /// Takes settings as carried, if they aren't too many.
    fn carry(&mut self, settings: Vec<(Box<str>, Box<str>)>) {
        let bytes: usize = settings.iter().map(|(n, v)| n.len() + v.len()).sum();
        if bytes > CARRIED_BYTES_MAX || settings.len() > CARRIED_MAX {
            self.fixed |= Suspicion::SETTINGS;
        } else if let Some(found) = &mut self.settings {
            *found = Settings::new(settings);
        }
    }
}

/// The question about these kinds: rows of kind, name and value.
fn question(kinds: Suspicion, sight: Sight<'_>) -> String {
    let mut parts = Vec::with_capacity(FIXED.len() + 3);
    if kinds.intersects(Suspicion::SETTINGS) {
        parts.extend(settings_parts(sight));
    }
    if kinds.intersects(Suspicion::CHANNELS) {
        let name = hex("c.name");
        parts.push(format!(
            "SELECT 'channel',{name},NULL::pg_catalog.text FROM pg_catalog.pg_listening_channels() c(name)"
        ));
        let number = hex(&format!("pg_catalog.current_setting('{LISTENS}',true)"));
        parts.push(format!("SELECT 'listens',{number},NULL::pg_catalog.text"));
    }
    for (kind, name, condition) in FIXED {
        if kinds.intersects(kind) {
            parts.push(format!(
                "SELECT '{name}',NULL::pg_catalog.text,NULL::pg_catalog.text WHERE EXISTS({condition})"
            ));
        }
    }
    parts.join(" UNION ALL ")
}

/// Kinds that are there or not, and what says so.
const FIXED: [(Suspicion, &str, &str); 4] = [
    (
        Suspicion::TEMP,
        "temp",
        "SELECT FROM (VALUES(pg_catalog.pg_my_temp_schema())) t(oid) \
         WHERE t.oid OPERATOR(pg_catalog.<>) 0 \
         AND (EXISTS(SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace OPERATOR(pg_catalog.=) t.oid) \
         OR EXISTS(SELECT FROM pg_catalog.pg_proc c WHERE c.pronamespace OPERATOR(pg_catalog.=) t.oid) \
         OR EXISTS(SELECT FROM pg_catalog.pg_type c WHERE c.typnamespace OPERATOR(pg_catalog.=) t.oid))",
    ),
    (
        Suspicion::CURSORS,
        "cursor",
        "SELECT FROM pg_catalog.pg_cursor() c WHERE c.is_holdable",
    ),
    (
        Suspicion::LOCKS,
        "lock",
        "SELECT FROM pg_catalog.pg_lock_status() l \
         WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' \
         AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()",
    ),
    (
        Suspicion::STATEMENTS,
        "statement",
        "SELECT FROM pg_catalog.pg_prepared_statement() p WHERE p.from_sql",
    ),
];

/// Settings that PostgreSQL lists, who the session is, and the tenant's own settings.
fn settings_parts(sight: Sight<'_>) -> Vec<String> {
    let (name, setting, value) = (hex("s.name"), hex("s.setting"), hex("s.value"));
    let tenant = if sight.is_slot {
        "|backtrace_functions"
    } else {
        ""
    };
    let mut parts = vec![
        format!(
            "SELECT 'setting',{name},{setting} FROM pg_catalog.pg_show_all_settings() s \
             WHERE s.source OPERATOR(pg_catalog.=) 'session' AND s.name OPERATOR(pg_catalog.!~) \
             '^(pgusher[.].*|transaction_(isolation|read_only|deferrable)|is_superuser|in_hot_standby{tenant})$'"
        ),
        format!(
            "SELECT 'setting',{name},{value} FROM (VALUES \
             ('role',pg_catalog.current_setting('role'),'none'),\
             ('session_authorization',SESSION_USER::pg_catalog.text,{login})) s(name,value,usual) \
             WHERE s.value OPERATOR(pg_catalog.<>) s.usual",
            login = literal(sight.login)
        ),
    ];
    if !sight.customs.is_empty() {
        let names = sight.customs.iter().map(|n| format!("({})", literal(n)));
        let value = hex("pg_catalog.current_setting(s.name,true)");
        parts.push(format!(
            "SELECT 'setting',{name},{value} FROM (VALUES {names}) s(name) \
             WHERE pg_catalog.current_setting(s.name,true) IS NOT NULL",
            names = names.collect::<Vec<_>>().join(",")
        ));
    }
    parts
}

/// A text as hex, so that it means the same in every client encoding; NULL when it is too long to be
/// carried anyway.
fn hex(text: &str) -> String {
    format!(
        "CASE WHEN pg_catalog.octet_length({text}) OPERATOR(pg_catalog.<=) {CARRIED_BYTES_MAX} \
         THEN pg_catalog.encode(pg_catalog.convert_to({text},'UTF8'),'hex') END"
    )
}

fn unhex(hex: &[u8]) -> Option<String> {
    String::from_utf8(convert::unhex(hex)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_suspected_is_asked() {
        let sql = question(
            Suspicion::TEMP | Suspicion::CHANNELS,
            Sight {
                login: "acme",
                is_slot: false,
                locks: true,
                customs: &[],
            },
        );
        assert!(sql.contains("pg_my_temp_schema") && sql.contains("pg_listening_channels"));
        assert!(!sql.contains("pg_show_all_settings") && !sql.contains("pg_lock_status"));
    }

    #[test]
    fn rows_become_what_there_is() {
        let row = |cells: &[Option<&str>]| -> Row {
            cells
                .iter()
                .map(|cell| cell.map(|text| text.as_bytes().into()))
                .collect()
        };
        let mut found = Inventory {
            settings: Some(Settings::default()),
            ..Inventory::default()
        };
        let mut settings = Vec::new();
        for cells in [
            [Some("setting"), Some("612e62"), Some("c3a927")],
            [Some("channel"), Some("63"), None],
            [Some("lock"), None, None],
        ] {
            found.note(&row(&cells), &mut settings).unwrap();
        }
        found.carry(settings);
        assert_eq!(found.fixed, Suspicion::LOCKS);
        assert_eq!(found.channels.as_deref(), Some(&["c".into()][..]));
        assert_eq!(found.settings.unwrap().value("A.B"), Some("é'"));
        assert!(
            Inventory::default()
                .note(&row(&[Some("?")]), &mut Vec::new())
                .is_none()
        );
    }

    #[test]
    fn settings_that_are_too_long_are_not_carried() {
        let mut found = Inventory {
            settings: Some(Settings::default()),
            ..Inventory::default()
        };
        found.carry(vec![("a.b".into(), "x".repeat(CARRIED_BYTES_MAX).into())]);
        assert_eq!(found.fixed, Suspicion::SETTINGS);
    }
}
