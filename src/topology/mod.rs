//! Which server of a cluster is the primary, how far each replica is, and which may take a read.
//!
//! A [`Topology`] holds the servers of one cluster as [`Node`]s. [`Topology::watch`] asks each of them,
//! ten times a second, what it is and how far; what it finds is in atomics, where the data plane reads
//! it without a lock. What tenants have written is in a [`Position`] each.
//!
//! No read may go to a replica that lacks a confirmed write. That rests on three things: a position
//! is the primary's own, asked for after the write; it counts only in the history of the primary that
//! it was asked of; and a replica counts only when it is known to be in that history, on its timeline.
//! Where one of them is not known, the answer is "not this replica", or "the primary".

mod choice;
mod figures;
mod known;
mod lag;
mod lsn;
mod node;
mod position;
mod probe;
mod roles;
#[cfg(test)]
mod tests;
mod watch;

pub use choice::Pick;
pub use figures::{
    CLUSTER, CONNECTION, FAILOVERS_TOTAL, FOREIGN, REASON, REFUSED, REPLICA_LAG_BYTES,
    REPLICA_LAG_SECONDS, SERVER, SERVER_EJECTIONS_TOTAL, TIMEOUT, UNREACHABLE, describe,
};
pub use lsn::{Lsn, LsnError};
pub use node::{Lent, Node};
pub use position::Position;

use crate::tenant::{Address, Cluster, Replica, TenantId};
use arc_swap::ArcSwapOption;
use choice::{Candidate, Rules, Turns};
use figures::Figures;
use known::Known;
use node::Common;
use parking_lot::Mutex;
use position::Positions;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};
use tokio::{sync::watch as channel, time::Instant};

/// The servers of one cluster, as far as they are known.
pub struct Topology {
    cluster: Arc<Cluster>,
    /// The configured primary first.
    nodes: Box<[Arc<Node>]>,
    configured: Arc<Node>,
    common: Arc<Common>,
    known: Mutex<Known>,
    /// Which of the nodes is the primary, or was the last one.
    primary: AtomicUsize,
    has_primary: AtomicBool,
    floor: AtomicU64,
    turns: Turns,
    positions: Positions,
    /// What was resolved last, and from what.
    resolved: ArcSwapOption<(Arc<Cluster>, Arc<Cluster>)>,
    failovers: metrics::Counter,
}

impl Topology {
    /// Nobody was asked yet: the configured primary is taken for the primary, and no replica is
    /// eligible. That stays so until [`Topology::watch`] runs, and for good where the cluster says
    /// nobody as whom to watch.
    pub fn new(cluster: &Arc<Cluster>) -> Arc<Self> {
        let common = Arc::new(Common {
            timeline: AtomicU32::new(0),
            changes: channel::Sender::new(0),
            start: Instant::now(),
        });
        let node = |server: Replica| {
            let figures = Figures::of(&cluster.name, &server.address);
            Node::new(server, Arc::clone(&common), figures)
        };
        let configured = node(Replica::at(cluster.primary.clone()));
        let mut nodes = vec![Arc::clone(&configured)];
        for replica in &cluster.replicas {
            if nodes.iter().all(|one| *one.address() != replica.address) {
                nodes.push(node(replica.clone()));
            }
        }
        Arc::new(Self {
            known: Mutex::new(Known::of(nodes.len())),
            nodes: nodes.into(),
            configured,
            common,
            primary: AtomicUsize::new(0),
            has_primary: AtomicBool::new(true),
            floor: AtomicU64::new(0),
            turns: Turns::default(),
            positions: Positions::default(),
            resolved: ArcSwapOption::empty(),
            failovers: figures::failovers(&cluster.name),
            cluster: Arc::clone(cluster),
        })
    }

    /// All servers: the configured primary first, then the replicas in their order.
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The server that is the primary now, or was the last one.
    pub fn primary(&self) -> &Arc<Node> {
        let at = self.primary.load(Ordering::SeqCst);
        self.nodes.get(at).unwrap_or(&self.configured)
    }

