//! Every metric, once: its name, its labels, its help text.
//!
//! Names have the unit last and `_total` for counters. Labels are closed sets. Those of [`tenants`] have
//! a label for the tenant, of which there may be tens of thousands: the few that use most are told apart.

pub mod tenants;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Gauge: clients connected now.
pub const CLIENT_CONNECTIONS: &str = "pgusher_client_connections";
/// Gauge: server connections now; label [`STATE`]: [`ACTIVE`] or [`IDLE`].
pub const SERVER_CONNECTIONS: &str = "pgusher_server_connections";
/// Gauge: clients that wait for a server now.
pub const CLIENTS_WAITING: &str = "pgusher_clients_waiting";
/// Gauge: clients that wait for a place in the budget of a cluster, or of one of its replicas.
pub const BUDGET_WAITING: &str = "pgusher_budget_waiting";
/// Gauge: statements that may run at the same time on a server, 0 where that is not bounded; labels
/// [`CLUSTER`] and [`SERVER_ADDRESS`].
pub const RUNNING_STATEMENTS_LIMIT: &str = "pgusher_running_statements_limit";
/// Gauge: statements that run there now, by label [`STATE`]: [`COUNTED`], or [`EXCUSED`] from the bound.
pub const RUNNING_STATEMENTS: &str = "pgusher_running_statements";
/// Gauge: statements that wait to run there.
pub const RUNNING_WAITING: &str = "pgusher_running_waiting";
/// Histogram, seconds: how long clients waited for a server.
pub const CHECKOUT_WAIT_SECONDS: &str = "pgusher_checkout_wait_seconds";
/// Counter: transactions relayed.
pub const TRANSACTIONS_TOTAL: &str = "pgusher_transactions_total";
/// Counter: where transactions of tenants with replicas went; labels `target` and `reason`.
pub const ROUTED_TOTAL: &str = "pgusher_routed_total";
/// Counter: reads that a replica did not answer, and the primary did; label `reason`.
pub const READS_RETRIED_TOTAL: &str = "pgusher_reads_retried_total";
/// Counter: sessions that waited for a primary; label `result`.
pub const FAILOVER_HOLDS_TOTAL: &str = "pgusher_failover_holds_total";
/// Counter: queries relayed.
pub const QUERIES_TOTAL: &str = "pgusher_queries_total";
/// Counter, bytes: relayed; label [`DIRECTION`]: from the [`CLIENT`] or from the [`SERVER`].
pub const RELAY_BYTES_TOTAL: &str = "pgusher_relay_bytes_total";
/// Counter: logins; label [`RESULT`].
pub const LOGINS_TOTAL: &str = "pgusher_logins_total";
/// Counter: errors; labels [`STAGE`] and [`FAULT`].
pub const ERRORS_TOTAL: &str = "pgusher_errors_total";
/// Counter: cancel requests; label [`RESULT`].
pub const CANCELS_TOTAL: &str = "pgusher_cancels_total";
/// Counter: connections opened to PostgreSQL; label [`RESULT`].
pub const UPSTREAM_CONNECTS_TOTAL: &str = "pgusher_upstream_connects_total";
/// Counter: sessions that had to keep their server behind a transaction; label [`REASON`].
pub const PINS_TOTAL: &str = "pgusher_pins_total";
/// Gauge: servers that sessions in transaction mode keep now.
pub const PINNED_SERVERS: &str = "pgusher_pinned_servers";
/// Counter: servers that were asked what a transaction had left on them.
pub const STATE_CHECKS_TOTAL: &str = "pgusher_state_checks_total";
/// Counter: sessions that were ended because they did not take their notifications.
pub const LISTENERS_LAGGED_TOTAL: &str = "pgusher_listeners_lagged_total";
/// Counter: reloads of `proxy.toml`; label [`RESULT`].
pub const CONFIG_RELOADS_TOTAL: &str = "pgusher_config_reloads_total";
/// Counter: restarts by SIGUSR2; label [`RESULT`].
pub const RESTARTS_TOTAL: &str = "pgusher_restarts_total";
/// Gauge: 1 while the registry answers, else 0.
pub const REGISTRY_UP: &str = "pgusher_registry_up";
/// Counter: batches of what tenants use, for the registry; label [`RESULT`].
pub const USAGE_BATCHES_TOTAL: &str = "pgusher_usage_batches_total";
/// Counter: sessions that were ended because they held up other tenants with a lock.
pub const LOCK_TRESPASSES_TOTAL: &str = "pgusher_lock_trespasses_total";
/// Counter: transactions and logins that waited for a limit of their tenant or key, or were refused;
/// labels `limit` and [`RESULT`].
pub const LIMITED_TOTAL: &str = "pgusher_limited_total";
/// Gauge, always 1: label [`VERSION`].
pub const BUILD_INFO: &str = "pgusher_build_info";

