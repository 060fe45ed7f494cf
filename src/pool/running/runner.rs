//! What runs on one server connection.

use super::{
    Running,
    waiting::{Granted, Refused, Waiting},
};
use crate::pool::budget::Account;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{
            AtomicU32, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

/// How a statement counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing runs.
    Out = 0,
    /// Among those that may run.
    Counted = 1,
    /// For its own tenant alone.
    Excused = 2,
    /// For nobody.
    Forgiven = 3,
}

const KIND_BITS: u32 = 2;

/// When a turn began, where that is known, and what it was taken for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Began {
    pub(super) at: Option<Instant>,
    pub(super) expected: Duration,
}

/// A server connection, on which at most one statement (or pipeline) runs.
#[derive(Debug)]
pub(in crate::pool) struct Runner {
    running: Arc<Running>,
    /// The number of the entry, and how it counts.
    state: AtomicU64,
    /// How often it began and ended that a statement waits for its client: to be given data, or to be rid
    /// of rows. While it is odd, one does.
    client_waits: AtomicU32,
    /// How often something began behind the first of an entry.
    more: AtomicU64,
    account: Mutex<Arc<Account>>,
    /// Of which entry; that of others is not known.
    began: Mutex<(u64, Began)>,
    /// The entry that was seen last by who looks after them, and when it was first.
    pub(super) seen: Mutex<Seen>,
}

/// What was seen of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) entry: u64,
    pub(super) since: Instant,
    /// Which wait for its client was found, and when it was first.
    pub(super) idle: Option<(u32, Instant)>,
}

impl Runner {
    pub(super) fn new(running: &Arc<Running>, account: &Arc<Account>) -> Self {
        Self {
            running: Arc::clone(running),
            state: AtomicU64::new(0),
            client_waits: AtomicU32::new(0),
            more: AtomicU64::new(0),
            account: Mutex::new(Arc::clone(account)),
            began: Mutex::default(),
            seen: Mutex::new(Seen {
                entry: 0,
                since: Instant::now(),
                idle: None,
            }),
        }
    }

    /// It is another tenant's from now on; nothing runs.
    pub(in crate::pool) fn serves(&self, account: &Arc<Account>) {
        *self.account.lock() = Arc::clone(account);
    }

    pub(super) fn account(&self) -> Arc<Account> {
        Arc::clone(&self.account.lock())
    }

    /// The number of the entry, and how it counts.
    pub(super) fn state(&self) -> (u64, Kind) {
        split(self.state.load(SeqCst))
    }

    /// How many statements have begun, each of a pipeline for itself.
    pub(super) fn begun(&self) -> u64 {
        self.state().0 + self.more.load(Relaxed)
    }

    pub(super) fn is_excused(&self) -> bool {
        matches!(self.state().1, Kind::Excused | Kind::Forgiven)
    }

    /// The number of this wait for the client; `None` while there is none.
    pub(super) fn client_wait(&self) -> Option<u32> {
        Some(self.client_waits.load(Relaxed)).filter(|count| is_wait(*count))
    }

    /// Whether it is bounded how many statements run.
    #[inline]
    pub(in crate::pool) fn is_limited(&self) -> bool {
        self.running.limit() != 0
    }

    /// Counts an entry in another way, if it still counts in this.
    pub(super) fn recount(&self, entry: u64, from: Kind, to: Kind) -> bool {
        let (old, new) = (packed(entry, from), packed(entry, to));
        self.state
            .compare_exchange(old, new, SeqCst, SeqCst)
            .is_ok()
    }

    /// A place was taken for what begins now.
    fn enter(&self, began: Began) -> u64 {
        let waits = self.client_waits.load(Relaxed);
        self.client_waits
            .store(waits.wrapping_add(waits & 1), Relaxed);
        let next = |state: u64| packed((state >> KIND_BITS) + 1, Kind::Counted);
        let before = self
            .state
            .fetch_update(SeqCst, SeqCst, |state| Some(next(state)));
        let before = before.unwrap_or_else(|state| state);
        let (left, kind) = split(before);
        // Whoever was here before has not left: it has given the server back.
        self.end(left, kind);
        let entry = left + 1;
        if began.at.is_some() {
            *self.began.lock() = (entry, began);
        }
        entry
    }

    /// The entry is over, unless it was before.
    fn leave(&self, entry: u64) {
        let out = |state: u64| (split(state).0 == entry).then_some(packed(entry, Kind::Out));
        if let Ok(before) = self.state.fetch_update(SeqCst, SeqCst, out) {
            self.end(entry, split(before).1);
        }
    }

    fn end(&self, entry: u64, kind: Kind) {
        if kind == Kind::Out {
            return;
        }
        if self.running.is_scarce() {
            let (noted, began) = *self.began.lock();
            let began = if noted == entry {
                began
            } else {
                Began::default()
            };
            self.running.left(&self.account(), kind, began);
        } else {
            self.running.leave_as(kind);
        }
    }
}

