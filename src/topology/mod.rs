//! stub
use crate::tenant::{Address, Cluster, TenantId};
use std::sync::Arc;
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Lsn(pub u64);
impl std::str::FromStr for Lsn {
    type Err = ();
    fn from_str(_: &str) -> Result<Self, ()> {
        Ok(Self(0))
    }
}
#[derive(Debug)]
pub struct Node(Address);
#[derive(Debug)]
pub struct Lent;
impl Node {
    pub fn address(&self) -> &Address {
        &self.0
    }
    pub fn replayed(&self) -> Lsn {
        Lsn(0)
    }
    pub fn has_replayed(&self, _lsn: Lsn) {}
    pub fn lend(self: &Arc<Self>) -> Lent {
        Lent
    }
    pub fn failed(&self) {}
    pub fn is_answering(&self) -> bool {
        true
    }
    pub fn is_eligible(&self) -> bool {
        true
    }
}
#[derive(Debug)]
pub enum Pick {
    Replica(Arc<Node>),
    Primary,
    Nobody,
}
#[derive(Debug)]
pub struct Topology;
impl Topology {
    pub fn new(_: &Arc<Cluster>) -> Arc<Self> {
        Arc::new(Self)
    }
    pub fn nodes(&self) -> &[Arc<Node>] {
        &[]
    }
    pub fn resolve(&self, configured: &Arc<Cluster>) -> Arc<Cluster> {
        Arc::clone(configured)
    }
    pub fn has_primary(&self) -> bool {
        true
    }
    pub fn changes(&self) -> watch::Receiver<u64> {
        watch::Sender::new(0).subscribe()
    }
    pub fn pick(&self, _: Option<&[Address]>) -> Pick {
        Pick::Nobody
    }
    pub fn pick_replica(&self, _: Option<&[Address]>) -> Option<Arc<Node>> {
        None
    }
    pub fn own_position(&self) -> Arc<Position> {
        Arc::new(Position)
    }
    pub fn suspect_primary(&self) {}
    pub fn floor(&self) -> Lsn {
        Lsn(0)
    }
    pub fn position(&self, _: &TenantId) -> Arc<Position> {
        Arc::new(Position)
    }
    pub async fn watch(self: Arc<Self>) {}
}
#[derive(Debug)]
pub struct Position;
impl Position {
    pub fn wrote(&self) {}
    pub fn wanted(&self) -> Option<Lsn> {
        None
    }
}
