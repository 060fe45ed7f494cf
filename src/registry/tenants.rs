//! Reading and writing `pgusher.tenant`.

use super::{RegistryError, TenantRow};
use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, PgConnection, types::Json};

/// What [`change_tenant`] may change; secrets and what is fixed at the start are not among it.
const CHANGEABLE: &str = "name, status, owner_email, pool_mode, pin, pool_size, min_pool_size, \
    guaranteed_servers, weight, max_client_connections, max_pinned_servers, max_prepared_statements, server_idle_timeout, \
    server_lifetime, server_check_delay, query_wait_timeout, query_timeout, transaction_timeout, \
    idle_transaction_timeout, client_idle_timeout, client_write_timeout, read_splitting, consistency, failover_hold, \
    max_concurrent_queries, max_waiting, transactions_per_second, transactions_per_hour, bytes_per_second, \
    logins_per_second, max_storage_bytes, queries_per_month, transactions_per_month, trial_ends_at, read_replicas, settings, forced, time_zone, tenant_setting, plan, auto_update, metadata, template_version, open_holes, remove_at";

/// What is fixed when a tenant is made: who it is, where, and everything random.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "a field is named as its column")]
pub struct TenantSeed<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub tier: &'a str,
    pub variant: &'a str,
    pub cluster: &'a str,
    pub database_name: &'a str,
    pub schema_name: Option<&'a str>,
    pub token: &'a str,
    pub role: &'a str,
    pub password: Option<&'a [u8]>,
    pub read_only_role: Option<&'a str>,
    pub read_only_password: Option<&'a [u8]>,
    pub scram_salt: &'a [u8],
}

/// Writes a new tenant, `provisioning`; `false` when there is one of this id.
///
/// # Errors
/// [`RegistryError::Database`], also when the cluster is unknown (23503).
pub async fn insert_tenant(
    db: &mut PgConnection,
    seed: TenantSeed<'_>,
) -> Result<bool, RegistryError> {
    let done = sqlx::query(
        "INSERT INTO pgusher.tenant (id, name, tier, variant, cluster, database_name, schema_name,
             token, role, password, read_only_role, read_only_password, scram_salt)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(seed.id)
    .bind(seed.name)
    .bind(seed.tier)
    .bind(seed.variant)
    .bind(seed.cluster)
    .bind(seed.database_name)
    .bind(seed.schema_name)
    .bind(seed.token)
    .bind(seed.role)
    .bind(seed.password)
    .bind(seed.read_only_role)
    .bind(seed.read_only_password)
    .bind(seed.scram_salt)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The tenant of this id.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn tenant(db: &mut PgConnection, id: &str) -> Result<Option<TenantRow>, RegistryError> {
    let query = sqlx::query_as("SELECT * FROM pgusher.tenant WHERE id = $1");
    Ok(query.bind(id).fetch_optional(db).await?)
}

/// The tenant of this id, locked until the transaction ends.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn lock_tenant(
    db: &mut PgConnection,
    id: &str,
) -> Result<Option<TenantRow>, RegistryError> {
    let query = sqlx::query_as("SELECT * FROM pgusher.tenant WHERE id = $1 FOR UPDATE");
    Ok(query.bind(id).fetch_optional(db).await?)
}

/// At most `limit` tenants in the order of their ids, those behind `after`.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn tenants(
    db: &mut PgConnection,
    after: &str,
    limit: i64,
) -> Result<Vec<TenantRow>, RegistryError> {
    let query = sqlx::query_as(
        "SELECT * FROM pgusher.tenant WHERE id COLLATE \"C\" > $1 ORDER BY id COLLATE \"C\" LIMIT $2",
    );
    Ok(query.bind(after).bind(limit).fetch_all(db).await?)
}

/// Changes the given columns, whose values are what JSON makes of them, and leaves the others.
///
/// # Errors
/// [`RegistryError::Database`], also when a value does not fit its column.
pub async fn change_tenant(
    db: &mut PgConnection,
    id: &str,
    columns: Map<String, Value>,
) -> Result<TenantRow, RegistryError> {
    let values = CHANGEABLE
        .split(", ")
        .map(|column| format!("r.{column}"))
        .collect::<Vec<_>>()
        .join(", ");
    let sql = format!(
        "UPDATE pgusher.tenant t SET ({CHANGEABLE}) = \
         (SELECT {values} FROM jsonb_populate_record(t, $2) r) WHERE id = $1 RETURNING *"
    );
    let query = sqlx::query_as(AssertSqlSafe(sql));
    let query = query.bind(id).bind(Json(Value::Object(columns)));
    Ok(query.fetch_one(db).await?)
}

/// Replaces the sealed passwords.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn set_tenant_passwords(
    db: &mut PgConnection,
    id: &str,
    (password, read_only_password): (Option<&[u8]>, Option<&[u8]>),
) -> Result<(), RegistryError> {
    let query = sqlx::query(
        "UPDATE pgusher.tenant SET password = $2, read_only_password = $3 WHERE id = $1",
    );
    let query = query.bind(id).bind(password).bind(read_only_password);
    query.execute(db).await?;
    Ok(())
}

/// Removes the tenant and all that hangs on it; its events stay.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn delete_tenant(db: &mut PgConnection, id: &str) -> Result<(), RegistryError> {
    for sql in [
        "DELETE FROM pgusher.tenant WHERE id = $1",
        "DELETE FROM pgusher.usage_monthly WHERE tenant = $1",
        "DELETE FROM pgusher.quota_reached WHERE tenant = $1",
    ] {
        sqlx::query(sql).bind(id).execute(&mut *db).await?;
    }
    Ok(())
}

/// Ids of at most `limit` tenants that somebody has to go on with: half made, due for removal, or
/// with a change of passwords that has not ended.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn unfinished_tenants(
    db: &mut PgConnection,
    limit: i64,
) -> Result<Vec<String>, RegistryError> {
    let query = sqlx::query_scalar(
        "SELECT id FROM pgusher.tenant t
         WHERE status = 'provisioning'
            OR (status = 'terminated' AND remove_at <= now())
            OR (SELECT e.kind FROM pgusher.event e
                WHERE e.tenant = t.id AND e.kind IN ('PasswordRotationStarted', 'PasswordRotated')
                ORDER BY e.seq DESC LIMIT 1) = 'PasswordRotationStarted'
         ORDER BY created_at LIMIT $1",
    );
    Ok(query.bind(limit).fetch_all(db).await?)
}

/// The tenants of a database that are made, and whose record tells of other holes than these.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn tenants_with_other_holes(
    db: &mut PgConnection,
    (cluster, database): (&str, &str),
    holes: &Value,
) -> Result<Vec<String>, RegistryError> {
    let query = sqlx::query_scalar(
        "SELECT id FROM pgusher.tenant
         WHERE cluster = $1 AND database_name = $2 AND open_holes <> $3
           AND status IN ('active', 'suspended') ORDER BY id",
    );
    let query = query.bind(cluster).bind(database).bind(Json(holes));
    Ok(query.fetch_all(db).await?)
}

/// Which of these roles are those of a cluster's tenants.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn tenants_roles(
    db: &mut PgConnection,
    cluster: &str,
    roles: &[String],
) -> Result<Vec<String>, RegistryError> {
    let query = sqlx::query_scalar(
        "SELECT r FROM unnest($2::text[]) r WHERE EXISTS (SELECT FROM pgusher.tenant
         WHERE cluster = $1 AND (role = r OR read_only_role = r))",
    );
    Ok(query.bind(cluster).bind(roles).fetch_all(db).await?)
}