fn is_wait(count: u32) -> bool {
    count % 2 == 1
}

fn packed(entry: u64, kind: Kind) -> u64 {
    entry << KIND_BITS | kind as u64
}

fn split(state: u64) -> (u64, Kind) {
    let kind = match state & 3 {
        0 => Kind::Out,
        1 => Kind::Counted,
        2 => Kind::Excused,
        _ => Kind::Forgiven,
    };
    (state >> KIND_BITS, kind)
}

/// In [`Run`]: nothing runs.
const OUT: u64 = 0;

/// In [`Run`]: something runs without a place, as there was no limit.
const FREE: u64 = u64::MAX;

/// How many statements may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// So many; 0 is no limit.
    pub limit: u32,
    /// Nobody has set it.
    pub is_found: bool,
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let limit = self.limit;
        if self.is_found {
            write!(f, "{limit} (found by adaptive_running_statements)")
        } else {
            write!(f, "{limit}")
        }
    }
}

/// A session's statements on the server that it is lent. What runs when this is dropped has left.
#[derive(Debug)]
pub struct Run {
    runner: Arc<Runner>,
    entry: AtomicU64,
}

impl Run {
    pub(in crate::pool) fn new(runner: &Arc<Runner>) -> Self {
        Self {
            runner: Arc::clone(runner),
            entry: AtomicU64::new(OUT),
        }
    }

    /// Whether a statement runs.
    #[inline]
    pub fn is_in(&self) -> bool {
        self.entry.load(Relaxed) != OUT
    }

    /// Takes a place for a statement, if there is one and nobody waits for it.
    #[inline]
    pub fn try_enter(&self) -> bool {
        let running = &self.runner.running;
        if running.limit() == 0 {
            self.entry.store(FREE, Relaxed);
            return true;
        }
        let has_taken = running.try_take();
        if has_taken {
            self.entry
                .store(self.runner.enter(Began::default()), Relaxed);
        }
        has_taken
    }

    /// Takes a place for a statement whatever others do: beyond the limit, if need be. For who may hold
    /// locks.
    pub fn enter_now(&self) {
        let running = &self.runner.running;
        if running.limit() == 0 {
            self.entry.store(FREE, Relaxed);
            return;
        }
        running.used.fetch_add(1, SeqCst);
        let began = Began {
            at: running.is_scarce().then(Instant::now),
            expected: Duration::ZERO,
        };
        self.entry.store(self.runner.enter(began), Relaxed);
    }

    /// A statement runs that nobody counts.
    pub fn enter_free(&self) {
        self.entry.store(FREE, Relaxed);
    }

    /// Takes a place in the queue; becomes `true` when that was its turn. [`Run::enter_granted`] comes next.
    ///
    /// # Errors
    /// [`Refused`] when it has waited for so long.
    ///
    /// # Cancel safety
    /// Cancel safe: the place in the queue is given up.
    pub fn wait(
        &self,
        at_most: Duration,
    ) -> impl Future<Output = Result<Granted, Refused>> + use<> {
        let waiting = Waiting::join(&self.runner.running, &self.runner.account());
        async move { waiting.granted(at_most).await }
    }

    /// Begins what was waited for.
    pub fn enter_granted(&self, granted: Granted) {
        let began = Began {
            at: Some(Instant::now()),
            expected: granted.taken(),
        };
        self.entry.store(self.runner.enter(began), Relaxed);
    }

    /// The statement is over.
    #[inline]
    pub fn leave(&self) {
        let entry = self.entry.load(Relaxed);
        if entry != OUT {
            self.entry.store(OUT, Relaxed);
            if entry != FREE {
                self.runner.leave(entry);
            }
        }
    }

    /// Whether others wait for a place while it has one.
    #[inline]
    pub fn is_wanted(&self) -> bool {
        self.runner.running.used.load(Relaxed) & super::SCARCE != 0
    }

    /// The next of a pipeline begins.
    #[inline]
    pub fn goes_on(&self) {
        // Nobody else writes it.
        let more = &self.runner.more;
        more.store(more.load(Relaxed) + 1, Relaxed);
    }

    /// Notes whether the statement waits for its client: that is no running.
    #[inline]
    pub fn note_client(&self, is_waited_for: bool) {
        let waits = self.runner.client_waits.load(Relaxed);
        if is_wait(waits) == is_waited_for {
            return;
        }
        self.runner
            .client_waits
            .store(waits.wrapping_add(1), Relaxed);
        let entry = self.entry.load(Relaxed);
        if !is_waited_for && self.runner.state() == (entry, Kind::Forgiven) {
            // It runs again.
            self.leave();
            self.enter_now();
        }
    }

    /// How many may run on its server, and where that comes from.
    pub fn bound(&self) -> Bound {
        let running = &self.runner.running;
        Bound {
            limit: running.limit(),
            is_found: running.is_found(),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.leave();
    }
}
