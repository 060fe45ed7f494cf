//! Reading `pgusher.event`.

use super::RegistryError;
use serde_json::{Map, Value};
use sqlx::{PgConnection, types::Json};

/// `pgusher.event`, without what chains it.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(missing_docs, reason = "a field is named as its column")]
pub struct EventRow {
    pub seq: i64,
    pub id: uuid::Uuid,
    pub at_us: i64,
    pub tenant: Option<String>,
    pub kind: String,
    pub actor: String,
    pub address: String,
    pub changes: Json<Map<String, Value>>,
    pub facts: Json<Value>,
}

const COLUMNS: &str = "seq, id, at_us, tenant, kind, actor, address, changes, facts";

/// At most `limit` events of a tenant, the newest first, those before `before`.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn newest_events(
    db: &mut PgConnection,
    tenant: &str,
    before: i64,
    limit: i64,
) -> Result<Vec<EventRow>, RegistryError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM pgusher.event WHERE tenant = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3"
    );
    let query = sqlx::query_as(sqlx::AssertSqlSafe(sql));
    Ok(query
        .bind(tenant)
        .bind(before)
        .bind(limit)
        .fetch_all(db)
        .await?)
}

/// At most `limit` events of a tenant, the oldest first, those behind `after` up to `last`.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn oldest_events(
    db: &mut PgConnection,
    tenant: &str,
    (after, last): (i64, i64),
    limit: i64,
) -> Result<Vec<EventRow>, RegistryError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM pgusher.event WHERE tenant = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT $4"
    );
    let query = sqlx::query_as(sqlx::AssertSqlSafe(sql));
    Ok(query
        .bind(tenant)
        .bind(after)
        .bind(last)
        .bind(limit)
        .fetch_all(db)
        .await?)
}

/// With which newest version of templates the making of a tenant was begun; 0: without.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn begun_with_templates(
    db: &mut PgConnection,
    tenant: &str,
) -> Result<i64, RegistryError> {
    let query = sqlx::query_scalar::<_, Option<i64>>(
        "SELECT (facts->>'templates')::bigint FROM pgusher.event
         WHERE tenant = $1 AND kind = 'ProvisioningStarted' AND NOT facts ? 'resumed'
         ORDER BY seq DESC LIMIT 1",
    );
    let found = query.bind(tenant).fetch_optional(db).await?;
    Ok(found.flatten().unwrap_or(0))
}

/// The last event of a tenant up to a time (microseconds since 1970); 0 when there is none. What is
/// before it in the chain happened before it, whatever the clocks said.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn last_event_at(
    db: &mut PgConnection,
    tenant: &str,
    at_us: i64,
) -> Result<i64, RegistryError> {
    let query = sqlx::query_scalar(
        "SELECT coalesce(max(seq), 0) FROM pgusher.event WHERE tenant = $1 AND at_us <= $2",
    );
    Ok(query.bind(tenant).bind(at_us).fetch_one(db).await?)
}
