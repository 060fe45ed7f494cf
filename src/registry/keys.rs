//! Reading and writing `pgusher.api_key`.

use super::{KeyRow, RegistryError};
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Writes a new key.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn insert_key(db: &mut PgConnection, key: &KeyRow) -> Result<(), RegistryError> {
    sqlx::query(
        "INSERT INTO pgusher.api_key (id, tenant, name, sha256, verifier, scope, permissions, allow,
             rate_limit_per_hour, max_client_connections, not_before, expires_at, status, created_at,
             max_concurrent_queries, transactions_per_second, bytes_per_second, logins_per_second,
             transactions_per_hour)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
             $19)",
    )
    .bind(&key.id)
    .bind(&key.tenant)
    .bind(&key.name)
    .bind(&key.sha256)
    .bind(&key.verifier)
    .bind(&key.scope)
    .bind(&key.permissions)
    .bind(&key.allow)
    .bind(key.rate_limit_per_hour)
    .bind(key.max_client_connections)
    .bind(key.not_before)
    .bind(key.expires_at)
    .bind(&key.status)
    .bind(key.created_at)
    .bind(key.max_concurrent_queries)
    .bind(key.transactions_per_second)
    .bind(key.bytes_per_second)
    .bind(key.logins_per_second)
    .bind(key.transactions_per_hour)
    .execute(db)
    .await?;
    Ok(())
}

/// All keys of a tenant, the oldest first.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn keys(db: &mut PgConnection, tenant: &str) -> Result<Vec<KeyRow>, RegistryError> {
    let query =
        sqlx::query_as("SELECT * FROM pgusher.api_key WHERE tenant = $1 ORDER BY created_at, id");
    Ok(query.bind(tenant).fetch_all(db).await?)
}

/// At most `limit` keys of a tenant, the oldest first: those made after the key `after`, or all.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn keys_after(
    db: &mut PgConnection,
    tenant: &str,
    (after, limit): (Option<&str>, i64),
) -> Result<Vec<KeyRow>, RegistryError> {
    let query = sqlx::query_as(
        "SELECT k.* FROM pgusher.api_key k
         WHERE k.tenant = $1 AND ($2::text IS NULL OR (k.created_at, k.id) >
             (SELECT a.created_at, a.id FROM pgusher.api_key a WHERE a.tenant = $1 AND a.id = $2))
         ORDER BY k.created_at, k.id LIMIT $3",
    );
    Ok(query
        .bind(tenant)
        .bind(after)
        .bind(limit)
        .fetch_all(db)
        .await?)
}

/// A tenant's key, locked until the transaction ends.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn lock_key(
    db: &mut PgConnection,
    tenant: &str,
    id: &str,
) -> Result<Option<KeyRow>, RegistryError> {
    let query =
        sqlx::query_as("SELECT * FROM pgusher.api_key WHERE tenant = $1 AND id = $2 FOR UPDATE");
    Ok(query.bind(tenant).bind(id).fetch_optional(db).await?)
}

/// Writes what may be changed of a key: its name, scope, networks, times and limits.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn change_key(db: &mut PgConnection, key: &KeyRow) -> Result<(), RegistryError> {
    sqlx::query(
        "UPDATE pgusher.api_key SET name = $2, scope = $3, allow = $4, rate_limit_per_hour = $5,
             max_client_connections = $6, max_concurrent_queries = $7, transactions_per_second = $8,
             transactions_per_hour = $9, bytes_per_second = $10, logins_per_second = $11,
             not_before = $12, expires_at = $13
         WHERE id = $1",
    )
    .bind(&key.id)
    .bind(&key.name)
    .bind(&key.scope)
    .bind(&key.allow)
    .bind(key.rate_limit_per_hour)
    .bind(key.max_client_connections)
    .bind(key.max_concurrent_queries)
    .bind(key.transactions_per_second)
    .bind(key.transactions_per_hour)
    .bind(key.bytes_per_second)
    .bind(key.logins_per_second)
    .bind(key.not_before)
    .bind(key.expires_at)
    .execute(db)
    .await?;
    Ok(())
}

/// A key's last moment, or its end right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyEnd {
    /// It is revoked.
    Now,
    /// It expires then.
    At(OffsetDateTime),
}

/// Ends a key.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn end_key(
    db: &mut PgConnection,
    id: &str,
    end: KeyEnd,
) -> Result<KeyRow, RegistryError> {
    let query = match end {
        KeyEnd::Now => sqlx::query_as(
            "UPDATE pgusher.api_key SET status = 'revoked', revoked_at = now() WHERE id = $1 RETURNING *",
        )
        .bind(id),
        KeyEnd::At(time) => sqlx::query_as(
            "UPDATE pgusher.api_key SET expires_at = $2 WHERE id = $1 RETURNING *",
        )
        .bind(id)
        .bind(time),
    };
    Ok(query.fetch_one(db).await?)
}
