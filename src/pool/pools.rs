//! All pools, made at first use.

use super::{
    Budget, Home, Load, Lost, TenantPool,
    inside::{Fleet, Source},
    slots::SlotPool,
    split::KnownBuiltins,
    topologies::Topologies,
};
use crate::{
    tenant::{Address, Cluster, ClusterName, Directory, Scope, Tenant, TenantId},
    topology::Topology,
    upstream::UpstreamError,
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

/// Behind a restart, the old process keeps a server so long for the next transaction of its sessions:
/// the new process needs the connections.
const RETIRED_IDLE_MAX: Duration = Duration::from_secs(2);

/// Who is told of lost servers.
type OnLost = Box<dyn Fn(&Lost) + Send + Sync>;

/// All pools and budgets.
#[derive(Default)]
pub struct Pools {
    by_tenant: Mutex<HashMap<(TenantId, Scope), Arc<TenantPool>>>,
    budgets: Mutex<HashMap<ClusterName, Arc<Budget>>>,
    /// Of single servers of a cluster that has replicas.
    server_budgets: Mutex<HashMap<(ClusterName, Address), Arc<Budget>>>,
    slots: Mutex<Vec<Arc<SlotPool>>>,
    topologies: Topologies,
    builtins: KnownBuiltins,
    on_lost: OnceLock<OnLost>,
    is_retired: AtomicBool,
}

impl Pools {
    /// The pool of a tenant and scope, made when there is none: then the tenant lives in this home for as
    /// long as the pool is there.
    ///
    /// # Errors
    /// When the cluster's TLS files can't be used.
    pub fn pool(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        cluster: &Arc<Cluster>,
        scope: Scope,
        home: &Arc<Home>,
    ) -> Result<Arc<TenantPool>, UpstreamError> {
        let (cluster, source) = self.source(tenant, cluster)?;
        let cluster = &cluster;
        let mut pools = self.by_tenant.lock();
        let key = (tenant.id.clone(), scope);
        if let Some(pool) = pools.get(&key) {
            debug_assert!(
                Arc::ptr_eq(pool.home(), home),
                "a session lives elsewhere than its pool"
            );
            pool.reconfigure(tenant, cluster, &source)?;
            return Ok(Arc::clone(pool));
        }
        let builtins = self.builtins.clone();
        let pool = TenantPool::new(tenant, cluster, &source, (scope, builtins), home)?;
        pools.insert(key, Arc::clone(&pool));
        Ok(pool)
    }

    /// Has somebody told whenever servers are lost that sessions may be waiting for.
    pub fn on_lost(&self, told: impl Fn(&Lost) + Send + Sync + 'static) {
        drop(self.on_lost.set(Box::new(told)));
    }

    /// A cluster as it is now, and where a tenant's servers come from.
    fn source(
        self: &Arc<Self>,
        tenant: &Tenant,
        configured: &Arc<Cluster>,
    ) -> Result<(Arc<Cluster>, Source), UpstreamError> {
        let topology = self.topologies.of(self, configured);
        let resolved = topology.as_ref().map(|it| it.resolve(configured));
        let cluster = resolved.unwrap_or_else(|| Arc::clone(configured));
        let source = Source {
            budget: self.budget(&cluster),
            slots: self.slots_of(tenant, &cluster)?,
            fleet: topology.map(|topology| self.fleet(&cluster, topology)),
        };
        Ok((cluster, source))
    }

    fn fleet(&self, cluster: &Cluster, topology: Arc<Topology>) -> Fleet {
        let mut all = self.server_budgets.lock();
        let mut budget = |address: &Address| {
            let key = (cluster.name.clone(), address.clone());
            let (max, connects) = (cluster.tenants_servers(), cluster.max_parallel_connects);
            let budget = all.entry(key);
            let budget = budget.or_insert_with(|| Arc::new(Budget::new(max, connects)));
            budget.resize(max);
            budget.running().follow(cluster.running_limit());
            (address.clone(), Arc::clone(budget))
        };
        let addresses = topology.nodes().iter().map(|node| node.address());
        Fleet {
            budgets: addresses.map(&mut budget).collect(),
            topology,
        }
    }

    /// The primary of a cluster is another, or a replica has gone or come back.
    pub(super) fn turn(self: &Arc<Self>, name: &ClusterName) {
        let Some((configured, lost)) = self.topologies.turned(name) else {
            return;
        };
        for pool in self.all() {
            let tenant = pool.config();
            if tenant.placement.cluster != *name {
                continue;
            }
            let source = self.source(&tenant, &configured);
            let turned =
                source.and_then(|(cluster, source)| pool.reconfigure(&tenant, &cluster, &source));
            if let Err(error) = turned {
                tracing::error!(tenant = %tenant.id, %error, "the new primary can't be used");
            }
        }
        if let Some(told) = self.on_lost.get() {
            lost.iter().for_each(told);
        }
    }

    /// The slots that serve a tenant without a login of its own.
    fn slots_of(
        &self,
        tenant: &Tenant,
        cluster: &Arc<Cluster>,
    ) -> Result<Option<Arc<SlotPool>>, UpstreamError> {
        let Some(slots) = &tenant.placement.slots else {
            return Ok(None);
        };
        let budget = self.budget(cluster);
        let database = &tenant.placement.database;
        let mut pools = self.slots.lock();
        let known = pools
            .iter()
            .find(|p| p.is_for(cluster, database, &slots.key));
        if let Some(known) = known.cloned() {
            return Ok(Some(known));
        }
        let new = SlotPool::new(cluster, database, &slots.key, &budget)?;
        pools.push(Arc::clone(&new));
        Ok(Some(new))
    }

    /// Slots that serve nobody just now.
    pub fn idle_slots(&self) -> usize {
        self.slots.lock().iter().map(|slots| slots.idle()).sum()
    }

    /// No new clients come: idle servers are closed, now and whenever one was idle for a moment, and
    /// no minimum is kept.
    pub fn retire(&self) {
        self.is_retired.store(true, Relaxed);
        for pool in self.all() {
            pool.close_stale(Some(Duration::ZERO));
        }
        for slots in self.slots.lock().iter() {
            slots.close_stale(Some(Duration::ZERO));
        }
    }

    /// How long servers may be idle whatever their tenant says; `None`: as that says.
    pub(super) fn idle_max(&self) -> Option<Duration> {
        self.is_retired.load(Relaxed).then_some(RETIRED_IDLE_MAX)
    }

    /// Closes slots that were idle for too long.
    pub(super) fn close_stale_slots(&self) {
        let idle_max = self.idle_max();
        let mut pools = self.slots.lock();
        pools.retain(|slots| {
            slots.close_stale(idle_max);
            Arc::strong_count(slots) > 1 || slots.idle() > 0
        });
    }

    /// The budget of a cluster.
    pub fn budget(&self, cluster: &Cluster) -> Arc<Budget> {
        let mut budgets = self.budgets.lock();
        let budget = budgets.entry(cluster.name.clone()).or_insert_with(|| {
            Arc::new(Budget::new(
                cluster.tenants_servers(),
                cluster.max_parallel_connects,
            ))
        });
        let budget = Arc::clone(budget);
        drop(budgets);
        budget.resize(cluster.tenants_servers());
        budget.running().follow(cluster.running_limit());
        budget
    }

    /// How many statements run and wait on the servers of each cluster. Those of its replicas are told by
    /// their addresses; without one, it is the primary.
    pub fn running(&self) -> Vec<(ClusterName, Option<Address>, Load)> {
        let primaries = self.budgets.lock();
        let primaries = primaries
            .iter()
            .map(|(name, it)| (name.clone(), None, it.running().load()));
        let mut all: Vec<_> = primaries.collect();
        let servers = self.server_budgets.lock();
        all.extend(
            servers
                .iter()
                .map(|((name, at), it)| (name.clone(), Some(at.clone()), it.running().load())),
        );
        all
    }

    /// How many wait for a place in the budget of a cluster or of one of its replicas.
    pub fn waiting_for_places(&self) -> usize {
        let budgets: Vec<_> = self.budgets.lock().values().cloned().collect();
        let replicas: Vec<_> = self.server_budgets.lock().values().cloned().collect();
        let all = budgets.iter().chain(&replicas);
        all.map(|budget| budget.waiting()).sum()
    }

    /// Whose server connection to a cluster a process is, or was until a moment ago.
    pub fn owner_of(&self, cluster: &ClusterName, pid: u32) -> Option<TenantId> {
        let budget = self.budgets.lock().get(cluster).cloned();
        budget.and_then(|budget| budget.pids().owner(pid))
    }

    /// Server connections to a cluster that were closed, with how long ago.
    pub fn closed(&self, cluster: &ClusterName) -> Vec<(u32, Duration)> {
        let budget = self.budgets.lock().get(cluster).cloned();
        budget.map(|budget| budget.closed()).unwrap_or_default()
    }

    /// All pools now.
    pub fn all(&self) -> Vec<Arc<TenantPool>> {
        self.by_tenant.lock().values().cloned().collect()
    }

    /// Takes over what has changed in the directory: pools of changed tenants get their new
    /// settings, pools of tenants that are gone are closed. Only tenants that it `concerns` are
    /// looked up.
    ///
    /// # Cancel safety
    /// Cancel safe: call it again.
    pub async fn follow(
        self: &Arc<Self>,
        directory: &dyn Directory,
        concerns: impl Fn(&TenantId) -> bool + Send,
    ) {
        let mut pools = self.all();
        pools.retain(|pool| concerns(pool.tenant()));
        for pool in pools {
            let tenant = directory.tenant(pool.tenant().as_str()).await;
            let Ok(tenant) = tenant else { continue };
            let cluster = tenant
                .as_ref()
                .and_then(|t| directory.cluster(&t.placement.cluster));
            let (Some(tenant), Some(cluster)) = (tenant, cluster) else {
                self.remove(&pool);
                continue;
            };
            let source = self.source(&tenant, &cluster);
            let followed =
                source.and_then(|(cluster, source)| pool.reconfigure(&tenant, &cluster, &source));
            if let Err(error) = followed {
                tracing::error!(tenant = %tenant.id, %error, "the change can't be used");
            }
        }
    }

    /// Closes and forgets a pool.
    pub(super) fn remove(&self, pool: &Arc<TenantPool>) {
        pool.close();
        self.by_tenant
            .lock()
            .remove(&(pool.tenant().clone(), pool.scope()));
    }

    /// Forgets pools that nobody uses and that have no server.
    pub(super) fn forget_unused(&self) {
        self.by_tenant.lock().retain(|_, pool| {
            let occupancy = pool.occupancy();
            Arc::strong_count(pool) > 1 || occupancy.idle + occupancy.active > 0
        });
    }
}
