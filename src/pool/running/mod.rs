//! How many statements run on a server of a cluster at the same time, so that the queue for its CPUs is
//! here, by deficit round robin over tenants, and not inside PostgreSQL.
//!
//! While there are free places, taking one is one atomic step, and so is leaving it. When they run out,
//! tenants wait in [`Turns`]; what a turn costs is the time that its statement ran.
//!
//! **No deadlock.** Who holds a lock is in a transaction, or keeps its server for that lock: what it sends
//! next takes a place without waiting ([`Run::enter_now`]). What a statement may wait for in PostgreSQL is
//! therefore never behind this queue; and if it is, its place is not taken for ever (see `overstay`).

mod finding;
mod overstay;
mod runner;
mod search;
#[cfg(test)]
mod tests;
mod waiting;

pub(super) use self::runner::Runner;
pub use self::{
    runner::{Bound, Run},
    waiting::{Granted, Refused},
};

use self::{finding::Finding, runner::Kind, waiting::Waiter};
use super::budget::{Account, Cost, Turns};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{
            AtomicU32,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

/// In `used`: somebody waits, or some run beyond the limit.
const SCARCE: u32 = 1 << 31;

/// The places of one server of a cluster for statements that run.
#[derive(Debug)]
pub struct Running {
    /// 0: none.
    limit: AtomicU32,
    used: AtomicU32,
    ledger: Mutex<Ledger>,
    runners: Mutex<Vec<Weak<Runner>>>,
    finding: Mutex<Finding>,
    /// Clients that wait for a server of it.
    awaited: AtomicU32,
}

/// A client waits for a server, until this is dropped.
#[derive(Debug)]
pub(super) struct Awaits(Arc<Running>);

impl Drop for Awaits {
    fn drop(&mut self) {
        self.0.awaited.fetch_sub(1, Relaxed);
    }
}

/// What is only looked at while places are scarce.
#[derive(Debug)]
struct Ledger {
    turns: Turns<Waiter>,
    /// Since when places are scarce, or have not been.
    since: Instant,
    /// Statements that count for their own tenant alone, by tenant.
    excused: HashMap<u64, u32>,
    /// When one of a tenant's statements was counted no more.
    forgiven: HashMap<u64, Instant>,
    /// Somebody looks after statements that stay long.
    is_watched: bool,
}

impl Ledger {
    fn excused_of(&self, id: u64) -> u32 {
        self.excused.get(&id).copied().unwrap_or_default()
    }

    fn excuse(&mut self, id: u64) {
        *self.excused.entry(id).or_default() += 1;
    }

    fn take_back(&mut self, id: u64) {
        if let Some(count) = self.excused.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.excused.remove(&id);
            }
        }
    }
}

/// What is known of a server's statements now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// How many may run; 0 is no limit.
    pub limit: u32,
    /// How many run and count.
    pub running: u32,
    /// How many run beyond the limit: they have run for long, or wait for their client.
    pub excused: u32,
    /// How many wait.
    pub waiting: usize,
}

impl Default for Running {
    fn default() -> Self {
        Self {
            limit: AtomicU32::new(0),
            used: AtomicU32::new(0),
            ledger: Mutex::new(Ledger {
                turns: Turns::default(),
                since: Instant::now(),
                excused: HashMap::new(),
                forgiven: HashMap::new(),
                is_watched: false,
            }),
            runners: Mutex::default(),
            finding: Mutex::default(),
            awaited: AtomicU32::new(0),
        }
    }
}

impl Running {
    /// Changes how many may run; 0 is no limit. Who waits goes on at once where there is room now, and
    /// who runs goes on.
    fn set_limit(self: &Arc<Self>, limit: u32) {
        if self.limit.swap(limit, SeqCst) != limit {
            self.settle();
        }
    }

    /// How many may run; 0 is no limit.
    #[inline]
    pub fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    /// What is known of its statements now.
    pub fn load(&self) -> Load {
        let ledger = self.ledger.lock();
        let runners = self.runners.lock();
        let all = runners.iter().filter_map(Weak::upgrade);
        let excused = all.filter(|runner| runner.is_excused()).count();
        Load {
            limit: self.limit(),
            running: self.used(),
            excused: u32::try_from(excused).unwrap_or(u32::MAX),
            waiting: ledger.turns.waiting(),
        }
    }

