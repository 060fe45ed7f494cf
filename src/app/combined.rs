//! The tenants of `proxy.toml` and those of the registry, as one directory.

use crate::{
    config::{Config, Replaced, StaticDirectory},
    registry::RegistryDirectory,
    tenant::{Cluster, ClusterName, Directory, Lookup},
};
use parking_lot::Mutex;
use std::{collections::HashSet, sync::Arc};
use tokio::sync::watch;

/// Names that are in both, and were warned of.
const WARNED_MAX: usize = 1000;

/// The file first, then the registry.
pub(super) struct Combined {
    file: StaticDirectory,
    registry: Option<RegistryDirectory>,
    generation: watch::Sender<u64>,
    warned: Mutex<HashSet<Box<str>>>,
}

impl Combined {
    pub(super) fn new(config: &Config, registry: Option<RegistryDirectory>) -> Self {
        Self {
            file: StaticDirectory::new(config),
            registry,
            generation: watch::Sender::new(0),
            warned: Mutex::default(),
        }
    }

    /// What comes from the registry, if there is one.
    pub(super) fn registry(&self) -> Option<&RegistryDirectory> {
        self.registry.as_ref()
    }

    /// Takes a new file over.
    pub(super) fn replace(&self, config: &Config) -> Replaced {
        let replaced = self.file.replace(config);
        if replaced.is_any() {
            self.has_changed();
        }
        replaced
    }

    /// Tells whoever follows that something changed.
    pub(super) fn has_changed(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Warns once that the registry's tenant or cluster of this name is not the one that is used.
    fn warn_of_both(&self, what: &'static str, name: &str) {
        let mut warned = self.warned.lock();
        if warned.len() < WARNED_MAX && warned.insert(format!("{what} {name}").into()) {
            tracing::warn!(
                what,
                name,
                "it is in the configuration file and in the registry: the file's is used"
            );
        }
    }
}

impl Directory for Combined {
    fn tenant<'a>(&'a self, id: &'a str) -> Lookup<'a> {
        Box::pin(async move {
            let found = self.file.tenant(id).await?;
            match &self.registry {
                Some(registry) if found.is_none() => registry.tenant(id).await,
                Some(registry) if registry.knows(id) => {
                    self.warn_of_both("tenant", id);
                    Ok(found)
                }
                _ => Ok(found),
            }
        })
    }

    fn cluster(&self, name: &ClusterName) -> Option<Arc<Cluster>> {
        let of_file = self.file.cluster(name);
        let of_registry = self.registry.as_ref().and_then(|it| it.cluster(name));
        if of_file.is_some() && of_registry.is_some() {
            self.warn_of_both("cluster", name.as_str());
        }
        of_file.or(of_registry)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}
