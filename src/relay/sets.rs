//! What the text of a statement sets, and for how long: commands and calls of `set_config`.

use crate::{sql, upstream::Suspicion};
use aho_corasick::AhoCorasick;
use std::sync::LazyLock;

/// The function that sets a setting.
pub(super) const SET_CONFIG: &str = "set_config";

/// Whether a text has other tokens where `standard_conforming_strings` is off, which is the client's to
/// set: such a text is not read for what it leaves out.
pub(super) fn is_ambiguous(text: &[u8]) -> bool {
    has_backslash(text) && sql::tokens(text).ne(sql::tokens(text).with_backslashes())
}

/// Whether a string in a text may mean another than it shows.
pub(super) fn has_backslash(text: &[u8]) -> bool {
    memchr::memchr(b'\\', text).is_some()
}

/// What a text names that changes the path by which names are found: `"$user"` is in it.
static PATH: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .build(["search_path", "schema", "role", "authorization"])
        .expect("the words are constants that a test has built")
});

/// Whether a text that sets something may set the path by which names are found.
pub(super) fn names_path(text: &[u8]) -> bool {
    PATH.is_match(text)
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

/// Most calls of `set_config` that are looked at.
const SET_CONFIGS_MAX: usize = 8;

/// What so many words `set_config` may leave. A call whose last argument is `true` leaves nothing: what
/// it sets ends with its transaction; but the search path may make a table of it a temporary one. A
/// function of the tenant's of that name, the survey knows.
pub(super) fn configured(text: &[u8], words: usize) -> Suspicion {
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
                Some((name, sql::Kind::String)) if is_plain(name) => of_name(name),
                // Bound names are noted when they are bound.
                Some((_, sql::Kind::Parameter)) => Suspicion::TEMP,
                _ if is_local => Suspicion::TEMP,
                _ => Suspicion::TEMP | Suspicion::UNSEEN,
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

/// What a setting of this name may have a transaction leave, itself apart.
fn of_name(name: &[u8]) -> Suspicion {
    if name.eq_ignore_ascii_case(b"'search_path'") {
        Suspicion::TEMP
    } else {
        Suspicion::NONE
    }
}

/// Whether a byte may stand in a name that [`customs`] finds.
fn is_part(byte: u8) -> bool {
    sql::is_name_byte(byte) || byte == b'.'
}

/// Whether a name, or a string constant, is one that [`customs`] finds.
fn is_plain(name: &[u8]) -> bool {
    let name = name.strip_prefix(b"'").unwrap_or(name);
    let name = name.strip_suffix(b"'").unwrap_or(name);
    name.len() <= CUSTOM_NAME_BYTES_MAX && name.iter().copied().all(is_part)
}

/// Whether a text may set something whose name [`customs`] does not find in it.
pub(super) fn sets_unseen(text: &[u8]) -> bool {
    let hides = |range| hides_its_name(text.get(range).unwrap_or_default());
    is_ambiguous(text) && text.contains(&b';') || sql::statements(text).any(hides)
}

/// Whether a statement is a SET of a name that is quoted, or written with something in between.
fn hides_its_name(statement: &[u8]) -> bool {
    let is_word = |token: &sql::Token, words: &[&str]| {
        let is = |word: &&str| token.is_word(statement, word.as_bytes());
        words.iter().any(is)
    };
    let mut tokens = sql::tokens(statement).significant();
    if !tokens.next().is_some_and(|first| is_word(&first, &["set"])) {
        return false;
    }
    let mut rest = tokens.skip_while(|token| is_word(token, &["session", "local"]));
    let Some(first) = rest.next() else {
        return false;
    };
    let mut end = first.range.end;
    let mut ends_with_dot = false;
    for token in rest {
        let is_dot = token.of(statement) == b".";
        if !is_dot && !ends_with_dot {
            break;
        }
        (end, ends_with_dot) = (token.range.end, is_dot);
    }
    // With what stands between its parts: that is not plain.
    let name = statement.get(first.range.start..end).unwrap_or_default();
    first.kind != sql::Kind::Word || name.contains(&b'.') && !is_plain(name)
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
pub(super) fn sets_locally(text: &[u8]) -> bool {
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
pub(super) fn names_seed(text: &[u8]) -> bool {
    let is_seed = |token: sql::Token| {
        let name = token.of(text);
        name.eq_ignore_ascii_case(b"seed") || name.eq_ignore_ascii_case(b"\"seed\"")
    };
    let has_seed = text
        .windows(4)
        .any(|word| word.eq_ignore_ascii_case(b"seed"));
    has_seed && sql::tokens(text).any(is_seed)
}

/// Longest name of a setting that is looked for.
const CUSTOM_NAME_BYTES_MAX: usize = 127;

/// Names with a dot: they may be settings of the tenant's own, which PostgreSQL does not list.
pub(super) fn customs(text: &[u8]) -> impl Iterator<Item = &str> {
    text.split(|b| !is_part(*b)).filter_map(|word| {
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

/// Whether values may be a name that [`customs`] does not find in them: one with letters beyond ASCII,
/// or a very long one.
pub(super) fn may_hide_a_name(values: &[u8]) -> bool {
    let mut words = values.split(|b| !is_part(*b));
    !values.is_ascii() || words.any(|word| word.len() > CUSTOM_NAME_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_value_that_may_be_a_name_of_another_kind_is_told() {
        assert!(!may_hide_a_name(b"\0\0\0\x05app.x\0\0\0\x01a"));
        assert!(may_hide_a_name("app.\u{e9}".as_bytes()));
        assert!(may_hide_a_name(
            format!("app.{}", "x".repeat(130)).as_bytes()
        ));
    }
}
