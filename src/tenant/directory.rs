//! What the data plane may ask about tenants, and nothing more.

use super::{Cluster, ClusterName, Tenant};
use std::{future::Future, pin::Pin, sync::Arc};
use tokio::sync::watch;

/// Why a tenant could not be looked up. The client gets 57P03: try again.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The system of record does not answer and nothing is cached.
    #[error("the tenant directory can't be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A look-up under way.
pub type Lookup<'a> =
    Pin<Box<dyn Future<Output = Result<Option<Arc<Tenant>>, DirectoryError>> + Send + 'a>>;

/// The source of tenants: `proxy.toml`, or the registry's cache.
///
/// Implementations answer from memory in the steady state; a look-up happens once per login and
/// once per tenant after a change, never per transaction.
pub trait Directory: Send + Sync + 'static {
    /// The tenant of this name; `None` when there is none.
    ///
    /// # Errors
    /// [`DirectoryError::Unavailable`] when that can't be told now.
    fn tenant<'a>(&'a self, id: &'a str) -> Lookup<'a>;

    /// The cluster of this name.
    fn cluster(&self, name: &ClusterName) -> Option<Arc<Cluster>>;

    /// A number that changes whenever a tenant or a cluster may have changed.
    fn changes(&self) -> watch::Receiver<u64>;
}
