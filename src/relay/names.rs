//! A client's own names of prepared statements.

use crate::upstream::Statement;
use std::{collections::HashMap, sync::Arc};

/// Named statements of one client at the same time; more are refused.
const NAMES_MAX: usize = 10_000;

/// Bytes of all named statements of one client, names included; more are refused.
const NAMES_BYTES_MAX: usize = 16 * 1024 * 1024;

/// An unnamed statement up to this size follows its client to another server.
pub(super) const CARRIED_BYTES_MAX: usize = 64 * 1024;

/// Memory kept for the next unnamed statement.
const KEEP_BYTES: usize = 1024;

/// Client names to shared statements. Takes no memory until a statement is named.
#[derive(Default)]
pub struct Names {
    by_name: Option<Box<ByName>>,
    /// Bytes of all names and statements in it.
    bytes: usize,
}

type ByName = HashMap<Box<[u8]>, Arc<Statement>>;

fn bytes_of(name: &[u8], statement: &Statement) -> usize {
    name.len() + statement.tail().len()
}

impl Names {
    /// The statement of this name.
    #[inline]
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.by_name.as_ref()?.get(name)
    }

    /// Gives a statement a name.
    pub fn insert(&mut self, name: &[u8], statement: Arc<Statement>) {
        self.remove(name);
        self.bytes += bytes_of(name, &statement);
        self.by_name
            .get_or_insert_default()
            .insert(name.into(), statement);
    }

    /// Takes a name away; returns what it stood for.
    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<Statement>> {
        let statement = self.by_name.as_mut()?.remove(name)?;
        self.bytes -= bytes_of(name, &statement);
        Some(statement)
    }

    /// Takes all names away but those that are to stay.
    pub fn retain(&mut self, stays: impl Fn(&[u8]) -> bool) {
        if let Some(names) = &mut self.by_name {
            names.retain(|name, _| stays(name));
            self.bytes = names
                .iter()
                .map(|(name, statement)| bytes_of(name, statement))
                .sum();
            if names.is_empty() {
                self.by_name = None;
            }
        }
    }

    /// Whether a statement of so many bytes still has room.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        let count = self.by_name.as_ref().map_or(0, |names| names.len());
        count < NAMES_MAX && self.bytes + bytes <= NAMES_BYTES_MAX
    }
}

/// A client's unnamed statement: it lives until the next Parse without a name or the next Query,
/// whichever server that is on.
#[derive(Default)]
pub struct Unnamed {
    serial: u64,
    tail: Vec<u8>,
}

/// A source of serial numbers, unique among all clients.
static SERIALS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

impl Unnamed {
    /// Takes a new statement: `tail` is query, NUL and parameter types, when they can be carried.
    /// Returns its serial number.
    pub fn replace(&mut self, tail: Option<&[u8]>) -> u64 {
        // Numbers are taken in blocks of one client's own, so that clients share no counter.
        self.serial = if self.serial == 0 || self.serial & 0xffff == 0xffff {
            SERIALS.fetch_add(1, std::sync::atomic::Ordering::Relaxed) << 16
        } else {
            self.serial + 1
        };
        self.tail.clear();
        self.tail.extend_from_slice(tail.unwrap_or_default());
        self.serial
    }

    /// The serial number; 0 when there is no statement.
    pub fn serial(&self) -> u64 {
        if self.tail.is_empty() { 0 } else { self.serial }
    }

    /// The serial number, also of one that can't be carried.
    pub fn serial_here(&self) -> u64 {
        self.serial
    }

    /// Query, NUL and parameter types; empty when there is none to carry.
    pub fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// There is none any more.
    pub fn clear(&mut self) {
        self.tail.clear();
        if self.serial & 0xffff != 0xffff && self.serial != 0 {
            self.serial += 1;
        } else {
            self.serial = 0;
        }
        self.give_back();
    }

    /// Gives memory back that an unusually long statement took.
    pub fn give_back(&mut self) {
        if self.tail.capacity() > KEEP_BYTES && self.tail.is_empty() {
            self.tail = Vec::new();
        }
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
        }
        assert!(seen.insert(two.replace(Some(b"y"))));
        two.clear();
        assert_eq!(two.serial(), 0);
        assert!(!seen.contains(&two.serial_here()));
    }
}
