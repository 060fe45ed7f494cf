//! Which server of a cluster is what: watched for as long as the cluster has replicas and is used.

use super::Pools;
use crate::{
    tenant::{Address, Cluster, ClusterName},
    topology::Topology,
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

/// A server that sessions should not wait for any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// A replica has stopped answering: reads that were told nothing yet go elsewhere.
    Replica(Address),
    /// Another server is the primary now: what runs on this one is not the tenant's data any more.
    Primary(Address),
}

/// All clusters that are watched.
#[derive(Default)]
pub(super) struct Topologies(Mutex<HashMap<ClusterName, Watched>>);

struct Watched {
    configured: Arc<Cluster>,
    topology: Arc<Topology>,
    /// The primary that pools lead to.
    primary: Address,
    _watch: AbortOnDropHandle<()>,
}

impl Topologies {
    /// What is known of a cluster's servers, which are watched from now on; `None` where it has no
    /// replicas, or nobody to watch them as.
    pub(super) fn of(&self, pools: &Arc<Pools>, cluster: &Arc<Cluster>) -> Option<Arc<Topology>> {
        let mut all = self.0.lock();
        if cluster.replicas.is_empty() || cluster.watch.is_none() {
            all.remove(&cluster.name);
            return None;
        }
        if let Some(known) = all.get_mut(&cluster.name)
            && known.configured.is_watched_like(cluster)
        {
            if !Arc::ptr_eq(&known.configured, cluster) {
                known.configured = Arc::clone(cluster);
            }
            return Some(Arc::clone(&known.topology));
        }
        let runtime = Handle::try_current().ok()?;
        let topology = Topology::new(cluster);
        topology.begin();
        let watched = watch(
            Arc::clone(&topology),
            cluster.name.clone(),
            Arc::downgrade(pools),
        );
        let new = Watched {
            configured: Arc::clone(cluster),
            topology: Arc::clone(&topology),
            primary: cluster.primary.clone(),
            _watch: AbortOnDropHandle::new(runtime.spawn(watched)),
        };
        all.insert(cluster.name.clone(), new);
        Some(topology)
    }

    /// A cluster as it is configured and what is known of it now, with the servers that were lost.
    pub(super) fn turned(&self, name: &ClusterName) -> Option<(Arc<Cluster>, Vec<Lost>)> {
        let mut all = self.0.lock();
        let watched = all.get_mut(name)?;
        let now = watched
            .topology
            .resolve(&watched.configured)
            .primary
            .clone();
        let nodes = watched.topology.nodes().iter();
        let silent = nodes.filter(|node| !node.is_answering() && *node.address() != now);
        let mut lost: Vec<Lost> = silent
            .map(|node| Lost::Replica(node.address().clone()))
            .collect();
        if now != watched.primary {
            lost.push(Lost::Primary(std::mem::replace(&mut watched.primary, now)));
        }
        Some((Arc::clone(&watched.configured), lost))
    }
}

/// Watches a cluster, and turns its pools when the primary is another.
async fn watch(topology: Arc<Topology>, name: ClusterName, pools: Weak<Pools>) {
    let mut changes = topology.changes();
    let follow = async {
        while changes.changed().await.is_ok() {
            let Some(pools) = pools.upgrade() else { return };
            pools.turn(&name);
        }
    };
    tokio::select! {
        () = Arc::clone(&topology).watch() => {}
        () = follow => {}
    }
}
