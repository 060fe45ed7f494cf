//! What restrains the sessions of each key.

use super::{
    forgetful::Forgetful,
    gate::{Entry, Slot},
    limiter::{Limiter, TRANSACTIONS},
    meter::Meter,
    refusals::{self, Limit, Whose},
};
use crate::{
    tenant::{KeyId, KeyName, Tenant, TenantId},
    wire::Refusal,
};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A client that is early waits at most so long; one that would wait longer is refused.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a session waits for.
#[derive(Debug, Default)]
pub struct Awaited(AtomicU8);

impl Awaited {
    /// Nothing.
    const NOTHING: u8 = 0;
    /// A rate.
    const TIME: u8 = 1;
    /// A place in a gate.
    const KEY: u8 = 2;
    const TENANT: u8 = 3;
    /// A place among the statements that run on a server.
    const SERVER: u8 = 4;

    /// Waits for a place among the statements that run on a server, until what this returns is dropped.
    pub fn await_running(&self) -> Awaiting<'_> {
        self.await_for(Self::SERVER)
    }

    /// Whether it waits for anything.
    pub fn is_any(&self) -> bool {
        self.0.load(Relaxed) != Self::NOTHING
    }

    fn await_for(&self, what: u8) -> Awaiting<'_> {
        self.0.store(what, Relaxed);
        Awaiting(self)
    }
}

/// Nothing is awaited when this is dropped.
#[must_use = "nothing is awaited when this is dropped"]
#[derive(Debug)]
pub struct Awaiting<'a>(&'a Awaited);

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.0.0.store(Awaited::NOTHING, Relaxed);
    }
}

/// The places of a transaction that runs.
#[must_use = "the places are free again when this is dropped"]
#[derive(Debug)]
pub struct Slots {
    _key: Option<Slot>,
    _tenant: Option<Slot>,
}

/// What restrains the sessions of one key: its own limits and its tenant's.
#[derive(Debug)]
pub struct Restraints {
    key_id: KeyId,
    key: Limiter,
    tenant: Arc<Limiter>,
    /// Whether a transaction is limited in any way.
    is_on: AtomicBool,
    /// How often that has begun.
    times_on: AtomicU32,
    started: Instant,
}

impl Restraints {
    fn new(key_id: KeyId, tenant: Arc<Limiter>, started: Instant) -> Self {
        Self {
            key_id,
            key: Limiter::default(),
            tenant,
            is_on: AtomicBool::new(false),
            times_on: AtomicU32::new(0),
            started,
        }
    }

    /// Whether a transaction is limited in any way.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    /// How often that has begun: what was done before is charged to nobody.
    pub fn times_on(&self) -> u32 {
        self.times_on.load(Relaxed)
    }

