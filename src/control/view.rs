//! What is shown of tenants, keys, clusters and events: everything but secrets.

use super::ControlError;
use crate::registry::{ClusterRow, EventRow, KeyRow, TenantRow};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// Entries of a page where nothing is said, and at most.
const PAGE: u32 = 100;
const PAGE_MAX: u32 = 1000;

/// Which part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Entries at most: 1 to 1000; 100 where it is not given.
    pub limit: Option<u32>,
    /// What the page before gave as `next`.
    pub after: Option<String>,
}

impl Page {
    /// One more than are shown, to know whether there are more.
    pub(super) fn rows(&self) -> Result<(usize, i64), ControlError> {
        let limit = self.limit.unwrap_or(PAGE);
        if limit == 0 || limit > PAGE_MAX {
            return Err(ControlError::Invalid {
                field: "limit".to_owned(),
                problem: format!("it must be 1 to {PAGE_MAX}"),
            });
        }
        Ok((limit as usize, i64::from(limit) + 1))
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Listed<T> {
    /// In order.
    pub items: Vec<T>,
    /// The `after` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> Listed<T> {
    /// The first `limit` of one more.
    pub(super) fn of(mut items: Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> Self {
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| has_more).map(cursor);
        Self { items, next }
    }
}

/// A tenant without its secrets. Limits that are `null` have the default; times are milliseconds,
/// 0 is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "a field is named as its column")]
pub struct TenantView {
    pub id: String,
    pub name: String,
    pub tier: String,
    pub variant: String,
    pub status: String,
    pub owner_email: Option<String>,
    pub cluster: String,
    pub database_name: String,
    pub schema_name: Option<String>,
    pub token: String,
    pub role: String,
    pub read_only_role: Option<String>,
    pub pool_mode: Option<String>,
    pub pin: Option<String>,
    pub pool_size: Option<i32>,
    pub min_pool_size: Option<i32>,
    #[serde(default)]
    pub guaranteed_servers: Option<i32>,
    #[serde(default)]
    pub weight: Option<i32>,
    pub max_client_connections: Option<i32>,
    pub max_pinned_servers: Option<i32>,
    pub max_prepared_statements: Option<i32>,
    pub max_concurrent_queries: Option<i32>,
    pub max_waiting: Option<i32>,
    pub transactions_per_second: Option<i32>,
    pub transactions_per_hour: Option<i32>,
    pub bytes_per_second: Option<i64>,
    pub logins_per_second: Option<i32>,
    #[serde(default)]
    pub max_storage_bytes: Option<i64>,
    pub queries_per_month: Option<i64>,
    #[serde(default)]
    pub transactions_per_month: Option<i64>,
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub trial_ends_at: Option<OffsetDateTime>,
    pub server_idle_timeout: Option<i64>,
    pub server_lifetime: Option<i64>,
    pub server_check_delay: Option<i64>,
    pub query_wait_timeout: Option<i64>,
    pub query_timeout: Option<i64>,
    pub transaction_timeout: Option<i64>,
    pub idle_transaction_timeout: Option<i64>,
    pub client_idle_timeout: Option<i64>,
    #[serde(default)]
    pub client_write_timeout: Option<i64>,
    pub read_splitting: Option<bool>,
    pub consistency: Option<String>,
    pub failover_hold: Option<i64>,
    /// Some of the cluster's; `null`: all of them.
    pub read_replicas: Option<Vec<String>>,
    pub settings: BTreeMap<String, String>,
    pub forced: Vec<String>,
    pub time_zone: Option<String>,
    pub tenant_setting: Option<String>,
    pub plan: String,
    pub auto_update: bool,
    #[schema(value_type = Object)]
    pub metadata: Value,
    pub template_version: i64,
    /// What could not be closed for it, or is left open by the cluster's profile.
    #[schema(value_type = Vec<Object>)]
    pub open_holes: Value,
    /// Terminated: when what is left of it goes.
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub remove_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// What changes of itself and is no part of the record.
const NOT_RECORDED: [&str; 2] = ["created_at", "updated_at"];

impl From<&TenantRow> for TenantView {
    fn from(row: &TenantRow) -> Self {
        let row = row.clone();
        Self {
            id: row.id,
            name: row.name,
            tier: row.tier,
            variant: row.variant,
            status: row.status,
            owner_email: row.owner_email,
            cluster: row.cluster,
            database_name: row.database_name,
            schema_name: row.schema_name,
            token: row.token,
            role: row.role,
            read_only_role: row.read_only_role,
            pool_mode: row.pool_mode,
            pin: row.pin,
            pool_size: row.pool_size,
            min_pool_size: row.min_pool_size,
            guaranteed_servers: row.guaranteed_servers,
            weight: row.weight,
            max_client_connections: row.max_client_connections,
            max_pinned_servers: row.max_pinned_servers,
            max_prepared_statements: row.max_prepared_statements,
            max_concurrent_queries: row.max_concurrent_queries,
            max_waiting: row.max_waiting,
            transactions_per_second: row.transactions_per_second,
            transactions_per_hour: row.transactions_per_hour,
            bytes_per_second: row.bytes_per_second,
            logins_per_second: row.logins_per_second,
            max_storage_bytes: row.max_storage_bytes,
            queries_per_month: row.queries_per_month,
            transactions_per_month: row.transactions_per_month,
            trial_ends_at: row.trial_ends_at,
            server_idle_timeout: row.server_idle_timeout,
            server_lifetime: row.server_lifetime,
            server_check_delay: row.server_check_delay,
            query_wait_timeout: row.query_wait_timeout,
            query_timeout: row.query_timeout,
            transaction_timeout: row.transaction_timeout,
            idle_transaction_timeout: row.idle_transaction_timeout,
            client_idle_timeout: row.client_idle_timeout,
            client_write_timeout: row.client_write_timeout,
            read_splitting: row.read_splitting,
            consistency: row.consistency,
            failover_hold: row.failover_hold,
            read_replicas: row.read_replicas,
            settings: row.settings.0,
            forced: row.forced,
            time_zone: row.time_zone,
            tenant_setting: row.tenant_setting,
            plan: row.plan,
            auto_update: row.auto_update,
            metadata: row.metadata.0,
            template_version: row.template_version,
            open_holes: row.open_holes.0,
            remove_at: row.remove_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// An API key without what proves it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "a field is named as its column")]
pub struct KeyView {
    pub id: String,
    pub tenant: String,
    pub name: String,
    /// `read_write` or `read_only`.
    pub scope: String,
    pub permissions: Vec<String>,
    /// Networks; empty: everywhere.
    pub allow: Vec<String>,
    pub rate_limit_per_hour: Option<i32>,
    pub max_client_connections: Option<i32>,
    pub max_concurrent_queries: Option<i32>,
    pub transactions_per_second: Option<i32>,
    pub transactions_per_hour: Option<i32>,
    pub bytes_per_second: Option<i64>,
    pub logins_per_second: Option<i32>,
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub not_before: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub expires_at: Option<OffsetDateTime>,
    /// `active` or `revoked`; one that has expired is still `active`.
    pub status: String,
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub last_used_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub revoked_at: Option<OffsetDateTime>,
}

impl From<&KeyRow> for KeyView {
    fn from(row: &KeyRow) -> Self {
        let row = row.clone();
        Self {
            id: row.id,
            tenant: row.tenant,
            name: row.name,
            scope: row.scope,
            permissions: row.permissions,
            allow: row.allow,
            rate_limit_per_hour: row.rate_limit_per_hour,
            max_client_connections: row.max_client_connections,
            max_concurrent_queries: row.max_concurrent_queries,
            transactions_per_second: row.transactions_per_second,
            transactions_per_hour: row.transactions_per_hour,
            bytes_per_second: row.bytes_per_second,
            logins_per_second: row.logins_per_second,
            not_before: row.not_before,
            expires_at: row.expires_at,
            status: row.status,
            last_used_at: row.last_used_at,
            created_at: row.created_at,
            revoked_at: row.revoked_at,
        }
    }
}

/// A cluster without its admin's password. How its servers are used is `null` where it has the
/// default; times are milliseconds, a limit of 0 is none.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[expect(missing_docs, reason = "a field is named as its column")]
pub struct ClusterView {
    pub name: String,
    pub primary_url: String,
    pub replica_urls: Vec<String>,
    pub region: Option<String>,
    pub admin_role: String,
    pub has_admin_password: bool,
    pub tls: String,
    pub tls_ca: Option<String>,
    pub max_server_connections: i32,
    pub max_parallel_connects: i32,
    pub connect_timeout_ms: i64,
    pub profile: String,
    pub schema_database: String,
    pub row_database: String,
    pub primary_weight: Option<i32>,
    pub replica_lag_max: Option<i64>,
    pub replica_lag_bytes_max: Option<i64>,
    pub replica_fallback: Option<bool>,
    pub replica_slow_start: Option<i64>,
    pub watch_interval: Option<i64>,
    pub watch_timeout: Option<i64>,
    pub max_running_statements: Option<i32>,
    pub adaptive_running_statements: Option<bool>,
    pub min_running_statements: Option<i32>,
    /// Until then no transaction begins on the primary; in the past, or `null`: it is not paused.
    #[serde(with = "time::serde::rfc3339::option")]
    pub paused_until: Option<OffsetDateTime>,
    /// What hardening could not close, or the profile leaves open.
    #[schema(value_type = Vec<Object>)]
    pub open_holes: Value,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

impl From<&ClusterRow> for ClusterView {
    fn from(row: &ClusterRow) -> Self {
        let row = row.clone();
        Self {
            name: row.name,
            primary_url: row.primary_url,
            replica_urls: row.replica_urls,
            region: row.region,
            admin_role: row.admin_role,
            has_admin_password: row.admin_password.is_some(),
            tls: row.tls,
            tls_ca: row.tls_ca,
            max_server_connections: row.max_server_connections,
            max_parallel_connects: row.max_parallel_connects,
            connect_timeout_ms: row.connect_timeout_ms,
            profile: row.profile,
            schema_database: row.schema_database,
            row_database: row.row_database,
            primary_weight: row.primary_weight,
            replica_lag_max: row.replica_lag_max,
            replica_lag_bytes_max: row.replica_lag_bytes_max,
            replica_fallback: row.replica_fallback,
            replica_slow_start: row.replica_slow_start,
            watch_interval: row.watch_interval,
            watch_timeout: row.watch_timeout,
            max_running_statements: row.max_running_statements,
            adaptive_running_statements: row.adaptive_running_statements,
            min_running_statements: row.min_running_statements,
            paused_until: row.paused_until,
            open_holes: row.open_holes.0,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct EventView {
    /// Its place in the chain.
    pub seq: i64,
    /// Its own id.
    pub id: uuid::Uuid,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Whom it concerns.
    pub tenant: Option<String>,
    /// `TenantCreated`, `Suspended`, …
    pub kind: String,
    /// `operator:<user>`, `token:<id>`, `key:<id>`, `system` (the proxy itself).
    pub actor: String,
    /// From where; empty for a process on the registry's side.
    pub address: String,
    /// `{"field": {"before": …, "after": …}}`
    #[schema(value_type = Object)]
    pub changes: Map<String, Value>,
    /// What else is worth knowing.
    #[schema(value_type = Object)]
    pub facts: Value,
}

impl From<EventRow> for EventView {
    fn from(row: EventRow) -> Self {
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(row.at_us) * 1000);
        Self {
            seq: row.seq,
            id: row.id,
            at: at.unwrap_or(OffsetDateTime::UNIX_EPOCH),
            tenant: row.tenant,
            kind: row.kind,
            actor: row.actor,
            address: row.address,
            changes: row.changes.0,
            facts: row.facts.0,
        }
    }
}

fn map(view: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(view) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// A tenant as its events tell it: what is public of it and lasts; without what is null.
pub fn tenant_record(row: &TenantRow) -> Map<String, Value> {
    let mut record = map(&TenantView::from(row));
    record.retain(|field, value| !value.is_null() && !NOT_RECORDED.contains(&field.as_str()));
    record
}

/// The field of a tenant's record that holds a key.
pub(super) fn key_field(id: &str) -> String {
    format!("key:{id}")
}

/// A key as its tenant's events tell it: a field `key:<id>` of the tenant's record.
pub fn key_record(row: &KeyRow) -> Map<String, Value> {
    let mut record = map(&KeyView::from(row));
    // The tenant is the record's own; that a key was used is no change.
    record.retain(|field, value| !value.is_null() && field != "last_used_at" && field != "tenant");
    Map::from_iter([(key_field(&row.id), Value::Object(record))])
}

/// A cluster as its events tell it.
pub fn cluster_record(row: &ClusterRow) -> Map<String, Value> {
    let mut record = map(&ClusterView::from(row));
    record.retain(|field, value| !value.is_null() && !NOT_RECORDED.contains(&field.as_str()));
    record
}
