//! One PostgreSQL primary with its replicas.

use super::{ClusterName, Login};
use std::{fmt, path::PathBuf, time::Duration};

/// Where a PostgreSQL server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host (name or IP address) and a TCP port.
    Tcp {
        /// Name or IP address.
        host: Box<str>,
        /// Port.
        port: u16,
    },
    /// A socket file, such as `/run/postgresql/.s.PGSQL.5432`.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// TLS towards PostgreSQL, as libpq's `sslmode`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum UpstreamTls {
    /// None.
    #[default]
    Disable,
    /// Encrypted, with any certificate.
    Require,
    /// The certificate must come from the CA (`None`: one of the system's).
    VerifyCa(Option<PathBuf>),
    /// The certificate must come from the CA and name the host.
    VerifyFull(Option<PathBuf>),
}

/// A hot standby.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Where it listens.
    pub address: Address,
    /// Its share of the reads, against the others' weights; at least 1.
    pub weight: u32,
    /// Where it stands; `None` is said by nobody.
    pub region: Option<Box<str>>,
}

impl Replica {
    /// A cluster has no more.
    pub const COUNT_MAX: usize = 16;
    /// The largest weight.
    pub const WEIGHT_MAX: u32 = 1000;

    /// One of weight 1.
    pub fn at(address: Address) -> Self {
        Self {
            address,
            weight: 1,
            region: None,
        }
    }
}

/// How a cluster's replicas are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standbys {
    /// The primary's share of the reads, against the replicas' weights.
    pub primary_weight: u32,
    /// A replica that is so many bytes of WAL behind gets no reads; `None` is no limit.
    pub lag_bytes_max: Option<u64>,
    /// Likewise by time.
    pub lag_max: Option<Duration>,
    /// Whether reads go to the primary when no replica can take them; else 57P03.
    pub fallback: bool,
    /// How often each server is asked what it is and how far it is.
    pub watch_interval: Duration,
    /// A server that takes longer to answer is taken for dead.
    pub watch_timeout: Duration,
    /// A replica that comes (back) gets its full share after this.
    pub slow_start: Duration,
    /// The region of this proxy: replicas there come first.
    pub region: Option<Box<str>>,
}

impl Standbys {
    /// The primary's largest weight.
    pub const PRIMARY_WEIGHT_MAX: u32 = 1000;
    /// The shortest time between two looks at a server, and for an answer.
    pub const WATCH_MIN: Duration = Duration::from_millis(10);
    /// The longest.
    pub const WATCH_MAX: Duration = Duration::from_mins(1);
}

impl Default for Standbys {
    fn default() -> Self {
        Self {
            primary_weight: 0,
            lag_bytes_max: None,
            lag_max: Some(Duration::from_secs(30)),
            fallback: true,
            watch_interval: Duration::from_millis(100),
            watch_timeout: Duration::from_secs(1),
            slow_start: Duration::from_secs(10),
            region: None,
        }
    }
}

/// As whom the servers of a cluster are watched, and in which database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// The login: any may ask what is asked.
    pub login: Login,
    /// The database.
    pub database: Box<str>,
}

/// One PostgreSQL primary with its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its name in the configuration.
    pub name: ClusterName,
    /// Where writes go.
    pub primary: Address,
    /// Hot standbys.
    pub replicas: Vec<Replica>,
    /// How they are used.
    pub standbys: Standbys,
    /// No transaction begins on the primary for now: sessions wait, each for at most its tenant's
    /// `failover_hold`. For a planned change of the primary.
    pub is_paused: bool,
    /// As whom the servers are watched; `None`: replicas are not used.
    pub watch: Option<Watch>,
    /// Server connections of all tenants together.
    pub max_server_connections: u32,
    /// Of these, kept free for what is not a tenant's: the operator, watches, cancels.
    pub reserved_servers: u32,
    /// Server connections being opened at the same time.
    pub max_parallel_connects: u32,
    /// Statements that run at the same time on the primary, and on each replica; 0 is no limit.
    pub max_running_statements: u32,
    /// How many that are is found, for each server: at most as many as that, if it is a limit.
    pub adaptive_running_statements: bool,
    /// And at least so many.
    pub min_running_statements: u32,
    /// TCP connect, TLS and login together.
    pub connect_timeout: Duration,
    /// TLS towards the cluster.
    pub tls: UpstreamTls,
    /// Client certificate and key (PEM) for PostgreSQL.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

/// How many statements run on a server at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunningLimit {
    /// So many; 0 is no limit.
    Fixed(u32),
    /// As many as get as much done as more would: it is found between these.
    Found {
        /// At least 1.
        floor: u32,
        /// At least as many.
        ceiling: u32,
    },
}

impl Cluster {
    /// The fewest statements that are found to be enough, unless that is set; a quarter more run, rounded up.
    pub const MIN_RUNNING_STATEMENTS: u32 = 2;

    /// How many statements run on each server at the same time.
    pub fn running_limit(&self) -> RunningLimit {
        let max = self.max_running_statements;
        if !self.adaptive_running_statements {
            return RunningLimit::Fixed(max);
        }
        let ceiling = if max == 0 {
            self.tenants_servers()
        } else {
            max
        };
        let ceiling = ceiling.max(1);
        RunningLimit::Found {
            floor: self.min_running_statements.clamp(1, ceiling),
            ceiling,
        }
    }

    /// How many server connections tenants may have.
    pub fn tenants_servers(&self) -> u32 {
        self.max_server_connections
            .saturating_sub(self.reserved_servers)
    }

    /// Whether the other is made of the same servers, watched and reached in the same way.
    pub fn is_watched_like(&self, other: &Self) -> bool {
        let how = |cluster: &Self| {
            (
                cluster.primary.clone(),
                cluster.replicas.clone(),
                cluster.standbys.clone(),
                cluster.watch.clone(),
                cluster.tls.clone(),
                cluster.client_certificate.clone(),
            )
        };
        how(self) == how(other)
    }
}
