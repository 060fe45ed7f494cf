//! `proxy.toml`: read once into what is written (`raw`), checked once into what is true
//! ([`Config`]).
//!
//! A [`Config`] can't be half-valid: every name resolves, every number is in its bounds, every
//! secret was read, every file was there. What is wrong comes as a list of [`Problem`]s, each with
//! its line and the way out. Live reload loads the file anew and compares: [`StaticDirectory`]
//! keeps what did not change, [`Config::diff_restart`] names what waits for a restart, and
//! [`watch`] tells when to look. The meaning and default of every key stand in `proxy.toml` itself.
//!
//! This module knows the vocabulary ([`crate::tenant`]) and nothing else of the proxy.

mod check;
mod directory;
mod effective;
mod error;
mod location;
mod micros;
mod prices;
mod raw;
mod units;
mod url;
pub mod watch;

pub use directory::{Replaced, StaticDirectory};
pub use error::{ConfigError, Fault, Problem, UrlError};
pub use location::KeyPath;
pub use micros::Micros;
pub use prices::{Free, Prices};
pub use url::{
    parse as cluster_url, parse_replica as replica_url, print as print_cluster_url,
    print_replica as print_replica_url,
};

use crate::{
    crypto::KeySource,
    tenant::{Cluster, Plan, Plans, Secret, Tenant, UpstreamTls},
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Everything that `proxy.toml` says, with the defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The process and its listeners.
    pub proxy: Proxy,
    /// The HTTP listener for operators.
    pub admin: Admin,
    /// The system of record; `None`: this file is all there is.
    pub registry: Option<Registry>,
    /// How what tenants use is kept, where there is a registry.
    pub usage: Usage,
    /// What use costs; `None`: nobody asks.
    pub prices: Option<Arc<Prices>>,
    /// Where the master keys come from. There is one when there is a registry.
    pub master_key: Option<KeySource>,
    /// The directory of the tenants' SQL templates.
    pub templates: Option<PathBuf>,
    /// The plans, in the file's order, without the presets. Names are unique.
    pub plans: Vec<Plan>,
    /// The clusters, in the file's order. Names are unique.
    pub clusters: Vec<Arc<Cluster>>,
    /// The tenants, in the file's order. Names are unique, and their clusters exist.
    pub tenants: Vec<Arc<Tenant>>,
}

/// The process and its listeners.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    /// Where clients connect: at least one.
    pub listen: Vec<Listen>,
    /// Threads that relay, 1 to 1024.
    pub workers: usize,
    /// Threads that do TLS handshakes and logins, 1 to 1024.
    pub login_workers: usize,
    /// Clients of the whole process.
    pub max_client_connections: u32,
    /// Of these, kept for `operator_addresses`. Fewer than `max_client_connections`.
    pub reserved_client_connections: u32,
    /// From where the reserved connections can be used.
    pub operator_addresses: Vec<IpNet>,
    /// From accept to the end of the login. Never zero.
    pub login_timeout: Duration,
    /// TLS towards clients.
    pub tls: ClientTls,
    /// Whether a key may come as a plain password outside TLS.
    pub allow_plaintext_password: bool,
    /// Failed logins allowed per minute, per client address and per tenant.
    pub auth_failures_per_minute: u32,
    /// A file with at least 16 random bytes; `None`: random at each start.
    pub auth_seed_file: Option<PathBuf>,
    /// How long open transactions may go on after SIGTERM. Never zero.
    pub shutdown_timeout: Duration,
    /// How long the new process may take to become ready at a restart. Never zero.
    pub restart_timeout: Duration,
    /// How long sessions may stay with the old process behind a restart; `None`: as they like.
    pub restart_grace: Option<Duration>,
    /// What is logged, and how.
    pub log: Log,
    /// Where it stands: replicas there are read from first.
    pub region: Option<Box<str>>,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Listen {
    /// Where.
    pub address: ListenAddress,
    /// Whether a PROXY protocol v2 header comes first.
    pub proxy_protocol: bool,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A socket file, to be created. At most 107 bytes.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whether clients use TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// They can't.
    Disable,
    /// As they like.
    Allow,
    /// They must.
    Require,
}

/// TLS towards clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// Whether clients use it. `Allow` and `Require` come with a certificate.
    pub mode: TlsMode,
    /// Certificate chain and key, PEM files that were readable.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The CA of client certificates.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is refused. Comes with `Require` and a CA.
    pub client_certificate_required: bool,
}

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// Form of a line.
    pub format: LogFormat,
    /// Least important level that is logged.
    pub level: LogLevel,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Importance of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// pgusher is at fault.
    Error,
    /// PostgreSQL or the configuration is at fault.
    Warn,
    /// What an operator wants to know in the steady state.
    #[default]
    Info,
    /// For finding out.
    Debug,
}

impl LogLevel {
    /// The name in `proxy.toml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// The HTTP listener for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where; `None`: it is off.
    pub listen: Option<SocketAddr>,
    /// Certificate chain and private key (PEM); `None`: it speaks plain HTTP.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Tenants that metrics tell apart, 0 to 1000; 0: metrics tell nothing by tenant.
    pub tenant_series: u32,
}

