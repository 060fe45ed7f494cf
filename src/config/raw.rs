//! `proxy.toml` as it is written: names and types of every key, nothing checked, no default.
//!
//! Reading a file gives this; so does turning the checked configuration back into text, for
//! `pgusher check`. What a key means stands in `proxy.toml` itself.

use super::{
    LogFormat, LogLevel, TlsMode,
    units::{OneOrMore, Period, Price, SecretText},
};
use crate::tenant;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// The whole file.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    pub(crate) proxy: Proxy,
    pub(crate) admin: Admin,
    pub(crate) registry: Registry,
    pub(crate) usage: Usage,
    pub(crate) prices: Prices,
    pub(crate) secrets: Secrets,
    pub(crate) templates: Templates,
    pub(crate) plans: Vec<tenant::Plan>,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) defaults: Tuning,
    pub(crate) tenants: Vec<Tenant>,
}

/// `[proxy]`
#[expect(clippy::struct_field_names, reason = "a field is named as its key")]
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Proxy {
    pub(crate) listen: Option<OneOrMore>,
    pub(crate) proxy_protocol_listen: Option<OneOrMore>,
    pub(crate) workers: Option<u64>,
    pub(crate) login_workers: Option<u64>,
    pub(crate) max_client_connections: Option<u64>,
    pub(crate) reserved_client_connections: Option<u64>,
    pub(crate) operator_addresses: Option<Vec<String>>,
    pub(crate) login_timeout: Option<Period>,
    pub(crate) tls_mode: Option<TlsMode>,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) tls_client_ca: Option<PathBuf>,
    pub(crate) tls_client_cert_required: Option<bool>,
    pub(crate) allow_plaintext_password: Option<bool>,
    pub(crate) auth_failures_per_minute: Option<u64>,
    pub(crate) auth_seed_file: Option<PathBuf>,
    pub(crate) shutdown_timeout: Option<Period>,
    pub(crate) restart_timeout: Option<Period>,
    pub(crate) restart_grace: Option<Period>,
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) log_level: Option<LogLevel>,
    pub(crate) region: Option<String>,
}

/// `[admin]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Admin {
    pub(crate) listen: Option<String>,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) tenant_series: Option<u64>,
}

/// `[registry]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Registry {
    pub(crate) url: Option<SecretText>,
    pub(crate) url_env: Option<String>,
    pub(crate) url_file: Option<PathBuf>,
    pub(crate) max_connections: Option<u64>,
    pub(crate) stale_max: Option<Period>,
    pub(crate) snapshot: Option<PathBuf>,
    pub(crate) sweep_interval: Option<Period>,
    pub(crate) lock_watch_interval: Option<Period>,
    pub(crate) lock_watch_penalty: Option<Period>,
}

/// `[usage]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Usage {
    pub(crate) flush_interval: Option<Period>,
    pub(crate) storage_interval: Option<Period>,
    pub(crate) retention_days: Option<u64>,
}

/// `[prices]`
#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Prices {
    pub(crate) currency: Option<String>,
    pub(crate) per_million_queries: Option<Price>,
    pub(crate) per_million_transactions: Option<Price>,
    pub(crate) per_gb_in: Option<Price>,
    pub(crate) per_gb_out: Option<Price>,
    pub(crate) per_server_hour: Option<Price>,
    pub(crate) per_gb_month: Option<Price>,
    pub(crate) plan: BTreeMap<String, Price>,
    pub(crate) clusters: BTreeMap<String, Price>,
    pub(crate) free: Free,
}

/// `free` of `[prices]`
#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Free {
    pub(crate) queries: Option<u64>,
    pub(crate) transactions: Option<u64>,
    pub(crate) gb_in: Option<Price>,
    pub(crate) gb_out: Option<Price>,
    pub(crate) server_hours: Option<Price>,
    pub(crate) gb_months: Option<Price>,
}

/// `[secrets]`
#[expect(clippy::struct_field_names, reason = "a field is named as its key")]
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Secrets {
    pub(crate) master_key_file: Option<PathBuf>,
    pub(crate) master_key_env: Option<String>,
    pub(crate) master_key_command: Option<SecretText>,
}

/// `[templates]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Templates {
    pub(crate) directory: Option<PathBuf>,
}

/// One of `[[clusters]]`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cluster {
    pub(crate) name: Option<String>,
    pub(crate) primary: Option<String>,
    pub(crate) replicas: Vec<String>,
    pub(crate) paused: Option<bool>,
    pub(crate) monitor_role: Option<String>,
    pub(crate) monitor_password: Option<SecretText>,
    pub(crate) monitor_password_env: Option<String>,
    pub(crate) monitor_password_file: Option<PathBuf>,
    pub(crate) monitor_database: Option<String>,
    pub(crate) primary_weight: Option<u64>,
    pub(crate) replica_lag_max: Option<Period>,
    pub(crate) replica_lag_bytes_max: Option<u64>,
    pub(crate) replica_fallback: Option<bool>,
    pub(crate) replica_slow_start: Option<Period>,
    pub(crate) watch_interval: Option<Period>,
    pub(crate) watch_timeout: Option<Period>,
    pub(crate) max_server_connections: Option<u64>,
    pub(crate) reserved_servers: Option<u64>,
    pub(crate) max_parallel_connects: Option<u64>,
    pub(crate) max_running_statements: Option<u64>,
    pub(crate) adaptive_running_statements: Option<bool>,
    pub(crate) min_running_statements: Option<u64>,
    pub(crate) tls: Option<UpstreamTls>,
    pub(crate) tls_ca: Option<PathBuf>,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) connect_timeout: Option<Period>,
}

