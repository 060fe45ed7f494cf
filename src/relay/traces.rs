//! What a statement's text tells of the state that it may leave on a server.
//!
//! It only makes suspicious: what is really left, PostgreSQL is asked ([`crate::upstream::Inventory`]).
//! Looked at once per Parse or Query. What functions leave without being named for it, the pool's
//! [`crate::upstream::Survey`] tells.

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

/// The function that sets a setting.
const SET_CONFIG: &str = "set_config";

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
        if is_ambiguous(text) {
            // What may be a name of the path.
            suspicion |= Suspicion::TEMP;
        }
    }
    suspicion
}

/// Whether where the tokens of a text end depends on `standard_conforming_strings`, which is the
/// client's to set: such a text is not read for what it leaves out.
fn is_ambiguous(text: &[u8]) -> bool {
    memchr::memchr(b'\\', text).is_some()
}

/// Whether it may run what was prepared by SQL; the word also stands in CREATE TRIGGER and GRANT.
fn may_execute(text: &[u8]) -> bool {
    let is_execute = |one: sql::Use<'_>| matches!(one, sql::Use::Execute(_));
    is_ambiguous(text) || sql::uses(text).any(is_execute)
}

/// Most calls of `set_config` that are looked at.
const SET_CONFIGS_MAX: usize = 8;

/// What so many words `set_config` may leave. A call whose last argument is `true` leaves nothing: what
/// it sets ends with its transaction; but the search path may make a table of it a temporary one. A
/// function of the tenant's of that name, the survey knows.
fn configured(text: &[u8], words: usize) -> Suspicion {
    if words > SET_CONFIGS_MAX || is_ambiguous(text) {
        return Suspicion::SETTINGS | Suspicion::TEMP | Suspicion::UNSEEN;
    }
    let mut tokens = sql::tokens(text).significant();
    let mut calls = 0;
    let mut suspicion = Suspicion::SETS;
    while let Some(token) = tokens.next() {
        if token.is_word(text, SET_CONFIG.as_bytes()) {
            calls += 1;
            let is_local = ends_with_true(text, tokens.clone());
            let mut argument = tokens.clone().skip(1);
            let name = argument.next().map(|name| (name.of(text), name.kind));
            let is_whole = argument.next().is_some_and(|next| next.of(text) == b",");
            suspicion |= match name.filter(|_| is_whole) {
                None if !is_local => Suspicion::TEMP | Suspicion::UNSEEN,
                Some((b"'search_path'", _)) | None => Suspicion::TEMP,
                Some((name, sql::Kind::String)) if is_plain(name) => Suspicion::NONE,
                // Bound names are noted when they are bound.
                Some((_, sql::Kind::Parameter)) => Suspicion::TEMP,
                Some(_) if is_local => Suspicion::TEMP,
                Some(_) => Suspicion::TEMP | Suspicion::UNSEEN,
            };
            if !is_local {
                suspicion |= Suspicion::SETTINGS;
            }
        }
    }
    if calls != words {
        suspicion |= Suspicion::SETTINGS | Suspicion::UNSEEN;
    }
    suspicion
}

/// Whether a string constant is a name that [`customs`] finds.
fn is_plain(name: &[u8]) -> bool {
    let is_part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'.' | b'\'');
    name.len() <= CUSTOM_NAME_BYTES_MAX && name.iter().all(is_part)
}

/// Whether a text may set something whose name [`customs`] does not find in it.
fn sets_unseen(text: &[u8]) -> bool {
    let is_unseen = |statement: &[u8]| {
        let mut tokens = sql::tokens(statement).significant();
        if tokens
            .next()
            .is_none_or(|first| !first.is_word(statement, b"set"))
        {
            return false;
        }
        let is_scope = |token: &sql::Token| {
            let scopes = [&b"session"[..], b"local"];
            scopes.iter().any(|scope| token.is_word(statement, scope))
        };
        let mut name = tokens.skip_while(is_scope);
        let Some(first) = name.next() else {
            return false;
        };
        let (mut end, mut is_dot) = (first.range.end, false);
        if first.kind != sql::Kind::Word {
            return true;
        }
        for token in name {
            let continues = is_dot || token.of(statement) == b".";
            if !continues {
                break;
            }
            let is_apart = token.range.start != end;
            is_dot = !is_dot;
            end = token.range.end;
            if is_apart || is_dot != (token.of(statement) == b".") {
                return true;
            }
        }
        let name = statement.get(first.range.start..end).unwrap_or_default();
        name.contains(&b'.') && !is_plain(name)
    };
    let statement = |range| text.get(range).unwrap_or_default();
    is_ambiguous(text) && text.contains(&b';')
        || sql::statements(text).any(|range| is_unseen(statement(range)))
}

