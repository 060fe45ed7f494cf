//! The tenants of `proxy.toml`, for the data plane.

use super::Config;
use crate::tenant::{Cluster, ClusterName, Directory, Lookup, Tenant, TenantId};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::{collections::HashMap, future::ready, hash::Hash, sync::Arc};
use tokio::sync::watch;

#[derive(Debug, Default)]
struct Maps {
    tenants: HashMap<TenantId, Arc<Tenant>>,
    clusters: HashMap<ClusterName, Arc<Cluster>>,
}

/// What a new configuration changed, in tenants and clusters together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replaced {
    /// New ones.
    pub added: usize,
    /// Ones with another value.
    pub changed: usize,
    /// Ones that are gone.
    pub removed: usize,
}

impl Replaced {
    /// Whether anything changed.
    pub fn is_any(self) -> bool {
        self != Self::default()
    }

    /// Compares the new map with the old, and takes over what is equal.
    fn keep<K: Eq + Hash, V: PartialEq>(
        &mut self,
        new: &mut HashMap<K, Arc<V>>,
        old: &HashMap<K, Arc<V>>,
    ) {
        for (key, value) in &mut *new {
            match old.get(key) {
                Some(before) if before == value => *value = Arc::clone(before),
                Some(_) => self.changed += 1,
                None => self.added += 1,
            }
        }
        self.removed += old.keys().filter(|key| !new.contains_key(key)).count();
    }
}

/// The [`Directory`] of a checked configuration.
///
/// A look-up is one atomic load and one hash. A tenant that [`StaticDirectory::replace`] did not
/// change keeps its `Arc`: pointer equality means unchanged.
#[derive(Debug)]
pub struct StaticDirectory {
    maps: ArcSwap<Maps>,
    generation: watch::Sender<u64>,
    /// One replacement at a time: it reads the old maps, then stores the new.
    replacing: Mutex<()>,
}

impl StaticDirectory {
    /// The tenants and clusters of the configuration, as generation 0.
    pub fn new(config: &Config) -> Self {
        Self {
            maps: ArcSwap::from_pointee(maps(config)),
            generation: watch::Sender::new(0),
            replacing: Mutex::new(()),
        }
    }

    /// Takes a new configuration over. The generation moves on only when something changed.
    pub fn replace(&self, config: &Config) -> Replaced {
        let _replacing = self.replacing.lock();
        let old = self.maps.load_full();
        let mut new = maps(config);
        let mut replaced = Replaced::default();
        replaced.keep(&mut new.tenants, &old.tenants);
        replaced.keep(&mut new.clusters, &old.clusters);
        if replaced.is_any() {
            self.maps.store(Arc::new(new));
            self.generation.send_modify(|generation| *generation += 1);
        }
        replaced
    }
}

fn maps(config: &Config) -> Maps {
    let tenants = config.tenants.iter();
    let clusters = config.clusters.iter();
    Maps {
        tenants: tenants.map(|it| (it.id.clone(), Arc::clone(it))).collect(),
        clusters: clusters
            .map(|it| (it.name.clone(), Arc::clone(it)))
            .collect(),
    }
}

impl Directory for StaticDirectory {
    fn tenant<'a>(&'a self, id: &'a str) -> Lookup<'a> {
        let tenant = self.maps.load().tenants.get(id).cloned();
        Box::pin(ready(Ok(tenant)))
    }

    fn cluster(&self, name: &ClusterName) -> Option<Arc<Cluster>> {
        self.maps.load().clusters.get(name).cloned()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn config(pool_size: u32, more: &str) -> Config {
        let text = format!(
            "[[clusters]]\nname = \"main\"\nprimary = \"postgres://db\"\n\
             [[tenants]]\nid = \"a\"\ncluster = \"main\"\ntier = \"database\"\ndatabase = \"a\"\nrole = \"a\"\npool_size = {pool_size}\n\
             [[tenants]]\nid = \"b\"\ncluster = \"main\"\ntier = \"database\"\ndatabase = \"b\"\nrole = \"b\"\n{more}"
        );
        Config::parse(&text, Path::new("")).unwrap()
    }

    async fn tenant(directory: &StaticDirectory, id: &str) -> Option<Arc<Tenant>> {
        directory.tenant(id).await.unwrap()
    }

    #[tokio::test]
    async fn an_unchanged_tenant_stays_the_same_value() {
        let directory = StaticDirectory::new(&config(1, ""));
        let (a, b) = (tenant(&directory, "a").await, tenant(&directory, "b").await);
        let mut changes = directory.changes();

        let replaced = directory.replace(&config(2, ""));
        assert_eq!(
            replaced,
            Replaced {
                changed: 1,
                ..Replaced::default()
            }
        );
        assert!(changes.has_changed().unwrap());
        assert_eq!(*changes.borrow_and_update(), 1);
        let (new_a, new_b) = (tenant(&directory, "a").await, tenant(&directory, "b").await);
        assert!(Arc::ptr_eq(&b.unwrap(), &new_b.unwrap()));
        assert!(!Arc::ptr_eq(&a.unwrap(), new_a.as_ref().unwrap()));
        assert_eq!(new_a.unwrap().limits.pool_size, 2);
    }

    #[tokio::test]
    async fn the_same_configuration_changes_nothing() {
        let directory = StaticDirectory::new(&config(1, ""));
        let cluster = ClusterName::new("main").unwrap();
        let before = directory.cluster(&cluster).unwrap();
        assert!(!directory.replace(&config(1, "")).is_any());
        assert!(!directory.changes().has_changed().unwrap());
        assert!(Arc::ptr_eq(&before, &directory.cluster(&cluster).unwrap()));
    }

    #[tokio::test]
    async fn a_removed_tenant_is_no_longer_found() {
        let more = "[[tenants]]\nid = \"c\"\ncluster = \"main\"\ntier = \"row\"\ndatabase = \"c\"\nrole = \"c\"";
        let directory = StaticDirectory::new(&config(1, ""));
        assert_eq!(tenant(&directory, "c").await, None);
        assert_eq!(directory.replace(&config(1, more)).added, 1);
        assert!(tenant(&directory, "c").await.is_some());
        assert_eq!(directory.replace(&config(1, "")).removed, 1);
        assert_eq!(tenant(&directory, "c").await, None);
    }
}
