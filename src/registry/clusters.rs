//! Reading and writing `pgusher.cluster`.

use super::{ClusterRow, RegistryError};
use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, PgConnection, types::Json};
use std::time::Duration;

/// How a cluster's servers are used: what [`change_standbys`] may change.
const STANDBYS: &str = "primary_weight, replica_lag_max, replica_lag_bytes_max, replica_fallback, \
    replica_slow_start, watch_interval, watch_timeout, max_running_statements, \
    adaptive_running_statements, min_running_statements";

/// Writes a cluster; `false` when there is one of this name.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn insert_cluster(
    db: &mut PgConnection,
    cluster: &ClusterRow,
) -> Result<bool, RegistryError> {
    let done = sqlx::query(
        "INSERT INTO pgusher.cluster (name, primary_url, replica_urls, region, admin_role,
             admin_password, tls, tls_ca, max_server_connections, max_parallel_connects,
             connect_timeout_ms, profile, schema_database, row_database, open_holes)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(&cluster.name)
    .bind(&cluster.primary_url)
    .bind(&cluster.replica_urls)
    .bind(&cluster.region)
    .bind(&cluster.admin_role)
    .bind(&cluster.admin_password)
    .bind(&cluster.tls)
    .bind(&cluster.tls_ca)
    .bind(cluster.max_server_connections)
    .bind(cluster.max_parallel_connects)
    .bind(cluster.connect_timeout_ms)
    .bind(&cluster.profile)
    .bind(&cluster.schema_database)
    .bind(&cluster.row_database)
    .bind(&cluster.open_holes)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The cluster of this name.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn cluster(
    db: &mut PgConnection,
    name: &str,
) -> Result<Option<ClusterRow>, RegistryError> {
    let query = sqlx::query_as("SELECT * FROM pgusher.cluster WHERE name = $1");
    Ok(query.bind(name).fetch_optional(db).await?)
}

/// The cluster of this name, locked until the transaction ends: nobody changes it meanwhile, and
/// tenants are made there all the same.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn lock_cluster(
    db: &mut PgConnection,
    name: &str,
) -> Result<Option<ClusterRow>, RegistryError> {
    let query = sqlx::query_as("SELECT * FROM pgusher.cluster WHERE name = $1 FOR NO KEY UPDATE");
    Ok(query.bind(name).fetch_optional(db).await?)
}

/// All clusters by name. There are few.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn clusters(db: &mut PgConnection) -> Result<Vec<ClusterRow>, RegistryError> {
    let query = sqlx::query_as("SELECT * FROM pgusher.cluster ORDER BY name LIMIT 10000");
    Ok(query.fetch_all(db).await?)
}

/// Writes what hardening could not close.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn set_cluster_holes(
    db: &mut PgConnection,
    name: &str,
    holes: Value,
) -> Result<ClusterRow, RegistryError> {
    let query =
        sqlx::query_as("UPDATE pgusher.cluster SET open_holes = $2 WHERE name = $1 RETURNING *");
    Ok(query.bind(name).bind(Json(holes)).fetch_one(db).await?)
}

/// Writes how its databases are hardened.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn set_cluster_profile(
    db: &mut PgConnection,
    name: &str,
    profile: &str,
) -> Result<ClusterRow, RegistryError> {
    let query =
        sqlx::query_as("UPDATE pgusher.cluster SET profile = $2 WHERE name = $1 RETURNING *");
    Ok(query.bind(name).bind(profile).fetch_one(db).await?)
}

/// Changes the given columns of how its servers are used, and leaves the others.
///
/// # Errors
/// [`RegistryError::Database`], also when a value does not fit its column.
pub async fn change_standbys(
    db: &mut PgConnection,
    name: &str,
    columns: Map<String, Value>,
) -> Result<ClusterRow, RegistryError> {
    let values = STANDBYS.split(", ").map(|column| format!("r.{column}"));
    let values = values.collect::<Vec<_>>().join(", ");
    let sql = format!(
        "UPDATE pgusher.cluster c SET ({STANDBYS}) = \
         (SELECT {values} FROM jsonb_populate_record(c, $2) r) WHERE name = $1 RETURNING *"
    );
    let query = sqlx::query_as(AssertSqlSafe(sql));
    let query = query.bind(name).bind(Json(Value::Object(columns)));
    Ok(query.fetch_one(db).await?)
}

/// Writes the addresses of the replicas.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn set_replicas(
    db: &mut PgConnection,
    name: &str,
    urls: &[String],
) -> Result<ClusterRow, RegistryError> {
    let query =
        sqlx::query_as("UPDATE pgusher.cluster SET replica_urls = $2 WHERE name = $1 RETURNING *");
    Ok(query.bind(name).bind(urls).fetch_one(db).await?)
}

/// Writes for how long no transaction begins on its primary, from now on by the registry's clock;
/// `None`: it is not paused.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn set_pause(
    db: &mut PgConnection,
    name: &str,
    time: Option<Duration>,
) -> Result<ClusterRow, RegistryError> {
    let query = sqlx::query_as(
        "UPDATE pgusher.cluster SET paused_until = clock_timestamp() + make_interval(secs => $2) \
         WHERE name = $1 RETURNING *",
    );
    let seconds = time.map(|time| time.as_secs_f64());
    Ok(query.bind(name).bind(seconds).fetch_one(db).await?)
}

/// Writes where its servers are.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn set_addresses(
    db: &mut PgConnection,
    name: &str,
    (primary_url, replica_urls): (&str, &[String]),
) -> Result<ClusterRow, RegistryError> {
    let query = sqlx::query_as(
        "UPDATE pgusher.cluster SET primary_url = $2, replica_urls = $3 WHERE name = $1 RETURNING *",
    );
    let query = query.bind(name).bind(primary_url).bind(replica_urls);
    Ok(query.fetch_one(db).await?)
}