/// Whether these tokens begin with three arguments in brackets of which the last is `true`.
fn ends_with_true(text: &[u8], mut tokens: impl Iterator<Item = sql::Token>) -> bool {
    if tokens
        .next()
        .is_none_or(|token| token.kind != sql::Kind::Open)
    {
        return false;
    }
    let (mut depth, mut commas) = (0_usize, 0);
    // What stands in the argument so far.
    let (mut length, mut is_true) = (0, false);
    for token in tokens {
        match token.kind {
            sql::Kind::Close if depth == 0 => return commas == 2 && length == 1 && is_true,
            sql::Kind::Open => depth += 1,
            sql::Kind::Close => depth -= 1,
            _ => {
                let bytes = token.of(text);
                depth += usize::from(bytes == b"[");
                depth = depth.saturating_sub(usize::from(bytes == b"]"));
                if depth == 0 && bytes == b"," {
                    commas += 1;
                    length = 0;
                    continue;
                }
            }
        }
        length += 1;
        is_true = token.is_word(text, b"true");
    }
    false
}

/// Whether all that a text does is one `SET LOCAL`, `SET TRANSACTION` or `SET CONSTRAINTS`: that ends
/// with its transaction.
fn sets_locally(text: &[u8]) -> bool {
    if is_ambiguous(text) {
        return false;
    }
    let mut tokens = sql::tokens(text).significant();
    let mut word = |words: &[&str]| {
        let token = tokens.next();
        token.is_some_and(|token| words.iter().any(|w| token.is_word(text, w.as_bytes())))
    };
    let is_local = word(&["set"]) && word(&["local", "transaction", "constraints"]);
    let is_end = |token: &sql::Token| token.kind == sql::Kind::Semicolon;
    is_local && tokens.skip_while(|token| !is_end(token)).nth(1).is_none()
}

/// Whether `seed` is set like a setting.
fn names_seed(text: &[u8]) -> bool {
    let is_seed = |token: sql::Token| {
        let name = token.of(text);
        name.eq_ignore_ascii_case(b"seed") || name.eq_ignore_ascii_case(b"\"seed\"")
    };
    let has_seed = text
        .windows(4)
        .any(|word| word.eq_ignore_ascii_case(b"seed"));
    has_seed && sql::tokens(text).any(is_seed)
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

/// Whether a text may set something by a command: it begins with one, or there are several.
#[inline]
pub(super) fn may_set(text: &[u8]) -> bool {
    // A vertical tab is white space, too.
    let is_space = |b: &u8| b.is_ascii_whitespace() || *b == 0x0b;
    let begin = text.iter().position(|b| !is_space(b)).unwrap_or(text.len());
    let text = text.get(begin..).unwrap_or_default();
    let starts = |word: &[u8]| {
        let head = text.get(..word.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(word))
    };
    match text.first() {
        Some(b'S' | b's') => starts(b"set"),
        Some(b'D' | b'd') => starts(b"do"),
        Some(b'C' | b'c') => starts(b"call"),
        Some(b'/' | b'-') => true,
        _ => memchr::memchr(b';', text).is_some_and(|at| at + 2 < text.len()),
    }
}

/// Longest name of a setting that is looked for.
const CUSTOM_NAME_BYTES_MAX: usize = 127;

/// Names with a dot: they may be settings of the tenant's own, which PostgreSQL does not list.
pub(super) fn customs(text: &[u8]) -> impl Iterator<Item = &str> {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'.');
    text.split(move |b| !is_part(*b)).filter_map(|word| {
        let word = std::str::from_utf8(word).ok()?;
        let (prefix, name) = word.split_once('.')?;
        let begins = |part: &str| part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let is_name = word.len() <= CUSTOM_NAME_BYTES_MAX
            && begins(prefix)
            && name.split('.').all(begins)
            && !prefix.eq_ignore_ascii_case("pg_catalog")
            && !prefix.eq_ignore_ascii_case("pgusher");
        is_name.then_some(word)
    })
}

