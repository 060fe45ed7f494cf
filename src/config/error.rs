//! What is wrong with a configuration: where, and what to do about it.

use super::location::{At, KeyPath, Lines};
use crate::tenant::IdError;
use std::{
    fmt::{self, Write as _},
    io,
    path::PathBuf,
    time::Duration,
};

/// At most so many problems are printed; the others are counted.
const PRINTED_MAX: usize = 50;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("can't read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file has errors.
    #[error("{}", list(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it, in the order of checking.
        problems: Vec<Problem>,
    },
}

fn list(path: &std::path::Path, problems: &[Problem]) -> String {
    let count = match problems.len() {
        1 => "1 error".to_owned(),
        count => format!("{count} errors"),
    };
    let mut text = format!("{} has {count}", path.display());
    for problem in problems.iter().take(PRINTED_MAX) {
        text.push_str("\n  ");
        text.push_str(&problem.to_string());
    }
    if let Some(more) = problems
        .len()
        .checked_sub(PRINTED_MAX)
        .filter(|more| *more > 0)
    {
        write!(text, "\n  and {more} more").expect("a String takes every text");
    }
    text
}

/// One thing that is wrong, or (as a warning) that may be.
#[derive(Debug)]
pub struct Problem {
    /// Which key.
    pub path: KeyPath,
    /// Its line, from 1; that of its table when the key is missing.
    pub line: Option<usize>,
    /// What is wrong with it.
    pub fault: Fault,
}

impl Problem {
    /// A problem whose line is not known yet.
    pub(crate) fn new(at: At<'_>, fault: Fault) -> Self {
        Self {
            path: at.to_path(),
            line: None,
            fault,
        }
    }

    /// Finds the line.
    pub(crate) fn locate(&mut self, lines: &Lines<'_>) {
        self.line = self.line.or_else(|| lines.line_of(&self.path));
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if self.path != KeyPath::default() {
            write!(f, "{}: ", self.path)?;
        }
        self.fault.fmt(f)
    }
}

