//! Idle servers are taken back for who waits.

use super::{Account, Budget};
use parking_lot::Mutex;
use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

/// A server that was idle for less is not taken while there is an older one, nor from who has no more
/// than its share.
const AGE_MIN: Duration = Duration::from_millis(50);

/// How often idle servers are looked at while somebody waits; less often where that takes long.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);

/// A look takes at most this part of the time.
const LOOK_PART: u32 = 20;

/// A look closes at most so many.
const CLOSED_MAX: usize = 64;

/// Idle servers that can be closed for somebody else.
pub(in crate::pool) trait Spare: Send + Sync {
    /// How long its oldest has been idle; `None` when it has none.
    fn oldest_idle(&self) -> Option<Duration>;

    /// Whose they are; `None` when they are nobody's.
    fn account(&self) -> Option<Arc<Account>>;

    /// Closes the oldest; whether there was one.
    fn close_oldest(&self) -> bool;
}

/// Whether a server has been idle for long enough, how much more its tenant has than its share, and for how
/// long it was idle.
type Rank = (bool, i64, Duration);

/// Pools of idle servers that are nobody's: one for each database whose tenants share them.
#[derive(Default)]
pub(super) struct Spares(Mutex<Vec<Weak<dyn Spare>>>);

impl Spares {
    pub(super) fn join(&self, pool: Weak<dyn Spare>) {
        let mut pools = self.0.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(pool);
    }

    fn all(&self) -> Vec<Arc<dyn Spare>> {
        self.0.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

/// Notes that nobody looks after idle servers any more.
struct Looking(Weak<Budget>);

impl Looking {
    /// Everybody knows it already.
    fn is_told(&mut self) {
        self.0 = Weak::new();
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        if let Some(budget) = self.0.upgrade() {
            budget.ledger().is_swept = false;
        }
    }
}

impl Budget {
    /// Closes an idle server for who waits, if there may be one.
    pub(in crate::pool) fn reclaim(&self) {
        let ledger = self.ledger();
        let is_wanted = ledger.turns.waiting() > 0 || self.over() > 0;
        let may_be = is_wanted && !ledger.is_exhausted;
        drop(ledger);
        if may_be {
            self.reclaim_one();
        }
    }

    /// Closes the idle server that its tenant can best do without; whether there was one.
    pub(super) fn reclaim_one(&self) -> bool {
        let best = self.spare().into_iter().max_by_key(|(rank, _)| *rank);
        let closed = best.is_some_and(|(_, pool)| pool.close_oldest());
        // What comes back from now on is judged; what is too young is looked after.
        self.ledger().is_exhausted = !closed;
        closed
    }

    /// Closes up to so many, at most one of each pool.
    fn reclaim_some(&self, count: usize) {
        let mut spare = self.spare();
        spare.sort_unstable_by_key(|(rank, _)| std::cmp::Reverse(*rank));
        for (_, pool) in spare.into_iter().take(count) {
            pool.close_oldest();
        }
    }

    /// The pools with an idle server that can be taken, and how well they can do without. Tenants without
    /// servers are not looked at, however many there are.
    fn spare(&self) -> Vec<(Rank, Arc<dyn Spare>)> {
        let pools = self.accounts.pools().into_iter().chain(self.spares.all());
        pools
            .filter_map(|pool| Some((self.rank(&*pool)?, pool)))
            .collect()
    }

    fn rank(&self, pool: &dyn Spare) -> Option<Rank> {
        let age = pool.oldest_idle()?;
        let is_aged = age >= AGE_MIN;
        let surplus = match pool.account() {
            Some(account) if self.used() <= self.max() => {
                let held = account.held();
                // One that waits for another of its pools can do without this one.
                if held <= account.guaranteed() && !account.is_waiting() {
                    return None;
                }
                let share = self.share(&account);
                if !is_aged && held <= share {
                    return None;
                }
                i64::from(held) - i64::from(share)
            }
            Some(account) => i64::from(account.held()) - i64::from(account.guaranteed()),
            None => i64::MAX,
        };
        Some((is_aged, surplus, age))
    }

    /// Has idle servers looked after as long as somebody waits: those that are too young now.
    pub(super) fn look_after(self: &Arc<Self>) {
        if std::mem::replace(&mut self.ledger().is_swept, true) {
            return;
        }
        let budget = Arc::downgrade(self);
        let mut looking = Looking(Weak::clone(&budget));
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            let mut pause = LOOK_INTERVAL;
            loop {
                tokio::time::sleep(pause).await;
                let Some(budget) = budget.upgrade() else {
                    return;
                };
                let began = Instant::now();
                let Some(wanted) = budget.wanted() else {
                    looking.is_told();
                    return;
                };
                // What is promised no more, nobody else gives to who waits.
                budget.settle();
                budget.reclaim_some(wanted);
                pause = LOOK_INTERVAL.max(began.elapsed() * LOOK_PART);
            }
        });
    }

    /// How many idle servers could be used; `None` when nobody waits any more.
    fn wanted(&self) -> Option<usize> {
        let mut ledger = self.ledger();
        self.note_scarcity(&mut ledger);
        let over = self.over() as usize;
        let wanted = ledger.turns.waiting().max(over).min(CLOSED_MAX);
        ledger.is_swept = wanted > 0;
        (wanted > 0).then_some(wanted)
    }
}
