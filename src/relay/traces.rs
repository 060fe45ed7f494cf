//! What a statement's text tells of the state that it may leave on a server.
//!
//! It only makes suspicious: what is really left, PostgreSQL is asked ([`crate::upstream::Inventory`]).
//! Looked at once per Parse or Query. What functions leave without being named for it, the pool's
//! [`crate::upstream::Survey`] tells.

use super::sets::{
    SET_CONFIG, configured, has_backslash, is_ambiguous, may_set, names_seed, sets_locally,
    sets_unseen,
};
use crate::{
    sql,
    upstream::{Survey, Suspicion},
};
use aho_corasick::AhoCorasick;
use std::sync::LazyLock;

/// Words, and what a statement may leave that has one of them. Parts of words count, too.
const WORDS: [(&str, Suspicion); 22] = [
    // The first two are looked at more closely.
    (SET_CONFIG, Suspicion::SETTINGS),
    ("execute", Suspicion::DYNAMIC),
    ("notify", Suspicion::NOTIFIES),
    ("nextval", Suspicion::NUMBERS),
    ("pgusher.", Suspicion::OWN),
    ("temp", Suspicion::TEMP),
    // The search path may make it a temporary one.
    ("create", Suspicion::TEMP),
    // They run SQL, or read relations, that they are given as values.
    ("_to_xml", Suspicion::DYNAMIC),
    ("ts_stat", Suspicion::DYNAMIC),
    ("ts_rewrite", Suspicion::DYNAMIC),
    ("crosstab", Suspicion::DYNAMIC),
    ("connectby", Suspicion::DYNAMIC),
    ("pg_settings", Suspicion::SETTINGS),
    ("advisory", Suspicion::LOCKS),
    ("hold", Suspicion::CURSORS),
    ("setseed", Suspicion::SEED),
    ("currval", Suspicion::SEQUENCES),
    ("lastval", Suspicion::SEQUENCES),
    ("dblink", Suspicion::LINKS),
    ("listen", Suspicion::CHANNELS),
    ("prepare", Suspicion::STATEMENTS),
    // A name in Unicode escapes may be any of these.
    ("u&\"", Suspicion::ALL),
];

static FINDER: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .build(WORDS.map(|(word, _)| word))
        .expect("the words are constants that a test has built")
});

/// What the text names that may stay on the server. A command's tag says the rest.
#[inline]
pub(crate) fn suspects(text: &[u8]) -> Suspicion {
    let mut suspicion = Suspicion::NONE;
    let (mut set_configs, mut has_execute) = (0, false);
    for found in FINDER.find_iter(text) {
        match found.pattern().as_usize() {
            0 => set_configs += 1,
            1 => has_execute = true,
            at => suspicion |= WORDS.get(at).map_or(Suspicion::ALL, |(_, kinds)| *kinds),
        }
    }
    if set_configs > 0 {
        suspicion |= configured(text, set_configs);
    }
    if has_execute && may_execute(text) {
        suspicion |= Suspicion::DYNAMIC;
    }
    if may_set(text) {
        if names_seed(text) {
            suspicion |= Suspicion::SEED;
        }
        if !sets_locally(text) {
            suspicion |= Suspicion::SETS;
            if sets_unseen(text) {
                suspicion |= Suspicion::UNSEEN;
            }
        }
        if has_backslash(text) {
            // What may be a name of the path.
            suspicion |= Suspicion::TEMP;
        }
    }
    suspicion
}

/// Whether it may run what was prepared by SQL; the word also stands in CREATE TRIGGER and GRANT.
fn may_execute(text: &[u8]) -> bool {
    let is_execute = |one: sql::Use<'_>| matches!(one, sql::Use::Execute(_));
    is_ambiguous(text) || sql::uses(text).any(is_execute)
}

/// What a statement of this text may leave, by itself and through functions.
#[inline]
pub fn suspects_with(text: &[u8], survey: &Survey) -> Suspicion {
    suspects(text) | survey.suspects(text)
}

