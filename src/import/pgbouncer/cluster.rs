//! `[[clusters]]`: the servers that databases name.

use super::{
    super::{ids::normalised, ini::Spot},
    Globals, Notes, Toml,
    proxy::named_file,
};
use crate::{
    config::{cluster_url, print_cluster_url},
    tenant::Address,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Connections to a cluster without a word, and the most there can be.
const CONNECTIONS: u64 = 90;
const CONNECTIONS_MAX: u64 = 100_000;

/// TLS towards PostgreSQL, the same for all.
pub(super) struct Tls {
    mode: &'static str,
    /// Whether PgBouncer would use TLS where the server has it.
    is_preferred: bool,
    files: Vec<(&'static str, String)>,
}

impl Tls {
    pub(super) fn of(globals: &mut Globals, file: &Path, notes: &mut Notes) -> Self {
        let given = globals.get("server_tls_sslmode");
        let word = given.as_ref().map_or("prefer", |(word, _)| word.as_str());
        let mode = match word {
            "require" => "require",
            "verify-ca" => "verify-ca",
            "verify-full" => "verify-full",
            _ => "disable",
        };
        let mut files = Vec::new();
        for (theirs, ours) in [
            ("server_tls_ca_file", "tls_ca"),
            ("server_tls_cert_file", "tls_cert"),
            ("server_tls_key_file", "tls_key"),
        ] {
            let spot = globals.get(theirs).map(|(_, spot)| spot);
            let is_used = mode.starts_with("verify") || (mode == "require" && ours != "tls_ca");
            match (named_file(globals, theirs, file, notes), spot) {
                (Some(path), _) if is_used => files.push((ours, path)),
                (Some(_), Some(spot)) => {
                    let text = format!("not taken over: it has no use with tls = {mode:?}");
                    notes.at(&spot, theirs, text);
                }
                _ => {}
            }
        }
        Self {
            mode,
            is_preferred: matches!(word, "prefer" | "allow"),
            files,
        }
    }
}

struct Cluster {
    name: String,
    address: Address,
    /// Of all pools there.
    servers: u64,
}

/// The clusters so far.
pub(super) struct Clusters {
    tls: Tls,
    connect_timeout: Duration,
    socket_folder: String,
    known: Vec<Cluster>,
}

impl Clusters {
    pub(super) fn new(tls: Tls, globals: &mut Globals, notes: &mut Notes) -> Self {
        let mut connect_timeout = globals.time("server_connect_timeout", 15, notes);
        if connect_timeout.is_zero() {
            notes.say(
                "server_connect_timeout",
                "0: pgusher needs an end; 15 s were written",
            );
            connect_timeout = Duration::from_secs(15);
        }
        let folder = globals.get("unix_socket_dir").map(|(folder, _)| folder);
        let folder = folder.filter(|folder| folder.starts_with('/'));
        Self {
            tls,
            connect_timeout,
            socket_folder: folder.unwrap_or_else(|| "/tmp".to_owned()),
            known: Vec::new(),
        }
    }

    /// The address of a database's server; `None` when we can't connect there, which is told.
    pub(super) fn address(
        &self,
        hosts: Option<&str>,
        port: u16,
        (subject, spot): (&str, &Spot),
        notes: &mut Notes,
    ) -> Option<Address> {
        let mut hosts = hosts
            .unwrap_or(&self.socket_folder)
            .split(',')
            .map(str::trim);
        let host = hosts.next().unwrap_or_default();
        let others: Vec<_> = hosts.collect();
        if !others.is_empty() {
            let text = format!(
                "host has several: {host:?} was taken as the primary, {} not; a cluster has one primary (write hot standbys into \"replicas\")",
                others.join(", ")
            );
            notes.at(spot, subject, text);
        }
        if host.starts_with('/') {
            let file = PathBuf::from(host).join(format!(".s.PGSQL.{port}"));
            return Some(Address::Unix(file));
        }
        if host.is_empty() || host.starts_with('@') {
            notes.at(
                spot,
                subject,
                format!("not taken over: pgusher can't connect to the host {host:?}"),
            );
            return None;
        }
        let address = Address::Tcp {
            host: host.into(),
            port,
        };
        if cluster_url(&print_cluster_url(&address)).as_ref() != Ok(&address) {
            let text = format!("not taken over: {host:?} is no name of a host");
            notes.at(spot, subject, text);
            return None;
        }
        Some(address)
    }

    /// The name of the cluster at this address.
    pub(super) fn of(&mut self, address: &Address) -> String {
        if let Some(known) = self.known.iter().find(|one| one.address == *address) {
            return known.name.clone();
        }
        let wish = match address {
            Address::Unix(_) => "local".to_owned(),
            Address::Tcp { host, port: 5432 } => normalised(host),
            Address::Tcp { host, port } => normalised(&format!("{host}-{port}")),
        };
        let is_taken = |name: &str| self.known.iter().any(|one| one.name == name);
        let mut name = wish.clone();
        let mut number = 2;
        while is_taken(&name) {
            let stem: String = wish.chars().take(56).collect();
            name = format!("{stem}-{number}");
            number += 1;
        }
        self.known.push(Cluster {
            name: name.clone(),
            address: address.clone(),
            servers: 0,
        });
        name
    }

    /// Counts the servers of one more pool.
    pub(super) fn add_servers(&mut self, name: &str, servers: u64) {
        if let Some(cluster) = self.known.iter_mut().find(|one| one.name == name) {
            cluster.servers = (cluster.servers + servers).min(CONNECTIONS_MAX);
        }
    }

    /// Tells what holds for whole clusters.
    pub(super) fn tell(&self, notes: &mut Notes) {
        let is_remote = |one: &Cluster| matches!(one.address, Address::Tcp { .. });
        if self.tls.is_preferred && self.known.iter().any(is_remote) {
            notes.say(
                "server_tls_sslmode",
                "prefer (PgBouncer's default): pgusher does not fall back, tls = \"disable\" was written; where the servers have TLS, write \"require\" or better",
            );
        }
        for cluster in self.known.iter().filter(|one| one.servers > CONNECTIONS) {
            let text = format!(
                "max_server_connections = {} is what all pools there may open together; PostgreSQL's max_connections must be above it, or make it less",
                cluster.servers
            );
            notes.say(&format!("cluster {:?}", cluster.name), text);
        }
    }

    pub(super) fn write(&self, toml: &mut Toml) {
        for cluster in &self.known {
            toml.section("[[clusters]]");
            toml.text("name", &cluster.name);
            toml.text("primary", &print_cluster_url(&cluster.address));
            if cluster.servers > CONNECTIONS {
                toml.number("max_server_connections", cluster.servers);
            }
            toml.time("connect_timeout", self.connect_timeout);
            if matches!(cluster.address, Address::Unix(_)) {
                continue;
            }
            toml.text("tls", self.tls.mode);
            for (key, path) in &self.tls.files {
                toml.text(key, path);
            }
        }
    }
}
