//! The slots of a database: server connections that many tenants use in turn.
//!
//! It stands below the tenants' own pools, which keep no idle server then: what a tenant gives back
//! is here, still bound to it. Who comes again finds it so, and nothing is to be done; who comes
//! first takes the one that was idle longest, which is reset and bound in one round trip.

use super::{
    Budget,
    budget::{Account, Grant, Source, Spare, Verdict},
    dialer::{Pooled, expiry},
    idle_slot::{Idle, Made},
    inside::{Confirmed, confirmed, endpoint},
    surveyed::Surveyed,
};
use crate::{
    tenant::{Cluster, Scope, SlotKey, Tenant, TenantId, Timeouts},
    upstream::{Endpoint, Server, Settings, Slot, SlotPlace, UpstreamError, Welcome},
};
use arc_swap::ArcSwapOption;
use moka::sync::Cache;
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tokio::{
    runtime,
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
};

/// A slot that was idle for less is not taken from its tenant while a new one can be made.
const FRESH: Duration = Duration::from_secs(1);

/// For so long after one could not be made, because somebody holds what it needs, none is made.
const HELD: Duration = Duration::from_secs(2);

/// Who waits meanwhile for one to be given back looks again after this.
const RETRY: Duration = Duration::from_millis(100);

/// What all tenants know that use slots with the same privileges.
pub(super) struct Common {
    /// What slots said of themselves at login.
    pub(super) welcome: Arc<ArcSwapOption<Welcome>>,
    /// What one made of settings.
    pub(super) confirmed: Cache<Arc<Settings>, Confirmed>,
    /// What functions may leave.
    pub(super) surveyed: Arc<Surveyed>,
}

/// The slots of a database.
pub(super) struct SlotPool {
    cluster: Arc<Cluster>,
    place: SlotPlace,
    budget: Arc<Budget>,
    max: usize,
    /// One permit for each slot that may be lent.
    turns: Arc<Semaphore>,
    made: Arc<AtomicUsize>,
    /// Those given back last are last.
    idle: Mutex<VecDeque<Idle>>,
    /// Told when one is given back.
    returned: Notify,
    /// When making one has failed last for a reason that passes.
    held_at: Mutex<Option<Instant>>,
    writers: Common,
    readers: Common,
}

/// A lent slot's place.
#[derive(Debug)]
pub(super) struct Lent {
    slots: Arc<SlotPool>,
    pub(super) made: Made,
    // Last: whoever gets the permit finds the place free.
    _turn: OwnedSemaphorePermit,
}

/// What to do for who has its turn.
enum Step {
    /// Take this one from its tenant.
    Take(Box<Idle>),
    /// Make one.
    Make(Made),
    /// Wait: others are just being closed.
    Wait,
}

impl std::fmt::Debug for SlotPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlotPool")
            .field("database", &self.place.database)
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

impl Common {
    fn new() -> Self {
        Self {
            welcome: Arc::default(),
            confirmed: confirmed(),
            surveyed: Arc::default(),
        }
    }
}

impl SlotPool {
    /// None is made yet.
    ///
    /// # Errors
    /// When the cluster's TLS files can't be used.
    pub(super) fn new(
        cluster: &Arc<Cluster>,
        database: &str,
        key: &Arc<SlotKey>,
        budget: &Arc<Budget>,
    ) -> Result<Arc<Self>, UpstreamError> {
        let max = (key.connections as usize).clamp(1, Semaphore::MAX_PERMITS);
        let pool = Arc::new(Self {
            cluster: Arc::clone(cluster),
            place: SlotPlace {
                endpoint: endpoint(cluster, &cluster.primary)?,
                database: database.into(),
                key: Arc::clone(key),
            },
            budget: Arc::clone(budget),
            max,
            turns: Arc::new(Semaphore::new(max)),
            made: Arc::default(),
            idle: Mutex::default(),
            returned: Notify::new(),
            held_at: Mutex::default(),
            writers: Common::new(),
            readers: Common::new(),
        });
        budget.join(&pool);
        Ok(pool)
    }

