//! What a budget knows of one tenant.

use super::turns::Party;
use crate::tenant::{Limits, TenantId};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    },
};

/// A tenant's part in a budget: what it is promised, and what it has.
#[derive(Debug)]
pub(in crate::pool) struct Account {
    id: u64,
    weight: AtomicU32,
    guaranteed: AtomicU32,
    held: AtomicU32,
    waiting: AtomicU32,
}

impl Account {
    /// Places that it has, of idle servers included.
    pub(super) fn held(&self) -> u32 {
        self.held.load(SeqCst)
    }

    /// Places that nobody takes from it.
    pub(super) fn guaranteed(&self) -> u32 {
        self.guaranteed.load(SeqCst)
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
        self.held.fetch_add(1, SeqCst);
    }

    pub(super) fn loses(&self) {
        self.held.fetch_sub(1, SeqCst);
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
        self.guaranteed.store(limits.guaranteed_servers, SeqCst);
    }
}

/// The accounts of a budget, as long as somebody uses them.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    by_tenant: Mutex<HashMap<TenantId, Weak<Account>>>,
    next_id: AtomicU64,
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
            weight: AtomicU32::new(limits.weight.max(1)),
            guaranteed: AtomicU32::new(limits.guaranteed_servers),
            held: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
        });
        all.insert(tenant.clone(), Arc::downgrade(&account));
        account
    }

    /// The weights of all that have or want a place.
    pub(super) fn weights(&self) -> u64 {
        let all = self.by_tenant.lock();
        let accounts = all.values().filter_map(Weak::upgrade);
        let active = accounts.filter(|it| it.held() > 0 || it.is_waiting());
        active.map(|it| u64::from(it.party().weight)).sum()
    }
}
