//! What has changed, for who has sessions to revisit.

use parking_lot::Mutex;
use std::collections::HashSet;
use tokio::sync::Notify;

/// Tenants that are named one by one; with more, all are to be revisited.
const NAMED_MAX: usize = 1000;

/// What has changed since the last time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changed {
    /// Anything may have.
    pub is_all: bool,
    /// A cluster has.
    pub has_clusters: bool,
    /// These tenants have.
    pub tenants: HashSet<String>,
}

/// Gathers changes until somebody asks.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    changed: Mutex<Changed>,
    told: Notify,
}

impl Gathered {
    /// Returns whether they have just become too many to be named.
    pub(super) fn tenant(&self, id: &str) -> bool {
        let mut changed = self.changed.lock();
        let is_one_too_many = changed.tenants.len() >= NAMED_MAX;
        if is_one_too_many {
            changed.tenants.clear();
            changed.is_all = true;
        }
        if !changed.is_all {
            changed.tenants.insert(id.to_owned());
        }
        self.told.notify_one();
        is_one_too_many
    }

    pub(super) fn clusters(&self) {
        self.changed.lock().has_clusters = true;
        self.told.notify_one();
    }

    pub(super) fn all(&self) {
        let mut changed = self.changed.lock();
        changed.is_all = true;
        changed.has_clusters = true;
        changed.tenants.clear();
        self.told.notify_one();
    }

    /// Waits for changes.
    ///
    /// # Cancel safety
    /// Cancel safe: what is not returned is returned the next time.
    pub(super) async fn next(&self) -> Changed {
        loop {
            let changed = std::mem::take(&mut *self.changed.lock());
            if changed != Changed::default() {
                return changed;
            }
            self.told.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_are_gathered_and_too_many_are_all() {
        let gathered = Gathered::default();
        gathered.tenant("acme");
        gathered.tenant("acme");
        let changed = gathered.next().await;
        assert_eq!(changed.tenants.len(), 1);
        for number in 0..NAMED_MAX {
            assert!(!gathered.tenant(&number.to_string()));
        }
        assert!(gathered.tenant("one more"));
        let changed = gathered.next().await;
        assert!(changed.is_all && changed.tenants.is_empty());
    }
}
