//! What was measured of tenants' storage.

use super::RegistryError;
use sqlx::PgPool;
use time::OffsetDateTime;

/// Notes what was measured then, in place of an earlier measurement in the same hour.
///
/// # Errors
/// [`RegistryError::Database`].
///
/// # Cancel safety
/// All of it is written, or nothing.
pub async fn write_storage(
    pool: &PgPool,
    measured: &[(String, i64)],
    at: OffsetDateTime,
) -> Result<(), RegistryError> {
    let (tenants, bytes): (Vec<_>, Vec<_>) = measured
        .iter()
        .map(|(tenant, bytes)| (tenant.as_str(), *bytes))
        .unzip();
    let query = sqlx::query(
        "INSERT INTO pgusher.usage_storage (tenant, hour, bytes, measured_at)
         SELECT n.tenant, date_trunc('hour', $3::timestamptz, 'UTC'), n.bytes, $3
         FROM unnest($1::text[], $2::bigint[]) n (tenant, bytes) ORDER BY n.tenant
         ON CONFLICT (tenant, hour) DO UPDATE SET bytes = excluded.bytes,
             measured_at = excluded.measured_at",
    );
    query
        .bind(tenants)
        .bind(bytes)
        .bind(at)
        .execute(pool)
        .await?;
    Ok(())
}
