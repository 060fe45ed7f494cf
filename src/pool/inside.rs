//! What a pool is made from, replaced as a whole when its tenant or cluster changes.

use super::{
    Budget,
    budget::Source as WaitsFor,
    dialer::{Dialer, Route},
    replicas::{ReplicaPool, Replicas},
    slots::SlotPool,
};
use crate::{
    tenant::{Address, Cluster, Scope, Tenant},
    tls,
    topology::Topology,
    upstream::{Endpoint, Said, Settings, UpstreamError},
};
use deadpool::{
    Runtime,
    managed::{Pool, PoolConfig, QueueMode},
};
use moka::sync::Cache;
use std::sync::Arc;

/// Where a pool's servers come from.
pub(super) struct Source {
    /// The cluster's connections.
    pub(super) budget: Arc<Budget>,
    /// The slots of its database, for a tenant without a login of its own.
    pub(super) slots: Option<Arc<SlotPool>>,
    /// The servers of the cluster, where it has replicas.
    pub(super) fleet: Option<Fleet>,
}

/// The servers of a cluster that has replicas.
#[derive(Clone)]
pub(super) struct Fleet {
    pub(super) topology: Arc<Topology>,
    /// The connections of each server; the primary's are among them.
    pub(super) budgets: Vec<(Address, Arc<Budget>)>,
}

/// What a server made of a client's settings: those to carry, and what it said of them.
pub(super) type Confirmed = (Arc<Settings>, Said);

/// Sets of settings that are remembered as confirmed.
const CONFIRMED_MAX: u64 = 1000;

/// What a change of the tenant or its cluster replaces.
pub(super) struct Inside {
    pub(super) route: Arc<Route>,
    pub(super) servers: Pool<Dialer>,
    pub(super) confirmed: Cache<Arc<Settings>, Confirmed>,
    /// Which servers there are, where it is more than one.
    pub(super) topology: Option<Arc<Topology>>,
    /// Its servers on replicas, where its reads go there.
    pub(super) replicas: Option<Arc<Replicas>>,
}

impl Inside {
    pub(super) fn new(
        tenant: &Arc<Tenant>,
        cluster: &Arc<Cluster>,
        source: &Source,
        scope: Scope,
    ) -> Result<Self, UpstreamError> {
        let endpoint = match &source.slots {
            Some(slots) => slots.endpoint(),
            None => endpoint(cluster, &cluster.primary)?,
        };
        let common = source.slots.as_ref().map(|slots| slots.common(scope));
        let route = Arc::new(Route {
            tenant: Arc::clone(tenant),
            cluster: Arc::clone(cluster),
            endpoint,
            scope,
            account: source.budget.account(&tenant.id, &tenant.limits),
            budget: Arc::clone(&source.budget),
            welcome: common.map(|c| c.welcome.clone()).unwrap_or_default(),
            slots: source.slots.clone(),
            node: None,
        });
        let share = source.slots.as_ref().map(|slots| slots.share(scope));
        let max = tenant.limits.pool_size as usize;
        let servers = servers(&route, share.map_or(max, |share| max.min(share)))?;
        let confirmed = common.map_or_else(confirmed, |common| common.confirmed.clone());
        let fleet = source.fleet.as_ref();
        let splits = tenant.reads.split && source.slots.is_none();
        let replicas = match fleet.filter(|_| splits) {
            Some(fleet) => Some(Arc::new(replicas(fleet, &route)?)),
            None => None,
        };
        Ok(Self {
            route,
            servers,
            confirmed,
            topology: fleet.map(|fleet| Arc::clone(&fleet.topology)),
            replicas,
        })
    }
}

impl Inside {
    /// The tenant's servers on each replica.
    pub(super) fn replicas(&self) -> &[Arc<ReplicaPool>] {
        self.replicas.as_ref().map_or(&[], |all| all.pools())
    }

    /// No more servers are lent, and nobody waits for one.
    pub(super) fn close(&self) {
        self.servers.close();
        let route = &self.route;
        route.budget.expel(&route.account, WaitsFor::of(route));
        if let Some(slots) = &route.slots {
            let waits_for = WaitsFor::scoped(slots, route.scope);
            route.budget.expel(&route.account, waits_for);
        }
        for replica in self.replicas() {
            replica.close();
        }
    }

    /// Whether it is known that nobody is the primary, or nothing may begin there.
    #[inline]
    pub(super) fn has_no_primary(&self) -> bool {
        let topology = self.topology.as_ref();
        self.route.cluster.is_paused || topology.is_some_and(|topology| !topology.has_primary())
    }
}

/// At most so many servers of a route.
fn servers(route: &Arc<Route>, max: usize) -> Result<Pool<Dialer>, UpstreamError> {
    let config = PoolConfig {
        queue_mode: QueueMode::Lifo,
        ..PoolConfig::new(max)
    };
    Pool::builder(Dialer(Arc::clone(route)))
        .config(config)
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|_error| UpstreamError::Login("the pool could not be made"))
}

/// The tenant's servers on all replicas; each may have as many as the primary.
fn replicas(fleet: &Fleet, primary: &Route) -> Result<Replicas, UpstreamError> {
    let mut pools = Vec::new();
    for node in fleet.topology.nodes() {
        let budget = fleet.budgets.iter().find(|(at, _)| at == node.address());
        let Some((_, budget)) = budget.filter(|(at, _)| *at != primary.cluster.primary) else {
            continue;
        };
        let route = Arc::new(Route {
            tenant: Arc::clone(&primary.tenant),
            cluster: Arc::clone(&primary.cluster),
            endpoint: endpoint(&primary.cluster, node.address())?,
            scope: primary.scope,
            account: budget.account(&primary.tenant.id, &primary.tenant.limits),
            budget: Arc::clone(budget),
            // What a replica says of itself is not what clients are told at login.
            welcome: Arc::default(),
            slots: None,
            node: Some(Arc::clone(node)),
        });
        let servers = servers(&route, primary.tenant.limits.pool_size as usize)?;
        let pool = ReplicaPool::new(node, route, servers);
        budget.join(&pool);
        pools.push(pool);
    }
    Ok(Replicas::new(&fleet.topology, pools, primary))
}

/// What was confirmed of settings; nothing yet.
pub(super) fn confirmed() -> Cache<Arc<Settings>, Confirmed> {
    Cache::builder().max_capacity(CONFIRMED_MAX).build()
}

/// How a server of a cluster is reached.
pub(super) fn endpoint(
    cluster: &Cluster,
    address: &Address,
) -> Result<Arc<Endpoint>, UpstreamError> {
    let connector =
        tls::connector(cluster).map_err(|error| UpstreamError::TlsSettings(error.to_string()))?;
    Ok(Arc::new(Endpoint {
        address: address.clone(),
        tls: cluster.tls.clone(),
        connector,
        connect_timeout: cluster.connect_timeout,
    }))
}
