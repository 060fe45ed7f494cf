//! What is told of single tenants, with the label [`TENANT`]; and how long transactions take.
//!
//! Over all values of the label, rates add up to those of the whole process.

use crate::telemetry::{Family, Kind};

/// Label: a tenant's id, or [`OTHER`].
pub const TENANT: &str = "tenant";
/// Value of [`TENANT`]: all tenants that are not told apart. No id has parentheses.
pub const OTHER: &str = "(other)";
/// Label: the upper bound of a bucket, in seconds.
pub const LE: &str = "le";

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Counter,
        help,
    }
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        help,
    }
}

const fn histogram(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Histogram,
        help,
    }
}

/// Statements.
pub const QUERIES: Family = counter("pgusher_tenant_queries_total", "Queries relayed.");
/// Transactions.
pub const TRANSACTIONS: Family =
    counter("pgusher_tenant_transactions_total", "Transactions relayed.");
/// Rows.
pub const ROWS: Family = counter(
    "pgusher_tenant_rows_total",
    "Rows that commands were said to return or to change.",
);
/// Bytes from clients.
pub const CLIENT_BYTES: Family =
    counter("pgusher_tenant_client_bytes_total", "Bytes from clients.");
/// Bytes from servers.
pub const SERVER_BYTES: Family =
    counter("pgusher_tenant_server_bytes_total", "Bytes from servers.");
/// Seconds of servers.
pub const SERVER_SECONDS: Family = counter(
    "pgusher_tenant_server_seconds_total",
    "For how long servers were lent.",
);
/// Seconds of waits.
pub const WAIT_SECONDS: Family = counter(
    "pgusher_tenant_wait_seconds_total",
    "For how long clients waited for a server.",
);
/// Errors.
pub const ERRORS: Family = counter(
    "pgusher_tenant_errors_total",
    "Errors that clients were told.",
);
/// Clients.
pub const CLIENT_CONNECTIONS: Family = gauge(
    "pgusher_tenant_client_connections",
    "Clients that are logged in now.",
);
/// Servers.
pub const SERVER_CONNECTIONS: Family = gauge(
    "pgusher_tenant_server_connections",
    "Connections to PostgreSQL now.",
);
/// Clients that wait.
pub const CLIENTS_WAITING: Family = gauge(
    "pgusher_tenant_clients_waiting",
    "Clients that wait for a server now.",
);
/// How long transactions took.
pub const TRANSACTION_SECONDS: Family = histogram(
    "pgusher_tenant_transaction_seconds",
    "How long transactions had their server.",
);
/// How long waits took.
pub const CHECKOUT_WAIT_SECONDS: Family = histogram(
    "pgusher_tenant_checkout_wait_seconds",
    "How long clients waited for a server that they did not get at once.",
);
/// How long transactions of all tenants took; without the label.
pub const ALL_TRANSACTION_SECONDS: Family = histogram(
    "pgusher_transaction_seconds",
    "How long transactions had their server.",
);
