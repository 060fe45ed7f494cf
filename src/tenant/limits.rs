//! What a tenant may use.

use super::{Address, UnknownName};
use std::{
    num::{NonZeroU32, NonZeroU64},
    str::FromStr,
    time::Duration,
};

/// Counts. Each is a maximum; none is "unlimited".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Clients of the tenant at the same time; more are refused with 53300.
    pub max_client_connections: u32,
    /// Server connections of the tenant per role; more clients wait.
    pub pool_size: u32,
    /// Server connections kept open once the pool is in use.
    pub min_pool_size: u32,
    /// Server connections of the cluster that others can't keep from it: it gets so many before anybody gets
    /// another one, and idle ones are not taken from it.
    pub guaranteed_servers: u32,
    /// Its part of the cluster's server connections against the others' weights, when all want more than
    /// there are.
    pub weight: u32,
    /// Prepared statements kept on each server connection.
    pub max_prepared_statements: u32,
    /// Servers that sessions in transaction mode may keep because of state that can't be carried;
    /// one more session that would need to ends with 53400.
    pub max_pinned_servers: u32,
    /// Clients that wait for `max_concurrent_queries` at the same time, of all keys together; one more is
    /// refused with 53300.
    pub max_waiting: u32,
    /// Bytes that its data may take in its cluster, as measured from time to time; `None` is no limit. With
    /// as many it may only read and free space (25006).
    pub max_storage_bytes: Option<NonZeroU64>,
    /// What all its keys together may do.
    pub caps: Caps,
}

impl Limits {
    /// The largest weight.
    pub const WEIGHT_MAX: u32 = 1000;
    /// The most storage that can be set, in bytes: 10^15.
    pub const STORAGE_MAX: u64 = 1_000_000_000_000_000;

    /// So many may be pinned where nothing else is said: one less than the pool has, so that the
    /// others can go on, but at least one.
    pub fn pinned_of(pool_size: u32) -> u32 {
        pool_size.saturating_sub(1).max(1)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_client_connections: 1000,
            pool_size: 20,
            min_pool_size: 0,
            guaranteed_servers: 0,
            weight: 1,
            max_prepared_statements: 500,
            max_pinned_servers: Self::pinned_of(20),
            max_waiting: 1_000_000,
            max_storage_bytes: None,
            caps: Caps::default(),
        }
    }
}

/// What a tenant, or one of its keys, may do at the same time, in a second and in an hour, in each process.
/// `None` is no limit. A second's worth, or an hour's, goes at once and comes back evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caps {
    /// Transactions that run at the same time; more wait, then 53300.
    pub max_concurrent_queries: Option<NonZeroU32>,
    /// Transactions that begin in a second; more wait for up to a second, then 53400.
    pub transactions_per_second: Option<NonZeroU32>,
    /// Transactions that begin in an hour; one that would wait for more than a second gets 53400.
    pub transactions_per_hour: Option<NonZeroU32>,
    /// Bytes in a second, in both directions together. What was too much has the next transactions wait,
    /// then 53400.
    pub bytes_per_second: Option<NonZeroU64>,
    /// Logins in a second; more wait for up to a second, then 53400.
    pub logins_per_second: Option<NonZeroU32>,
}

impl Caps {
    /// The largest of the numbers, but for those below.
    pub const COUNT_MAX: u32 = 1_000_000;
    /// The most transactions in an hour.
    pub const HOUR_MAX: u32 = 1_000_000_000;
    /// The most bytes in a second.
    pub const BYTES_MAX: u64 = 1_000_000_000_000;

    /// Whether it limits transactions in any way.
    pub fn restrains_transactions(&self) -> bool {
        self.max_concurrent_queries.is_some()
            || self.transactions_per_second.is_some()
            || self.transactions_per_hour.is_some()
            || self.bytes_per_second.is_some()
    }
}

/// How long things may take. `None` is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// An idle server connection is closed after this.
    pub server_idle: Option<Duration>,
    /// A server connection is closed at about this age, when it is free.
    pub server_lifetime: Option<Duration>,
    /// A server connection that was idle for this long is asked whether it lives.
    pub server_check_delay: Option<Duration>,
    /// A client waits so long for a server: then 53300.
    pub query_wait: Option<Duration>,
    /// A statement is cancelled after this (57014).
    pub query: Option<Duration>,
    /// A transaction is ended after this (25P04).
    pub transaction: Option<Duration>,
    /// A transaction that stands idle is ended after this (25P03).
    pub idle_transaction: Option<Duration>,
    /// A client that stands idle outside a transaction is sent away after this (57P05).
    pub client_idle: Option<Duration>,
    /// A client that takes nothing of its answer for this long is cut off, if others wait for the server that
    /// it holds (57P05 in the log; the client is told nothing, as it takes nothing).
    pub client_write: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            server_idle: Some(Duration::from_mins(10)),
            server_lifetime: Some(Duration::from_hours(1)),
            server_check_delay: Some(Duration::from_secs(30)),
            query_wait: Some(Duration::from_mins(2)),
            query: None,
            transaction: None,
            idle_transaction: None,
            client_idle: None,
            client_write: Some(Duration::from_mins(1)),
        }
    }
}

/// What a tenant's reads must see of its writes, where replicas answer them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Consistency {
    /// All that any session of the tenant has committed before.
    #[default]
    Tenant,
    /// What the session itself has committed before.
    Session,
    /// Whatever the replica has.
    Eventual,
}

impl Consistency {
    /// The name in `proxy.toml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Session => "session",
            Self::Eventual => "eventual",
        }
    }
}

impl FromStr for Consistency {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        match text {
            "tenant" => Ok(Self::Tenant),
            "session" => Ok(Self::Session),
            "eventual" => Ok(Self::Eventual),
            _ => Err(UnknownName {
                allowed: "\"tenant\", \"session\", \"eventual\"",
            }),
        }
    }
}

/// Where a session wants its statements to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ReadTarget {
    /// Each where it may run: reads on replicas, all else on the primary.
    #[default]
    Auto,
    /// All on the primary.
    Primary,
    /// All on a replica; what is none's is refused.
    Replica,
}

impl ReadTarget {
    /// The name at startup, in `pgusher.target`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

impl FromStr for ReadTarget {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        match text {
            "auto" => Ok(Self::Auto),
            "primary" => Ok(Self::Primary),
            "replica" => Ok(Self::Replica),
            _ => Err(UnknownName {
                allowed: "\"auto\", \"primary\", \"replica\"",
            }),
        }
    }
}

/// How a tenant's reads are spread over the servers of its cluster. Without replicas it has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reads {
    /// Whether replicas answer any.
    pub split: bool,
    /// What they must see.
    pub consistency: Consistency,
    /// Only these replicas; `None` is all of the cluster's.
    pub replicas: Option<Vec<Address>>,
    /// How long a session at a transaction boundary waits for a new primary: then 57P03.
    pub failover_hold: Duration,
}

impl Default for Reads {
    fn default() -> Self {
        Self {
            split: true,
            consistency: Consistency::default(),
            replicas: None,
            failover_hold: Duration::from_secs(10),
        }
    }
}