    /// A client waits for a server, as others have all that its tenant may have.
    pub(super) fn awaits(self: &Arc<Self>) -> Awaits {
        self.awaited.fetch_add(1, Relaxed);
        Awaits(Arc::clone(self))
    }

    /// A server connection of a tenant, on which statements will run.
    pub(super) fn runner(self: &Arc<Self>, account: &Arc<Account>) -> Arc<Runner> {
        let runner = Arc::new(Runner::new(self, account));
        let mut runners = self.runners.lock();
        if runners.len() == runners.capacity() {
            runners.retain(|runner| runner.strong_count() > 0);
        }
        runners.push(Arc::downgrade(&runner));
        runner
    }

    fn used(&self) -> u32 {
        self.used.load(SeqCst) & !SCARCE
    }

    fn is_scarce(&self) -> bool {
        self.used.load(SeqCst) & SCARCE != 0
    }

    /// So many may run, where that is limited.
    fn max(&self) -> u32 {
        match self.limit.load(SeqCst) {
            0 => SCARCE,
            limit => limit,
        }
    }

    /// Takes a place, if there is one and nobody waits for it.
    fn try_take(&self) -> bool {
        let max = self.max();
        // With somebody who waits, it is beyond every maximum.
        let take = |used: u32| (used < max).then_some(used + 1);
        self.used.fetch_update(SeqCst, SeqCst, take).is_ok()
    }

    /// A statement that counted runs no more.
    fn leave(&self) {
        if self.used.fetch_sub(1, SeqCst) & SCARCE != 0 {
            self.settle();
        }
    }

    /// Gives free places to who waits, in order.
    fn settle(&self) {
        let mut ledger = self.ledger.lock();
        self.settle_by(&mut ledger);
    }

    fn settle_by(&self, ledger: &mut Ledger) {
        loop {
            let (used, max) = (self.used(), self.max());
            // What was excused counts for its own tenant.
            let may = |id: u64| used.saturating_add(ledger.excused_of(id)) < max;
            let Some(next) = ledger.turns.first_that(may) else {
                break;
            };
            self.grant_next(ledger, next);
        }
        self.note_scarcity(ledger);
    }

    /// Lets the first that waits of a tenant in.
    fn grant_next(&self, ledger: &mut Ledger, id: u64) {
        while let Some((waiter, expected)) = ledger.turns.pop(id) {
            let party = waiter.party();
            self.used.fetch_add(1, SeqCst);
            if waiter.grant(expected) {
                return;
            }
            self.used.fetch_sub(1, SeqCst);
            let actual = Duration::ZERO;
            ledger.turns.charge(party, Cost { actual, expected });
        }
    }

    /// Whether others have to ask for places, and give them to who waits.
    fn note_scarcity(&self, ledger: &mut Ledger) {
        let is_scarce = ledger.turns.waiting() > 0 || !ledger.excused.is_empty();
        if is_scarce == self.is_scarce() {
            return;
        }
        let now = Instant::now();
        if is_scarce {
            self.used.fetch_or(SCARCE, SeqCst);
            let rested = now.saturating_duration_since(ledger.since);
            ledger.turns.rest(rested);
        } else {
            self.used.fetch_and(!SCARCE, SeqCst);
            ledger.forgiven.clear();
        }
        ledger.since = now;
    }

    /// A statement runs no more that counted as this.
    fn left(&self, account: &Account, kind: Kind, began: runner::Began) {
        if !self.is_scarce() {
            return self.leave_as(kind);
        }
        let mut ledger = self.ledger.lock();
        let party = account.party();
        let since = began.at.unwrap_or(ledger.since);
        let cost = Cost {
            actual: since.elapsed(),
            expected: began.expected,
        };
        ledger.turns.charge(party, cost);
        match kind {
            Kind::Counted => drop(self.used.fetch_sub(1, SeqCst)),
            Kind::Excused => ledger.take_back(party.id),
            Kind::Out | Kind::Forgiven => {}
        }
        self.settle_by(&mut ledger);
    }

    fn leave_as(&self, kind: Kind) {
        // What is excused makes places scarce.
        if kind == Kind::Counted {
            self.leave();
        }
    }
}
