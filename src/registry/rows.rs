//! Rows as they stand in the tables. What the columns mean stands in `migrations/`.

use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use std::collections::BTreeMap;
use time::OffsetDateTime;

/// `pgusher.cluster`
#[derive(Debug, Clone, sqlx::FromRow, Serialize, Deserialize)]
#[expect(missing_docs, reason = "a field is named as its column")]
pub struct ClusterRow {
    pub name: String,
    pub primary_url: String,
    pub replica_urls: Vec<String>,
    pub region: Option<String>,
    pub admin_role: String,
    pub admin_password: Option<Vec<u8>>,
    pub tls: String,
    pub tls_ca: Option<String>,
    pub max_server_connections: i32,
    pub max_parallel_connects: i32,
    pub connect_timeout_ms: i64,
    pub profile: String,
    pub schema_database: String,
    pub row_database: String,
    pub open_holes: Json<serde_json::Value>,
    pub primary_weight: Option<i32>,
    pub replica_lag_max: Option<i64>,
    pub replica_lag_bytes_max: Option<i64>,
    pub replica_fallback: Option<bool>,
    pub replica_slow_start: Option<i64>,
    pub watch_interval: Option<i64>,
    pub watch_timeout: Option<i64>,
    #[serde(default)]
    pub max_running_statements: Option<i32>,
    #[serde(default)]
    pub adaptive_running_statements: Option<bool>,
    #[serde(default)]
    pub min_running_statements: Option<i32>,
    #[serde(default)]
    pub paused_until: Option<OffsetDateTime>,
    pub generation: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// `pgusher.tenant`
#[derive(Debug, Clone, sqlx::FromRow, Serialize, Deserialize)]
#[expect(missing_docs, reason = "a field is named as its column")]
pub struct TenantRow {
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
    pub password: Option<Vec<u8>>,
    pub read_only_role: Option<String>,
    pub read_only_password: Option<Vec<u8>>,
    pub scram_salt: Vec<u8>,
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
    #[serde(default)]
    pub transactions_per_hour: Option<i32>,
    pub bytes_per_second: Option<i64>,
    pub logins_per_second: Option<i32>,
    #[serde(default)]
    pub max_storage_bytes: Option<i64>,
    pub queries_per_month: Option<i64>,
    #[serde(default)]
    pub transactions_per_month: Option<i64>,
    #[serde(default)]
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
    pub read_replicas: Option<Vec<String>>,
    pub settings: Json<BTreeMap<String, String>>,
    pub forced: Vec<String>,
    pub time_zone: Option<String>,
    pub tenant_setting: Option<String>,
    pub plan: String,
    pub auto_update: bool,
    pub metadata: Json<serde_json::Value>,
    pub template_version: i64,
    pub open_holes: Json<serde_json::Value>,
    pub remove_at: Option<OffsetDateTime>,
    pub generation: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// `pgusher.api_key`
#[derive(Debug, Clone, sqlx::FromRow, Serialize, Deserialize)]
#[expect(missing_docs, reason = "a field is named as its column")]
pub struct KeyRow {
    pub id: String,
    pub tenant: String,
    pub name: String,
    pub sha256: Option<Vec<u8>>,
    pub verifier: String,
    pub scope: String,
    pub permissions: Vec<String>,
    pub allow: Vec<String>,
    pub rate_limit_per_hour: Option<i32>,
    pub max_client_connections: Option<i32>,
    pub max_concurrent_queries: Option<i32>,
    pub transactions_per_second: Option<i32>,
    #[serde(default)]
    pub transactions_per_hour: Option<i32>,
    pub bytes_per_second: Option<i64>,
    pub logins_per_second: Option<i32>,
    pub not_before: Option<OffsetDateTime>,
    pub expires_at: Option<OffsetDateTime>,
    pub status: String,
    pub last_used_at: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
    pub revoked_at: Option<OffsetDateTime>,
}

/// `pgusher.slot_key`
#[derive(Debug, Clone, sqlx::FromRow, Serialize, Deserialize)]
#[expect(missing_docs, reason = "a field is named as its column")]
pub struct SlotKeyRow {
    pub cluster: String,
    pub database_name: String,
    pub id: i32,
    pub sealed: Vec<u8>,
    pub created_at: OffsetDateTime,
}
