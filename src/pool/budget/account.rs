//! What a budget knows of one tenant.

use super::{reclaim::Spare, turns::Party};
use crate::{
    limits::Forgetful,
    tenant::{Limits, TenantId},
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
};

/// What is promised to all tenants.
#[derive(Debug, Default)]
struct Promises {
    /// Places that they don't have.
    missing: AtomicI64,
    /// Places that they have.
    kept: AtomicI64,
}

impl Promises {
    fn changed(&self, before: Stock, after: Stock) {
        let add = |sum: &AtomicI64, (before, after): (u32, u32)| {
            if before != after {
                sum.fetch_add(i64::from(after) - i64::from(before), SeqCst);
            }
        };
        add(&self.missing, (before.missing(), after.missing()));
        add(&self.kept, (before.kept(), after.kept()));
    }
}

/// A sum may be below none for a moment, while two change.
fn read(sum: &AtomicI64) -> u32 {
    u32::try_from(sum.load(SeqCst).max(0)).unwrap_or(u32::MAX)
}

/// What a tenant is promised and what it has, in one word: each change knows what it changed.
#[derive(Debug, Clone, Copy)]
struct Stock {
    guaranteed: u32,
    held: u32,
}

impl Stock {
    fn missing(self) -> u32 {
        self.guaranteed.saturating_sub(self.held)
    }

    fn kept(self) -> u32 {
        self.guaranteed.min(self.held)
    }

    fn pack(self) -> u64 {
        u64::from(self.guaranteed) << 32 | u64::from(self.held)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lower half of the word"
    )]
    fn unpack(word: u64) -> Self {
        Self {
            guaranteed: (word >> 32) as u32,
            held: word as u32,
        }
    }
}

/// What is summed up over the accounts of a budget, at each change instead of each time that it is asked for.
#[derive(Debug, Default)]
struct Sums {
    /// The weights of all that have or want a place.
    weights: AtomicU64,
    /// Those that have one: as many as there are places, at most.
    holders: Mutex<HashMap<u64, Weak<Account>>>,
}

/// As what an account is in the sums.
#[derive(Debug, Default)]
struct Counted {
    weight: u64,
    is_holder: bool,
}

/// A tenant's part in a budget: what it is promised, and what it has.
#[derive(Debug)]
pub(in crate::pool) struct Account {
    id: u64,
    weight: AtomicU32,
    stock: AtomicU64,
    promises: Arc<Promises>,
    waiting: AtomicU32,
    counted: Mutex<Counted>,
    sums: Arc<Sums>,
    itself: Weak<Account>,
    /// Its pools that may have idle servers.
    pools: Mutex<Vec<Weak<dyn Spare>>>,
}

impl Account {
    /// Places that it has, of idle servers included.
    pub(super) fn held(&self) -> u32 {
        self.stock().held
    }

    /// Places that nobody takes from it.
    pub(super) fn guaranteed(&self) -> u32 {
        self.stock().guaranteed
    }

    /// Whether it has less than it is promised.
    pub(super) fn is_short(&self) -> bool {
        self.stock().missing() > 0
    }

