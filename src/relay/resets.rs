//! Which settings the text of a statement resets.

use aho_corasick::AhoCorasick;
use std::sync::LazyLock;

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

static NAMES: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .build(["reset", "discard"])
        .expect("the words are constants that a test has built")
});

/// Whether a text has a word that resets all settings, wherever it stands.
pub(super) fn names_reset(text: &[u8]) -> bool {
    NAMES.is_match(text)
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
    fn what_is_reset_is_read_from_the_text() {
        let name = |name: &str| Reset::Name(name.into());
        assert_eq!(
            resets(b"reset TimeZone; reset work_mem\0"),
            [name("timezone"), name("work_mem")]
        );
        assert_eq!(resets(b"DISCARD ALL\0"), [Reset::All]);
        assert_eq!(resets(b"set timezone = default\0"), [name("timezone")]);
        assert!(names_reset(b"do $$ begin execute 'Reset all'; end $$"));
        assert!(!names_reset(b"select 1"));
        assert_eq!(resets(b"select 1"), []);
        assert_eq!(resets(b"set a.b = 1; set local c = 2"), []);
        let mixed = resets(b"reset all; set session time zone 'UTC'; set a = 1; reset a");
        assert!(!is_reset(&mixed, "TimeZone"));
        assert!(is_reset(&mixed, "A") && is_reset(&mixed, "b"));
    }
}
