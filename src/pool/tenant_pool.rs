//! The servers of one tenant and scope.

use super::{
    Home,
    budget::{Account, Spare},
    dialer::Dialer,
    inside::{Confirmed, Inside, Source},
    known::{Known, PinPlace},
    replicas::Replicas,
    split::{KnownBuiltins, Split},
};
use crate::{
    notify::{Bounds, Dial, Hub, Lender},
    tenant::{Cluster, Scope, Tenant, TenantId},
    upstream::{Settings, Statements, Survey, Suspicion, UpstreamError, Welcome},
};
use arc_swap::{ArcSwap, Guard};
use deadpool::managed::{Pool, Timeouts};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// A server of the minimum waits so long for others to be made.
const QUEUE_MAX: Duration = Duration::from_secs(5);

/// How many servers a pool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Occupancy {
    /// Lent.
    pub active: usize,
    /// Not lent.
    pub idle: usize,
    /// Clients that wait for one.
    pub waiting: usize,
}

/// The servers of one tenant and scope.
pub struct TenantPool {
    tenant: TenantId,
    scope: Scope,
    uses_slots: bool,
    home: Arc<Home>,
    pub(super) inside: ArcSwap<Inside>,
    /// Told when `inside` is another.
    pub(super) replaced: Notify,
    /// Shared names of prepared statements.
    pub statements: Statements,
    known: Known,
    hub: OnceLock<Arc<Hub>>,
    split: OnceLock<Box<Split>>,
    builtins: KnownBuiltins,
    pub(super) is_closed: AtomicBool,
}

impl std::fmt::Debug for TenantPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantPool")
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}

impl TenantPool {
    /// An empty pool.
    ///
    /// # Errors
    /// When the cluster's TLS files can't be used.
    pub(super) fn new(
        tenant: &Arc<Tenant>,
        cluster: &Arc<Cluster>,
        source: &Source,
        (scope, builtins): (Scope, KnownBuiltins),
        home: &Arc<Home>,
    ) -> Result<Arc<Self>, UpstreamError> {
        let slots = source.slots.as_ref();
        let surveyed = slots.map(|slots| slots.common(scope).surveyed.clone());
        let pool = Arc::new(Self {
            tenant: tenant.id.clone(),
            scope,
            uses_slots: slots.is_some(),
            home: Arc::clone(home),
            inside: ArcSwap::from_pointee(Inside::new(tenant, cluster, source, scope)?),
            replaced: Notify::new(),
            statements: Statements::default(),
            known: Known::new(surveyed.unwrap_or_default()),
            hub: OnceLock::new(),
            split: OnceLock::new(),
            builtins,
            is_closed: AtomicBool::new(false),
        });
        // Idle slots are not its own.
        if slots.is_none() {
            source.budget.join(&pool);
        }
        Ok(pool)
    }

    /// Whose servers these are.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Where its sessions and servers live.
    pub(super) fn home(&self) -> &Arc<Home> {
        &self.home
    }

    /// With which privileges they are logged in.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// The settings as they stand now.
    pub fn config(&self) -> Arc<Tenant> {
        Arc::clone(&self.inside.load().route.tenant)
    }

    /// The tenant's servers on replicas; `None` where its reads are not split.
    #[inline]
    pub fn replicas(&self) -> Option<Arc<Replicas>> {
        self.inside.load().replicas.clone()
    }

    /// What is known of the tenant's statements, where its reads are split.
    pub fn split(&self) -> &Split {
        self.split
            .get_or_init(|| Box::new(Split::new(self.builtins.clone())))
    }

    /// Whether a server of the primary should be asked what the names in statements are.
    #[inline]
    pub fn is_catalogue_due(&self) -> bool {
        self.inside.load().replicas.is_some() && self.split().is_due(self.shapes())
    }

    /// What names in statements are is to be asked again: it is as old as the survey.
    pub fn age_catalogue(&self) {
        if let Some(split) = self.split.get() {
            split.age();
        }
    }

