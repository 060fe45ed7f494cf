//! The checked configuration as text again, every default filled in, every secret `[redacted]`.

use super::{
    Config, Prices, Proxy, Registry, raw,
    units::{OneOrMore, Period, Price, SecretText},
    url,
};
use crate::crypto::KeySource;
use crate::tenant::{
    ApiKey, Caps, Cluster, Limits, Login, Reads, Secret, Tenant, Timeouts, UpstreamTls,
};
use ipnet::IpNet;
use std::{
    collections::BTreeMap,
    num::{NonZeroU32, NonZeroU64},
    path::PathBuf,
    time::{Duration, SystemTime},
};

impl Config {
    /// As TOML, with the names of `proxy.toml`. Passwords and verifiers are `[redacted]`.
    #[expect(clippy::missing_panics_doc, reason = "it never does")]
    pub fn to_toml(&self) -> String {
        toml::to_string(&file(self)).expect("texts, numbers and lists of them are TOML")
    }

    /// As JSON, with the same names. As in TOML, a key without a value is not there.
    #[expect(clippy::missing_panics_doc, reason = "it never does")]
    pub fn to_json(&self) -> serde_json::Value {
        let table = toml::Table::try_from(file(self));
        let table = table.expect("texts, numbers and lists of them are TOML");
        serde_json::to_value(table).expect("what is TOML without dates is JSON")
    }
}

fn file(config: &Config) -> raw::File {
    let address = config.admin.listen.as_ref();
    let (tls_cert, tls_key) = config.admin.certificate.clone().unzip();
    raw::File {
        proxy: proxy(&config.proxy),
        admin: raw::Admin {
            listen: address.map(ToString::to_string),
            tls_cert,
            tls_key,
            tenant_series: Some(config.admin.tenant_series.into()),
        },
        registry: config.registry.as_ref().map(registry).unwrap_or_default(),
        usage: raw::Usage {
            flush_interval: Some(Period(config.usage.flush_interval.unwrap_or_default())),
            storage_interval: Some(Period(config.usage.storage_interval.unwrap_or_default())),
            retention_days: Some(config.usage.retention.unwrap_or_default().as_secs() / 86400),
        },
        prices: config.prices.as_deref().map(prices).unwrap_or_default(),
        secrets: config.master_key.as_ref().map(secrets).unwrap_or_default(),
        templates: raw::Templates {
            directory: config.templates.clone(),
        },
        plans: config.plans.clone(),
        clusters: config.clusters.iter().map(|it| cluster(it)).collect(),
        defaults: raw::Tuning::default(),
        tenants: config.tenants.iter().map(|it| tenant(it)).collect(),
    }
}

fn registry(registry: &Registry) -> raw::Registry {
    raw::Registry {
        url: Some(SecretText(registry.url.clone())),
        max_connections: Some(registry.max_connections.into()),
        stale_max: Some(Period(registry.stale_max)),
        snapshot: registry.snapshot.clone(),
        sweep_interval: Some(Period(registry.sweep_interval.unwrap_or_default())),
        lock_watch_interval: Some(Period(registry.lock_watch_interval.unwrap_or_default())),
        lock_watch_penalty: Some(Period(registry.lock_watch_penalty)),
        ..raw::Registry::default()
    }
}

fn prices(prices: &Prices) -> raw::Prices {
    let plans = prices.plans.iter();
    let clusters = prices.clusters.iter();
    let free = &prices.free;
    raw::Prices {
        currency: Some(prices.currency.to_string()),
        per_million_queries: Some(Price(prices.per_million_queries)),
        per_million_transactions: Some(Price(prices.per_million_transactions)),
        per_gb_in: Some(Price(prices.per_gb_in)),
        per_gb_out: Some(Price(prices.per_gb_out)),
        per_server_hour: Some(Price(prices.per_server_hour)),
        per_gb_month: Some(Price(prices.per_gb_month)),
        plan: plans
            .map(|(plan, price)| (plan.to_string(), Price(*price)))
            .collect(),
        clusters: clusters
            .map(|(cluster, price)| (cluster.to_string(), Price(*price)))
            .collect(),
        free: raw::Free {
            queries: Some(free.queries),
            transactions: Some(free.transactions),
            gb_in: Some(Price(free.gb_in)),
            gb_out: Some(Price(free.gb_out)),
            server_hours: Some(Price(free.server_hours)),
            gb_months: Some(Price(free.gb_months)),
        },
    }
}