    /// Whether all slots are lent: who comes now waits.
    pub(super) fn is_used_up(&self) -> bool {
        self.turns.available_permits() == 0
    }

    /// Whether it is this database's, reached and opened like this.
    pub(super) fn is_for(&self, cluster: &Arc<Cluster>, database: &str, key: &SlotKey) -> bool {
        *self.place.database == *database
            && (Arc::ptr_eq(&self.cluster, cluster) || *self.cluster == **cluster)
            && *self.place.key == *key
    }

    pub(super) fn endpoint(&self) -> Arc<Endpoint> {
        Arc::clone(&self.place.endpoint)
    }

    pub(super) fn common(&self, scope: Scope) -> &Common {
        match scope {
            Scope::ReadWrite => &self.writers,
            Scope::ReadOnly => &self.readers,
        }
    }

    /// How many of them one tenant may have at a time: never all, unless there are only two. It can hold
    /// them in open transactions, and there are others.
    pub(super) fn share(&self, scope: Scope) -> usize {
        let part = match scope {
            Scope::ReadWrite => self.max / 2,
            Scope::ReadOnly => self.max / 4,
        };
        part.max(1)
    }

    /// How many serve nobody just now.
    pub(super) fn idle(&self) -> usize {
        self.idle.lock().len()
    }