    /// Who listens for the pool's sessions. Its connection counts against the cluster's budget, not
    /// against `pool_size`.
    pub fn hub(self: &Arc<Self>) -> &Arc<Hub> {
        self.hub.get_or_init(|| {
            let (dials, hears) = (Arc::downgrade(self), Arc::downgrade(self));
            let dial: Dial = Box::new(move || {
                let pool = dials.upgrade();
                Box::pin(async move {
                    let pool = pool.ok_or(UpstreamError::Login("the pool is gone"))?;
                    let route = Arc::clone(&pool.inside.load().route);
                    let pooled = Dialer::dial(route).await?;
                    Ok(Box::new(pooled) as Box<dyn Lender>)
                })
            });
            let hears = move |pid| hears.upgrade().is_some_and(|pool| pool.hears(pid));
            Arc::new(Hub::new(dial, Box::new(hears), Bounds::default()))
        })
    }

    /// What may be left by the tenant's functions, as far as it is known.
    #[inline]
    pub fn survey(&self) -> Guard<Arc<Survey>> {
        self.known.surveyed().survey()
    }

    /// Whether a server should be asked for functions before it goes back.
    #[inline]
    pub fn is_survey_due(&self) -> bool {
        self.known.surveyed().is_due()
    }

    /// Takes it upon the caller to make the survey, if nobody else has.
    pub fn claim_survey(&self) -> bool {
        self.known.surveyed().claim()
    }

    /// How often the tenant's functions have changed, as far as was seen.
    #[inline]
    pub fn function_changes(&self) -> u64 {
        self.known.surveyed().forgets()
    }

    /// Takes over a survey that began after so many changes of functions; statements that are known
    /// already are looked at again.
    pub fn learn_survey(
        &self,
        survey: Survey,
        changes: u64,
        suspects: impl Fn(&[u8], &Survey) -> Suspicion,
    ) {
        self.known.learn_survey(survey, changes);
        let survey = self.survey();
        self.statements
            .suspect_again(|text| suspects(text, &survey));
    }

    /// Takes over a survey that another pool has made, if there is a newer one: statements that are
    /// known already are looked at again.
    #[inline]
    pub fn catch_up(&self, suspects: impl Fn(&[u8], &Survey) -> Suspicion) {
        if self.known.is_behind() {
            let survey = self.survey();
            self.note_customs(survey.customs.iter().map(|name| &**name));
            self.statements
                .suspect_again(|text| suspects(text, &survey));
        }
    }

    /// Functions have changed: until the next survey any statement may leave anything. Tenants that
    /// use slots can change none, and what one of them does must not cost the others.
    pub fn forget_survey(&self) {
        if !self.uses_slots() {
            self.known.surveyed().forget();
        }
    }

    /// Whether its servers are slots that serve other tenants, too.
    #[inline]
    pub fn uses_slots(&self) -> bool {
        self.uses_slots
    }

