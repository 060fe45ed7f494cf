//! The server connections of a cluster, shared by all its pools.

use super::{closed::Closed, pids::Pids};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::{Notify, Semaphore};

/// Connects at the same time, where the cluster says nothing usable.
const CONNECTS_MIN: usize = 1;

/// Idle servers that can be closed for somebody else.
pub(super) trait Spare: Send + Sync {
    /// How many there are.
    fn surplus(&self) -> usize;

    /// Closes up to so many.
    fn close_idle(&self, count: usize);
}

/// How many server connections a cluster may have, and has.
pub struct Budget {
    max: AtomicU32,
    used: AtomicU32,
    freed: Notify,
    waiting: AtomicU32,
    connects: Semaphore,
    pools: Mutex<Vec<Weak<dyn Spare>>>,
    pids: Arc<Pids>,
    closed: Closed,
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget")
            .field("max", &self.max)
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

/// One server connection's place in the budget.
#[derive(Debug)]
pub struct Place {
    budget: Arc<Budget>,
    pid: Option<u32>,
}

impl Place {
    /// Notes which process has this place now; one that had it before is closed.
    pub(super) fn serves(&mut self, pid: u32) {
        if let Some(before) = self.pid.replace(pid) {
            self.budget.closed.note(before);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            self.budget.closed.note(pid);
        }
        self.budget.used.fetch_sub(1, SeqCst);
        self.budget.freed.notify_one();
    }
}

impl Budget {
    /// A budget of `max` connections, `parallel_connects` of which may be in the making.
    pub fn new(max: u32, parallel_connects: u32) -> Self {
        Self {
            max: AtomicU32::new(max),
            used: AtomicU32::new(0),
            freed: Notify::new(),
            waiting: AtomicU32::new(0),
            connects: Semaphore::new((parallel_connects as usize).max(CONNECTS_MIN)),
            pools: Mutex::default(),
            pids: Arc::default(),
            closed: Closed::default(),
        }
    }

    /// Changes the maximum. What is in use beyond it stays until it is given back.
    pub fn resize(&self, max: u32) {
        self.max.store(max, SeqCst);
        self.freed.notify_waiters();
    }

    /// Connections in use, idle ones included.
    pub fn used(&self) -> u32 {
        self.used.load(SeqCst)
    }

    /// The maximum.
    pub fn max(&self) -> u32 {
        self.max.load(SeqCst)
    }

    /// Takes a place, if there is one.
    pub fn try_take(self: &Arc<Self>) -> Option<Place> {
        let max = self.max();
        let take = |used: u32| (used < max).then_some(used + 1);
        self.used
            .fetch_update(SeqCst, SeqCst, take)
            .ok()
            .map(|_| Place {
                budget: Arc::clone(self),
                pid: None,
            })
    }

    /// Takes a place, closing the idle server of another pool when there is none.
    pub fn take_or_reclaim(self: &Arc<Self>) -> Option<Place> {
        self.try_take().or_else(|| {
            self.reclaim_idle();
            self.try_take()
        })
    }

    /// Waits until a place may have become free; at most for `at_most`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn freed(&self, at_most: Duration) {
        self.waiting.fetch_add(1, SeqCst);
        let waiting = Waiting(self);
        drop(tokio::time::timeout(at_most, self.freed.notified()).await);
        drop(waiting);
    }

    /// Whether someone waits for a place.
    pub fn has_waiters(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    /// Tells a waiter that an idle server can be had from a pool.
    pub fn notify_idle(&self) {
        self.freed.notify_one();
    }

    /// Connections that were closed, with how long ago: their processes should be gone.
    pub fn closed(&self) -> Vec<(u32, Duration)> {
        self.closed.due()
    }

    /// Whose connection is whose.
    pub(super) fn pids(&self) -> &Arc<Pids> {
        &self.pids
    }

    /// The right to be connecting.
    pub(super) fn connects(&self) -> &Semaphore {
        &self.connects
    }

    /// Makes a pool's idle servers known.
    pub(super) fn join<T: Spare + 'static>(&self, pool: &Arc<T>) {
        let mut pools = self.pools.lock();
        if pools.len() == pools.capacity() {
            pools.retain(|pool| pool.strong_count() > 0);
        }
        let pool: Weak<T> = Arc::downgrade(pool);
        pools.push(pool);
    }

    /// Closes one idle server of the pool that has most of them.
    fn reclaim_idle(&self) {
        let pools: Vec<_> = self.pools.lock().iter().filter_map(Weak::upgrade).collect();
        let richest = pools.iter().max_by_key(|pool| pool.surplus());
        if let Some(pool) = richest {
            pool.close_idle(pool.surplus().min(1));
        }
    }
}

struct Waiting<'a>(&'a Budget);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_when_it_is_dropped() {
        let budget = Arc::new(Budget::new(1, 1));
        let place = budget.try_take();
        assert!(place.is_some() && budget.try_take().is_none());
        drop(place);
        assert!(budget.try_take().is_some());
        budget.resize(0);
        assert!(budget.try_take().is_none());
    }
}
