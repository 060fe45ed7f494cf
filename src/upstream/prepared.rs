//! Which shared statements a server connection has, least recently used first out.

use super::StatementId;
use std::collections::HashMap;

/// The statements of one server connection.
#[derive(Debug, Default)]
pub struct Prepared {
    used_at: HashMap<StatementId, u64>,
    clock: u64,
    last: StatementId,
}

impl Prepared {
    /// Whether the server has the statement; counts as a use.
    #[inline]
    pub fn touch(&mut self, id: StatementId) -> bool {
        if self.last == id {
            return true;
        }
        self.clock += 1;
        match self.used_at.get_mut(&id) {
            Some(used_at) => {
                *used_at = self.clock;
                self.last = id;
                true
            }
            None => false,
        }
    }

    /// Notes that the server is being given the statement. Returns the one that must go first,
    /// when there would be more than `count_max`.
    pub fn insert(&mut self, id: StatementId, count_max: usize) -> Option<StatementId> {
        let evicted = if self.used_at.len() >= count_max.max(1) {
            self.oldest()
        } else {
            None
        };
        if let Some(evicted) = evicted {
            self.remove(evicted);
        }
        self.restore(id);
        evicted
    }

    /// Notes that the server still has a statement that was to be closed.
    pub fn restore(&mut self, id: StatementId) {
        self.clock += 1;
        self.used_at.insert(id, self.clock);
    }

    /// Notes that the server does not have the statement.
    pub fn remove(&mut self, id: StatementId) {
        self.used_at.remove(&id);
        if self.last == id {
            self.last = 0;
        }
    }

    /// Notes that the server has none.
    pub fn clear(&mut self) {
        self.used_at.clear();
        self.last = 0;
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.used_at.len()
    }

    fn oldest(&self) -> Option<StatementId> {
        self.used_at
            .iter()
            .min_by_key(|(_, used_at)| **used_at)
            .map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut prepared = Prepared::default();
        assert_eq!(prepared.insert(1, 2), None);
        assert_eq!(prepared.insert(2, 2), None);
        assert!(prepared.touch(1));
        assert_eq!(prepared.insert(3, 2), Some(2));
        assert!(!prepared.touch(2));
        assert!(prepared.touch(1) && prepared.touch(3));
        prepared.remove(3);
        assert!(!prepared.touch(3));
    }
}
