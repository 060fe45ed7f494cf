//! When API keys were used last, written from time to time.

use super::{RegistryError, link::chain};
use crate::tenant::{KeyName, KeyUses};
use moka::sync::Cache;
use sqlx::PgPool;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// How often uses are looked at: the first use of a key is in the registry this soon.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// A key's later uses are written at most this often, only the last of them.
const WRITE_INTERVAL: Duration = Duration::from_mins(5);

/// Keys that are remembered as written; one more may be written early.
const WRITTEN_MAX: u64 = 100_000;

/// Keys that are written with one statement, and how long it may take.
const ROWS_MAX: usize = 1000;
const WRITE_TIME_MAX: Duration = Duration::from_secs(5);

/// For everything that is left at the end.
const LAST_TIME_MAX: Duration = Duration::from_secs(3);

/// Writes the uses that are kept, until `end`, and then those that are left. What can't be written
/// is tried again; of each key only its last use is kept meanwhile.
///
/// # Cancel safety
/// Cancel safe: what was taken and not yet written is lost.
pub async fn write_uses(pool: PgPool, uses: Arc<KeyUses>, end: CancellationToken) {
    let written = Cache::builder()
        .max_capacity(WRITTEN_MAX)
        .time_to_live(WRITE_INTERVAL)
        .build();
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while end.run_until_cancelled(ticks.tick()).await.is_some() {
        let (early, due) = uses
            .take()
            .into_iter()
            .partition::<HashMap<_, _>, _>(|(name, _)| written.contains_key(name));
        uses.put_back(early);
        for name in write(&pool, &uses, due).await {
            written.insert(name, ());
        }
    }
    let rest = uses.take();
    if timeout(LAST_TIME_MAX, write(&pool, &uses, rest))
        .await
        .is_err()
    {
        tracing::debug!("the last uses of API keys were not written in time");
    }
}

/// Writes these, and returns whose were written; the others are put back.
async fn write(pool: &PgPool, uses: &KeyUses, due: HashMap<KeyName, SystemTime>) -> Vec<KeyName> {
    let due: Vec<_> = due.into_iter().collect();
    let mut done = Vec::with_capacity(due.len());
    let mut parts = due.chunks(ROWS_MAX);
    for part in parts.by_ref() {
        let writing = timeout(WRITE_TIME_MAX, write_part(pool, part)).await;
        match writing.unwrap_or(Err(RegistryError::Database(sqlx::Error::PoolTimedOut))) {
            Ok(skipped) => {
                let is_skipped =
                    |(name, _): &&(KeyName, _)| skipped.iter().any(|id| *id == name.1.as_str());
                let (again, written): (Vec<_>, Vec<_>) = part.iter().partition(is_skipped);
                uses.put_back(again.into_iter().cloned());
                done.extend(written.into_iter().map(|(name, _)| name.clone()));
            }
            Err(error) => {
                // The directory says once that the registry does not answer.
                tracing::debug!(error = chain(&error), "uses of API keys can't be written");
                uses.put_back(part.iter().cloned());
                break;
            }
        }
    }
    uses.put_back(parts.flatten().cloned());
    done
}

/// Writes a few, and returns the ids of those whose rows somebody else is at. It waits for nobody's
/// row, so that it stands in nobody's way.
async fn write_part(
    pool: &PgPool,
    part: &[(KeyName, SystemTime)],
) -> Result<Vec<String>, RegistryError> {
    let tenants: Vec<_> = part
        .iter()
        .map(|((tenant, _), _)| tenant.as_str())
        .collect();
    let ids: Vec<_> = part.iter().map(|((_, id), _)| id.as_str()).collect();
    let times: Vec<_> = part
        .iter()
        .map(|(_, at)| OffsetDateTime::from(*at))
        .collect();
    let query = sqlx::query_scalar(
        "WITH used AS MATERIALIZED (
             SELECT k.id, u.at FROM unnest($1::text[], $2::text[], $3::timestamptz[]) u (tenant, id, at)
             JOIN pgusher.api_key k ON k.id = u.id AND k.tenant = u.tenant
         ), free AS MATERIALIZED (
             SELECT k.id FROM pgusher.api_key k WHERE k.id IN (SELECT id FROM used)
             FOR UPDATE SKIP LOCKED
         ), written AS (
             UPDATE pgusher.api_key k SET last_used_at = u.at FROM used u
             WHERE k.id = u.id AND k.id IN (SELECT id FROM free)
               AND (k.last_used_at IS NULL OR k.last_used_at < u.at)
         )
         SELECT id FROM used WHERE id NOT IN (SELECT id FROM free)",
    );
    let query = query.bind(tenants).bind(ids).bind(times);
    Ok(query.fetch_all(pool).await?)
}
