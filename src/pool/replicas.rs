//! The servers of one tenant and scope on the replicas of its cluster.

use super::{
    Checkout, CheckoutError,
    budget::{Account, Source, Spare},
    dialer::{Dialer, Route},
    tenant_pool::{close_oldest, has_waiters, oldest_idle},
};
use crate::{
    sessions::SessionHandle,
    tenant::{Address, Consistency},
    topology::{Lsn, Node, Pick, Position, Topology},
};
use deadpool::managed::{Pool, PoolError, Timeouts};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, Instant},
};

/// While no server of a replica is free: how often it is looked whether the replica still serves.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// A replica that was found behind is not asked by the next read for at least so long, in
/// microseconds; twice as long each time, up to the greatest.
const BEHIND_MIN_US: u64 = 1_000;
const BEHIND_MAX_US: u64 = 100_000;

/// All of them.
#[derive(Debug)]
pub struct Replicas {
    topology: Arc<Topology>,
    /// What the tenant has written.
    position: Arc<Position>,
    pools: Vec<Arc<ReplicaPool>>,
    among: Option<Vec<Address>>,
    consistency: Consistency,
    fallback: bool,
}

/// The tenant's servers on one replica.
#[derive(Debug)]
pub struct ReplicaPool {
    node: Arc<Node>,
    route: Arc<Route>,
    servers: Pool<Dialer>,
    began: Instant,
    /// Until when it is not asked again, in microseconds since it began.
    behind_until_us: AtomicU64,
    behind_us: AtomicU64,
    /// The tenant's role may not ask how far a replica is (a hardened database): only what the watch
    /// knows counts.
    is_mute: AtomicBool,
}

/// Where a read goes.
#[derive(Debug)]
pub enum Choice {
    /// To this replica, which must have replayed `wanted`. Unless that is known it is asked in the same
    /// flight.
    Replica {
        /// Which.
        pool: Arc<ReplicaPool>,
        /// What the read must see.
        wanted: Lsn,
        /// Whether it is known to have that.
        is_known: bool,
    },
    /// To the primary.
    Primary(Kept),
    /// To nobody: there is no replica, and the primary may not help out.
    Nobody,
}

/// Why a read goes to the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// No replica is known to have all that the tenant has written.
    Consistency,
    /// There is none that could take it.
    NoReplica,
    /// By the weights it was the primary's turn.
    Weight,
}

impl Choice {
    fn on(pool: &Arc<ReplicaPool>, wanted: Lsn, is_known: bool) -> Self {
        Self::Replica {
            pool: Arc::clone(pool),
            wanted,
            is_known,
        }
    }
}

impl Kept {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Consistency, Self::NoReplica, Self::Weight];

    /// As metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consistency => "consistency",
            Self::NoReplica => "no_replica",
            Self::Weight => "weight",
        }
    }
}

impl Replicas {
    pub(super) fn new(
        topology: &Arc<Topology>,
        pools: Vec<Arc<ReplicaPool>>,
        route: &Route,
    ) -> Self {
        let reads = &route.tenant.reads;
        Self {
            position: topology.position(&route.tenant.id),
            topology: Arc::clone(topology),
            pools,
            among: reads.replicas.clone(),
            consistency: reads.consistency,
            fallback: route.cluster.standbys.fallback,
        }
    }

    /// What the tenant has written.
    pub fn position(&self) -> &Arc<Position> {
        &self.position
    }

    /// Whether the primary answers reads that no replica can take.
    pub fn falls_back(&self) -> bool {
        self.fallback
    }

    /// What the tenant's reads must see.
    pub fn consistency(&self) -> Consistency {
        self.consistency
    }

    /// A position of a session's own, for [`Consistency::Session`].
    pub fn own_position(&self) -> Arc<Position> {
        self.topology.own_position()
    }

    /// Where a read goes that must see what these positions say.
    pub fn choose(&self, own: Option<&Position>) -> Choice {
        let wanted = match self.consistency {
            Consistency::Eventual => Some(Lsn(0)),
            // What other nodes of pgusher wrote a moment ago is below the floor.
            Consistency::Tenant => self
                .position
                .wanted()
                .map(|at| at.max(self.topology.floor())),
            Consistency::Session => own.map_or(Some(Lsn(0)), Position::wanted),
        };
        let Some(wanted) = wanted else {
            return Choice::Primary(Kept::Consistency);
        };
        match self.topology.pick(self.among.as_deref()) {
            Pick::Replica(node) => self.on(&node, wanted),
            Pick::Primary => Choice::Primary(Kept::Weight),
            Pick::Nobody if self.fallback => Choice::Primary(Kept::NoReplica),
            Pick::Nobody => Choice::Nobody,
        }
    }

    /// Any replica, as far behind as it is: for who asks for that.
    pub fn any(&self) -> Choice {
        match self.topology.pick_replica(self.among.as_deref()) {
            Some(node) => self.on(&node, Lsn(0)),
            None if self.fallback => Choice::Primary(Kept::NoReplica),
            None => Choice::Nobody,
        }
    }

    fn on(&self, node: &Arc<Node>, wanted: Lsn) -> Choice {
        let known = self.pools.iter().find(|pool| Arc::ptr_eq(&pool.node, node));
        let Some(pool) = known else {
            return Choice::Primary(Kept::NoReplica);
        };
        let has = |pool: &Arc<ReplicaPool>| pool.node.replayed() >= wanted;
        if has(pool) || !pool.was_behind() {
            return Choice::on(pool, wanted, has(pool));
        }
        // Another one may have it, whose turn it is not.
        let is_among = |at: &Address| self.among.as_ref().is_none_or(|all| all.contains(at));
        let mut others = self.pools.iter().filter(|other| {
            other.node.is_eligible() && is_among(other.node.address()) && !other.was_behind()
        });
        let other = others.clone().find(|other| has(other));
        match other.or_else(|| others.next()) {
            Some(other) => Choice::on(other, wanted, has(other)),
            None => Choice::Primary(Kept::Consistency),
        }
    }

