//! One PostgreSQL primary with its replicas.

use super::ClusterName;
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

/// One PostgreSQL primary with its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its name in the configuration.
    pub name: ClusterName,
    /// Where writes go.
    pub primary: Address,
    /// Hot standbys.
    pub replicas: Vec<Address>,
    /// Server connections of all tenants together.
    pub max_server_connections: u32,
    /// Server connections being opened at the same time.
    pub max_parallel_connects: u32,
    /// TCP connect, TLS and login together.
    pub connect_timeout: Duration,
    /// TLS towards the cluster.
    pub tls: UpstreamTls,
    /// Client certificate and key (PEM) for PostgreSQL.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}