/// What is wrong with a key, and the way out. No variant holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{0}")]
    Syntax(String),
    /// The key is needed.
    #[error("it is missing; {0}")]
    Missing(&'static str),
    /// A number outside its bounds.
    #[error("{value} is not allowed; use {min} to {max}")]
    Range {
        /// As given.
        value: u64,
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// A number that must not be larger than another key's.
    #[error("{value} is too large; {other} is {limit}")]
    Above {
        /// As given.
        value: u64,
        /// The other key.
        other: &'static str,
        /// Its value.
        limit: u64,
    },
    /// So many are kept free that none is left.
    #[error(
        "{value} leaves no server connection for tenants; use at most {} (max_server_connections is {limit})",
        limit.saturating_sub(1)
    )]
    Reserves {
        /// As given.
        value: u64,
        /// `max_server_connections`.
        limit: u64,
    },
    /// More is promised to tenants than there is.
    #[error(
        "{value} is too large; {others} are guaranteed to tenants above, and the cluster has {limit} \
         (max_server_connections less reserved_servers); use at most {} or raise max_server_connections",
        limit.saturating_sub(*others)
    )]
    Promised {
        /// As given.
        value: u64,
        /// What others are promised.
        others: u64,
        /// What there is.
        limit: u64,
    },
    /// `"0s"` for a time that can't be switched off.
    #[error("\"0s\" is not allowed here; this time can't be switched off")]
    ZeroTime,
    /// A time outside its bounds.
    #[error("\"{}\" is not allowed; use \"{}\" to \"{}\"", time(*value), time(*min), time(*max))]
    TimeRange {
        /// As given.
        value: Duration,
        /// Least.
        min: Duration,
        /// Most.
        max: Duration,
    },
    /// Not an identifier.
    #[error("{value:?} is no name: {source}")]
    Id {
        /// As given.
        value: String,
        /// Why not.
        #[source]
        source: IdError,
    },
    /// The name is taken.
    #[error("{value:?} is used twice; rename one")]
    Duplicate {
        /// The name.
        value: String,
    },
    /// There is no such cluster.
    #[error("there is no cluster {value:?}; add it under [[clusters]] or use one of {known:?}")]
    UnknownCluster {
        /// As given.
        value: String,
        /// Some that there are.
        known: Vec<String>,
    },
    /// Not the name of a plan.
    #[error(
        "{value:?} can't be the name of a plan; use 1 to 63 of a-z, 0-9, \"_\" and \"-\", and not \"custom\""
    )]
    PlanName {
        /// As given.
        value: String,
    },
    /// There is no such plan.
    #[error("there is no plan {value:?}; add it under [[plans]] or use one of {known:?}")]
    UnknownPlan {
        /// As given.
        value: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// The cluster has no such replica.
    #[error("{value:?} is no replica of cluster {cluster:?}; {}", replicas(known))]
    UnknownReplica {
        /// As given.
        value: String,
        /// The cluster.
        cluster: String,
        /// Its replicas.
        known: Vec<String>,
    },
    /// A name for PostgreSQL that it can't have.
    #[error("{value:?} can't be a name in PostgreSQL; use 1 to 63 bytes without NUL")]
    SqlName {
        /// As given.
        value: String,
    },
    /// Not an address to listen on.
    #[error(
        "{value:?} is no address; write an IP address and a port, such as \"0.0.0.0:6432\"{socket}"
    )]
    Listen {
        /// As given.
        value: String,
        /// What else is possible.
        socket: &'static str,
    },
    /// Not the URL of a PostgreSQL server.
    #[error(
        "{0}; write \"postgres://host:5432\" or \"postgres:///?host=/var/run/postgresql&port=5432\""
    )]
    Url(UrlError),
    /// Not the URL of a hot standby.
    #[error("{0}; write \"postgres://host:5432\" or \"postgres://host:5432?weight=2&region=eu\"")]
    ReplicaUrl(UrlError),
    /// Not the name of a region.
    #[error("{0}")]
    Region(UrlError),
    /// Not a network.
    #[error("{value:?} is no network; write an address or CIDR, such as \"10.0.0.0/8\"")]
    Network {
        /// As given.
        value: String,
    },
    /// Not a currency.
    #[error("{value:?} is no currency; write three capital letters, such as \"EUR\"")]
    Currency {
        /// As given.
        value: String,
    },
    /// Not a point in time.
    #[error("{value:?} is no time; write it in UTC, such as \"2027-01-31T00:00:00Z\"")]
    Time {
        /// As given.
        value: String,
    },
    /// The key never becomes valid.
    #[error("it is not after not_before; the key would never be valid")]
    ExpiresFirst,
    /// Not a verifier.
    #[error("the value is no verifier (SCRAM-SHA-256$…); make one with: pgusher key verifier")]
    Verifier,
    /// A verifier with another salt or iteration count than the tenant's first.
    #[error(
        "its salt and iterations differ from keys[0]; make it with: pgusher key verifier --like 'VERIFIER OF keys[0]'"
    )]
    VerifierUnlike,
    /// A key of scope `read_only`, and no role for it.
    #[error("\"read_only\" needs the tenant's read_only_role; add a role without write privilege")]
    ReadOnlyRole,
    /// A key that says nothing without another.
    #[error("it needs {0} as well")]
    Needs(&'static str),
    /// Two keys that exclude each other.
    #[error("it can't stand together with {0}; remove one")]
    Excludes(&'static str),
    /// The file can't be read.
    #[error("can't read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is too short.
    #[error("{} has fewer than {min} bytes", path.display())]
    ShortFile {
        /// The file.
        path: PathBuf,
        /// Least.
        min: u64,
    },
    /// A secret that is empty.
    #[error("the password is empty; remove the key when PostgreSQL trusts pgusher")]
    EmptySecret,
    /// The environment variable is not there.
    #[error("the environment variable {name:?} is not set")]
    Environment {
        /// Its name.
        name: String,
    },
    /// A setting that PostgreSQL would not take for one.
    #[error("{value:?} can't be a setting; {reason}")]
    Setting {
        /// Its name.
        value: String,
        /// Why not.
        reason: &'static str,
    },
    /// A value with a NUL byte.
    #[error("the value has a NUL byte; remove it")]
    Nul,
    /// A warning: tokens and answers can be read on their way.
    #[error(
        "tokens and what they are answered cross the network in clear text; give tls_cert and tls_key, or see to it that nobody listens there"
    )]
    ClearText,
    /// A warning: nobody can look at the replicas.
    #[error(
        "they are not used: no tenant of this file is on the cluster, whose login could ask how far they are; give monitor_role"
    )]
    NotWatched,
    /// A warning: others can read the secret.
    #[error("{} can be read by every user; chmod 600 it", path.display())]
    WorldReadable {
        /// The file.
        path: PathBuf,
    },
}

fn time(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(time)
}

fn replicas(known: &[String]) -> String {
    match known {
        [] => "it has none: add it to the cluster's replicas".to_owned(),
        known => format!("use some of {known:?}, or add it to the cluster's replicas"),
    }
}

/// Why a text is not the URL of a PostgreSQL server. None of them shows the URL: it may hold a
/// password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error("the value does not start with \"postgres://\"")]
    Scheme,
    /// `user:password@`
    #[error("the URL names a user; that belongs into the tenant's role and password")]
    User,
    /// `/database`
    #[error("the URL names a database; that belongs into the tenant's database")]
    Database,
    /// No host.
    #[error("the URL names no host")]
    Host,
    /// Several hosts.
    #[error("the URL names several hosts; the others belong into replicas")]
    Hosts,
    /// Not a port.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// A parameter other than `host` and `port`.
    #[error("the URL has the parameter {0:?}; only host and port are known, TLS belongs into tls")]
    Parameter(String),
    /// `weight` or `region` for a primary.
    #[error(
        "the URL has the parameter {0:?}, which only a replica's has; a primary's share of the reads is primary_weight, the proxy's region is region in [proxy]"
    )]
    OfReplica(String),
    /// Not a weight.
    #[error("the weight {0:?} is not allowed; use 1 to 1000")]
    Weight(String),
    /// Not the name of a region.
    #[error("the region {0:?} is no name; use 1 to 63 letters, digits, \"-\", \"_\" and \".\"")]
    Region(String),
    /// `%` without two hexadecimal digits, or not UTF-8.
    #[error("the URL has a broken %-escape")]
    Escape,
}
