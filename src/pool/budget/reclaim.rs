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

/// All pools that may have some.
#[derive(Default)]
pub(super) struct Spares(Mutex<Vec<Weak<dyn Spare>>>);

impl Spares {
    pub(super) fn join<T: Spare + 'static>(&self, pool: &Arc<T>) {
        let mut pools = self.0.lock();
        if pools.len() == pools.capacity() {
            pools.retain(|pool| pool.strong_count() > 0);
        }
        let pool: Weak<T> = Arc::downgrade(pool);
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
        if !self.ledger().is_exhausted {
            self.reclaim_one();
        }
    }

    /// Closes the idle server that its tenant can best do without; whether there was one.
    pub(super) fn reclaim_one(&self) -> bool {
        let is_over = self.used() > self.max();
        let mut found = None;
        let mut has_more = false;
        for pool in self.spares.all() {
            let Some(age) = pool.oldest_idle() else {
                continue;
            };
            let is_aged = age >= AGE_MIN;
            let surplus = match pool.account() {
                Some(account) if !is_over => {
                    let held = account.held();
                    if held <= account.guaranteed() {
                        continue;
                    }
                    let share = self.share(&mut self.ledger(), &account);
                    if !is_aged && held <= share {
                        has_more = true;
                        continue;
                    }
                    i64::from(held) - i64::from(share)
                }
                Some(account) => i64::from(account.held()) - i64::from(account.guaranteed()),
                None => i64::MAX,
            };
            let rank = (is_aged, surplus, age);
            if found.as_ref().is_none_or(|(best, _)| rank > *best) {
                found = Some((rank, pool));
            }
        }
        let closed = found.is_some_and(|(_, pool)| pool.close_oldest());
        if !closed && !has_more {
            self.ledger().is_exhausted = true;
        }
        closed
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
                for _ in 0..wanted {
                    if !budget.reclaim_one() {
                        break;
                    }
                }
                pause = LOOK_INTERVAL.max(began.elapsed() * LOOK_PART);
            }
        });
    }

    /// How many idle servers could be used; `None` when nobody waits any more.
    fn wanted(&self) -> Option<usize> {
        let mut ledger = self.ledger();
        let over = self.used().saturating_sub(self.max()) as usize;
        let wanted = ledger.turns.waiting().max(over).min(CLOSED_MAX);
        ledger.is_swept = wanted > 0;
        (wanted > 0).then_some(wanted)
    }
}
