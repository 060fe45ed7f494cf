//! What the data plane reads of the registry.

use super::{ClusterRow, KeyRow, SlotKeyRow, TenantRow, slot_keys};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow as _, PgPool, Row as _, postgres::PgListener};
use std::collections::HashMap;
use time::OffsetDateTime;

/// Tenants that are read with one query.
const PAGE: i64 = 500;

/// A tenant and its keys, as they stand in the tables. Passwords are sealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Rows {
    pub(super) tenant: TenantRow,
    pub(super) keys: Vec<KeyRow>,
    /// Of its database, where it is served through slots.
    #[serde(default)]
    pub(super) slot_key: Option<SlotKeyRow>,
    /// Bytes that its data took when it was measured last.
    #[serde(default)]
    pub(super) storage_used: Option<i64>,
}

/// One tenant. The keys are read after the tenant: who changes them changes the tenant's row, too,
/// and is told of.
pub(super) async fn tenant(pool: &PgPool, id: &str) -> Result<Option<Rows>, sqlx::Error> {
    let mut db = pool.acquire().await?;
    let tenant: Option<TenantRow> = sqlx::query_as("SELECT * FROM pgusher.tenant WHERE id = $1")
        .bind(id)
        .fetch_optional(&mut *db)
        .await?;
    let Some(tenant) = tenant else {
        return Ok(None);
    };
    let keys = "SELECT * FROM pgusher.api_key WHERE tenant = $1 AND status = 'active' ORDER BY id";
    let keys = sqlx::query_as(keys).bind(id).fetch_all(&mut *db).await?;
    let slot_key = slot_keys::newest(&mut db, &tenant).await?;
    let storage = sqlx::query_scalar("SELECT bytes FROM pgusher.storage WHERE tenant = $1");
    let storage_used = storage.bind(id).fetch_optional(&mut *db).await?;
    Ok(Some(Rows {
        tenant,
        keys,
        slot_key,
        storage_used,
    }))
}

/// The next tenants in the order of their ids that are served at all; the end when there is none.
pub(super) async fn page(pool: &PgPool, after: &str) -> Result<Vec<Rows>, sqlx::Error> {
    let mut db = pool.acquire().await?;
    let tenants: Vec<TenantRow> = sqlx::query_as(
        "SELECT * FROM pgusher.tenant WHERE id > $1 AND status IN ('active', 'suspended')
         ORDER BY id LIMIT $2",
    )
    .bind(after)
    .bind(PAGE)
    .fetch_all(&mut *db)
    .await?;
    let ids: Vec<&str> = tenants.iter().map(|row| row.id.as_str()).collect();
    let keys: Vec<KeyRow> = sqlx::query_as(
        "SELECT * FROM pgusher.api_key WHERE tenant = ANY ($1) AND status = 'active' ORDER BY id",
    )
    .bind(&ids)
    .fetch_all(&mut *db)
    .await?;
    let storage: Vec<(String, i64)> =
        sqlx::query_as("SELECT tenant, bytes FROM pgusher.storage WHERE tenant = ANY ($1)")
            .bind(ids)
            .fetch_all(&mut *db)
            .await?;
    let storage: HashMap<String, i64> = storage.into_iter().collect();
    let mut keys_of: HashMap<String, Vec<KeyRow>> = HashMap::new();
    for key in keys {
        keys_of.entry(key.tenant.clone()).or_default().push(key);
    }
    let slots = slot_keys::all(&mut db).await?;
    let rows = tenants.into_iter().map(|tenant| Rows {
        keys: keys_of.remove(&tenant.id).unwrap_or_default(),
        slot_key: slot_keys::of(&slots, &tenant).cloned(),
        storage_used: storage.get(&tenant.id).copied(),
        tenant,
    });
    Ok(rows.collect())
}

/// All clusters. The end of a pause is told by this machine's clock, which may be another than the
/// registry's.
pub(super) async fn clusters(pool: &PgPool) -> Result<Vec<ClusterRow>, sqlx::Error> {
    let all = "SELECT *, clock_timestamp() AS read_at FROM pgusher.cluster ORDER BY name";
    let rows = sqlx::query(all).fetch_all(pool).await?;
    let now = OffsetDateTime::now_utc();
    let rows = rows.iter().map(|row| {
        let mut cluster = ClusterRow::from_row(row)?;
        let read_at: OffsetDateTime = row.try_get("read_at")?;
        cluster.paused_until = cluster.paused_until.map(|until| now + (until - read_at));
        Ok(cluster)
    });
    rows.collect()
}

/// The number of the last change, committed or not.
pub(super) async fn generation(db: &mut PgListener) -> Result<i64, sqlx::Error> {
    let last = sqlx::query_scalar("SELECT last_value FROM pgusher.generation");
    last.fetch_one(db).await
}