    /// Whether one of its clients waits for a place.
    pub(in crate::pool) fn is_waiting(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    pub(in crate::pool) fn party(&self) -> Party {
        Party {
            id: self.id,
            weight: self.weight.load(SeqCst),
            is_promised: self.guaranteed() > 0,
        }
    }

    pub(super) fn gains(&self) {
        let (before, _) = self.change(|stock| Stock {
            held: stock.held + 1,
            ..stock
        });
        if before.held == 0 {
            self.recount();
        }
    }

    pub(super) fn loses(&self) {
        let (_, after) = self.change(|stock| Stock {
            held: stock.held.saturating_sub(1),
            ..stock
        });
        if after.held == 0 {
            self.recount();
        }
    }

    fn stock(&self) -> Stock {
        Stock::unpack(self.stock.load(SeqCst))
    }

    /// What it was, and what it is.
    fn change(&self, change: impl Fn(Stock) -> Stock) -> (Stock, Stock) {
        let next = |word| Some(change(Stock::unpack(word)).pack());
        let updated = self.stock.fetch_update(SeqCst, SeqCst, next);
        let (Ok(before) | Err(before)) = updated.map(Stock::unpack).map_err(Stock::unpack);
        let after = change(before);
        self.promises.changed(before, after);
        (before, after)
    }

    pub(super) fn begins_to_wait(&self) {
        if self.waiting.fetch_add(1, SeqCst) == 0 {
            self.recount();
        }
    }

    pub(super) fn stops_waiting(&self) {
        if self.waiting.fetch_sub(1, SeqCst) == 1 {
            self.recount();
        }
    }

    /// Has the sums say what the account is now. Whoever changes it does this afterwards: the last one sees
    /// all changes.
    fn recount(&self) {
        let mut counted = self.counted.lock();
        let is_holder = self.held() > 0;
        let is_active = is_holder || self.is_waiting();
        let weight = is_active.then(|| u64::from(self.weight.load(SeqCst)));
        let before = std::mem::replace(&mut counted.weight, weight.unwrap_or_default());
        self.sums.weights.fetch_add(counted.weight, SeqCst);
        self.sums.weights.fetch_sub(before, SeqCst);
        if counted.is_holder != is_holder {
            counted.is_holder = is_holder;
            let mut holders = self.sums.holders.lock();
            if is_holder {
                holders.insert(self.id, Weak::clone(&self.itself));
            } else {
                holders.remove(&self.id);
            }
        }
    }

    /// Makes a pool of the tenant's known.
    pub(super) fn join(&self, pool: Weak<dyn Spare>) {
        let mut pools = self.pools.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(pool);
    }

    /// Places above this are more than its share, if places of `max` are shared by all tenants that have or
    /// want one, whose weights come to `weights`.
    pub(super) fn share(&self, max: u32, weights: u64) -> u32 {
        let weight = u64::from(self.weight.load(SeqCst));
        let share = u64::from(max) * weight / weights.max(weight).max(1);
        u32::try_from(share).unwrap_or(max)
    }

    fn follow(&self, limits: &Limits) {
        self.weight.store(limits.weight.max(1), SeqCst);
        self.change(|stock| Stock {
            guaranteed: limits.guaranteed_servers,
            ..stock
        });
        self.recount();
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // Nothing is kept for who is gone.
        self.change(|stock| Stock {
            guaranteed: 0,
            ..stock
        });
    }
}

/// The accounts of a budget, as long as somebody uses them.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    by_tenant: Mutex<Forgetful<TenantId, Weak<Account>>>,
    next_id: AtomicU64,
    promises: Arc<Promises>,
    sums: Arc<Sums>,
}

impl Accounts {
    /// A tenant's, with these limits from now on.
    pub(super) fn of(&self, tenant: &TenantId, limits: &Limits) -> Arc<Account> {
        let mut all = self.by_tenant.lock();
        let new = || {
            Arc::new_cyclic(|itself| Account {
                id: self.next_id.fetch_add(1, SeqCst),
                weight: AtomicU32::new(1),
                stock: AtomicU64::new(0),
                promises: Arc::clone(&self.promises),
                waiting: AtomicU32::new(0),
                counted: Mutex::default(),
                sums: Arc::clone(&self.sums),
                itself: Weak::clone(itself),
                pools: Mutex::default(),
            })
        };
        let account = all.shared(tenant, new);
        account.follow(limits);
        account
    }

    /// Places that are promised to tenants: those that they don't have, and those that they have.
    pub(super) fn promised(&self) -> (u32, u32) {
        (read(&self.promises.missing), read(&self.promises.kept))
    }

    /// The weights of all that have or want a place.
    pub(super) fn weights(&self) -> u64 {
        self.sums.weights.load(SeqCst)
    }

    /// The pools of those that have a place.
    pub(super) fn pools(&self) -> Vec<Arc<dyn Spare>> {
        let holders: Vec<_> = self.sums.holders.lock().values().cloned().collect();
        let mut pools = Vec::with_capacity(holders.len());
        for account in holders.iter().filter_map(Weak::upgrade) {
            pools.extend(account.pools.lock().iter().filter_map(Weak::upgrade));
        }
        pools
    }
}