/// Label: what a connection does.
pub const STATE: &str = "state";
/// Label: where bytes come from.
pub const DIRECTION: &str = "direction";
/// Label: how it ended.
pub const RESULT: &str = "result";
/// Label: in which stage.
pub const STAGE: &str = "stage";
/// Label: whose fault.
pub const FAULT: &str = "fault";
/// Label: which kind of session state: `temp`, `cursor`, `advisory`, `prepare`, `listen`, `load`,
/// `seed`, `sequence`, `dblink`, `settings`.
pub const REASON: &str = "reason";
/// Label: of which cluster, by name.
pub const CLUSTER: &str = "cluster";
/// Label: of which server of it: `primary`, or a replica's address.
pub const SERVER_ADDRESS: &str = "server";
/// Label: of pgusher.
pub const VERSION: &str = "version";

/// Value of [`STATE`]: lent to a client.
pub const ACTIVE: &str = "active";
/// Value of [`STATE`]: free.
pub const IDLE: &str = "idle";
/// Value of [`STATE`]: it counts.
pub const COUNTED: &str = "counted";
/// Value of [`STATE`]: it has run for long, waits for its client, or is more than its tenant's share.
pub const EXCUSED: &str = "excused";
/// Value of [`DIRECTION`]: from the client.
pub const CLIENT: &str = "client";
/// Value of [`DIRECTION`]: from the server.
pub const SERVER: &str = "server";
/// Value of [`RESULT`]: it went well.
pub const OK: &str = "ok";
/// Value of [`RESULT`]: it did not.
pub const ERROR: &str = "error";

/// Gives the current recorder the help text of every metric.
pub fn describe() {
    describe_limits();
    describe_gauge!(CLIENT_CONNECTIONS, "Clients connected now.");
    describe_gauge!(
        SERVER_CONNECTIONS,
        "Connections to PostgreSQL now, by state."
    );
    describe_gauge!(CLIENTS_WAITING, "Clients that wait for a server now.");
    describe_gauge!(BUDGET_WAITING, "Clients that wait for a place in a budget.");
    describe_gauge!(
        RUNNING_STATEMENTS_LIMIT,
        "Statements that may run on a server at the same time."
    );
    describe_gauge!(RUNNING_STATEMENTS, "Statements that run on a server now.");
    describe_gauge!(RUNNING_WAITING, "Statements that wait to run on a server.");
    describe_histogram!(
        CHECKOUT_WAIT_SECONDS,
        Unit::Seconds,
        "How long clients waited for a server."
    );
    describe_counter!(TRANSACTIONS_TOTAL, "Transactions relayed.");
    describe_counter!(QUERIES_TOTAL, "Queries relayed.");
    describe_counter!(
        ROUTED_TOTAL,
        "Where transactions of tenants with replicas went, and why."
    );
    describe_counter!(
        READS_RETRIED_TOTAL,
        "Reads that a replica did not answer and the primary did, by reason."
    );
    describe_counter!(
        FAILOVER_HOLDS_TOTAL,
        "Sessions that waited for a primary, by how that ended."
    );
    describe_counter!(
        RELAY_BYTES_TOTAL,
        Unit::Bytes,
        "Bytes relayed, by the side that sent them."
    );
    describe_counter!(LOGINS_TOTAL, "Logins of clients, by result.");
    describe_counter!(
        ERRORS_TOTAL,
        "Errors, by stage and by whose fault they are."
    );
    describe_counter!(CANCELS_TOTAL, "Cancel requests, by result.");
    describe_counter!(
        UPSTREAM_CONNECTS_TOTAL,
        "Connections opened to PostgreSQL, by result."
    );
    describe_counter!(
        PINS_TOTAL,
        "Sessions that had to keep their server behind a transaction, by the state they left."
    );
    describe_gauge!(
        PINNED_SERVERS,
        "Servers that sessions in transaction mode keep now."
    );
    describe_counter!(
        STATE_CHECKS_TOTAL,
        "Servers that were asked what a transaction had left on them."
    );
    describe_counter!(
        LISTENERS_LAGGED_TOTAL,
        "Sessions that were ended because they did not take their notifications."
    );
    describe_process();
}

/// Those that tell of the process, and not of what it relays.
fn describe_process() {
    describe_counter!(CONFIG_RELOADS_TOTAL, "Reloads of proxy.toml, by result.");
    describe_counter!(
        RESTARTS_TOTAL,
        "Restarts by SIGUSR2: those that failed, and the one that this process came from."
    );
    describe_counter!(
        LOCK_TRESPASSES_TOTAL,
        "Sessions ended because they held up other tenants with a lock."
    );
    describe_gauge!(REGISTRY_UP, "1 while the registry answers, else 0.");
    describe_gauge!(BUILD_INFO, "1, with the version as a label.");
}

fn describe_limits() {
    describe_counter!(
        USAGE_BATCHES_TOTAL,
        "Batches of what tenants use, for the registry, by result; one that failed is tried again."
    );
    describe_counter!(
        LIMITED_TOTAL,
        "Transactions and logins that waited for a limit of their tenant or key, or were refused."
    );
}