    /// Takes the limits of a tenant and its key over. They hold at once: who waits goes on where there is
    /// room now, and who runs stays.
    pub fn follow(&self, tenant: &Tenant) {
        let now = self.now();
        let limits = &tenant.limits;
        let key = tenant.keys.iter().find(|key| key.id == self.key_id);
        let caps = key.map(|key| key.caps).unwrap_or_default();
        self.tenant.max_waiting.store(limits.max_waiting, Relaxed);
        self.tenant.follow(&limits.caps, now);
        self.key.follow(&caps, now);
        let is_on = limits.caps.restrains_transactions()
            || caps.restrains_transactions()
            || tenant.terms.restrains_transactions();
        if !self.is_on.swap(is_on, Relaxed) && is_on {
            self.times_on.fetch_add(1, Relaxed);
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn limiters(&self) -> [(Whose, &Limiter); 2] {
        [(Whose::Key, &self.key), (Whose::Tenant, &self.tenant)]
    }

    /// Counts a login; how long it has to wait.
    ///
    /// # Errors
    /// 53400, when that were too long; it is not counted then.
    pub fn login(&self) -> Result<Duration, Box<Refusal>> {
        self.take(Limit::Logins, 1, |limiter| &limiter.logins)
    }

    /// Takes so much of the key's and the tenant's; the longer of the two waits.
    fn take(
        &self,
        limit: Limit,
        amount: u64,
        meter: impl Fn(&Limiter) -> &Meter,
    ) -> Result<Duration, Box<Refusal>> {
        let now = self.now();
        let mut longest = Duration::ZERO;
        for (whose, limiter) in self.limiters() {
            match meter(limiter).take(amount, now, PATIENCE) {
                Ok(wait) => longest = longest.max(wait),
                Err(wait) => {
                    if whose == Whose::Tenant {
                        meter(&self.key).give_back(amount);
                    }
                    let value = meter(limiter).limit().unwrap_or_default();
                    return Err(Box::new(refusals::too_early(limit, whose, value, wait)));
                }
            }
        }
        if !longest.is_zero() {
            limit.waited();
        }
        Ok(longest)
    }

    /// Takes a transaction of all its rates; the longest of the waits.
    fn take_transaction(&self) -> Result<(Unused<'_>, Duration), Box<Refusal>> {
        let mut unused = Unused {
            restraints: self,
            taken: 0,
        };
        let mut longest = Duration::ZERO;
        for (limit, meter) in TRANSACTIONS {
            longest = longest.max(self.take(limit, 1, meter)?);
            unused.taken += 1;
        }
        Ok((unused, longest))
    }

    /// Lets a transaction begin: waits until rates allow it, and until there are places for it; without a
    /// `wait_max` not for places: one that is beyond the limit has none.
    ///
    /// # Errors
    /// 53400 when a rate had it wait for longer than a second; 53300 when too many wait already, or no
    /// place became free within `wait_max`.
    ///
    /// # Cancel safety
    /// Cancel safe: the place in the queue is given up, and what was taken of the rates.
    pub async fn admit(
        &self,
        wait_max: Option<Duration>,
        awaited: &Awaited,
    ) -> Result<Slots, Box<Refusal>> {
        // What was used before comes first: it takes nothing.
        let debt = self.take(Limit::Bytes, 0, |limiter| &limiter.bytes)?;
        let (unused, early) = self.take_transaction()?;
        let wait = debt.max(early);
        if !wait.is_zero() {
            let _awaiting = awaited.await_for(Awaited::TIME);
            tokio::time::sleep(wait).await;
        }
        let mut since = None;
        let key = self.place(Whose::Key, (&mut since, wait_max), awaited);
        let key = key.await?;
        let tenant = self.place(Whose::Tenant, (&mut since, wait_max), awaited);
        let tenant = tenant.await?;
        unused.begins();
        Ok(Slots {
            _tenant: tenant,
            _key: key,
        })
    }

    async fn place(
        &self,
        whose: Whose,
        (since, wait_max): (&mut Option<Instant>, Option<Duration>),
        awaited: &Awaited,
    ) -> Result<Option<Slot>, Box<Refusal>> {
        let (gate, what) = match whose {
            Whose::Key => (&self.key.gate, Awaited::KEY),
            Whose::Tenant => (&self.tenant.gate, Awaited::TENANT),
        };
        let turn = match gate.enter() {
            Entry::Free => return Ok(None),
            Entry::Slot(slot) => return Ok(Some(slot)),
            Entry::Turn(turn) => turn,
        };
        let Some(wait_max) = wait_max else {
            return Ok(None);
        };
        let Some(_seat) = Seat::take(&self.tenant) else {
            let limit = self.tenant.max_waiting.load(Relaxed);
            let refusal = refusals::no_turn(limit, (whose, gate.limit()));
            return Err(Box::new(refusal));
        };
        Limit::ConcurrentQueries.waited();
        let _awaiting = awaited.await_for(what);
        let left = wait_max.saturating_sub(since.get_or_insert_with(Instant::now).elapsed());
        match tokio::time::timeout(left, turn).await {
            Ok(slot) => Ok(Some(slot)),
            Err(_elapsed) => {
                let limit = gate.limit().unwrap_or_default();
                Err(Box::new(refusals::no_place(whose, limit, wait_max)))
            }
        }
    }

    /// Transactions of the tenant that run; `None` where nobody counts them.
    pub fn running(&self) -> Option<u32> {
        self.tenant.gate.running()
    }

    /// Transactions that the tenant's hour has not got back yet; `None` where nobody counts them.
    pub fn used_of_hour(&self) -> Option<u64> {
        self.tenant.hourly.used(self.now())
    }

    /// Charges what a transaction has used beyond what it took before.
    pub fn charge(&self, transactions: u64, bytes: u64) {
        let now = self.now();
        for (_, limiter) in self.limiters() {
            if transactions > 0 {
                for (_, meter) in TRANSACTIONS {
                    meter(limiter).charge(transactions, now);
                }
            }
            limiter.bytes.charge(bytes, now);
        }
    }

    /// Gives back a transaction that was let in and has not begun.
    pub fn give_back(&self) {
        drop(Unused {
            restraints: self,
            taken: TRANSACTIONS.len(),
        });
    }

    /// What to tell a client that waits for that; `None` when it does not wait for others.
    pub fn explain(&self, awaited: &Awaited) -> Option<String> {
        let (whose, limiter): (_, &Limiter) = match awaited.0.load(Relaxed) {
            Awaited::KEY => (Whose::Key, &self.key),
            Awaited::TENANT => (Whose::Tenant, &self.tenant),
            _ => return None,
        };
        Some(refusals::waiting(whose, limiter.gate.limit()?))
    }
}

/// One transaction of so many of its rates, which is given back when this is dropped: it has not begun.
struct Unused<'a> {
    restraints: &'a Restraints,
    taken: usize,
}

impl Unused<'_> {
    fn begins(mut self) {
        self.taken = 0;
    }
}

