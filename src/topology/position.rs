//! What tenants have written, for reads that see it.

use super::Lsn;
use crate::tenant::TenantId;
use foldhash::HashMap;
use parking_lot::Mutex;
use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use tokio::sync::Notify;

/// Lists are cleared of what is gone before they grow beyond this, and then at twice what was left.
const LIST_MIN: usize = 64;

/// What a tenant has written, for read-your-writes.
///
/// Writes are numbered. A sample is the primary's position at an instant *after* it was asked for: it
/// covers the writes that had their number before the question was sent.
#[derive(Debug)]
pub struct Position {
    me: Weak<Self>,
    queue: Arc<Queue>,
    /// The number of the last write.
    written: AtomicU64,
    /// A sample covers the writes up to `covered`; of the history `era`, at `lsn`. Written in the order
    /// `lsn`, `era`, `covered` and read the other way round: who sees one sees those below of that
    /// sample or of a later one, which covers as much.
    lsn: AtomicU64,
    era: AtomicU64,
    covered: AtomicU64,
    is_queued: AtomicBool,
}

impl Position {
    /// Notes a write. Called right before the client is told of a commit: an atomic addition, and for
    /// the first one since the last sample, a short lock and a wake-up of the sampler.
    pub fn wrote(&self) {
        self.written.fetch_add(1, Ordering::SeqCst);
        self.ask();
    }

    /// A replica that has replayed this has all that was written before this call. `None`: it is not
    /// known yet, and a sample is under way; read on the primary.
    ///
    /// What was written before a [`Position`] of [`super::Topology::position`] was made, counts as
    /// written, too.
    pub fn wanted(&self) -> Option<Lsn> {
        let written = self.written.load(Ordering::SeqCst);
        if written == 0 {
            return Some(Lsn::default());
        }
        let covered = self.covered.load(Ordering::SeqCst);
        let era = self.era.load(Ordering::SeqCst);
        let lsn = self.lsn.load(Ordering::SeqCst);
        if covered < written {
            return None;
        }
        if era != self.queue.era.load(Ordering::SeqCst) {
            // It is a position in a history that another server has left: ask that one.
            self.ask();
            return None;
        }
        Some(Lsn(lsn))
    }

    fn ask(&self) {
        if !self.is_queued.swap(true, Ordering::SeqCst) {
            self.queue.add(&self.me);
        }
    }
}

/// Positions that wait for a sample, each with its last write when the sample was asked for. Those that
/// get none wait again.
#[derive(Debug)]
pub(super) struct Asked(Vec<(Arc<Position>, u64)>);

impl Asked {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives them the sample, which was asked for in that era.
    pub(super) fn answer(mut self, era: u64, lsn: Lsn) {
        for (position, written) in self.0.drain(..) {
            position.lsn.store(lsn.0, Ordering::SeqCst);
            position.era.store(era, Ordering::SeqCst);
            position.covered.store(written, Ordering::SeqCst);
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        for (position, _) in &self.0 {
            position.ask();
        }
    }
}

/// The positions that wait for a sample.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Vec<Weak<Position>>>,
    /// Wakes the sampler.
    is_asked: Notify,
    /// Counts the histories: another server became the primary.
    era: AtomicU64,
}

impl Queue {
    fn add(&self, position: &Weak<Position>) {
        let mut waiting = self.waiting.lock();
        make_room(&mut waiting);
        waiting.push(Weak::clone(position));
        drop(waiting);
        self.is_asked.notify_one();
    }

    /// Waits until there is something to sample.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken.
    pub(super) async fn asked(&self) {
        loop {
            let is_asked = self.is_asked.notified();
            if !self.waiting.lock().is_empty() {
                return;
            }
            is_asked.await;
        }
    }

    /// The positions that wait, with what the sample asked for *from now on* will cover.
    pub(super) fn take(&self) -> Asked {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        let alive = waiting.into_iter().filter_map(|one| one.upgrade());
        let ask = |position: Arc<Position>| {
            // First this, so that a write from now on asks again.
            position.is_queued.store(false, Ordering::SeqCst);
            let written = position.written.load(Ordering::SeqCst);
            (position, written)
        };
        Asked(alive.map(ask).collect())
    }

    /// The history that samples are of now.
    pub(super) fn era(&self) -> u64 {
        self.era.load(Ordering::SeqCst)
    }

    /// Another server is the primary: what was sampled before may lie beyond its history.
    pub(super) fn begin_era(&self) {
        self.era.fetch_add(1, Ordering::SeqCst);
    }
}

/// The positions of the tenants that have sessions.
#[derive(Debug, Default)]
pub(super) struct Positions {
    of_tenants: Mutex<HashMap<TenantId, Weak<Position>>>,
    pub(super) queue: Arc<Queue>,
}

impl Positions {
    /// The one of a tenant. A new one waits for a sample at once: what the tenant wrote before,
    /// here or elsewhere, is not known.
    pub(super) fn of(&self, tenant: &TenantId) -> Arc<Position> {
        let mut of_tenants = self.of_tenants.lock();
        if let Some(position) = of_tenants.get(tenant).and_then(Weak::upgrade) {
            return position;
        }
        let position = self.alone();
        if of_tenants.len() == of_tenants.capacity() {
            of_tenants.retain(|_, other| other.strong_count() > 0);
            let left = of_tenants.len();
            of_tenants.reserve(left.max(LIST_MIN));
        }
        of_tenants.insert(tenant.clone(), Arc::downgrade(&position));
        drop(of_tenants);
        position.wrote();
        position
    }

