//! Which shared statements a server connection has, least recently used first out.

use super::StatementId;
use std::collections::HashMap;

/// Bytes of all statements' texts on one server connection; PostgreSQL needs many times as much.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// The statements of one server connection: a list by use, linked by places in a vector. Nothing is
/// allocated by a use, and everything takes the same time however many there are.
#[derive(Debug, Default)]
pub struct Prepared {
    places: HashMap<StatementId, u32>,
    list: Vec<Entry>,
    /// Places in `list` that are free.
    free: Vec<u32>,
    /// Most and least recently used; meaningless when there is none.
    newest: u32,
    oldest: u32,
    bytes: usize,
    last: StatementId,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    id: StatementId,
    bytes: u32,
    /// Used next after this one.
    newer: u32,
    /// Used last before this one.
    older: u32,
}

impl Prepared {
    /// Whether the server has the statement; counts as a use.
    #[inline]
    pub fn touch(&mut self, id: StatementId) -> bool {
        if self.last == id {
            return true;
        }
        let Some(place) = self.places.get(&id).copied() else {
            return false;
        };
        self.unlink(place);
        self.link(place);
        self.last = id;
        true
    }

    /// The statement that must go before one of so many bytes has room, and its bytes. It is not
    /// the server's any more.
    pub fn evict_for(&mut self, bytes: usize, count_max: usize) -> Option<(StatementId, u32)> {
        let is_full =
            self.places.len() >= count_max.max(1) || self.bytes.saturating_add(bytes) > BYTES_MAX;
        if !is_full || self.places.is_empty() {
            return None;
        }
        let oldest = *self.list.get(self.oldest as usize)?;
        self.remove(oldest.id);
        Some((oldest.id, oldest.bytes))
    }

    /// Notes that the server is being given the statement, or that it still has one that was to be
    /// closed.
    pub fn restore(&mut self, id: StatementId, bytes: u32) {
        if self.touch(id) {
            return;
        }
        let entry = Entry {
            id,
            bytes,
            newer: 0,
            older: 0,
        };
        let place = if let Some(free) = self.free.pop() {
            self.set(free, |known| *known = entry);
            free
        } else {
            self.list.push(entry);
            self.list.len() as u32 - 1
        };
        self.link(place);
        self.places.insert(id, place);
        self.bytes += bytes as usize;
        self.last = id;
    }

    /// Notes that the server does not have the statement; returns its bytes where it had it.
    pub fn remove(&mut self, id: StatementId) -> Option<u32> {
        if self.last == id {
            self.last = 0;
        }
        let place = self.places.remove(&id)?;
        self.unlink(place);
        self.free.push(place);
        let bytes = self.at(place).map_or(0, |entry| entry.bytes);
        self.bytes -= bytes as usize;
        Some(bytes)
    }

    /// All that the server has.
    pub fn ids(&self) -> impl Iterator<Item = StatementId> {
        self.places.keys().copied()
    }

    /// Notes that the server has none.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    fn at(&self, place: u32) -> Option<Entry> {
        self.list.get(place as usize).copied()
    }

    fn set(&mut self, place: u32, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.list.get_mut(place as usize) {
            change(entry);
        }
    }

    /// Takes a statement out of the list; `places` still has it.
    fn unlink(&mut self, place: u32) {
        let Some(Entry { newer, older, .. }) = self.at(place) else {
            return;
        };
        if place == self.newest {
            self.newest = older;
        } else {
            self.set(newer, |entry| entry.older = older);
        }
        if place == self.oldest {
            self.oldest = newer;
        } else {
            self.set(older, |entry| entry.newer = newer);
        }
    }

    /// Puts a statement that is not in the list to its front.
    fn link(&mut self, place: u32) {
        let newest = self.newest;
        let in_list = self.list.len() - self.free.len();
        if in_list == 1 {
            self.oldest = place;
        } else {
            self.set(newest, |entry| entry.newer = place);
        }
        self.set(place, |entry| entry.older = newest);
        self.newest = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn insert(prepared: &mut Prepared, id: StatementId, count_max: usize) -> Vec<StatementId> {
        let mut evicted = Vec::new();
        while let Some((id, _)) = prepared.evict_for(10, count_max) {
            evicted.push(id);
        }
        prepared.restore(id, 10);
        evicted
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut prepared = Prepared::default();
        assert_eq!(insert(&mut prepared, 1, 2), [0; 0]);
        assert_eq!(insert(&mut prepared, 2, 2), [0; 0]);
        assert!(prepared.touch(1));
        assert_eq!(insert(&mut prepared, 3, 2), [2]);
        assert!(!prepared.touch(2));
        assert!(prepared.touch(1) && prepared.touch(3));
        prepared.remove(3);
        assert!(!prepared.touch(3));
    }

    #[test]
    fn long_statements_go_by_their_bytes() {
        let mut prepared = Prepared::default();
        for id in 1..=8 {
            assert_eq!(prepared.evict_for(1024 * 1024, 100), None);
            prepared.restore(id, 1024 * 1024);
        }
        assert_eq!(prepared.evict_for(1, 100), Some((1, 1024 * 1024)));
        assert_eq!(prepared.evict_for(1, 100), None);
        assert_eq!(
            prepared.evict_for(usize::MAX, 100).map(|(id, _)| id),
            Some(2)
        );
    }

    proptest! {
        /// As a plain list would have it, most recently used last.
        #[test]
        fn any_use_keeps_the_order(steps in proptest::collection::vec((0..4_u8, 1..9_u64), 0..80)) {
            let mut prepared = Prepared::default();
            let mut expected: Vec<StatementId> = Vec::new();
            for (step, id) in steps {
                let known = expected.iter().position(|known| *known == id);
                if step == 0 {
                    prop_assert_eq!(prepared.touch(id), known.is_some());
                } else if step == 1 {
                    prepared.remove(id);
                } else if known.is_some() {
                    prepared.restore(id, 10);
                } else {
                    let oldest: Vec<_> = (expected.len() >= 4).then(|| expected.remove(0)).into_iter().collect();
                    prop_assert_eq!(insert(&mut prepared, id, 4), oldest);
                    expected.push(id);
                }
                if let Some(at) = known {
                    expected.remove(at);
                    if step != 1 { expected.push(id); }
                }
                prop_assert_eq!(prepared.count(), expected.len());
                prop_assert_eq!(prepared.bytes, expected.len() * 10);
            }
        }
    }
}