/// The system of record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// A `postgres://` URL; it holds a password.
    pub url: Secret,
    /// Connections to it, 1 to 100.
    pub max_connections: u32,
    /// How long a tenant is served by the last good answer when the registry does not answer.
    pub stale_max: Duration,
    /// A sealed copy on disk, so that a start without the registry serves the known tenants.
    pub snapshot: Option<PathBuf>,
    /// How often a running proxy goes on with what was left half done; `None`: never.
    pub sweep_interval: Option<Duration>,
    /// How often a running proxy looks for tenants that hold up others with a lock; `None`: never.
    pub lock_watch_interval: Option<Duration>,
    /// How long a tenant that does so again is kept out, at first; zero: not at all.
    pub lock_watch_penalty: Duration,
}

/// How what tenants use is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// How often it is written to the registry, 100 ms to 10 minutes; `None`: never.
    pub flush_interval: Option<Duration>,
    /// How often tenants' storage is measured, 1 s to 1 day; `None`: never.
    pub storage_interval: Option<Duration>,
    /// How long its hours are kept, 32 days or more; `None`: for ever.
    pub retention: Option<Duration>,
}

impl Config {
    /// The presets, and the file's own plans in place of those of the same names.
    pub fn all_plans(&self) -> Plans {
        let mut plans = Plans::default();
        plans.put(self.plans.iter().cloned());
        plans
    }

    /// Reads and checks a file. Warnings go to the log.
    ///
    /// # Errors
    /// [`ConfigError`] when it can't be read or has errors: all of them are listed.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let (config, warnings) = Self::inspect(path)?;
        for warning in warnings {
            tracing::warn!(%warning, "configuration");
        }
        Ok(config)
    }

    /// Reads and checks a file. For the time before there is a log, warnings are returned.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn inspect(path: &Path) -> Result<(Self, Vec<Problem>), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let directory = path.parent().unwrap_or(Path::new(""));
        check::parse(&text, directory, &environment).map_err(|problems| ConfigError::Invalid {
            path: path.to_owned(),
            problems,
        })
    }

    /// Checks a text. Relative paths in it start at `directory`. Warnings go to the log.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] lists everything that is wrong.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, ConfigError> {
        let parsed = check::parse(text, directory, &environment);
        let (config, warnings) = parsed.map_err(|problems| ConfigError::Invalid {
            path: directory.join("proxy.toml"),
            problems,
        })?;
        for warning in warnings {
            tracing::warn!(%warning, "configuration");
        }
        Ok(config)
    }

    /// The certificates, keys and CAs that are named, sorted, each once: to be watched together
    /// with `proxy.toml`. A change of their content does not change the configuration.
    ///
    /// Files of passwords are not among them; they are read again whenever `proxy.toml` is.
    pub fn tls_files(&self) -> Vec<PathBuf> {
        let tls = &self.proxy.tls;
        let mut files: Vec<&PathBuf> = tls.client_ca.iter().collect();
        files.extend(tls.certificate.iter().flat_map(|(chain, key)| [chain, key]));
        for cluster in &self.clusters {
            let certificate = cluster.client_certificate.iter();
            files.extend(certificate.flat_map(|(chain, key)| [chain, key]));
            if let UpstreamTls::VerifyCa(ca) | UpstreamTls::VerifyFull(ca) = &cluster.tls {
                files.extend(ca);
            }
        }
        files.sort_unstable();
        files.dedup();
        files.into_iter().cloned().collect()
    }

    /// Which keys differ from `old` that only a restart can change.
    pub fn diff_restart(&self, old: &Self) -> Vec<&'static str> {
        let listeners = |config: &Self, proxy_protocol| -> Vec<Listen> {
            let all = config.proxy.listen.iter();
            all.filter(|listen| listen.proxy_protocol == proxy_protocol)
                .cloned()
                .collect()
        };
        let (new_proxy, old_proxy) = (&self.proxy, &old.proxy);
        let differs = [
            (
                "proxy.listen",
                listeners(self, false) != listeners(old, false),
            ),
            (
                "proxy.proxy_protocol_listen",
                listeners(self, true) != listeners(old, true),
            ),
            ("proxy.workers", new_proxy.workers != old_proxy.workers),
            (
                "proxy.login_workers",
                new_proxy.login_workers != old_proxy.login_workers,
            ),
            (
                "proxy.auth_seed_file",
                new_proxy.auth_seed_file != old_proxy.auth_seed_file,
            ),
            (
                "proxy.log_format",
                new_proxy.log.format != old_proxy.log.format,
            ),
            (
                "proxy.log_level",
                new_proxy.log.level != old_proxy.log.level,
            ),
            ("admin.listen", self.admin.listen != old.admin.listen),
            ("registry", self.registry != old.registry),
            ("secrets", self.master_key != old.master_key),
            ("usage", self.usage != old.usage),
        ];
        let changed = differs.into_iter().filter(|(_, differs)| *differs);
        changed.map(|(key, _)| key).collect()
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests;