    pub(super) fn pools(&self) -> &[Arc<ReplicaPool>] {
        &self.pools
    }
}

impl ReplicaPool {
    pub(super) fn new(node: &Arc<Node>, route: Arc<Route>, servers: Pool<Dialer>) -> Arc<Self> {
        Arc::new(Self {
            node: Arc::clone(node),
            route,
            servers,
            began: Instant::now(),
            behind_until_us: AtomicU64::new(0),
            behind_us: AtomicU64::new(BEHIND_MIN_US),
            is_mute: AtomicBool::new(false),
        })
    }

    /// The replica.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Notes that the tenant's role may not ask how far the replica is.
    pub fn note_mute(&self) {
        self.is_mute.store(true, Relaxed);
    }

    /// Whether the tenant's role may not ask that.
    pub fn is_mute(&self) -> bool {
        self.is_mute.load(Relaxed)
    }

    /// Whether a read has found it behind a moment ago, or could not find out.
    fn was_behind(&self) -> bool {
        if self.is_mute() {
            self.node.ask_soon();
            return true;
        }
        let until = self.behind_until_us.load(Relaxed);
        until != 0 && self.now_us() < until
    }

    /// Notes what a read has found.
    pub fn note_position(&self, is_behind: bool) {
        if is_behind {
            let pause = self.behind_us.load(Relaxed);
            let next = (pause * 2).min(BEHIND_MAX_US);
            self.behind_us.store(next, Relaxed);
            self.behind_until_us.store(self.now_us() + pause, Relaxed);
        } else if self.behind_until_us.load(Relaxed) != 0 {
            self.behind_us.store(BEHIND_MIN_US, Relaxed);
            self.behind_until_us.store(0, Relaxed);
        }
    }

    /// Lends a server of it. Ends when the replica gets no reads any more.
    ///
    /// # Errors
    /// [`CheckoutError`]: the read may still go elsewhere, unless the session was told to end.
    ///
    /// # Cancel safety
    /// Cancel safe: a place in the queue is given up.
    pub async fn checkout(
        self: &Arc<Self>,
        session: &Arc<SessionHandle>,
    ) -> Result<Checkout, CheckoutError> {
        let timeouts = Timeouts {
            wait: None,
            create: None,
            recycle: None,
        };
        let mut get = pin!(self.servers.timeout_get(&timeouts));
        let polled = std::future::poll_fn(|cx| Poll::Ready(get.as_mut().poll(cx))).await;
        let answer = match polled {
            Poll::Ready(answer) => answer,
            Poll::Pending => {
                let waited = Instant::now();
                let budget = &self.route.budget;
                let is_crowded = has_waiters(&self.servers) || budget.is_scarce();
                let _awaits = is_crowded.then(|| budget.running().awaits());
                let waiting = async {
                    loop {
                        match tokio::time::timeout(LOOK_INTERVAL, get.as_mut()).await {
                            Ok(answer) => return answer,
                            Err(_elapsed) if self.node.is_eligible() => {}
                            Err(_elapsed) => return Err(PoolError::Closed),
                        }
                    }
                };
                let answer = tokio::select! {
                    biased;
                    order = session.ordered() => Err(CheckoutError::Ordered(order)),
                    answer = Box::pin(waiting) => Ok(answer),
                };
                session.counters.waited(waited.elapsed());
                answer?
            }
        };
        let object = answer.map_err(|error| match error {
            PoolError::Backend(error) => {
                if error.is_unreachable() {
                    self.node.failed();
                }
                CheckoutError::Upstream(error)
            }
            _ => CheckoutError::Closed,
        })?;
        let tenant = &self.route.tenant.id;
        Ok(Checkout::on_replica(
            object,
            session,
            (tenant, self.route.scope),
            self,
        ))
    }

    /// Whether others wait for a server that a session holds here, or for its place.
    pub fn is_wanted(&self) -> bool {
        has_waiters(&self.servers) || self.route.budget.is_wanted(&self.route.account)
    }

    /// Notes that a server came back: somebody may have begun to wait just before.
    pub(super) fn returned(&self) {
        if self.route.budget.is_scarce() {
            self.route.budget.reclaim();
        }
    }

    pub(super) fn close(&self) {
        self.servers.close();
        let route = &self.route;
        route.budget.expel(&route.account, Source::of(route));
    }

    /// Lent and idle ones.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let status = self.servers.status();
        let active = status.size.saturating_sub(status.available);
        (active, status.available, status.waiting)
    }

    /// Closes servers that were idle for too long; with `idle_max`, that is what is too long.
    pub(super) fn close_stale(&self, idle_max: Option<Duration>) {
        let limit = idle_max.or(self.route.tenant.timeouts.server_idle);
        self.servers.retain(|pooled, _| {
            let idle = pooled.server.returned_at.elapsed();
            limit.is_none_or(|limit| idle < limit)
        });
    }
}

impl Spare for ReplicaPool {
    fn oldest_idle(&self) -> Option<Duration> {
        oldest_idle(&self.servers)
    }

    fn account(&self) -> Option<Arc<Account>> {
        Some(Arc::clone(&self.route.account))
    }

    fn close_oldest(&self) -> bool {
        close_oldest(&self.servers)
    }
}