    /// A slot that serves this tenant. Who comes first gets the first that is free.
    ///
    /// # Errors
    /// [`UpstreamError`]; [`UpstreamError::Budget`] where the cluster has no place for one. No time
    /// limit of its own while it waits for its turn.
    ///
    /// # Cancel safety
    /// Cancel safe: the turn is given up, and what was being bound is closed.
    pub(super) async fn take(
        self: &Arc<Self>,
        tenant: &Tenant,
        (scope, account): (Scope, &Arc<Account>),
    ) -> Result<Pooled, UpstreamError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|_closed| UpstreamError::Login("the slots are closed"))?;
        while let Some(mut own) = self.take_own(&tenant.id, scope) {
            if own.server.binding.as_ref().is_none_or(|b| !b.is_bound) {
                // It was reset, or may have been.
                if let Some(own) = self.hand_over(own, tenant).await? {
                    return Ok(self.lend(own, turn, account));
                }
            } else if own.is_usable().await {
                return Ok(self.lend(own, turn, account));
            } else {
                // It may have told of a changed setting: the next client hears it from a new server.
                self.common(scope).welcome.store(None);
            }
        }
        loop {
            match self.next(scope, account) {
                Step::Take(idle) => {
                    if let Some(idle) = self.hand_over(*idle, tenant).await? {
                        return Ok(self.lend(idle, turn, account));
                    }
                }
                Step::Make(made) => match self.make(made, tenant, (scope, account)).await {
                    Ok(Some(idle)) => return Ok(self.lend(idle, turn, account)),
                    Ok(None) => {}
                    // Those that there are serve all the same.
                    Err(error) if is_held(&error) && self.made.load(SeqCst) > 0 => {
                        tracing::warn!(%error, "a slot can't be made now");
                        *self.held_at.lock() = Some(Instant::now());
                    }
                    Err(error) => return Err(error),
                },
                Step::Wait if self.is_held() => {
                    let returned = self.returned.notified();
                    drop(tokio::time::timeout(RETRY, returned).await);
                }
                Step::Wait => return Err(UpstreamError::Budget),
            }
        }
    }

    /// Takes a slot back that its tenant has given up: it must be clean.
    pub(super) fn give_back(mut pooled: Pooled) {
        if !pooled.place.is_scarce() {
            pooled.place.rests();
            Self::keep(pooled);
            return;
        }
        let Some(source) = pooled.source() else {
            return;
        };
        let budget = Arc::clone(pooled.place.budget());
        match budget.judge(&mut pooled.place, source) {
            Verdict::Keep => Self::keep(pooled),
            Verdict::Close => drop(pooled),
            Verdict::Hand(waiter) | Verdict::Move(waiter) if waiter.source() == source => {
                drop(waiter.grant(Grant::Server(Box::new(pooled))));
            }
            Verdict::Hand(waiter) | Verdict::Move(waiter) => {
                drop(waiter.grant(Grant::Place(pooled.close())));
            }
        }
    }

    /// It serves nobody now.
    fn keep(pooled: Pooled) {
        let Pooled {
            server,
            welcome,
            expires,
            mut place,
            lent,
            ..
        } = pooled;
        let (Some(lent), Ok(lane)) = (lent, runtime::Handle::try_current()) else {
            return;
        };
        let Lent { slots, made, _turn } = lent;
        place.assign(None);
        slots.idle.lock().push_back(Idle {
            server,
            welcome,
            expires,
            place,
            made,
            lane: Some(lane.id()),
        });
        slots.returned.notify_one();
    }

    fn is_held(&self) -> bool {
        let at = *self.held_at.lock();
        at.is_some_and(|at| at.elapsed() < HELD)
    }

    /// Closes those that were idle for too long, or are too old.
    pub(super) fn close_stale(&self, idle_max: Option<Duration>) {
        let limit = idle_max.or(Timeouts::default().server_idle);
        let is_stale = |idle: &Idle| {
            let since = idle.server.returned_at.elapsed();
            limit.is_some_and(|limit| since >= limit) || idle.is_old()
        };
        self.idle.lock().retain(|idle| !is_stale(idle));
    }

    /// The one that served this tenant last.
    fn take_own(&self, tenant: &TenantId, scope: Scope) -> Option<Idle> {
        let mut idle = self.idle.lock();
        let at = idle.iter().rposition(|idle| {
            let identity = idle.server.identity();
            identity.tenant == *tenant && identity.scope == scope
        })?;
        idle.remove(at)
    }

    fn next(&self, scope: Scope, account: &Account) -> Step {
        let mut idle = self.idle.lock();
        let oldest = idle
            .iter()
            .position(|idle| idle.server.identity().scope == scope);
        let is_fresh = |at: usize| {
            let idle = idle.get(at);
            idle.is_some_and(|idle| idle.server.returned_at.elapsed() < FRESH)
        };
        let more = |made: usize| (made < self.max).then_some(made + 1);
        let is_held = self.is_held();
        let can_make = || !is_held && self.made.fetch_update(SeqCst, SeqCst, more).is_ok();
        match oldest {
            Some(at) if is_fresh(at) && self.budget.has_room(account) && can_make() => {
                Step::Make(Made(Arc::clone(&self.made)))
            }
            Some(at) => match idle.remove(at) {
                Some(idle) => Step::Take(Box::new(idle)),
                None => Step::Wait,
            },
            None if can_make() => Step::Make(Made(Arc::clone(&self.made))),
            None if is_held => Step::Wait,
            None => {
                // One with other privileges goes for it.
                drop(idle.pop_front());
                if can_make() {
                    Step::Make(Made(Arc::clone(&self.made)))
                } else {
                    Step::Wait
                }
            }
        }
    }

    /// Gives a slot to another tenant; `None` when it can only be closed.
    async fn hand_over(
        &self,
        mut idle: Idle,
        tenant: &Tenant,
    ) -> Result<Option<Idle>, UpstreamError> {
        if !idle.is_usable().await {
            return Ok(None);
        }
        let Idle {
            server,
            welcome,
            expires,
            place,
            made,
            lane,
        } = idle;
        let Some(slot) = server.into_slot() else {
            return Ok(None);
        };
        match bind(slot, tenant).await {
            Ok(server) => Ok(Some(Idle {
                server,
                welcome,
                expires,
                place,
                made,
                lane,
            })),
            // It is the key, not the slot.
            Err(UpstreamError::Refused { sqlstate, message }) if sqlstate == "28000" => {
                Err(UpstreamError::Refused { sqlstate, message })
            }
            Err(error) => {
                tracing::debug!(tenant = %tenant.id, %error, "a slot could not be reset");
                Ok(None)
            }
        }
    }

    /// A new one, or one that was given back while there was no place for a new one; `None`: one is idle
    /// again.
    async fn make(
        self: &Arc<Self>,
        made: Made,
        tenant: &Tenant,
        (scope, account): (Scope, &Arc<Account>),
    ) -> Result<Option<Idle>, UpstreamError> {
        let granted = tokio::select! {
            biased;
            granted = self.budget.take(account, Source::scoped(self, scope)) => granted,
            () = self.returned.notified() => return Ok(None),
        };
        let mut place = match granted.ok_or(UpstreamError::Budget)? {
            Grant::Place(place) => place,
            Grant::Server(pooled) => {
                drop(made);
                let Some(mut idle) = Idle::of(*pooled) else {
                    return Ok(None);
                };
                let is_own = idle.server.identity().tenant == tenant.id;
                let is_bound =
                    |server: &Server| server.binding.as_ref().is_some_and(|b| b.is_bound);
                return if is_own && is_bound(&idle.server) {
                    Ok(idle.is_usable().await.then_some(idle))
                } else {
                    self.hand_over(idle, tenant).await
                };
            }
        };
        let turn = self.budget.connects().acquire().await;
        let dialled = Slot::dial(&self.place, scope).await;
        drop(turn);
        let result = if dialled.is_ok() { "ok" } else { "failed" };
        metrics::counter!("pgusher_upstream_connects_total", "result" => result).increment(1);
        let (slot, welcome) = dialled?;
        place.serves(slot.pid());
        Ok(Some(Idle {
            server: bind(slot, tenant).await?,
            welcome: Arc::new(welcome),
            expires: expiry(Timeouts::default().server_lifetime),
            place,
            made,
            lane: Some(runtime::Handle::current().id()),
        }))
    }

    fn lend(
        self: &Arc<Self>,
        mut idle: Idle,
        turn: OwnedSemaphorePermit,
        account: &Arc<Account>,
    ) -> Pooled {
        idle.place.assign(Some(account));
        Pooled {
            server: idle.server,
            welcome: idle.welcome,
            expires: idle.expires,
            asked: 0,
            own_pid: None,
            place: idle.place,
            lent: Some(Lent {
                slots: Arc::clone(self),
                made: idle.made,
                _turn: turn,
            }),
        }
    }
}

