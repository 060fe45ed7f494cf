//! State that would keep a server, refused before it is made: where the tenant's `pin` is "refuse",
//! or `max_pinned_servers` is reached.
//!
//! Only what a text says plainly is refused here, so that no harmless statement is; what shows only
//! behind the transaction ends the session then. In place of the text PostgreSQL is given one that
//! raises the error, so that it stands where the client's own would: in a failed transaction, in a
//! pipeline, in a batch.

use super::Relay;
use crate::{
    sql::{Token, tokens},
    tenant::Pinning,
    upstream::Suspicion,
    wire::{Refusal, SqlState},
};

/// Kinds of state that a text can say plainly.
const PLAIN: Suspicion = Suspicion::TEMP
    .with(Suspicion::CURSORS)
    .with(Suspicion::LOCKS)
    .with(Suspicion::STATEMENTS)
    .with(Suspicion::SEED)
    .with(Suspicion::LINKS);

impl Relay<'_> {
    /// What is said instead of running a text that would keep the server; `None` when it may run.
    pub(super) fn refusal_for(&self, text: &[u8], suspicion: Suspicion) -> Option<Refusal> {
        if let Some(refusal) = self.refusal_of_listening(text, suspicion) {
            return Some(refusal);
        }
        let is_on_replica = matches!(self.reading, super::Reading::Replica { .. });
        if is_on_replica && suspicion.intersects(Suspicion::LOCKS) {
            return Some(not_on_replica());
        }
        if !suspicion.intersects(PLAIN) || !self.pinned.is_empty() {
            return None;
        }
        let config = self.pool.config();
        let limit = config.limits.max_pinned_servers;
        let is_refused = config.pinning == Pinning::Refuse;
        if !is_refused && self.pool.pinned() < limit {
            return None;
        }
        let reason = plainly_keeps(text)?;
        Some(if is_refused {
            not_allowed(reason)
        } else {
            too_many(limit, reason)
        })
    }

    /// What is said instead of running a text that listens, where the tenant uses slots.
    pub(super) fn refusal_of_listening(
        &self,
        text: &[u8],
        suspicion: Suspicion,
    ) -> Option<Refusal> {
        let is_asked = self.pool.uses_slots() && suspicion.intersects(Suspicion::CHANNELS);
        (is_asked && plainly_listens(text)).then(no_listening)
    }
}

/// What a session keeps a server for, it can't keep a replica for (0A000): it would write there next.
pub fn not_on_replica() -> Refusal {
    Refusal::error(
        SqlState::UNSUPPORTED,
        "a session can't keep a lock or other state on a replica",
    )
    .with_detail(
        "A transaction that is READ ONLY runs on a replica. Leave READ ONLY out, or connect with \
         options=-c pgusher.target=primary.",
    )
}

/// Where the tenant uses slots (0A000): a notification's sender is known by its process, and that of
/// a slot has been other tenants'.
pub fn no_listening() -> Refusal {
    Refusal::error(
        SqlState::UNSUPPORTED,
        "LISTEN is not available to a tenant that shares its server connections",
    )
    .with_detail(
        "The tenant's variant is \"shared\". A tenant with a login of its own may listen; \
         this one can look at a table again instead.",
    )
}

/// Whether a statement of the text begins with LISTEN.
fn plainly_listens(text: &[u8]) -> bool {
    let tokens: Vec<Token> = tokens(text).significant().collect();
    (0..tokens.len()).any(|at| {
        let is_first = at == 0 || tokens.get(at - 1).is_some_and(|t| t.of(text) == b";");
        is_first
            && tokens
                .get(at)
                .is_some_and(|token| token.is_word(text, b"listen"))
    })
}

/// Where the tenant's `pin` is "refuse" (0A000).
pub fn not_allowed(reasons: &str) -> Refusal {
    Refusal::error(
        SqlState::UNSUPPORTED,
        format!("session state that outlives a transaction is not allowed: {reasons}"),
    )
    .with_detail(
        "The tenant's \"pin\" is \"refuse\"; a connection in session mode may \
         (options=-c pgusher.pool_mode=session).",
    )
}

