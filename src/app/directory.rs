//! Both sources of tenants as one: `proxy.toml` first, then the registry.

use crate::{
    config::StaticDirectory,
    registry::{RegistryDirectory, SharedDirectory},
    tenant::{Cluster, ClusterName, Directory, Lookup},
};
use std::sync::Arc;

/// What the data plane asks.
#[derive(Debug)]
pub(super) struct Combined {
    /// The tenants of the file.
    pub(super) file: StaticDirectory,
    /// The tenants of the registry, if there is one.
    pub(super) registry: Option<SharedDirectory>,
}

impl Combined {
    pub(super) fn new(file: StaticDirectory, registry: Option<Arc<RegistryDirectory>>) -> Self {
        let registry = registry.map(SharedDirectory);
        Self { file, registry }
    }
}

impl Directory for Combined {
    /// A tenant of the file hides one of the same name in the registry.
    fn tenant<'a>(&'a self, id: &'a str) -> Lookup<'a> {
        match &self.registry {
            Some(registry) if !self.file.has(id) => registry.tenant(id),
            _ => self.file.tenant(id),
        }
    }

    fn cluster(&self, name: &ClusterName) -> Option<Arc<Cluster>> {
        let registry = self.registry.as_ref();
        let of_registry = || registry.and_then(|registry| registry.cluster(name));
        self.file.cluster(name).or_else(of_registry)
    }
}