/// What a statement does with settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reset {
    /// Resets all.
    All,
    /// Resets this one.
    Name(Box<str>),
    /// Sets this one.
    Set(Box<str>),
}

/// Whether a setting is reset when these statements have run.
pub(super) fn is_reset(resets: &[Reset], name: &str) -> bool {
    let last = resets.iter().rev().find(|one| match one {
        Reset::All => true,
        Reset::Name(other) | Reset::Set(other) => other.eq_ignore_ascii_case(name),
    });
    last.is_some_and(|last| !matches!(last, Reset::Set(_)))
}

/// What the statements of a text reset: `RESET`, `DISCARD ALL`, `SET … = DEFAULT`; where there is any,
/// what they set, too.
pub(super) fn resets(text: &[u8]) -> Vec<Reset> {
    let text = text.trim_ascii_start();
    let starts = |word: &[u8]| {
        let is_word = text
            .get(..word.len())
            .is_some_and(|t| t.eq_ignore_ascii_case(word));
        is_word && text.get(word.len()).is_some_and(u8::is_ascii_whitespace)
    };
    // Nearly every statement ends here.
    let may_reset = starts(b"RESET") || starts(b"DISCARD") || starts(b"SET");
    if !may_reset && memchr::memchr(b';', text).is_none() {
        return Vec::new();
    }
    let Ok(text) = std::str::from_utf8(text) else {
        return Vec::new();
    };
    let found = text.trim_end_matches('\0').split(';').filter_map(reset);
    let found: Vec<Reset> = found.collect();
    if found.iter().all(|one| matches!(one, Reset::Set(_))) {
        return Vec::new();
    }
    found
}

fn reset(statement: &str) -> Option<Reset> {
    let lower = statement.trim().to_ascii_lowercase().replace('=', " ");
    let words: Vec<&str> = lower.split_ascii_whitespace().collect();
    match *words.as_slice() {
        ["reset" | "discard", "all"] => Some(Reset::All),
        ["reset", "time", "zone"] | ["set", "time", "zone", "default"] => {
            Some(Reset::Name("timezone".into()))
        }
        ["reset", name] | ["set", name, "default"] | ["set", name, "to", "default"] => {
            Some(Reset::Name(name.trim_matches('"').into()))
        }
        ["set", "time", "zone", ..] | ["set", "session" | "local", "time", "zone", ..] => {
            Some(Reset::Set("timezone".into()))
        }
        ["set", "session" | "local", name, ..] | ["set", name, ..] => {
            Some(Reset::Set(name.trim_matches('"').into()))
        }
        _ => None,
    }
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

    #[test]
    fn names_with_a_dot_may_be_settings() {
        let found: Vec<&str> =
            customs(b"set app.Tenant_id = '1.5'; select set_config('a.b', $1)").collect();
        assert_eq!(found, ["app.Tenant_id", "a.b"]);
        assert_eq!(
            customs(b"\x00\xff.a 1.2 pg_catalog.x pgusher.y .a a.").count(),
            0
        );
    }

    #[test]
    fn what_is_reset_is_read_from_the_text() {
        let name = |name: &str| Reset::Name(name.into());
        assert_eq!(
            resets(b"reset TimeZone; reset work_mem\0"),
            [name("timezone"), name("work_mem")]
        );
        assert_eq!(resets(b"DISCARD ALL\0"), [Reset::All]);
        assert_eq!(resets(b"set timezone = default\0"), [name("timezone")]);
        assert_eq!(resets(b"select 1"), []);
        assert_eq!(resets(b"set a.b = 1; set local c = 2"), []);
        let mixed = resets(b"reset all; set session time zone 'UTC'; set a = 1; reset a");
        assert!(!is_reset(&mixed, "TimeZone"));
        assert!(is_reset(&mixed, "A") && is_reset(&mixed, "b"));
    }
}
