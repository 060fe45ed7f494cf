//! What a statement's text tells of the state that it may leave on a server.
//!
//! A convenience, not a protection: it keeps one client's leavings from another client of the same
//! tenant where a command tag does not show them. Looked at once per Parse or Query. State that a
//! function leaves behind without naming it is not seen.

use aho_corasick::AhoCorasick;
use std::sync::LazyLock;

/// Words after which a server is reset: temporary tables (whose tag may be `SELECT n`), settings,
/// advisory locks and seeds set by functions.
const WORDS: [&str; 5] = ["temp", "set_config", "advisory_lock", "setseed", "dblink"];

static STATE: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .build(WORDS)
        .expect("the words are constants that a test has built")
});

/// Whether the text names something that stays on the server.
#[inline]
pub(crate) fn leaves_state(text: &[u8]) -> bool {
    STATE.is_match(text)
}

/// Whether the text begins like a command that removes prepared statements.
#[inline]
pub(super) fn forgets_statements(text: &[u8]) -> bool {
    let starts = |word: &[u8]| {
        text.get(..word.len())
            .is_some_and(|t| t.eq_ignore_ascii_case(word))
    };
    matches!(text.first(), Some(b'D' | b'd')) && (starts(b"DISCARD") || starts(b"DEALLOCATE"))
}

/// A setting that a statement resets, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reset {
    All,
    Name(Box<str>),
}

impl Reset {
    /// Whether it resets this setting.
    pub(super) fn concerns(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Name(reset) => reset.eq_ignore_ascii_case(name),
        }
    }
}

/// What the statements of a text reset: `RESET`, `DISCARD ALL`, `SET … = DEFAULT`.
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
    text.trim_end_matches('\0')
        .split(';')
        .filter_map(reset)
        .collect()
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
        _ => None,
    }
}

/// The name in `DEALLOCATE [PREPARE] name`, if that is all the text says.
pub(super) fn deallocated_name(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text)
        .ok()?
        .trim_end_matches('\0')
        .trim();
    let text = text.strip_suffix(';').unwrap_or(text).trim();
    let after = |text: &str, word: &str| {
        let head = text.get(..word.len())?;
        let rest = text.get(word.len()..)?;
        let is_word = head.eq_ignore_ascii_case(word) && rest.starts_with(char::is_whitespace);
        is_word.then(|| rest.trim_start().to_owned())
    };
    let name = after(text, "deallocate")?;
    let name = after(&name, "prepare").unwrap_or(name);
    if let Some(quoted) = name
        .strip_prefix('"')
        .and_then(|name| name.strip_suffix('"'))
    {
        let doubled = quoted.replace("\"\"", "");
        return (!doubled.contains('"')).then(|| quoted.replace("\"\"", "\""));
    }
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
    let is_name =
        !name.is_empty() && name.chars().all(is_plain) && !name.eq_ignore_ascii_case("all");
    is_name.then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_leave_state_are_known_by_their_words() {
        for text in [
            "create TEMP table t as select 1",
            "select Set_Config('a.b', '1', false)",
            "SELECT pg_try_advisory_lock(1)",
            "select 1 into pg_temp.x",
        ] {
            assert!(leaves_state(text.as_bytes()), "{text}");
        }
        assert!(!leaves_state(
            b"select abalance from pgbench_accounts where aid = 1"
        ));
        assert!(forgets_statements(b"discard all") && forgets_statements(b"DEALLOCATE x"));
        assert!(!forgets_statements(b"DELETE FROM t"));
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
    }

    #[test]
    fn a_deallocated_name_is_unquoted_as_postgresql_does() {
        let name = |text: &str| deallocated_name(text.as_bytes());
        assert_eq!(name("DEALLOCATE Abc\0").as_deref(), Some("abc"));
        assert_eq!(
            name("deallocate prepare \"S \"\"1\" ;\0").as_deref(),
            Some("S \"1")
        );
        for other in [
            "deallocate all",
            "deallocate",
            "deallocate a b",
            "deallocated x",
            "discard all",
        ] {
            assert_eq!(name(other), None, "{other}");
        }
    }
}
