//! What a budget knows of one tenant.

use super::turns::Party;
use crate::tenant::{Limits, TenantId};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
};

/// Places that are promised to tenants and that they don't have.
#[derive(Debug, Clone, Default)]
struct Owed(Arc<AtomicI64>);

impl Owed {
    fn changed(&self, before: Stock, after: Stock) {
        let change = i64::from(after.missing()) - i64::from(before.missing());
        if change != 0 {
            self.0.fetch_add(change, SeqCst);
        }
    }
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

/// A tenant's part in a budget: what it is promised, and what it has.
#[derive(Debug)]
pub(in crate::pool) struct Account {
    id: u64,
    weight: AtomicU32,
    stock: AtomicU64,
    owed: Owed,
    waiting: AtomicU32,
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

    pub(super) fn party(&self) -> Party {
        Party {
            id: self.id,
            weight: self.weight.load(SeqCst),
            is_promised: self.guaranteed() > 0,
        }
    }

    pub(super) fn gains(&self) {
        self.change(|stock| Stock {
            held: stock.held + 1,
            ..stock
        });
    }

    pub(super) fn loses(&self) {
        self.change(|stock| Stock {
            held: stock.held.saturating_sub(1),
            ..stock
        });
    }

    fn stock(&self) -> Stock {
        Stock::unpack(self.stock.load(SeqCst))
    }

    fn change(&self, change: impl Fn(Stock) -> Stock) {
        let next = |word| Some(change(Stock::unpack(word)).pack());
        if let Ok(before) = self.stock.fetch_update(SeqCst, SeqCst, next) {
            let before = Stock::unpack(before);
            self.owed.changed(before, change(before));
        }
    }

    pub(super) fn begins_to_wait(&self) {
        self.waiting.fetch_add(1, SeqCst);
    }

    pub(super) fn stops_waiting(&self) {
        self.waiting.fetch_sub(1, SeqCst);
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
    by_tenant: Mutex<HashMap<TenantId, Weak<Account>>>,
    next_id: AtomicU64,
    owed: Owed,
}

impl Accounts {
    /// A tenant's, with these limits from now on.
    pub(super) fn of(&self, tenant: &TenantId, limits: &Limits) -> Arc<Account> {
        let mut all = self.by_tenant.lock();
        if let Some(account) = all.get(tenant).and_then(Weak::upgrade) {
            account.follow(limits);
            return account;
        }
        if all.len() == all.capacity() {
            all.retain(|_, account| account.strong_count() > 0);
        }
        let account = Arc::new(Account {
            id: self.next_id.fetch_add(1, SeqCst),
            weight: AtomicU32::new(1),
            stock: AtomicU64::new(0),
            owed: self.owed.clone(),
            waiting: AtomicU32::new(0),
        });
        account.follow(limits);
        all.insert(tenant.clone(), Arc::downgrade(&account));
        account
    }

    /// Places that are promised to tenants and that they don't have.
    pub(super) fn owed(&self) -> u32 {
        // Below none for a moment, while two change.
        u32::try_from(self.owed.0.load(SeqCst).max(0)).unwrap_or(u32::MAX)
    }

    /// The weights of all that have or want a place.
    pub(super) fn weights(&self) -> u64 {
        let all = self.by_tenant.lock();
        let accounts = all.values().filter_map(Weak::upgrade);
        let active = accounts.filter(|it| it.held() > 0 || it.is_waiting());
        active.map(|it| u64::from(it.party().weight)).sum()
    }
}
