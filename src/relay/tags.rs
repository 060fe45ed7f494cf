//! What a command's tag tells of the state that it may have left on its server.

use crate::upstream::Suspicion;

/// What is known of the session when a command ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// What it keeps its server for: what may take that away is worth a question, too.
    pub(super) pinned: Suspicion,
    /// No text of the transaction named a function or a relation that may leave something.
    pub(super) names_nothing: bool,
    /// A text may have set something for the session.
    pub(super) sets_session: bool,
}

/// What a command with this tag may have left behind once its transaction is over. What is not known
/// to leave nothing may leave anything.
#[inline]
pub(super) fn left_by(tag: &[u8], known: Known) -> Suspicion {
    let (pinned, names_nothing) = (known.pinned, known.names_nothing);
    let end = tag.iter().position(|b| matches!(b, b' ' | 0));
    let word = tag.get(..end.unwrap_or(tag.len())).unwrap_or_default();
    if HARMLESS.contains(&word) {
        return Suspicion::NONE;
    }
    match word {
        // A text that sets something for its transaction alone leaves nothing.
        b"SET" if !known.sets_session => Suspicion::NONE,
        b"SET" | b"RESET" => Suspicion::SETTINGS,
        b"CREATE" | b"ALTER" => made(tag, names_nothing) | pinned.and(Suspicion::TEMP),
        b"DROP" => pinned.and(Suspicion::TEMP),
        b"CLOSE" => pinned.and(Suspicion::CURSORS),
        b"DEALLOCATE" => pinned.and(Suspicion::STATEMENTS),
        b"DISCARD" => pinned.with(Suspicion::SETTINGS),
        b"LISTEN" | b"UNLISTEN" => Suspicion::CHANNELS,
        // The transaction leaves the session.
        b"PREPARE" if tag.starts_with(b"PREPARE TRANSACTION") => Suspicion::NONE,
        b"PREPARE" => Suspicion::STATEMENTS,
        b"LOAD" => Suspicion::LIBRARY,
        _ => Suspicion::DYNAMIC | Suspicion::FUNCTIONS,
    }
}

/// Whether a command with this tag may have changed what prepared statements return.
#[inline]
pub(super) fn may_change_shapes(tag: &[u8]) -> bool {
    const WORDS: [&[u8]; 6] = [b"ALTER", b"DROP", b"CREATE", b"DO", b"CALL", b"IMPORT"];
    let end = tag.iter().position(|b| matches!(b, b' ' | 0));
    WORDS.contains(&tag.get(..end.unwrap_or(tag.len())).unwrap_or_default())
}

/// Whether a command with this tag may have left channels: by itself or by a function.
pub(super) fn may_leave_channels(tag: &[u8]) -> bool {
    const WORDS: [&[u8]; 8] = [
        b"LISTEN",
        b"NOTIFY",
        b"BEGIN",
        b"START",
        b"COMMIT",
        b"ROLLBACK",
        b"SAVEPOINT",
        b"RELEASE",
    ];
    let end = tag.iter().position(|b| matches!(b, b' ' | 0));
    !WORDS.contains(&tag.get(..end.unwrap_or(tag.len())).unwrap_or_default())
}

/// Commands that leave nothing, the frequent ones first. Temporary objects, held cursors and
/// functions are known by the statement's text.
const HARMLESS: [&[u8]; 28] = [
    b"SELECT",
    b"INSERT",
    b"UPDATE",
    b"DELETE",
    b"BEGIN",
    b"COMMIT",
    b"ROLLBACK",
    b"COPY",
    b"MERGE",
    b"FETCH",
    b"MOVE",
    b"DECLARE",
    b"SAVEPOINT",
    b"RELEASE",
    b"SHOW",
    b"EXPLAIN",
    b"START",
    b"TRUNCATE",
    b"LOCK",
    b"NOTIFY",
    b"VACUUM",
    b"ANALYZE",
    b"GRANT",
    b"REVOKE",
    b"COMMENT",
    b"REINDEX",
    b"REFRESH",
    b"CLUSTER",
];

/// What a new or changed object may bring with it: a function; or a new way to one that leaves
/// something, which its text then names.
fn made(tag: &[u8], names_nothing: bool) -> Suspicion {
    const FUNCTIONS: [&[u8]; 4] = [b"FUNCTION", b"PROCEDURE", b"EXTENSION", b"LANGUAGE"];
    const QUIET: [&[u8]; 4] = [b"INDEX", b"SEQUENCE", b"ROLE", b"DATABASE"];
    let object = tag.split(|b| matches!(b, b' ' | 0)).nth(1);
    match object {
        Some(object) if QUIET.contains(&object) => Suspicion::NONE,
        Some(object) if names_nothing && !FUNCTIONS.contains(&object) => Suspicion::NONE,
        _ => Suspicion::FUNCTIONS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(pinned: Suspicion, names_nothing: bool) -> Known {
        Known {
            pinned,
            names_nothing,
            sets_session: true,
        }
    }

    #[test]
    fn what_may_be_left_is_told_by_the_tag() {
        for harmless in [
            &b"SELECT 1\0"[..],
            b"INSERT 0 1\0",
            b"BEGIN\0",
            b"COPY 5\0",
            b"CLOSE CURSOR\0",
        ] {
            assert!(left_by(harmless, known(Suspicion::NONE, false)).is_empty());
        }
        assert_eq!(
            left_by(b"SET\0", known(Suspicion::NONE, true)),
            Suspicion::SETTINGS
        );
        assert_eq!(
            left_by(b"PREPARE TRANSACTION\0", known(Suspicion::NONE, true)),
            Suspicion::NONE
        );
        for unknown in [&b"DO\0"[..], b"CALL\0", b"SELECTED\0", b"\0", b""] {
            assert!(left_by(unknown, known(Suspicion::NONE, true)).intersects(Suspicion::UNSEEN));
        }
    }

    #[test]
    fn what_may_end_a_pin_is_worth_a_question() {
        let pinned = Suspicion::TEMP | Suspicion::CURSORS;
        assert!(left_by(b"DROP TABLE\0", known(pinned, true)).intersects(Suspicion::TEMP));
        assert_eq!(
            left_by(b"CLOSE CURSOR ALL\0", known(pinned, true)),
            Suspicion::CURSORS
        );
        assert_eq!(
            left_by(b"CLOSE CURSOR\0", known(Suspicion::TEMP, true)),
            Suspicion::NONE
        );
    }

    #[test]
    fn a_new_function_is_worth_a_survey_and_a_new_table_only_where_it_names_one_that_leaves_something()
     {
        let made = |tag: &[u8], names| left_by(tag, known(Suspicion::NONE, names));
        assert_eq!(made(b"CREATE FUNCTION\0", true), Suspicion::FUNCTIONS);
        assert_eq!(made(b"CREATE TABLE\0", true), Suspicion::NONE);
        assert_eq!(made(b"CREATE TABLE\0", false), Suspicion::FUNCTIONS);
    }
}