    /// The cluster with the primary of now: when another server is, it and the configured primary have
    /// exchanged their places. The same `Arc` when nothing differs, and the same one again as long as
    /// neither the configuration nor the primary changes.
    pub fn resolve(&self, configured: &Arc<Cluster>) -> Arc<Cluster> {
        let primary = self.primary().address();
        if *primary == configured.primary {
            return Arc::clone(configured);
        }
        if let Some(resolved) = &*self.resolved.load() {
            let (from, to) = &**resolved;
            if Arc::ptr_eq(from, configured) && to.primary == *primary {
                return Arc::clone(to);
            }
        }
        let mut cluster = Cluster::clone(configured);
        let mut replicas = cluster.replicas.iter_mut();
        let Some(place) = replicas.find(|one| one.address == *primary) else {
            // It is no server of this configuration any more.
            return Arc::clone(configured);
        };
        place.address = std::mem::replace(&mut cluster.primary, primary.clone());
        // Where the configured primary stands is said nowhere.
        place.region = None;
        let cluster = Arc::new(cluster);
        let both = (Arc::clone(configured), Arc::clone(&cluster));
        self.resolved.store(Some(Arc::new(both)));
        cluster
    }

    /// Whether a server answers as the primary.
    pub fn has_primary(&self) -> bool {
        self.has_primary.load(Ordering::SeqCst)
    }

    /// Whether not all servers have said yet what they are, for the first time.
    pub fn is_settling(&self) -> bool {
        !self.known.lock().is_settled()
    }

    /// Changes whenever the primary's address or [`Topology::has_primary`] does, and when a replica is
    /// ejected or comes back.
    pub fn changes(&self) -> channel::Receiver<u64> {
        self.common.changes.subscribe()
    }

    /// Who takes the next read: by weight in turns, the least loaded one where the loads differ much, of
    /// the proxy's own region when one there is eligible. `among`: only these.
    ///
    /// A turn is taken: what is not used is lost.
    pub fn pick(&self, among: Option<&[Address]>) -> Pick {
        self.pick_by(among, self.has_primary())
    }

    /// The same without the primary: for reads that are meant for a replica.
    pub fn pick_replica(&self, among: Option<&[Address]>) -> Option<Arc<Node>> {
        match self.pick_by(among, false) {
            Pick::Replica(node) => Some(node),
            Pick::Primary | Pick::Nobody => None,
        }
    }

    fn pick_by(&self, among: Option<&[Address]>, has_primary: bool) -> Pick {
        let primary = self.primary.load(Ordering::SeqCst);
        let rules = Rules {
            standbys: &self.cluster.standbys,
            among,
            has_primary,
        };
        // The configured primary has the share of the replica that took its place.
        let exchanged = self.nodes.get(primary).map_or(1, |node| node.weight);
        let servers = self.nodes.iter().enumerate();
        let servers = servers.filter(move |(at, _)| *at != primary);
        let servers = servers.map(move |(at, node)| Candidate {
            node,
            weight: if at == 0 { exchanged } else { node.weight },
        });
        self.turns.pick(&rules, servers)
    }

    /// The data plane failed to reach the primary, or it refused to write: all servers are asked now.
    pub fn suspect_primary(&self) {
        for node in &self.nodes {
            node.wake.notify_one();
        }
    }

    /// How far the primary was at the last probe. What other nodes of pgusher had their clients told
    /// before that is below it.
    pub fn floor(&self) -> Lsn {
        Lsn(self.floor.load(Ordering::SeqCst))
    }

    /// What a tenant has written: one for all its sessions, which is forgotten when the last of them
    /// drops it. What it wrote before is wanted, too, as soon as a first sample says up to where.
    pub fn position(&self, tenant: &TenantId) -> Arc<Position> {
        self.positions.of(tenant)
    }

    /// What one session has written, for those that need to see no other's writes.
    pub fn own_position(&self) -> Arc<Position> {
        self.positions.alone()
    }
}

impl std::fmt::Debug for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topology")
            .field("cluster", &self.cluster.name)
            .field("primary", self.primary().address())
            .field("has_primary", &self.has_primary())
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}
