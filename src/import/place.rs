//! Which of our clusters a server is.

use crate::{
    config::{Config, cluster_url, print_cluster_url, replica_url},
    registry::ClusterRow,
    tenant::Address,
};

/// A cluster that we know.
struct Known {
    name: String,
    primary: Address,
    replicas: Vec<Address>,
}

/// The clusters of the registry, and those that only `proxy.toml` has.
pub(super) struct Places {
    registered: Vec<Known>,
    in_file: Vec<Known>,
    /// For servers whose address no cluster has: the only one that the operator named.
    fallback: Option<String>,
    taken: Option<Address>,
}

impl Places {
    pub(super) fn new(rows: &[ClusterRow], config: &Config, fallback: Option<String>) -> Self {
        let row = |row: &ClusterRow| {
            let replicas = row.replica_urls.iter();
            Some(Known {
                name: row.name.clone(),
                primary: cluster_url(&row.primary_url).ok()?,
                replicas: replicas
                    .filter_map(|url| Some(replica_url(url).ok()?.address))
                    .collect(),
            })
        };
        let in_file = config.clusters.iter().map(|cluster| Known {
            name: cluster.name.to_string(),
            primary: cluster.primary.clone(),
            replicas: cluster
                .replicas
                .iter()
                .map(|replica| replica.address.clone())
                .collect(),
        });
        Self {
            registered: rows.iter().filter_map(row).collect(),
            in_file: in_file.collect(),
            fallback,
            taken: None,
        }
    }

    /// The name of the registry's cluster whose primary is at this address.
    ///
    /// # Errors
    /// What to do when there is none.
    pub(super) fn cluster(&mut self, host: &str, port: u16) -> Result<String, String> {
        let address = address(host, port);
        let is_it = |known: &&Known| is_same(&known.primary, &address);
        if let Some(known) = self.registered.iter().find(is_it) {
            return Ok(known.name.clone());
        }
        if let Some(name) = &self.fallback {
            if !self.registered.iter().any(|known| known.name == *name) {
                return Err(format!(
                    "the registry has no cluster {name:?}; add it: {}",
                    add(name, &address)
                ));
            }
            let first = self.taken.get_or_insert_with(|| address.clone());
            if is_same(first, &address) {
                return Ok(name.clone());
            }
            return Err(format!(
                "--cluster {name} can't stand for {first} and for {address} as well; add a cluster for one of them: {}",
                add("NAME", &address)
            ));
        }
        let named = self.in_file.iter().find(is_it);
        let why = match named {
            Some(known) => format!("the cluster {:?} stands in proxy.toml alone", known.name),
            None => format!("no cluster has the primary {address}"),
        };
        let name = named.map_or("NAME", |known| known.name.as_str());
        Err(format!(
            "{why}; add it to the registry: {} (or name the cluster that it is: --cluster NAME)",
            add(name, &address)
        ))
    }

    /// What becomes of reads that went to a server beside the primary of this cluster.
    pub(super) fn reads_from(&self, cluster: &str, host: &str, port: u16) -> String {
        if self.is_of(cluster, host, port) {
            return format!(
                "{host}:{port} is a server of the cluster {cluster:?}: any of its replicas answers what only reads, for every key; pgusher tenant set ID read_replicas=URL narrows that down"
            );
        }
        format!(
            "{host}:{port} is no server of the cluster {cluster:?}: the replicas that it has answer what only reads, else the primary; pgusher cluster add-replica {cluster} adds one"
        )
    }

    /// Whether a server is one of this cluster's.
    fn is_of(&self, cluster: &str, host: &str, port: u16) -> bool {
        let address = address(host, port);
        let mut known = self.registered.iter().filter(|known| known.name == cluster);
        known.any(|known| {
            let mut all = known.replicas.iter().chain([&known.primary]);
            all.any(|one| is_same(one, &address))
        })
    }
}

fn add(name: &str, address: &Address) -> String {
    format!(
        "pgusher cluster add {name} --primary {} --admin-role ROLE --admin-password-env VARIABLE",
        print_cluster_url(address)
    )
}

fn address(host: &str, port: u16) -> Address {
    Address::Tcp {
        host: host.trim().trim_matches(['[', ']']).into(),
        port,
    }
}

/// Names in any case; this machine by all its names.
fn is_same(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (
            Address::Tcp { host, port },
            Address::Tcp {
                host: other,
                port: other_port,
            },
        ) => {
            let own = |host: &str| matches!(host, "localhost" | "127.0.0.1" | "::1");
            let (host, other) = (host.to_ascii_lowercase(), other.to_ascii_lowercase());
            port == other_port && (host == other || (own(&host) && own(&other)))
        }
        _ => one == other,
    }
}