/// Declares `[defaults]` and `[[tenants]]`, which share all keys from `pool_mode` on.
///
/// Flattening one into the other would lose serde's check for unknown keys, and the lines of
/// errors.
macro_rules! tenant_tables {
    (own { $($own:ident: $own_type:ty,)* } shared { $($shared:ident: $shared_type:ty,)* }) => {
        /// `[defaults]`
        #[derive(Debug, Default, Clone, Deserialize, Serialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct Tuning {
            $(pub(crate) $shared: Option<$shared_type>,)*
        }

        /// One of `[[tenants]]`
        #[derive(Debug, Default, Deserialize, Serialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct Tenant {
            $(pub(crate) $own: Option<$own_type>,)*
            $(pub(crate) $shared: Option<$shared_type>,)*
            pub(crate) keys: Vec<Key>,
        }

        impl Tenant {
            /// Takes the keys that `[defaults]` may have, too, out of the tenant.
            pub(crate) fn take_tuning(&mut self) -> Tuning {
                Tuning { $($shared: self.$shared.take(),)* }
            }

            /// Puts them (back) in.
            pub(crate) fn set_tuning(&mut self, tuning: Tuning) {
                $(self.$shared = tuning.$shared;)*
            }
        }

        impl Tuning {
            /// The keys that a plan gives.
            pub(crate) fn of_plan(plan: &tenant::Plan) -> Self {
                Self {
                    max_client_connections: plan.max_client_connections,
                    pool_size: plan.pool_size,
                    weight: plan.weight,
                    guaranteed_servers: plan.guaranteed_servers,
                    max_concurrent_queries: plan.max_concurrent_queries,
                    max_waiting: plan.max_waiting,
                    transactions_per_second: plan.transactions_per_second,
                    transactions_per_hour: plan.transactions_per_hour,
                    bytes_per_second: plan.bytes_per_second,
                    logins_per_second: plan.logins_per_second,
                    queries_per_month: plan.queries_per_month,
                    transactions_per_month: plan.transactions_per_month,
                    ..Self::default()
                }
            }

            /// The keys given here, and `defaults` for the others.
            pub(crate) fn or(self, defaults: &Self) -> Self {
                Self { $($shared: self.$shared.or_else(|| defaults.$shared.clone()),)* }
            }
        }
    };
}

tenant_tables! {
    own {
        id: String,
        cluster: String,
        tier: Tier,
        database: String,
        schema: String,
        role: String,
        password: SecretText,
        password_env: String,
        password_file: PathBuf,
        read_only_role: String,
        read_only_password: SecretText,
        read_only_password_env: String,
        read_only_password_file: PathBuf,
        status: Status,
        plan: String,
        trial_ends_at: String,
        read_replicas: Vec<String>,
    }
    shared {
        pool_mode: PoolMode,
        pin: Pin,
        max_pinned_servers: u64,
        pool_size: u64,
        min_pool_size: u64,
        guaranteed_servers: u64,
        weight: u64,
        max_client_connections: u64,
        max_concurrent_queries: u64,
        max_waiting: u64,
        transactions_per_second: u64,
        transactions_per_hour: u64,
        bytes_per_second: u64,
        logins_per_second: u64,
        queries_per_month: u64,
        transactions_per_month: u64,
        server_idle_timeout: Period,
        server_lifetime: Period,
        server_check_delay: Period,
        query_wait_timeout: Period,
        query_timeout: Period,
        transaction_timeout: Period,
        idle_transaction_timeout: Period,
        client_idle_timeout: Period,
        client_write_timeout: Period,
        max_prepared_statements: u64,
        read_splitting: bool,
        consistency: Consistency,
        failover_hold: Period,
        time_zone: String,
        tenant_setting: String,
        forced: Vec<String>,
        settings: BTreeMap<String, String>,
    }
}

/// One of a tenant's `keys`
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    pub(crate) verifier: Option<SecretText>,
    pub(crate) scope: Option<Scope>,
    pub(crate) allow: Vec<String>,
    pub(crate) not_before: Option<String>,
    pub(crate) expires: Option<String>,
    pub(crate) max_client_connections: Option<u64>,
    pub(crate) rate_limit_per_hour: Option<u64>,
    pub(crate) max_concurrent_queries: Option<u64>,
    pub(crate) transactions_per_second: Option<u64>,
    pub(crate) transactions_per_hour: Option<u64>,
    pub(crate) bytes_per_second: Option<u64>,
    pub(crate) logins_per_second: Option<u64>,
}

/// Declares the words of a key, and which value of the vocabulary each stands for.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident => $target:ty { $($(#[$attribute:meta])* $word:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum $name {
            $($(#[$attribute])* $word,)*
        }

        impl From<$name> for $target {
            fn from(word: $name) -> Self {
                match word {
                    $($name::$word => Self::$word,)*
                }
            }
        }

        impl From<$target> for $name {
            fn from(value: $target) -> Self {
                match value {
                    $(<$target>::$word => Self::$word,)*
                }
            }
        }
    };
}

words! {
    /// `tier`
    Tier => tenant::Tier {
        #[serde(alias = "enterprise")]
        Database,
        #[serde(alias = "standard")]
        Schema,
        #[serde(alias = "small")]
        Row,
    }
}
words! {
    /// `pool_mode`
    PoolMode => tenant::PoolMode { Session, Transaction, Statement, }
}
words! {
    /// `pin`
    Pin => tenant::Pinning { Allow, Refuse, }
}
words! {
    /// `consistency`
    Consistency => tenant::Consistency { Tenant, Session, Eventual, }
}
words! {
    /// `status`
    Status => tenant::Status { Active, Suspended, }
}
words! {
    /// `scope`
    Scope => tenant::Scope { ReadWrite, ReadOnly, }
}

/// `tls` of a cluster
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UpstreamTls {
    #[default]
    Disable,
    Require,
    VerifyCa,
    VerifyFull,
}