fn secrets(source: &KeySource) -> raw::Secrets {
    let mut secrets = raw::Secrets::default();
    match source.clone() {
        KeySource::File(path) => secrets.master_key_file = Some(path),
        KeySource::Environment(name) => secrets.master_key_env = Some(name),
        KeySource::Command(command) => {
            secrets.master_key_command = Some(SecretText(Secret::new(command)));
        }
    }
    secrets
}

fn proxy(proxy: &Proxy) -> raw::Proxy {
    let listeners = |proxy_protocol| {
        let all = proxy.listen.iter();
        let some = all.filter(|listen| listen.proxy_protocol == proxy_protocol);
        OneOrMore(some.map(|listen| listen.address.to_string()).collect())
    };
    let (tls_cert, tls_key) = proxy.tls.certificate.clone().unzip();
    raw::Proxy {
        listen: Some(listeners(false)),
        proxy_protocol_listen: Some(listeners(true)),
        workers: Some(proxy.workers as u64),
        login_workers: Some(proxy.login_workers as u64),
        max_client_connections: Some(proxy.max_client_connections.into()),
        reserved_client_connections: Some(proxy.reserved_client_connections.into()),
        operator_addresses: Some(networks(&proxy.operator_addresses)),
        login_timeout: Some(Period(proxy.login_timeout)),
        tls_mode: Some(proxy.tls.mode),
        tls_cert,
        tls_key,
        tls_client_ca: proxy.tls.client_ca.clone(),
        tls_client_cert_required: Some(proxy.tls.client_certificate_required),
        allow_plaintext_password: Some(proxy.allow_plaintext_password),
        auth_failures_per_minute: Some(proxy.auth_failures_per_minute.into()),
        auth_seed_file: proxy.auth_seed_file.clone(),
        shutdown_timeout: Some(Period(proxy.shutdown_timeout)),
        restart_timeout: Some(Period(proxy.restart_timeout)),
        restart_grace: Some(Period(proxy.restart_grace.unwrap_or_default())),
        log_format: Some(proxy.log.format),
        log_level: Some(proxy.log.level),
        region: proxy.region.as_ref().map(ToString::to_string),
    }
}

fn cluster(cluster: &Cluster) -> raw::Cluster {
    let (tls, tls_ca): (_, Option<&PathBuf>) = match &cluster.tls {
        UpstreamTls::Disable => (raw::UpstreamTls::Disable, None),
        UpstreamTls::Require => (raw::UpstreamTls::Require, None),
        UpstreamTls::VerifyCa(ca) => (raw::UpstreamTls::VerifyCa, ca.as_ref()),
        UpstreamTls::VerifyFull(ca) => (raw::UpstreamTls::VerifyFull, ca.as_ref()),
    };
    let (tls_cert, tls_key) = cluster.client_certificate.clone().unzip();
    let (standbys, watch) = (&cluster.standbys, cluster.watch.as_ref());
    raw::Cluster {
        name: Some(cluster.name.to_string()),
        primary: Some(url::print(&cluster.primary)),
        replicas: cluster.replicas.iter().map(url::print_replica).collect(),
        paused: Some(cluster.is_paused),
        monitor_role: watch.map(|watch| watch.login.role.to_string()),
        monitor_password: password(watch.map(|watch| &watch.login)),
        monitor_password_env: None,
        monitor_password_file: None,
        monitor_database: watch.map(|watch| watch.database.to_string()),
        primary_weight: Some(standbys.primary_weight.into()),
        replica_lag_max: limit(standbys.lag_max),
        replica_lag_bytes_max: Some(standbys.lag_bytes_max.unwrap_or_default()),
        replica_fallback: Some(standbys.fallback),
        replica_slow_start: Some(Period(standbys.slow_start)),
        watch_interval: Some(Period(standbys.watch_interval)),
        watch_timeout: Some(Period(standbys.watch_timeout)),
        max_server_connections: Some(cluster.max_server_connections.into()),
        reserved_servers: Some(cluster.reserved_servers.into()),
        max_parallel_connects: Some(cluster.max_parallel_connects.into()),
        max_running_statements: Some(cluster.max_running_statements.into()),
        adaptive_running_statements: Some(cluster.adaptive_running_statements),
        min_running_statements: Some(cluster.min_running_statements.into()),
        tls: Some(tls),
        tls_ca: tls_ca.cloned(),
        tls_cert,
        tls_key,
        connect_timeout: Some(Period(cluster.connect_timeout)),
    }
}

