//! What was measured of tenants' storage.

use super::RegistryError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// What was measured of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Its id.
    pub tenant: String,
    /// Bytes that its data takes.
    pub bytes: i64,
    /// Its rows, where it shares tables with others.
    pub rows: Option<i64>,
}

/// How full a tenant was when it was last told of, by the numbers of [`crate::tenant::Fullness`].
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Told {
    /// Its id.
    pub tenant: String,
    /// Bytes that its data takes now.
    pub bytes: i64,
    /// How full it was.
    pub fullness: i16,
}

/// Notes what was measured then, in place of an earlier measurement, also of one in the same hour. The
/// tenants of these that there still are stay locked to others who measure, until the transaction ends:
/// each with how full it was.
///
/// # Errors
/// [`RegistryError::Database`].
///
/// # Cancel safety
/// As that of the transaction.
pub async fn write_storage(
    db: &mut PgConnection,
    measured: &[Measured],
    at: OffsetDateTime,
) -> Result<Vec<Told>, RegistryError> {
    let tenants: Vec<_> = measured.iter().map(|one| one.tenant.as_str()).collect();
    let bytes: Vec<_> = measured.iter().map(|one| one.bytes).collect();
    let rows: Vec<_> = measured.iter().map(|one| one.rows).collect();
    let by_hour = sqlx::query(
        "INSERT INTO pgusher.usage_storage (tenant, hour, bytes, measured_at)
         SELECT n.tenant, date_trunc('hour', $3::timestamptz, 'UTC'), n.bytes, $3
         FROM unnest($1::text[], $2::bigint[]) n (tenant, bytes) ORDER BY n.tenant
         ON CONFLICT (tenant, hour) DO UPDATE SET bytes = excluded.bytes,
             measured_at = excluded.measured_at",
    );
    let by_hour = by_hour.bind(&tenants).bind(&bytes).bind(at);
    by_hour.execute(&mut *db).await?;
    let last = sqlx::query_as(
        "INSERT INTO pgusher.storage AS s (tenant, bytes, rows, measured_at)
         SELECT n.tenant, n.bytes, n.rows, $4
         FROM unnest($1::text[], $2::bigint[], $3::bigint[]) n (tenant, bytes, rows)
         JOIN pgusher.tenant t ON t.id = n.tenant ORDER BY n.tenant
         ON CONFLICT (tenant) DO UPDATE SET bytes = excluded.bytes, rows = excluded.rows,
             measured_at = excluded.measured_at
         RETURNING s.tenant, s.bytes, s.fullness",
    );
    let last = last.bind(tenants).bind(bytes).bind(rows).bind(at);
    Ok(last.fetch_all(db).await?)
}

/// What was measured of a tenant last, locked until the transaction ends; `None`: it never was.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn lock_storage(
    db: &mut PgConnection,
    tenant: &str,
) -> Result<Option<Told>, RegistryError> {
    let query = sqlx::query_as(
        "SELECT tenant, bytes, fullness FROM pgusher.storage WHERE tenant = $1 FOR UPDATE",
    );
    Ok(query.bind(tenant).fetch_optional(db).await?)
}

/// Notes how full a tenant is now.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn set_fullness(
    db: &mut PgConnection,
    tenant: &str,
    fullness: i16,
) -> Result<(), RegistryError> {
    let query = sqlx::query("UPDATE pgusher.storage SET fullness = $2 WHERE tenant = $1");
    query.bind(tenant).bind(fullness).execute(db).await?;
    Ok(())
}

/// Tells who keeps copies that these tenants are others now, when the transaction is committed.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn tell_tenants(db: &mut PgConnection, tenants: &[&str]) -> Result<(), RegistryError> {
    let query = sqlx::query(
        "SELECT pg_notify('pgusher_changes', json_build_object('tenant', t,
             'generation', nextval('pgusher.generation'))::text) FROM unnest($1::text[]) t",
    );
    query.bind(tenants).execute(db).await?;
    Ok(())
}
