//! Errors by SQLSTATE, of a bounded number of kinds.

use std::{
    array,
    collections::BTreeMap,
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Kinds of errors that a tenant's figures tell apart; the others are `other`.
pub const ERROR_KINDS_MAX: usize = 64;

/// Kinds that a session tells apart.
const SESSION_KINDS_MAX: usize = 8;

/// A SQLSTATE, or [`SqlStateCode::OTHER`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SqlStateCode([u8; 5]);

impl SqlStateCode {
    /// Whatever is not told apart. SQLSTATEs have no small letters.
    pub const OTHER: Self = Self(*b"other");

    /// Five digits or capital letters; what is something else is [`Self::OTHER`].
    pub fn read(text: &[u8]) -> Self {
        let is_allowed = |byte: &u8| byte.is_ascii_digit() || byte.is_ascii_uppercase();
        match text.try_into() {
            Ok(code) if text.iter().all(is_allowed) => Self(code),
            _ => Self::OTHER,
        }
    }

    /// As a number that is never 0.
    fn pack(self) -> u64 {
        let bytes = self.0.iter();
        bytes.fold(1, |number, byte| number << 8 | u64::from(*byte))
    }

    fn unpack(number: u64) -> Self {
        let bytes = number.to_be_bytes();
        bytes.last_chunk().map_or(Self::OTHER, |code| Self(*code))
    }
}

impl fmt::Display for SqlStateCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.0).unwrap_or("other"))
    }
}

impl fmt::Debug for SqlStateCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How many errors of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Errors(BTreeMap<SqlStateCode, u64>);

impl Errors {
    /// Adds; what is one kind too many is counted as [`SqlStateCode::OTHER`]. As what it was.
    pub fn count(&mut self, code: SqlStateCode, count: u64) -> SqlStateCode {
        if count == 0 {
            return code;
        }
        let has_room = self.0.len() < ERROR_KINDS_MAX || self.0.contains_key(&code);
        let code = if has_room { code } else { SqlStateCode::OTHER };
        let sum = self.0.entry(code).or_default();
        *sum = sum.saturating_add(count);
        code
    }

    /// Adds to each.
    pub fn add(&mut self, more: &Self) {
        for (code, count) in more.iter() {
            self.count(code, count);
        }
    }

    /// How much each is above what was seen before.
    pub(super) fn above(&self, seen: &Self) -> Self {
        let more = self.iter().map(|(code, count)| {
            let seen = seen.0.get(&code).copied().unwrap_or_default();
            (code, count.saturating_sub(seen))
        });
        Self(more.filter(|(_, count)| *count > 0).collect())
    }

    /// Kinds and counts, each above 0.
    pub fn iter(&self) -> impl Iterator<Item = (SqlStateCode, u64)> {
        self.0.iter().map(|(code, count)| (*code, *count))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Debug, Default)]
struct Kind {
    code: AtomicU64,
    count: AtomicU64,
}

/// A session's errors: only its own task adds, anyone may read.
#[derive(Debug)]
pub(super) struct Kinds {
    kinds: [Kind; SESSION_KINDS_MAX],
    other: AtomicU64,
}

impl Default for Kinds {
    fn default() -> Self {
        Self {
            kinds: array::from_fn(|_| Kind::default()),
            other: AtomicU64::new(0),
        }
    }
}

impl Kinds {
    pub(super) fn count(&self, code: SqlStateCode) {
        let packed = code.pack();
        let mut counter = &self.other;
        for kind in &self.kinds {
            let known = kind.code.load(Relaxed);
            if known == 0 {
                kind.code.store(packed, Relaxed);
            }
            if known == 0 || known == packed {
                counter = &kind.count;
                break;
            }
        }
        counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
    }

    pub(super) fn read(&self) -> Errors {
        let mut errors = Errors::default();
        for kind in &self.kinds {
            let code = SqlStateCode::unpack(kind.code.load(Relaxed));
            errors.count(code, kind.count.load(Relaxed));
        }
        errors.count(SqlStateCode::OTHER, self.other.load(Relaxed));
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kind_too_many_is_another() {
        let kinds = Kinds::default();
        for number in 0..20 {
            kinds.count(SqlStateCode::read(format!("22{number:03}").as_bytes()));
        }
        kinds.count(SqlStateCode::read(b"22000"));
        let errors: BTreeMap<_, _> = kinds.read().iter().collect();
        assert_eq!(errors.len(), SESSION_KINDS_MAX + 1);
        assert_eq!(errors[&SqlStateCode::read(b"22000")], 2);
        assert_eq!(errors[&SqlStateCode::OTHER], 12);
        let mut all = Errors::default();
        for number in 0..100 {
            all.count(SqlStateCode::read(format!("23{number:03}").as_bytes()), 1);
        }
        assert_eq!(all.iter().count(), ERROR_KINDS_MAX + 1);
        assert_eq!(all.iter().map(|(_, count)| count).sum::<u64>(), 100);
    }

    #[test]
    fn what_is_no_sqlstate_is_another() {
        for text in [&b"2201"[..], b"220000", b"42p01", b"\0\0\0\0\0", b""] {
            assert_eq!(SqlStateCode::read(text), SqlStateCode::OTHER);
        }
        assert_eq!(SqlStateCode::read(b"42P01").to_string(), "42P01");
        let code = SqlStateCode::read(b"42P01");
        assert_eq!(SqlStateCode::unpack(code.pack()), code);
    }
}
