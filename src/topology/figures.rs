//! Metrics of the servers of clusters.

use crate::tenant::{Address, ClusterName};
use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};
use std::{fmt, time::Duration};

/// Gauge, bytes: how far a replica is behind; labels [`CLUSTER`] and [`SERVER`].
pub const REPLICA_LAG_BYTES: &str = "pgusher_replica_lag_bytes";
/// Gauge, seconds: for how long the primary has been beyond what a replica has; labels [`CLUSTER`] and
/// [`SERVER`].
pub const REPLICA_LAG_SECONDS: &str = "pgusher_replica_lag_seconds";
/// Counter: servers that were taken out of the reads; labels [`CLUSTER`], [`SERVER`] and [`REASON`].
pub const SERVER_EJECTIONS_TOTAL: &str = "pgusher_server_ejections_total";
/// Counter: another server became the primary; label [`CLUSTER`].
pub const FAILOVERS_TOTAL: &str = "pgusher_failovers_total";
/// Label: the cluster's name.
pub const CLUSTER: &str = "cluster";
/// Label: the server's address.
pub const SERVER: &str = "server";
/// Label: [`CONNECTION`], [`UNREACHABLE`], [`TIMEOUT`], [`REFUSED`] or [`FOREIGN`].
pub const REASON: &str = "reason";
/// The data plane could not connect, or lost a connection.
pub const CONNECTION: &str = "connection";
/// Nobody listens, or it shuts down or starts.
pub const UNREACHABLE: &str = "unreachable";
/// It did not answer in time.
pub const TIMEOUT: &str = "timeout";
/// It answered with an error.
pub const REFUSED: &str = "refused";
/// It is of another cluster.
pub const FOREIGN: &str = "foreign";

/// Says what the metrics of this room mean. Where metrics are recorded, this is called once.
pub fn describe() {
    describe_gauge!(
        REPLICA_LAG_BYTES,
        Unit::Bytes,
        "WAL that a replica has yet to replay."
    );
    describe_gauge!(
        REPLICA_LAG_SECONDS,
        Unit::Seconds,
        "How long the primary has been beyond what a replica has replayed."
    );
    describe_counter!(
        SERVER_EJECTIONS_TOTAL,
        "Servers taken out of the reads, by reason."
    );
    describe_counter!(FAILOVERS_TOTAL, "Another server became the primary.");
}

/// The metrics of one server.
pub(super) struct Figures {
    cluster: ClusterName,
    server: String,
    lag_bytes: Gauge,
    lag_seconds: Gauge,
}

impl Figures {
    pub(super) fn of(cluster: &ClusterName, server: &Address) -> Self {
        let name = cluster.as_str().to_owned();
        let address = server.to_string();
        Self {
            lag_bytes: gauge!(REPLICA_LAG_BYTES, CLUSTER => name.clone(), SERVER => address.clone()),
            lag_seconds: gauge!(REPLICA_LAG_SECONDS, CLUSTER => name, SERVER => address.clone()),
            cluster: cluster.clone(),
            server: address,
        }
    }

    pub(super) fn cluster(&self) -> &str {
        self.cluster.as_str()
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge is a float; beyond 8 PiB its last digits don't matter"
    )]
    pub(super) fn lags(&self, bytes: u64, time: Duration) {
        self.lag_bytes.set(bytes as f64);
        self.lag_seconds.set(time.as_secs_f64());
    }

    /// Seldom enough to look the counter up.
    pub(super) fn ejected(&self, reason: &'static str) {
        let (cluster, server) = (self.cluster.as_str().to_owned(), self.server.clone());
        counter!(SERVER_EJECTIONS_TOTAL, CLUSTER => cluster, SERVER => server, REASON => reason)
            .increment(1);
    }
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figures")
            .field("cluster", &self.cluster)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// Counts the failovers of a cluster.
pub(super) fn failovers(cluster: &ClusterName) -> Counter {
    counter!(FAILOVERS_TOTAL, CLUSTER => cluster.as_str().to_owned())
}