/// Whether a slot could not be made because somebody else holds what it needs, or has the last of it
/// (`ctl.lease`).
fn is_held(error: &UpstreamError) -> bool {
    let UpstreamError::Refused { sqlstate, .. } = error else {
        return false;
    };
    // The last one: two have changed the same row of a catalogue.
    ["55P03", "40P01", "53300", "XX000"].contains(&sqlstate.as_str())
}

async fn bind(slot: Slot, tenant: &Tenant) -> Result<Server, UpstreamError> {
    let bound = slot.bind(tenant).await;
    let result = if bound.is_ok() { "ok" } else { "failed" };
    metrics::counter!("pgusher_slot_binds_total", "result" => result).increment(1);
    bound
}

impl Spare for SlotPool {
    fn oldest_idle(&self) -> Option<Duration> {
        let idle = self.idle.lock();
        idle.front().map(|idle| idle.server.returned_at.elapsed())
    }

    fn account(&self) -> Option<Arc<Account>> {
        None
    }

    fn close_oldest(&self) -> bool {
        let oldest = self.idle.lock().pop_front();
        oldest.is_some()
    }
}

impl Pooled {
    /// Who could use this slot at once.
    fn source(&self) -> Option<Source> {
        let lent = self.lent.as_ref()?;
        Some(Source::scoped(&lent.slots, self.server.identity().scope))
    }
}