/// Where `max_pinned_servers` is reached (53400).
pub fn too_many(limit: u32, reasons: &str) -> Refusal {
    Refusal::error(
        SqlState::QUOTA,
        format!("too many sessions keep their server (max_pinned_servers = {limit})"),
    )
    .with_detail(format!(
        "This session would keep its server because of: {reasons}."
    ))
}

/// A statement that raises it.
pub(super) fn raising(refusal: &Refusal) -> String {
    let quoted = |text: &str| text.replace('\'', "''");
    let part = |name: &str, text: Option<&str>| {
        text.map_or_else(String::new, |text| format!(",{name}='{}'", quoted(text)))
    };
    format!(
        "DO $pgusher$BEGIN RAISE EXCEPTION USING ERRCODE='{}',MESSAGE='{}'{}{};END$pgusher$",
        refusal.sqlstate,
        quoted(&refusal.message),
        part("DETAIL", refusal.detail.as_deref()),
        part("HINT", refusal.hint.as_deref())
    )
}

/// Which state a text plainly makes that outlives its transaction.
fn plainly_keeps(text: &[u8]) -> Option<&'static str> {
    let tokens: Vec<Token> = tokens(text).significant().collect();
    let word = |at: usize, words: &[&str]| {
        let token = tokens.get(at);
        token.is_some_and(|token| words.iter().any(|w| token.is_word(text, w.as_bytes())))
    };
    let drops = (0..tokens.len())
        .any(|at| word(at, &["on"]) && word(at + 1, &["commit"]) && word(at + 2, &["drop"]));
    // Whether the statement that a token is in begins with CREATE.
    let creates = |at: usize| {
        let is_end = |t: &Token| t.of(text) == b";";
        let before = tokens.get(..at).unwrap_or_default();
        let begins = before.iter().rposition(is_end).map_or(0, |end| end + 1);
        word(begins, &["create"])
    };
    (0..tokens.len()).find_map(|at| {
        let is_first = at == 0 || tokens.get(at - 1).is_some_and(|t| t.of(text) == b";");
        let calls = tokens.get(at + 1).is_some_and(|t| t.of(text) == b"(");
        let makes_temp = word(at, &["temp", "temporary"])
            && at > 0
            && word(at - 1, &["create", "into", "local", "global", "replace"]);
        let into_temp = word(at, &["pg_temp"]) && creates(at);
        if (makes_temp || into_temp) && !drops {
            Some("temp")
        } else if word(at, &["with"]) && word(at + 1, &["hold"]) {
            Some("cursor")
        } else if calls && word(at, &LOCKS) {
            Some("advisory")
        } else if is_first && word(at, &["prepare"]) && !word(at + 1, &["transaction"]) {
            Some("prepare")
        } else if calls && word(at, &["setseed"]) {
            Some("seed")
        } else if calls && word(at, &["dblink_connect", "dblink_connect_u"]) {
            Some("dblink")
        } else {
            None
        }
    })
}

/// Functions that take a lock for the session.
const LOCKS: [&str; 4] = [
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_server_is_told_from_what_only_looks_like_it() {
        for (text, reason) in [
            ("create temp table t ()", Some("temp")),
            (
                "CREATE LOCAL /* x */ TEMPORARY TABLE t (a int)",
                Some("temp"),
            ),
            ("select 1 into temp t", Some("temp")),
            ("create temp table t () on commit drop", None),
            ("create function pg_temp.f() returns int", Some("temp")),
            ("select pg_temp.f(); create table t ()", None),
            ("select temp, 'create temp table' from temp", None),
            ("declare c cursor with hold for select 1", Some("cursor")),
            ("select with_hold from hold", None),
            (
                "select pg_catalog.pg_try_advisory_lock (1)",
                Some("advisory"),
            ),
            ("select pg_advisory_xact_lock(1)", None),
            ("begin; prepare p as select 1", Some("prepare")),
            ("prepare transaction 'x'", None),
            ("select prepare from t", None),
        ] {
            assert_eq!(plainly_keeps(text.as_bytes()), reason, "{text}");
        }
    }
}