    /// One that nobody shares, and that has no writes.
    pub(super) fn alone(&self) -> Arc<Position> {
        Arc::new_cyclic(|me| Position {
            me: Weak::clone(me),
            queue: Arc::clone(&self.queue),
            written: AtomicU64::new(0),
            lsn: AtomicU64::new(0),
            era: AtomicU64::new(0),
            covered: AtomicU64::new(0),
            is_queued: AtomicBool::new(false),
        })
    }
}

fn make_room(list: &mut Vec<Weak<Position>>) {
    if list.len() == list.capacity() {
        list.retain(|one| one.strong_count() > 0);
        list.reserve(list.len().max(LIST_MIN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(positions: &Positions, lsn: u64) {
        let asked = positions.queue.take();
        asked.answer(positions.queue.era(), Lsn(lsn));
    }

    fn acme() -> TenantId {
        TenantId::new("acme").unwrap()
    }

    #[test]
    fn what_was_written_before_is_wanted_once_it_is_sampled() {
        let positions = Positions::default();
        let position = positions.of(&acme());
        assert_eq!(position.wanted(), None, "others may have written before");
        sampled(&positions, 10);
        assert_eq!(position.wanted(), Some(Lsn(10)));
        position.wrote();
        assert_eq!(position.wanted(), None);
        sampled(&positions, 20);
        assert_eq!(position.wanted(), Some(Lsn(20)));
        // Nobody asks: other tenants' writes do not move it.
        sampled(&positions, 30);
        assert_eq!(position.wanted(), Some(Lsn(20)));
    }

    #[test]
    fn a_write_during_a_sample_needs_the_next_one() {
        let positions = Positions::default();
        let position = positions.of(&acme());
        position.wrote();
        let asked = positions.queue.take();
        position.wrote();
        asked.answer(positions.queue.era(), Lsn(10));
        assert_eq!(position.wanted(), None);
        sampled(&positions, 20);
        assert_eq!(position.wanted(), Some(Lsn(20)));
    }

    #[test]
    fn a_sample_that_failed_is_asked_for_again() {
        let positions = Positions::default();
        let position = positions.of(&acme());
        drop(positions.queue.take());
        assert_eq!(position.wanted(), None);
        let asked = positions.queue.take();
        assert_eq!(asked.0.len(), 1, "it waits once");
        asked.answer(positions.queue.era(), Lsn(10));
        assert_eq!(position.wanted(), Some(Lsn(10)));
    }

    #[test]
    fn positions_of_another_history_are_asked_again() {
        let positions = Positions::default();
        let position = positions.of(&acme());
        sampled(&positions, 100);
        let late = {
            position.wrote();
            positions.queue.take()
        };
        let before = positions.queue.era();
        positions.queue.begin_era();
        assert_eq!(position.wanted(), None);
        // A sample of the old history that comes late.
        late.answer(before, Lsn(110));
        assert_eq!(position.wanted(), None, "and it asks by itself");
        sampled(&positions, 90);
        assert_eq!(position.wanted(), Some(Lsn(90)));
    }

    #[test]
    fn a_tenant_has_one_position_while_anybody_holds_it() {
        let positions = Positions::default();
        let one = positions.of(&acme());
        assert!(Arc::ptr_eq(&one, &positions.of(&acme())));
        sampled(&positions, 10);
        drop(one);
        // What it knew is forgotten, so nothing is known.
        assert_eq!(positions.of(&acme()).wanted(), None);
        let own = positions.alone();
        assert_eq!(own.wanted(), Some(Lsn(0)));
        own.wrote();
        assert_eq!(own.wanted(), None);
    }

    #[test]
    fn tenants_that_come_and_go_leave_nothing() {
        let positions = Positions::default();
        for number in 0..10_000 {
            let tenant = TenantId::new(&format!("t{number}")).unwrap();
            drop(positions.of(&tenant));
        }
        let waiting = positions.queue.waiting.lock().len();
        let known = positions.of_tenants.lock().len();
        assert!(waiting <= 256, "{waiting}");
        assert!(known <= 256, "{known}");
    }

    /// Writers and a sampler race; the "primary" counts up with each write.
    #[test]
    fn no_write_is_ever_missing_from_what_is_wanted() {
        let positions = Positions::default();
        let primary = AtomicU64::new(1);
        let is_over = AtomicBool::new(false);
        let position = positions.of(&acme());
        std::thread::scope(|threads| {
            let writers: Vec<_> = (0..3)
                .map(|_| {
                    threads.spawn(|| {
                        for _ in 0..20_000 {
                            let at = primary.fetch_add(1, Ordering::SeqCst) + 1;
                            position.wrote();
                            let wanted = position.wanted();
                            assert!(wanted.is_none_or(|lsn| lsn.0 >= at), "{wanted:?} < {at}");
                        }
                    })
                })
                .collect();
            threads.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    let asked = positions.queue.take();
                    let era = positions.queue.era();
                    asked.answer(era, Lsn(primary.load(Ordering::SeqCst)));
                }
            });
            for writer in writers {
                writer.join().unwrap();
            }
            is_over.store(true, Ordering::SeqCst);
        });
        sampled(&positions, primary.load(Ordering::SeqCst));
        assert_eq!(position.wanted(), Some(Lsn(primary.load(Ordering::SeqCst))));
    }
}