impl Drop for Unused<'_> {
    fn drop(&mut self) {
        for (_, meter) in TRANSACTIONS.into_iter().take(self.taken) {
            for (_, limiter) in self.restraints.limiters() {
                meter(limiter).give_back(1);
            }
        }
    }
}

/// A client among those that wait.
struct Seat<'a>(&'a Limiter);

impl<'a> Seat<'a> {
    fn take(limiter: &'a Limiter) -> Option<Self> {
        let max = limiter.max_waiting.load(Relaxed);
        let take = |taken: u32| (taken < max).then_some(taken + 1);
        let taken = limiter.waiting.fetch_update(Relaxed, Relaxed, take);
        taken.ok().map(|_| Self(limiter))
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// Those of all tenants and keys that are here, or were a moment ago.
#[derive(Debug)]
pub struct Limiters {
    tenants: Mutex<Forgetful<TenantId, Arc<Limiter>>>,
    keys: Mutex<Forgetful<KeyName, Arc<Restraints>>>,
    started: Instant,
}

impl Default for Limiters {
    fn default() -> Self {
        Self {
            tenants: Mutex::default(),
            keys: Mutex::default(),
            started: Instant::now(),
        }
    }
}

impl Limiters {
    /// What restrains the sessions of a tenant's key.
    pub fn of(&self, tenant: &Tenant, key: &KeyId) -> Arc<Restraints> {
        let restraints = self.find(&tenant.id, key);
        restraints.follow(tenant);
        restraints
    }

    fn find(&self, tenant: &TenantId, key: &KeyId) -> Arc<Restraints> {
        let mut keys = self.keys.lock();
        let name = (tenant.clone(), key.clone());
        if let Some(known) = keys.get(&name) {
            return Arc::clone(known);
        }
        let now = self.started.elapsed();
        keys.forget(|known| Arc::strong_count(known) == 1 && known.key.is_idle(now));
        let mut tenants = self.tenants.lock();
        tenants.forget(|known| Arc::strong_count(known) == 1 && known.is_idle(now));
        let tenant = Arc::clone(tenants.entry(tenant.clone()).or_default());
        let known = Arc::new(Restraints::new(key.clone(), tenant, self.started));
        keys.insert(name, Arc::clone(&known));
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restraints(change: impl FnOnce(&Limiter)) -> Restraints {
        let tenant = Arc::<Limiter>::default();
        change(&tenant);
        Restraints::new(KeyId::new("k").unwrap(), tenant, Instant::now())
    }

    #[tokio::test]
    async fn a_transaction_that_gets_no_place_is_not_counted_by_the_rate() {
        let restraints = restraints(|tenant| {
            tenant.transactions.set(Some(2), Duration::ZERO);
            tenant.hourly.set(Some(2), Duration::ZERO);
            tenant.gate.set(Some(1));
        });
        let awaited = Awaited::default();
        let held = restraints
            .admit(Some(Duration::ZERO), &awaited)
            .await
            .unwrap();
        for _ in 0..10 {
            // Nobody may wait.
            let refused = restraints
                .admit(Some(Duration::ZERO), &awaited)
                .await
                .unwrap_err();
            assert_eq!(refused.sqlstate, crate::wire::SqlState::TOO_MANY);
        }
        restraints.tenant.max_waiting.store(1, Relaxed);
        for _ in 0..10 {
            let mut waiting = Box::pin(restraints.admit(Some(Duration::from_secs(9)), &awaited));
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
        }
        drop(held);
        drop(
            restraints
                .admit(Some(Duration::ZERO), &awaited)
                .await
                .unwrap(),
        );
        assert!(!awaited.is_any());
    }

    #[tokio::test]
    async fn what_the_hour_refuses_takes_nothing_of_the_second() {
        let restraints = restraints(|tenant| {
            tenant.transactions.set(Some(2), Duration::ZERO);
            tenant.hourly.set(Some(1), Duration::ZERO);
        });
        let awaited = Awaited::default();
        drop(restraints.admit(None, &awaited).await.unwrap());
        for _ in 0..10 {
            let refused = restraints.admit(None, &awaited).await.unwrap_err();
            let says = "transactions_per_hour of the tenant, 1,";
            assert!(refused.message.contains(says), "{refused:?}");
        }
        restraints.tenant.hourly.set(None, Duration::ZERO);
        let wait = restraints.take_transaction().unwrap().1;
        assert_eq!(wait, Duration::ZERO);
    }

    #[test]
    fn who_is_gone_is_forgotten_and_who_owes_is_not() {
        let limiters = Limiters::default();
        let id = |n: usize| TenantId::new(&format!("t{n}")).unwrap();
        let key = KeyId::new("k").unwrap();
        let debtor = limiters.find(&id(0), &key);
        debtor.key.logins.set(Some(1), Duration::ZERO);
        debtor.key.logins.charge(100, Duration::from_secs(1));
        drop(debtor);
        // Nor is who has used a part of its hour.
        let user = limiters.find(&id(1000), &key);
        user.tenant.hourly.set(Some(1000), Duration::ZERO);
        user.tenant.hourly.charge(2, user.now());
        drop(user);
        let held = limiters.find(&id(1), &key);
        for n in 2..1000 {
            limiters.find(&id(n), &key);
        }
        assert!(limiters.keys.lock().len() < 200);
        assert!(limiters.tenants.lock().len() < 200);
        assert!(Arc::ptr_eq(&held, &limiters.find(&id(1), &key)));
        let debtor = limiters.find(&id(0), &key);
        assert_eq!(debtor.key.logins.limit(), Some(1));
        let user = limiters.find(&id(1000), &key);
        assert_eq!(user.tenant.hourly.limit(), Some(1000));
    }
}
