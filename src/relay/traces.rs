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
}
