//! The server connections of a cluster, shared by all its tenants.
//!
//! While there are free places, taking one is one atomic step. When they run out, tenants wait in
//! order ([`turns`]), and what comes back at the end of a transaction goes to who is next: the server
//! itself within a tenant, else its place once the server is closed.

mod account;
mod place;
mod reclaim;
#[cfg(test)]
mod tests;
mod turns;
mod waiting;

pub(super) use self::{
    account::Account,
    place::Place,
    reclaim::Spare,
    turns::{Cost, Party, Turns},
    waiting::{Grant, Source, Waiter},
};

use self::{account::Accounts, reclaim::Spares};
use super::{closed::Closed, pids::Pids, running::Running};
use crate::tenant::{Limits, TenantId};
use parking_lot::{Mutex, MutexGuard};
use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// Connects at the same time, where the cluster says nothing usable.
const CONNECTS_MIN: usize = 1;

/// In `used`: somebody waits, or more is in use than may be, with what is promised.
const SCARCE: u32 = 1 << 31;

/// How many server connections a cluster may have, and has.
pub struct Budget {
    max: AtomicU32,
    used: AtomicU32,
    ledger: Mutex<Ledger>,
    accounts: Accounts,
    spares: Spares,
    connects: Semaphore,
    pids: Arc<Pids>,
    closed: Closed,
    running: Arc<Running>,
}

/// What is only looked at while places are scarce.
struct Ledger {
    turns: Turns<Waiter>,
    /// Since when places are scarce, or have not been.
    since: Instant,
    /// When it was looked last, since places are scarce, no idle server could be taken from anybody. Those
    /// that are left idle later are found by who looks after them.
    is_exhausted: bool,
    /// Somebody looks after idle servers.
    is_swept: bool,
}

/// What becomes of a server that comes back while places are scarce.
pub(super) enum Verdict {
    /// It stays with its tenant.
    Keep,
    /// It is closed.
    Close,
    /// It goes to another client of the same pool.
    Hand(Waiter),
    /// It is closed, and its place goes to another tenant.
    Move(Waiter),
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget")
            .field("max", &self.max)
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}

impl Budget {
    /// A budget of `max` connections, `parallel_connects` of which may be in the making.
    pub fn new(max: u32, parallel_connects: u32) -> Self {
        Self {
            max: AtomicU32::new(max),
            used: AtomicU32::new(0),
            ledger: Mutex::new(Ledger {
                turns: Turns::default(),
                since: Instant::now(),
                is_exhausted: false,
                is_swept: false,
            }),
            accounts: Accounts::default(),
            spares: Spares::default(),
            connects: Semaphore::new((parallel_connects as usize).max(CONNECTS_MIN)),
            pids: Arc::default(),
            closed: Closed::default(),
            running: Arc::default(),
        }
    }

    /// What runs on its server at the same time.
    pub fn running(&self) -> &Arc<Running> {
        &self.running
    }

    /// Changes the maximum. What is in use beyond it goes: idle servers now, others when they come back.
    pub fn resize(self: &Arc<Self>, max: u32) {
        if self.max.swap(max, SeqCst) == max {
            return;
        }
        self.settle();
        for _ in max..self.used() {
            if self.used() <= max || !self.reclaim_one() {
                break;
            }
        }
    }

    /// Connections in use, idle ones included.
    pub fn used(&self) -> u32 {
        self.used.load(SeqCst) & !SCARCE
    }

    /// The maximum.
    pub fn max(&self) -> u32 {
        self.max.load(SeqCst)
    }

    /// How many wait for a place.
    pub fn waiting(&self) -> usize {
        self.ledger.lock().turns.waiting()
    }

    /// A tenant's account, with these limits from now on.
    pub(super) fn account(self: &Arc<Self>, tenant: &TenantId, limits: &Limits) -> Arc<Account> {
        let account = self.accounts.of(tenant, limits);
        if account.is_short() && !self.is_scarce() && self.over() > 0 {
            self.settle();
            self.reclaim_one();
            self.look_after();
        }
        account
    }

    /// Places that stay free for who is promised them. Whatever is promised, one is left for the others.
    fn kept_free(&self) -> u32 {
        let (missing, kept) = self.accounts.promised();
        missing.min(self.max().saturating_sub(kept.saturating_add(1)))
    }

    /// How many more are in use than may be, with those that are kept free.
    fn over(&self) -> u32 {
        let wanted = self.used().saturating_add(self.kept_free());
        wanted.saturating_sub(self.max())
    }

    /// Takes a place, if there is one and nobody waits for it.
    pub(super) fn try_take(self: &Arc<Self>, account: &Arc<Account>) -> Option<Place> {
        let mut max = self.max();
        if !account.is_short() {
            max = max.saturating_sub(self.kept_free());
        }
        let take = |used: u32| (used < max).then_some(used + 1);
        // A used-up budget that somebody waits for is beyond every maximum.
        let taken = self.used.fetch_update(SeqCst, SeqCst, take);
        taken.ok().map(|_| Place::new(self, account))
    }

    /// Whether somebody waits for a place, or more are in use than there are, less what is promised.
    #[inline]
    pub(super) fn is_scarce(&self) -> bool {
        self.used.load(SeqCst) & SCARCE != 0
    }

    /// Whether the tenant can have a place without waiting.
    pub(super) fn has_room(&self, account: &Account) -> bool {
        let is_free = || self.used() < self.max() && (account.is_short() || self.has_left(1));
        !self.is_scarce() && is_free()
    }