    /// Remembers what may be names of the tenant's own settings.
    pub fn note_customs<'a>(&self, names: impl Iterator<Item = &'a str>) {
        self.known.note_customs(names);
    }

    /// Whether the tenant has more settings of its own than are remembered by name.
    pub fn has_more_customs(&self) -> bool {
        self.known.has_more_customs()
    }

    /// What may be names of the tenant's own settings.
    pub fn customs(&self) -> Vec<Box<str>> {
        self.known.customs()
    }

    /// Whether any session has asked for what a sequence gave its session.
    #[inline]
    pub fn uses_sequences(&self) -> bool {
        self.known.uses_sequences()
    }

    /// Notes that a session has asked for what a sequence gave it.
    pub fn note_sequences(&self) {
        self.known.note_sequences();
    }

    /// The same settings as another session's, where one has them.
    pub fn share_settings(&self, settings: Settings) -> Arc<Settings> {
        self.known.share_settings(settings)
    }

    /// How often what statements return may have changed.
    #[inline]
    pub fn shapes(&self) -> u64 {
        self.known.shapes()
    }

    /// What statements return may have changed: those that are prepared from now on are new ones.
    pub fn note_change_of_shapes(&self) {
        self.known.note_change_of_shapes();
    }

    /// A place among the tenant's pinned servers; `None` when it has none left.
    pub fn pin(&self) -> Option<PinPlace> {
        self.known.pin(self.config().limits.max_pinned_servers)
    }

    /// How many servers are pinned.
    pub fn pinned(&self) -> u32 {
        self.known.pinned()
    }

    /// What the newest server said about itself; `None` until there was one.
    pub fn welcome(&self) -> Option<Arc<Welcome>> {
        self.inside.load().route.welcome.load_full()
    }

    /// Notes that what servers say about themselves has changed: the next login asks one.
    pub fn forget_welcome(&self) {
        self.inside.load().route.welcome.store(None);
    }

    /// Takes what a server said about itself, where nothing newer is known.
    pub fn learn_welcome(&self, welcome: Arc<Welcome>) {
        let inside = self.inside.load();
        if inside.route.welcome.load().is_none() {
            inside.route.welcome.store(Some(welcome));
        }
    }

    /// What a server made of these settings before; `None` when no server has seen them.
    pub fn confirmed(&self, wanted: &Arc<Settings>) -> Option<Confirmed> {
        self.inside.load().confirmed.get(wanted)
    }

    /// Remembers what a server made of settings.
    pub fn confirm(&self, wanted: Arc<Settings>, confirmed: Confirmed) {
        self.inside.load().confirmed.insert(wanted, confirmed);
    }

    /// Takes changed settings over. Lent servers stay with their sessions until the transaction
    /// ends, and are closed then if anything that they are made from has changed.
    ///
    /// # Errors
    /// When the cluster's TLS files can't be used; the old settings stay.
    pub(super) fn reconfigure(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        cluster: &Arc<Cluster>,
        source: &Source,
    ) -> Result<(), UpstreamError> {
        let old = self.inside.load_full();
        // A directory that forgets may make an equal value anew.
        let (known, at) = (&old.route.tenant, &old.route.cluster);
        if (Arc::ptr_eq(known, tenant) || known.is_served_like(tenant))
            && (Arc::ptr_eq(at, cluster) || at == cluster)
        {
            return Ok(());
        }
        let new = Inside::new(tenant, cluster, source, self.scope)?;
        let is_elsewhere = new.route.leads_elsewhere_than(&old.route);
        let is_another = !Arc::ptr_eq(&new.route.account, &old.route.account);
        self.inside.store(Arc::new(new));
        if is_another && source.slots.is_none() {
            // Of another cluster's budget.
            source.budget.join(self);
        }
        self.replaced.notify_waiters();
        old.close();
        if let Some(hub) = self.hub.get().filter(|_| is_elsewhere) {
            hub.redial();
        }
        Ok(())
    }

    /// Closes the pool for good: no more checkouts, idle servers go now and lent ones at release.
    pub fn close(&self) {
        self.is_closed.store(true, Relaxed);
        self.inside.load().close();
    }

    /// Notes that a server came back: somebody may have begun to wait just before.
    pub(super) fn returned(&self) {
        let inside = self.inside.load();
        if inside.route.budget.is_scarce() {
            inside.route.budget.reclaim();
        }
    }

    /// Whether others wait for a server that a session of this pool holds, or for its place.
    pub fn is_wanted(&self) -> bool {
        let inside = self.inside.load();
        let route = &inside.route;
        has_waiters(&inside.servers)
            || route.budget.is_wanted(&route.account)
            || route.slots.as_ref().is_some_and(|slots| slots.is_used_up())
    }

    /// Whether a notification from this backend is the tenant's own.
    pub fn hears(&self, pid: u32) -> bool {
        let inside = self.inside.load();
        let route = &inside.route;
        // A slot's process has been other tenants': nothing tells whose a notification is.
        !route.tenant.placement.tier.shares_database()
            || !self.uses_slots && route.budget.pids().is_of(pid, &self.tenant)
    }

    /// How many servers there are.
    pub fn occupancy(&self) -> Occupancy {
        let inside = self.inside.load();
        let status = inside.servers.status();
        let mut occupancy = Occupancy {
            active: status.size.saturating_sub(status.available),
            idle: status.available,
            waiting: status.waiting,
        };
        for replica in inside.replicas() {
            let (active, idle, waiting) = replica.counts();
            occupancy.active += active;
            occupancy.idle += idle;
            occupancy.waiting += waiting;
        }
        occupancy
    }

    /// Closes servers that were idle for too long, beyond the minimum that is kept. With `idle_max`,
    /// that is what is too long, and no minimum is kept.
    pub(super) fn close_stale(&self, idle_max: Option<Duration>) {
        self.known.surveyed().age();
        let inside = self.inside.load();
        for replica in inside.replicas() {
            replica.close_stale(idle_max);
        }
        let tenant = &inside.route.tenant;
        let minimum = match idle_max {
            Some(_) => 0,
            None => tenant.limits.min_pool_size as usize,
        };
        let limit = idle_max.or(tenant.timeouts.server_idle);
        let mut spare = inside.servers.status().size.saturating_sub(minimum);
        inside.servers.retain(|pooled, _| {
            let idle = pooled.server.returned_at.elapsed();
            let is_stale = limit.is_some_and(|limit| idle >= limit);
            let close = is_stale && spare > 0;
            spare -= usize::from(close);
            !close
        });
    }

    /// Makes servers until the minimum is there.
    ///
    /// # Cancel safety
    /// Cancel safe: what is being made is closed.
    pub(super) async fn fill(&self) {
        if self.uses_slots {
            return;
        }
        let inside = self.inside.load_full();
        let servers = inside.servers.clone();
        // Who waits comes first, and it does not wait among them.
        let has_room = || inside.route.budget.has_room(&inside.route.account);
        let minimum = self.config().limits.min_pool_size as usize;
        let mut made = Vec::new();
        let has_primary = || !self.inside.load().has_no_primary();
        while servers.status().size < minimum && !servers.is_closed() && has_primary() && has_room()
        {
            let timeouts = Timeouts {
                wait: Some(Duration::ZERO),
                create: Some(inside.route.cluster.connect_timeout + QUEUE_MAX),
                recycle: None,
            };
            match servers.timeout_get(&timeouts).await {
                Ok(object) => made.push(object),
                Err(_) => break,
            }
        }
    }
}

impl Spare for TenantPool {
    fn oldest_idle(&self) -> Option<Duration> {
        oldest_idle(&self.inside.load().servers)
    }

    fn account(&self) -> Option<Arc<Account>> {
        Some(Arc::clone(&self.inside.load().route.account))
    }

    fn close_oldest(&self) -> bool {
        close_oldest(&self.inside.load().servers)
    }
}

/// Whether clients wait for others to give a server back; who has one made is not among them.
pub(super) fn has_waiters(servers: &Pool<Dialer>) -> bool {
    let status = servers.status();
    status.size + status.waiting > status.max_size
}

/// How long the oldest idle server has been idle.
pub(super) fn oldest_idle(servers: &Pool<Dialer>) -> Option<Duration> {
    if servers.status().size == 0 {
        return None;
    }
    let mut oldest = None;
    servers.retain(|pooled, _| {
        oldest = oldest.max(Some(pooled.server.returned_at.elapsed()));
        true
    });
    oldest
}

/// Closes the idle server that was given back first; whether there was one.
pub(super) fn close_oldest(servers: &Pool<Dialer>) -> bool {
    let mut is_first = true;
    let closed = servers.retain(|_, _| !std::mem::take(&mut is_first));
    !closed.removed.is_empty()
}