/// Whether a text names a setting of pgusher's own.
#[inline]
pub(super) fn names_own(text: &[u8]) -> bool {
    memchr::memmem::find(text, b"pgusher.").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_may_leave_state_are_known_by_their_words() {
        for (text, kinds) in [
            ("create TEMP table t as select 1", Suspicion::TEMP),
            (
                "select Set_Config('a.b', '1', false)",
                Suspicion::SETTINGS | Suspicion::SETS,
            ),
            (
                "select xset_config_all('a.b', true)",
                Suspicion::SETTINGS | Suspicion::UNSEEN | Suspicion::SETS,
            ),
            (
                "SELECT pg_catalog.pg_try_advisory_lock(1)",
                Suspicion::LOCKS,
            ),
            (
                "declare c cursor with hold for select 1 into pg_temp.x",
                Suspicion::CURSORS | Suspicion::TEMP,
            ),
            (
                "select abalance from pgbench_accounts where aid = 1",
                Suspicion::NONE,
            ),
        ] {
            assert_eq!(suspects(text.as_bytes()), kinds, "{text}");
        }
    }

    #[test]
    fn what_is_set_for_a_transaction_is_told_from_what_is_set_for_the_session() {
        for local in [
            "set local work_mem = '1MB'",
            " SET LOCAL app.x TO 'a;b';\0",
            "set transaction read only",
        ] {
            assert!(
                !suspects(local.as_bytes()).intersects(Suspicion::SETS),
                "{local}"
            );
        }
        for session in [
            "set work_mem = '1MB'",
            "set local a.b = 1; set c.d = 2",
            "/* x */ set a.b = 1",
            "set local a.b = '\\'; set c.d = '2",
            "begin; set a.b = 1",
        ] {
            assert!(
                suspects(session.as_bytes()).intersects(Suspicion::SETS),
                "{session}"
            );
        }
    }

    #[test]
    fn what_set_config_sets_for_its_transaction_is_told_from_what_lasts() {
        for local in [
            "select set_config('app.tenant', $1, true)",
            "SELECT pg_catalog.Set_Config ( 'a.b', coalesce($1, f('x', 2)), TRUE ), 1",
            "select set_config('a', x[1,2]::text, true), set_config('b', ', false)', true) /* set */",
        ] {
            assert_eq!(suspects(local.as_bytes()), Suspicion::SETS, "{local}");
        }
        for path in [
            "with c as (select set_config($1, set_config('c.d', '', true), true)) select 1 from c",
            "select set_config('search_path', 'x', true)",
            "select set_config('search_' || 'path', 'x', true)",
        ] {
            let suspicion = suspects(path.as_bytes());
            assert_eq!(suspicion, Suspicion::SETS | Suspicion::TEMP, "{path}");
        }
        for lasting in [
            "select set_config('app.tenant', $1, false)",
            "select set_config('app.tenant', $1, $2)",
            "select set_config('app.tenant', $1, not true)",
            "select set_config('a.b', ', true)', false)",
            "select set_config('a.b', 'c', true), set_config('a.b', 'c', 1=1)",
            "select set_config('a.b', set_config('a.c', '', false), true)",
            "select \"set_config\"('a.b', 'c', false)",
            "select set_config('a.b', $$, true)$$, false)",
            "select set_config('a.b', e'\\', true)', false)",
            "select set_config('a.b', 'c', true",
            "select set_config",
        ] {
            let suspicion = suspects(lasting.as_bytes());
            assert!(suspicion.intersects(Suspicion::SETTINGS), "{lasting}");
        }
    }

    #[test]
    fn a_setting_whose_name_is_written_so_that_it_is_not_found_is_reset_with_all() {
        for seen in [
            "set app.x = 'a'",
            "SET SESSION app.x.y TO 1; set time zone 'UTC'",
            "set session characteristics as transaction read only",
            "set role \"a.b\"",
        ] {
            let suspicion = suspects(seen.as_bytes());
            assert!(!suspicion.intersects(Suspicion::UNSEEN), "{seen}");
        }
        let long = format!("set app.{} = 1", "x".repeat(130));
        for unseen in [
            "set \"app\".x = 1",
            "set app.\"x\" = 1",
            "set app . x = 1",
            "set app/**/.x = 1",
            "begin; set session app.\u{e9} = 1",
            "select set_config('app.' || 'x', 'a', false)",
            long.as_str(),
        ] {
            let suspicion = suspects(unseen.as_bytes());
            assert!(suspicion.intersects(Suspicion::UNSEEN), "{unseen}");
        }
    }

    #[test]
    fn only_a_command_that_executes_may_leave_what_was_prepared() {
        for (text, may) in [
            (
                "create trigger t before insert on x execute function f()",
                false,
            ),
            ("grant execute on function f to public", false),
            ("explain execute p", true),
            ("select 1; execute p(1)", true),
            ("select '\\''; execute p; select '", true),
        ] {
            let suspicion = suspects(text.as_bytes());
            assert_eq!(suspicion.intersects(Suspicion::UNSEEN), may, "{text}");
        }
    }
}