    /// Whether others wait for what this tenant has beyond what it is promised.
    pub(super) fn is_wanted(&self, account: &Account) -> bool {
        self.is_scarce() && account.held() > account.guaranteed() && self.waiting() > 0
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
        let known: Weak<T> = Arc::downgrade(pool);
        match pool.account() {
            Some(account) => account.join(known),
            None => self.spares.join(known),
        }
    }

    /// What becomes of a server that comes back; its use is paid.
    pub(super) fn judge(&self, place: &mut Place, source: Source) -> Verdict {
        let mut ledger = self.ledger.lock();
        let verdict = self.judge_by(&mut ledger, place, source);
        // Who waited last may have been served by it.
        self.note_scarcity(&mut ledger);
        verdict
    }

    fn judge_by(&self, ledger: &mut Ledger, place: &mut Place, source: Source) -> Verdict {
        Self::pay(ledger, place);
        if self.used() > self.max() {
            return Verdict::Close;
        }
        let Some(account) = place.account() else {
            return Verdict::Keep;
        };
        let own = account.party().id;
        let is_promised = account.held() <= account.guaranteed();
        loop {
            let next = ledger.turns.next(|id| ledger.is_short(id));
            // Nobody who waits is promised it, but somebody else is.
            let is_kept_free = !is_promised && self.over() > 0;
            if is_kept_free && next.is_none_or(|(_, is_short)| !is_short) {
                return Verdict::Close;
            }
            let Some((first, is_first_short)) = next else {
                return Verdict::Keep;
            };
            let waits = ledger.turns.is_waiting(own);
            let heir = if is_first_short || !waits {
                Some(first)
            } else {
                ledger.turns.heir(own, |id| ledger.holds(id))
            };
            if waits && (is_promised || heir.is_none_or(|heir| heir == own)) {
                match ledger.turns.pop(own) {
                    Some((waiter, _)) if waiter.has_left() => continue,
                    Some((waiter, expected)) => {
                        place.begin(expected);
                        return if waiter.source() == source {
                            Verdict::Hand(waiter)
                        } else {
                            Verdict::Move(waiter)
                        };
                    }
                    None => return Verdict::Keep,
                }
            }
            if is_promised || !waits && account.held() <= self.share(account) {
                // Who looks after idle servers takes it when it is not used for a while.
                return Verdict::Keep;
            }
            if !waits && !ledger.is_exhausted {
                // There may be one that is idle for longer.
                return Verdict::Keep;
            }
            match ledger.turns.pop(heir.unwrap_or(first)) {
                Some((waiter, _)) if waiter.has_left() => {}
                Some((waiter, expected)) => {
                    place.goes_to(&waiter.account, expected);
                    return Verdict::Move(waiter);
                }
                None => return Verdict::Keep,
            }
        }
    }

    /// Gives free places to who waits, in order.
    fn settle(self: &Arc<Self>) {
        let mut ledger = self.ledger.lock();
        let mut left = None;
        while self.used() < self.max() || left.is_some() {
            let Some((next, is_short)) = ledger.turns.next(|id| ledger.is_short(id)) else {
                break;
            };
            // With this one more, where it is not counted yet.
            let more = u32::from(left.is_none());
            if !is_short && !self.has_left(more) {
                break;
            }
            let Some((waiter, expected)) = ledger.turns.pop(next) else {
                break;
            };
            let mut place: Place = if let Some(place) = left.take() {
                place
            } else {
                // Nobody else takes one while somebody waits.
                self.used.fetch_add(1, SeqCst);
                Place::new(self, &waiter.account)
            };
            place.goes_to(&waiter.account, expected);
            if let Err(Grant::Place(place)) = waiter.grant(Grant::Place(place)) {
                left = Some(place);
            }
        }
        self.note_scarcity(&mut ledger);
        drop(ledger);
        // Nobody wanted it; its drop needs the ledger.
        drop(left);
    }

    /// Whether so many more could be used by who is not promised them.
    fn has_left(&self, more: u32) -> bool {
        let used = self.used().saturating_add(more);
        used.saturating_add(self.kept_free()) <= self.max()
    }

    /// Whether others have to ask for places, and must judge what comes back.
    fn note_scarcity(&self, ledger: &mut Ledger) {
        let is_scarce = ledger.turns.waiting() > 0 || self.over() > 0;
        if is_scarce == self.is_scarce() {
            return;
        }
        if is_scarce {
            ledger.is_exhausted = false;
            self.used.fetch_or(SCARCE, SeqCst);
        } else {
            self.used.fetch_and(!SCARCE, SeqCst);
        }
        let now = Instant::now();
        if is_scarce {
            let rested = now.saturating_duration_since(ledger.since);
            ledger.turns.rest(rested);
        }
        ledger.since = now;
    }

    /// Has a tenant pay for a turn that is over.
    fn pay(ledger: &mut Ledger, place: &mut Place) {
        let Some(account) = place.account().map(|it| it.party()) else {
            return;
        };
        let (since, expected) = place.end();
        let actual = since.unwrap_or(ledger.since).elapsed();
        ledger.turns.charge(account, Cost { actual, expected });
    }

    /// What a tenant may have of the places, if all that have or want one have their part.
    fn share(&self, account: &Account) -> u32 {
        account.share(self.max(), self.accounts.weights())
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }
}
