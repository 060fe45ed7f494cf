//! A client's unnamed statement: it lives until the next Parse without a name, Close or Query,
//! whichever server that is on.

use std::sync::atomic::{AtomicU64, Ordering};

/// An unnamed statement up to this size follows its client to another server.
pub(super) const CARRIED_BYTES_MAX: usize = 64 * 1024;

/// Bytes of all that it may turn out to have been, while answers are outstanding; of more, only what
/// the server has can be told.
const UNSETTLED_BYTES_MAX: usize = 2 * CARRIED_BYTES_MAX;

/// Memory kept for the next one.
const KEEP_BYTES: usize = 1024;

/// What the unnamed statement is, and what it was before each change that is not answered yet: an
/// error may take changes back.
#[derive(Default)]
pub struct Unnamed {
    /// The last one is what it is; the first one is certain.
    values: Vec<Value>,
    /// The texts of all values, one after the other.
    texts: Vec<u8>,
    last_serial: u64,
}

#[derive(Clone, Copy)]
struct Value {
    serial: u64,
    /// Bytes of its text; 0 when it can't be carried.
    bytes: usize,
    /// Whether there is a statement at all.
    is_some: bool,
}

/// A source of serial numbers, unique among all clients.
static SERIALS: AtomicU64 = AtomicU64::new(1);

impl Unnamed {
    /// Takes a new statement: `tail` is query, NUL and parameter types, when they can be carried.
    /// Returns its serial number.
    pub fn replace(&mut self, tail: Option<&[u8]>) -> u64 {
        let tail = tail.unwrap_or_default();
        if self.texts.len() + tail.len() > UNSETTLED_BYTES_MAX {
            self.texts.clear();
            self.values.iter_mut().for_each(|value| value.bytes = 0);
        }
        self.texts.extend_from_slice(tail);
        self.push(tail.len(), true)
    }

    /// There is none any more. Returns the serial number of that; 0 if there was none anyway.
    pub fn clear(&mut self) -> u64 {
        if self.values.is_empty() {
            return 0;
        }
        self.push(0, false)
    }

    fn push(&mut self, bytes: usize, is_some: bool) -> u64 {
        // Numbers are taken in blocks of one client's own, so that clients share no counter.
        self.last_serial = if self.last_serial == 0 || self.last_serial & 0xffff == 0xffff {
            SERIALS.fetch_add(1, Ordering::Relaxed) << 16
        } else {
            self.last_serial + 1
        };
        self.values.push(Value {
            serial: self.last_serial,
            bytes,
            is_some,
        });
        self.last_serial
    }

    /// A change did not happen.
    pub fn take_back(&mut self, serial: u64) {
        if let Some(at) = self.position(serial) {
            self.drop_text(at);
            self.values.remove(at);
        }
    }

    /// What was to be the statement was refused: there is none.
    pub fn refuse(&mut self, serial: u64) {
        if let Some(at) = self.position(serial) {
            self.drop_text(at);
            if let Some(value) = self.values.get_mut(at) {
                value.is_some = false;
                value.bytes = 0;
            }
        }
    }

    /// Everything is answered: it is what it is.
    #[inline]
    pub fn settle(&mut self) {
        if self.values.len() > 1 {
            let current = self.tail().len();
            self.texts.drain(..self.texts.len() - current);
            self.values.drain(..self.values.len() - 1);
        }
        if self.values.last().is_some_and(|value| !value.is_some) {
            self.values.clear();
        }
        if self.texts.is_empty() && self.texts.capacity() > KEEP_BYTES {
            self.texts = Vec::new();
        }
    }

    /// The serial number; 0 when there is no statement.
    #[inline]
    pub fn serial(&self) -> u64 {
        let current = self.values.last().filter(|value| value.is_some);
        current.map_or(0, |value| value.serial)
    }

    /// Query, NUL and parameter types; empty when there is none to carry.
    #[inline]
    pub fn tail(&self) -> &[u8] {
        let bytes = self.values.last().map_or(0, |value| value.bytes);
        self.texts
            .get(self.texts.len() - bytes..)
            .unwrap_or_default()
    }

    fn position(&self, serial: u64) -> Option<usize> {
        self.values.iter().rposition(|value| value.serial == serial)
    }

    fn drop_text(&mut self, at: usize) {
        let (before, from) = self.values.split_at(at);
        let start: usize = before.iter().map(|value| value.bytes).sum();
        let bytes = from.first().map_or(0, |value| value.bytes);
        self.texts.drain(start..start + bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_are_never_shared_between_clients() {
        let (mut one, mut two) = (Unnamed::default(), Unnamed::default());
        let mut seen = std::collections::HashSet::new();
        for _ in 0..0x2_0000 {
            assert!(seen.insert(one.replace(Some(b"x"))));
            one.settle();
        }
        assert!(seen.insert(two.replace(Some(b"y"))));
        assert!(seen.insert(two.clear()));
        assert_eq!((two.serial(), two.tail()), (0, &b""[..]));
    }

    #[test]
    fn a_change_that_did_not_happen_leaves_what_was_before() {
        let mut unnamed = Unnamed::default();
        let first = unnamed.replace(Some(b"first"));
        unnamed.settle();
        let second = unnamed.replace(Some(b"second"));
        let third = unnamed.clear();
        assert_eq!(unnamed.serial(), 0);
        unnamed.take_back(third);
        assert_eq!((unnamed.serial(), unnamed.tail()), (second, &b"second"[..]));
        unnamed.take_back(second);
        assert_eq!((unnamed.serial(), unnamed.tail()), (first, &b"first"[..]));
    }

    #[test]
    fn a_change_in_the_middle_can_be_taken_back_too() {
        let mut unnamed = Unnamed::default();
        unnamed.replace(Some(b"first"));
        let second = unnamed.replace(Some(b"second"));
        let third = unnamed.replace(Some(b"third"));
        unnamed.take_back(second);
        assert_eq!(unnamed.tail(), b"third");
        unnamed.take_back(third);
        assert_eq!(unnamed.tail(), b"first");
    }

    #[test]
    fn a_refused_statement_leaves_none() {
        let mut unnamed = Unnamed::default();
        unnamed.replace(Some(b"first"));
        let second = unnamed.replace(Some(b"selec"));
        unnamed.refuse(second);
        assert_eq!((unnamed.serial(), unnamed.tail()), (0, &b""[..]));
        unnamed.settle();
        assert_eq!(unnamed.clear(), 0, "there is none");
    }

    #[test]
    fn what_it_may_have_been_takes_little_memory() {
        let mut unnamed = Unnamed::default();
        let text = vec![b'x'; CARRIED_BYTES_MAX];
        let all: Vec<u64> = (0..10).map(|_| unnamed.replace(Some(&text))).collect();
        assert!(unnamed.texts.len() <= UNSETTLED_BYTES_MAX);
        assert_eq!(unnamed.tail(), text);
        for serial in all.iter().skip(2).rev() {
            unnamed.take_back(*serial);
        }
        assert_eq!((unnamed.serial(), unnamed.tail()), (all[1], &b""[..]));
    }
}
