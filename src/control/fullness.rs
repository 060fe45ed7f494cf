//! How full tenants are, and who is told when that changes.

use super::{Actor, ControlError, tenants::event};
use crate::{
    registry::{self, Changes, Measured, TenantRow, Told},
    tenant::{Fullness, Plans},
};
use serde_json::json;
use sqlx::PgConnection;
use std::{collections::HashMap, num::NonZeroU64};
use time::OffsetDateTime;

/// Writes what was measured then, in one transaction, with an event for each tenant that has come near its
/// limit, has reached it, or has room again; proxies are told of all for whom it matters. Who writes at the
/// same time waits, so nothing is told twice.
///
/// # Errors
/// [`ControlError`].
///
/// # Cancel safety
/// All of it is written, or nothing.
pub(super) async fn write(
    (pool, plans): (&sqlx::PgPool, &Plans),
    actor: &Actor,
    measured: &[Measured],
) -> Result<(), ControlError> {
    if measured.is_empty() {
        return Ok(());
    }
    let mut tx = pool.begin().await?;
    let all = registry::write_storage(&mut tx, measured, OffsetDateTime::now_utc()).await?;
    let ids: Vec<_> = all.iter().map(|told| told.tenant.as_str()).collect();
    let query = sqlx::query_as("SELECT * FROM pgusher.tenant WHERE id = ANY ($1)");
    let rows: Vec<TenantRow> = query.bind(ids).fetch_all(&mut *tx).await?;
    let limits = rows
        .iter()
        .map(|row| (&*row.id, registry::storage_limit(row, plans.get(&row.plan))));
    let limits: HashMap<_, _> = limits.collect();
    let mut concerned = Vec::new();
    for told in &all {
        let limit = limits.get(&*told.tenant).copied().flatten();
        let is_new = judge(&mut tx, actor, told, limit).await?;
        if is_new || fullness(told, limit) >= Fullness::Near {
            concerned.push(told.tenant.as_str());
        }
    }
    if !concerned.is_empty() {
        registry::tell_tenants(&mut tx, &concerned).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Judges a tenant anew whose limit is another now.
///
/// # Errors
/// [`ControlError`].
pub(super) async fn judge_again(
    db: &mut PgConnection,
    actor: &Actor,
    (row, plans): (&TenantRow, &Plans),
) -> Result<(), ControlError> {
    if let Some(told) = registry::lock_storage(db, &row.id).await? {
        let limit = registry::storage_limit(row, plans.get(&row.plan));
        judge(db, actor, &told, limit).await?;
    }
    Ok(())
}

/// Writes how full a tenant is now, where that is new, with the event that tells it.
async fn judge(
    db: &mut PgConnection,
    actor: &Actor,
    told: &Told,
    limit: Option<NonZeroU64>,
) -> Result<bool, ControlError> {
    let now = fullness(told, limit);
    let before = u8::try_from(told.fullness).map_or(Fullness::Unlimited, Fullness::from_byte);
    if now == before {
        return Ok(false);
    }
    registry::set_fullness(db, &told.tenant, i16::from(now as u8)).await?;
    if let Some(kind) = kind(before, now) {
        let facts = json!({"storage_bytes": told.bytes, "max_storage_bytes": limit});
        let event = event(actor, &told.tenant, kind, Changes::default(), facts);
        registry::append(db, event).await?;
    }
    Ok(true)
}

fn fullness(told: &Told, limit: Option<NonZeroU64>) -> Fullness {
    Fullness::of(u64::try_from(told.bytes).ok(), limit)
}

/// What is told of a tenant that was so full and is so full now.
fn kind(before: Fullness, now: Fullness) -> Option<&'static str> {
    match (before, now) {
        (_, Fullness::Full) => Some("storage.hard"),
        // It was told of 80 % on its way up.
        (Fullness::Full, _) => Some("storage.freed"),
        (_, Fullness::Near) => Some("storage.soft"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crossing_is_told_once() {
        use Fullness::{Full, Near, Room, Unlimited};
        for (before, now, expected) in [
            (Unlimited, Room, None),
            (Unlimited, Near, Some("storage.soft")),
            (Room, Near, Some("storage.soft")),
            (Near, Full, Some("storage.hard")),
            (Room, Full, Some("storage.hard")),
            (Full, Near, Some("storage.freed")),
            (Full, Room, Some("storage.freed")),
            (Full, Unlimited, Some("storage.freed")),
            (Near, Room, None),
            (Near, Unlimited, None),
        ] {
            assert_eq!(kind(before, now), expected, "{before:?} {now:?}");
        }
    }
}
