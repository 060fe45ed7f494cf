//! One server of a cluster.

use super::{Lsn, figures::Figures};
use crate::tenant::{Address, Replica};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// What the servers of a cluster share.
#[derive(Debug)]
pub(super) struct Common {
    /// The highest timeline that any of them was seen on; 0 while none was seen.
    pub(super) timeline: AtomicU32,
    /// Counts what the data plane may have to look at again.
    pub(super) changes: watch::Sender<u64>,
    /// Times are told from here.
    pub(super) start: Instant,
}

impl Common {
    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn timeline(&self) -> u32 {
        self.timeline.load(Ordering::SeqCst)
    }

    pub(super) fn milliseconds(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// One server of a cluster. Shared; its state is in atomics, and there is no lock on the way of a read.
#[derive(Debug)]
pub struct Node {
    address: Address,
    pub(super) weight: u32,
    pub(super) region: Option<Box<str>>,
    pub(super) common: Arc<Common>,
    pub(super) figures: Figures,
    /// It answers, as a standby of this cluster.
    pub(super) is_standby: AtomicBool,
    /// It is too far behind.
    pub(super) is_behind: AtomicBool,
    /// It is kept out.
    pub(super) is_out: AtomicBool,
    /// Counts the failures that the data plane told of: a probe that was sent before does not disprove
    /// them.
    failures: AtomicU64,
    /// Numbers the probes: the last that was sent, and the last sent one that [`Node::replayed`] is of.
    asked: AtomicU64,
    answered: AtomicU64,
    /// The timeline it is known to replay.
    pub(super) timeline: AtomicU32,
    replayed: AtomicU64,
    /// Counts the times that what it had replayed was forgotten.
    life: AtomicU64,
    outstanding: AtomicU32,
    /// When it came back, in milliseconds of [`Common::start`]; 0: its share is full.
    pub(super) back_since: AtomicU64,
    /// Its place in the order of turns.
    pub(super) turn: AtomicU64,
    /// Wakes its probe.
    pub(super) wake: Notify,
}

impl Node {
    pub(super) fn new(server: Replica, common: Arc<Common>, figures: Figures) -> Arc<Self> {
        Arc::new(Self {
            address: server.address,
            weight: server.weight.max(1),
            region: server.region,
            common,
            figures,
            is_standby: AtomicBool::new(false),
            is_behind: AtomicBool::new(false),
            is_out: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            timeline: AtomicU32::new(0),
            replayed: AtomicU64::new(0),
            life: AtomicU64::new(0),
            outstanding: AtomicU32::new(0),
            back_since: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            wake: Notify::new(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// How far it is known to have replayed; 0 for a primary, or when it is not known.
    ///
    /// A server that crashes and comes back may let readers in before it is as far as it was, and this is
    /// known here only after the next probe. So a *new* connection to the server relies on this only
    /// when [`Node::answered`] is beyond what [`Node::asked`] was when it stood; or asks by itself how far
    /// the server is (`pg_last_wal_replay_lsn`), with each read.
    pub fn replayed(&self) -> Lsn {
        Lsn(self.replayed.load(Ordering::SeqCst))
    }

    /// The number of the last probe that was sent.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// The number of the probe whose answer [`Node::replayed`] rests on.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// A probe is sent.
    pub(super) fn begin_probe(&self) -> Asked {
        Asked {
            number: self.asked.fetch_add(1, Ordering::SeqCst) + 1,
            failures: self.failures.load(Ordering::SeqCst),
        }
    }

    /// Its answer counts, unless the data plane has found otherwise since it was sent.
    pub(super) fn end_probe(&self, asked: Asked) {
        self.answered.store(asked.number, Ordering::SeqCst);
        if self.failures.load(Ordering::SeqCst) != asked.failures {
            self.set_replayed(Lsn::default());
            self.eject(super::figures::CONNECTION);
        }
    }

    /// A read found it this far. Better said by [`Lent::has_replayed`], which leaves out what was found
    /// before a restart.
    pub fn has_replayed(&self, lsn: Lsn) {
        self.replayed.fetch_max(lsn.0, Ordering::SeqCst);
    }

    /// What a probe found; 0 when it is not known any more.
    pub(super) fn set_replayed(&self, lsn: Lsn) {
        if self.replayed.swap(lsn.0, Ordering::SeqCst) > lsn.0 {
            self.life.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Counts a read that is outstanding, until the guard is dropped.
    pub fn lend(self: &Arc<Self>) -> Lent {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        Lent {
            life: self.life.load(Ordering::SeqCst),
            node: Arc::clone(self),
        }
    }

    /// The reads that are outstanding.
    pub fn outstanding(&self) -> u32 {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// The data plane could not connect to it, or lost a connection: it gets no reads until a probe that
    /// begins after this succeeds. Not for a server that is full (53300): it works.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::SeqCst);
        self.set_replayed(Lsn::default());
        if self.is_standby.load(Ordering::SeqCst) {
            self.eject(super::figures::CONNECTION);
        }
        self.wake.notify_one();
    }

    /// Whether it may take reads: a standby of the primary's history that answers, is not kept out, and
    /// is within the limits of lag.
    pub fn is_eligible(&self) -> bool {
        let is_on_timeline = || {
            let timeline = self.timeline.load(Ordering::SeqCst);
            timeline == self.common.timeline.load(Ordering::SeqCst)
        };
        self.is_standby.load(Ordering::SeqCst)
            && !self.is_out.load(Ordering::SeqCst)
            && !self.is_behind.load(Ordering::SeqCst)
            && is_on_timeline()
    }

    /// Has it asked soon how far it is.
    pub fn ask_soon(&self) {
        self.wake.notify_one();
    }

    /// Whether it is not kept out; a primary never is.
    pub fn is_answering(&self) -> bool {
        !self.is_out.load(Ordering::SeqCst)
    }

    /// Keeps it out, and says so, if it was not out already.
    pub(super) fn eject(&self, reason: &'static str) {
        if self.is_out.swap(true, Ordering::SeqCst) {
            return;
        }
        self.figures.ejected(reason);
        tracing::warn!(cluster = self.figures.cluster(), server = %self.address, reason, "ejected");
        self.common.changed();
    }

    /// Lets it in again, with a small share at first.
    pub(super) fn let_in(&self) {
        if !self.is_out.load(Ordering::SeqCst) {
            return;
        }
        self.begin_slowly();
        self.is_out.store(false, Ordering::SeqCst);
        tracing::info!(cluster = self.figures.cluster(), server = %self.address, "back");
        self.common.changed();
    }

    pub(super) fn begin_slowly(&self) {
        self.back_since
            .store(self.common.milliseconds().max(1), Ordering::SeqCst);
    }

    /// Thousandths of its weight that it has now: from a tenth to all within `slow_start`.
    pub(super) fn share(&self, slow_start: Duration) -> u64 {
        let since = self.back_since.load(Ordering::Relaxed);
        if since == 0 {
            return SHARE_FULL;
        }
        let whole = u64::try_from(slow_start.as_millis()).unwrap_or(u64::MAX);
        let past = self.common.milliseconds().saturating_sub(since);
        if past >= whole {
            // Unless it has just come back once more.
            let full = Ordering::Relaxed;
            self.back_since.compare_exchange(since, 0, full, full).ok();
            return SHARE_FULL;
        }
        let grown = (SHARE_FULL - SHARE_FIRST).saturating_mul(past) / whole.max(1);
        SHARE_FIRST + grown
    }
}

/// A probe that was sent, and how many failures were known then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    number: u64,
    failures: u64,
}

/// All of a weight, in thousandths, and what a server begins with that comes back.
const SHARE_FULL: u64 = 1000;
const SHARE_FIRST: u64 = 100;

/// A read that is outstanding at a server, until this is dropped.
#[derive(Debug)]
pub struct Lent {
    node: Arc<Node>,
    life: u64,
}

impl Lent {
    /// The server.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// This read found the server this far. Without effect when the server was found to be less far
    /// since the read was begun, as it has restarted then.
    pub fn has_replayed(&self, lsn: Lsn) {
        if self.node.life.load(Ordering::SeqCst) == self.life {
            self.node.has_replayed(lsn);
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.node.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}
