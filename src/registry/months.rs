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

/// Quotas that are told of at a time; the others are next.
const TOLD_MAX: usize = 100;

const READ_TIME_MAX: Duration = Duration::from_secs(5);

/// Whose months are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Of all that were active.
    All,
    /// Of those that nobody knows of yet.
    New,
    /// Of nobody: it is not known what of this process is among what would be read. Who waits for it goes
    /// on with what is known.
    Nobody,
}

/// Reads what others have used, and tells of quotas that are reached. Whoever waits for it waits no longer,
/// whatever comes of it.
///
/// # Cancel safety
/// Cancel safe: what is not done is done the next time.
pub(super) async fn look(pool: &PgPool, book: &Book, whose: Whose) {
    let now = SystemTime::now();
    let month = Calendar::of(now);
    for part in book.months_due(whose != Whose::All, now).chunks(PART) {
        if whose == Whose::Nobody {
            for (_, meter) in part {
                meter.month.read(month, None, now);
            }
            continue;
        }
        let sums = timeout(READ_TIME_MAX, sums(pool, month, part)).await;
        let sums = match sums {
            Ok(Ok(sums)) => Some(sums),
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "what others use can't be read now");
                None
            }
            Err(_elapsed) => {
                tracing::warn!("what others use can't be read now: it takes too long");
                None
            }
        };
        for (tenant, meter) in part {
            let of = |sums: &HashMap<String, Monthly>| {
                sums.get(tenant.as_str()).copied().unwrap_or_default()
            };
            meter.month.read(month, sums.as_ref().map(of), now);
        }
    }
    for (tenant, meter) in book.months_untold(now).into_iter().take(TOLD_MAX) {
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
    // Whoever had its name before has none there any more.
    let query = sqlx::query_as::<_, (String, i64, i64)>(
        "SELECT tenant, queries, transactions FROM pgusher.usage_monthly
         WHERE tenant = ANY ($1) AND month = $2",
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