fn tenant(tenant: &Tenant) -> raw::Tenant {
    let placement = &tenant.placement;
    let read_only = placement.read_only_login.as_ref();
    let replicas = tenant.reads.replicas.as_ref();
    let mut raw = raw::Tenant {
        id: Some(tenant.id.to_string()),
        cluster: Some(placement.cluster.to_string()),
        tier: Some(placement.tier.into()),
        database: Some(placement.database.to_string()),
        schema: placement.schema.as_ref().map(ToString::to_string),
        role: Some(placement.login.role.to_string()),
        password: password(Some(&placement.login)),
        read_only_role: read_only.map(|login| login.role.to_string()),
        read_only_password: password(read_only),
        status: Some(tenant.status.into()),
        plan: Some(tenant.terms.plan.to_string()),
        trial_ends_at: tenant.terms.trial_ends_at.map(time),
        read_replicas: replicas.map(|all| all.iter().map(url::print).collect()),
        keys: tenant.keys.iter().map(|it| key(it)).collect(),
        ..raw::Tenant::default()
    };
    raw.set_tuning(tuning(tenant));
    raw
}

/// The time zone, and the other settings that are not said by keys of their own.
fn settings(tenant: &Tenant) -> (Option<String>, BTreeMap<String, String>) {
    let (mut time_zone, mut settings) = (None, BTreeMap::new());
    for (name, value) in &tenant.settings {
        match &**name {
            // It follows from the schema.
            "search_path" if tenant.placement.schema.is_some() => {}
            "TimeZone" => time_zone = Some(value.to_string()),
            _ => {
                settings.insert(name.to_string(), value.to_string());
            }
        }
    }
    (time_zone, settings)
}

