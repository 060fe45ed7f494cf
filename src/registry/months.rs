//! What all proxies have used of tenants' months, and that a quota was reached: told once.

use super::{Changes, NewEvent, RegistryError, append, link::chain};
use crate::{
    tenant::TenantId,
    usage::{Book, Calendar, Level, Meter, Monthly, Standing, to_the_minute},
};
use serde_json::json;
use sqlx::PgPool;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};
use time::OffsetDateTime;
use tokio::time::timeout;

/// Tenants that are read with one query.
const PART: usize = 500;

const READ_TIME_MAX: Duration = Duration::from_secs(5);

/// Reads what others have used, and tells of quotas that are reached; of new tenants alone when others
/// were read a moment ago. Whoever waits for it waits no longer, whatever comes of it.
pub(super) async fn look(pool: &PgPool, book: &Book, only_new: bool) {
    let now = SystemTime::now();
    let month = Calendar::of(now);
    for part in book.months_due(only_new, now).chunks(PART) {
        let sums = timeout(READ_TIME_MAX, sums(pool, month, part)).await;
        let sums = match sums {
            Ok(Ok(sums)) => Some(sums),
            Ok(Err(error)) => {
                tracing::debug!(error = chain(&error), "months can't be read now");
                None
            }
            Err(_elapsed) => None,
        };
        for (tenant, meter) in part {
            let of = |sums: &HashMap<String, Monthly>| {
                sums.get(tenant.as_str()).copied().unwrap_or_default()
            };
            meter.month.read(month, sums.as_ref().map(of), now);
        }
    }
    for (tenant, meter) in book.months_untold(now) {
        for (standing, level) in meter.month.untold(SystemTime::now()) {
            let told = timeout(READ_TIME_MAX, tell(pool, &tenant, (&standing, level))).await;
            match told {
                Ok(Ok(())) => meter.month.told(&standing, level),
                Ok(Err(error)) => {
                    tracing::debug!(error = chain(&error), "a quota can't be told of now");
                    return;
                }
                Err(_elapsed) => return,
            }
        }
    }
}

async fn sums(
    pool: &PgPool,
    month: Calendar,
    tenants: &[(TenantId, Arc<Meter>)],
) -> Result<HashMap<String, Monthly>, RegistryError> {
    let ids: Vec<_> = tenants.iter().map(|(id, _)| id.as_str()).collect();
    // Whoever had its name before is not its business.
    let query = sqlx::query_as::<_, (String, i64, i64)>(
        "SELECT u.tenant, sum(u.queries)::bigint, sum(u.transactions)::bigint
         FROM unnest($1::text[]) n (tenant)
         JOIN pgusher.usage_hourly u USING (tenant)
         LEFT JOIN pgusher.tenant t ON t.id = u.tenant
         WHERE u.hour >= $2
             AND u.hour >= coalesce(date_trunc('hour', t.created_at, 'UTC'), '-infinity')
         GROUP BY 1",
    );
    let rows = query.bind(ids).bind(OffsetDateTime::from(month.begins()));
    let rows = rows.fetch_all(pool).await?.into_iter();
    let count = |count: i64| u64::try_from(count).unwrap_or(0);
    Ok(rows
        .map(|(tenant, queries, transactions)| {
            let sum = Monthly {
                queries: count(queries),
                transactions: count(transactions),
            };
            (tenant, sum)
        })
        .collect())
}

/// Writes that a quota was reached, unless it is written already.
async fn tell(
    pool: &PgPool,
    tenant: &TenantId,
    (standing, level): (&Standing, Level),
) -> Result<(), RegistryError> {
    let mut db = pool.begin().await?;
    let (quota, month) = (standing.quota.name(), standing.month);
    let first = sqlx::query(
        "INSERT INTO pgusher.quota_reached (tenant, quota, level, month) VALUES ($1, $2, $3, $4)
         ON CONFLICT DO NOTHING",
    );
    let first = first.bind(tenant.as_str()).bind(quota);
    let first = first
        .bind(level.as_str())
        .bind(OffsetDateTime::from(month.begins()));
    if first.execute(&mut *db).await?.rows_affected() == 0 {
        return Ok(());
    }
    let (used, max) = (standing.used, standing.max);
    let resets_at = to_the_minute(month.ends());
    let event = NewEvent {
        tenant: Some(tenant.as_str()),
        kind: match level {
            Level::Hard => "quota.hard",
            Level::Soft | Level::Ok => "quota.soft",
        },
        actor: "proxy",
        address: "",
        changes: Changes::default(),
        facts: json!({ "quota": quota, "used": used, "max": max, "resets_at": resets_at }),
    };
    append(&mut db, event).await?;
    db.commit().await?;
    tracing::info!(%tenant, quota, used, max, level = level.as_str(), "a quota is reached");
    Ok(())
}