fn tuning(tenant: &Tenant) -> raw::Tuning {
    let Limits {
        max_client_connections,
        pool_size,
        min_pool_size,
        guaranteed_servers,
        weight,
        max_prepared_statements,
        max_pinned_servers,
        max_waiting,
        // The registry's tenants alone have one.
        max_storage_bytes: _,
        caps,
    } = tenant.limits;
    let Timeouts {
        server_idle,
        server_lifetime,
        server_check_delay,
        query_wait,
        query,
        transaction,
        idle_transaction,
        client_idle,
        client_write,
    } = tenant.timeouts;
    let caps = Numbers::of(&caps);
    let quota = |limit: Option<NonZeroU64>| Some(limit.map_or(0, NonZeroU64::get));
    let Reads {
        split,
        consistency,
        failover_hold,
        replicas: _,
    } = tenant.reads;
    let (time_zone, settings) = settings(tenant);
    raw::Tuning {
        pool_mode: Some(tenant.pool_mode.into()),
        pin: Some(tenant.pinning.into()),
        max_pinned_servers: Some(max_pinned_servers.into()),
        pool_size: Some(pool_size.into()),
        min_pool_size: Some(min_pool_size.into()),
        guaranteed_servers: Some(guaranteed_servers.into()),
        weight: Some(weight.into()),
        max_client_connections: Some(max_client_connections.into()),
        max_concurrent_queries: Some(caps.max_concurrent_queries.unwrap_or_default()),
        max_waiting: Some(max_waiting.into()),
        transactions_per_second: Some(caps.transactions_per_second.unwrap_or_default()),
        transactions_per_hour: Some(caps.transactions_per_hour.unwrap_or_default()),
        bytes_per_second: Some(caps.bytes_per_second.unwrap_or_default()),
        logins_per_second: Some(caps.logins_per_second.unwrap_or_default()),
        queries_per_month: quota(tenant.terms.queries_per_month),
        transactions_per_month: quota(tenant.terms.transactions_per_month),
        server_idle_timeout: limit(server_idle),
        server_lifetime: limit(server_lifetime),
        server_check_delay: limit(server_check_delay),
        query_wait_timeout: limit(query_wait),
        query_timeout: limit(query),
        transaction_timeout: limit(transaction),
        idle_transaction_timeout: limit(idle_transaction),
        client_idle_timeout: limit(client_idle),
        client_write_timeout: limit(client_write),
        max_prepared_statements: Some(max_prepared_statements.into()),
        read_splitting: Some(split),
        consistency: Some(consistency.into()),
        failover_hold: Some(Period(failover_hold)),
        time_zone,
        tenant_setting: None,
        forced: Some(tenant.forced.iter().map(ToString::to_string).collect()),
        settings: Some(settings),
    }
}

/// As they are written.
struct Numbers {
    max_concurrent_queries: Option<u64>,
    transactions_per_second: Option<u64>,
    transactions_per_hour: Option<u64>,
    bytes_per_second: Option<u64>,
    logins_per_second: Option<u64>,
}

impl Numbers {
    fn of(caps: &Caps) -> Self {
        let wide = |limit: Option<NonZeroU32>| limit.map(|limit| limit.get().into());
        Self {
            max_concurrent_queries: wide(caps.max_concurrent_queries),
            transactions_per_second: wide(caps.transactions_per_second),
            transactions_per_hour: wide(caps.transactions_per_hour),
            bytes_per_second: caps.bytes_per_second.map(NonZeroU64::get),
            logins_per_second: wide(caps.logins_per_second),
        }
    }
}

fn key(key: &ApiKey) -> raw::Key {
    let caps = Numbers::of(&key.caps);
    raw::Key {
        id: Some(key.id.to_string()),
        verifier: Some(redacted()),
        scope: Some(key.scope.into()),
        allow: networks(&key.allow),
        not_before: key.not_before.map(time),
        expires: key.expires.map(time),
        max_client_connections: key.max_client_connections.map(u64::from),
        rate_limit_per_hour: key.rate_limit_per_hour.map(|limit| limit.get().into()),
        max_concurrent_queries: caps.max_concurrent_queries,
        transactions_per_second: caps.transactions_per_second,
        transactions_per_hour: caps.transactions_per_hour,
        bytes_per_second: caps.bytes_per_second,
        logins_per_second: caps.logins_per_second,
    }
}

fn password(login: Option<&Login>) -> Option<SecretText> {
    login?.password.as_ref().map(|_| redacted())
}

/// Stands for a secret that there is.
fn redacted() -> SecretText {
    SecretText(Secret::new(String::new()))
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "every key of the raw form is optional"
)]
fn limit(limit: Option<Duration>) -> Option<Period> {
    Some(Period(limit.unwrap_or_default()))
}

fn networks(networks: &[IpNet]) -> Vec<String> {
    networks.iter().map(ToString::to_string).collect()
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339(time).to_string()
}
