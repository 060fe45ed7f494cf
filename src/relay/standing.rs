//! Where a tenant stands: its quotas and limits, for itself.

use crate::{
    sessions::SessionHandle,
    usage::{Level, Quota, Standing, to_the_minute},
};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// The last days of a trial are its soft limit.
const TRIAL_SOFT: Duration = Duration::from_hours(3 * 24);

/// One limit. What is not limited, or not counted, is `null`.
fn row(quota: &str, (current, max): (Option<u64>, Option<u64>), resets_at: Option<&str>) -> Value {
    let both = current.zip(max.filter(|max| *max > 0));
    let percent = both.map(|(current, max)| {
        u64::try_from(u128::from(current) * 100 / u128::from(max)).unwrap_or(u64::MAX)
    });
    let level = both.map_or(Level::Ok, |(current, max)| Level::of(current, max));
    json!({
        "quota": quota, "current": current, "max": max, "percent": percent,
        "state": level.as_str(), "resets_at": resets_at,
    })
}

fn month(quota: Quota, standing: Option<Standing>) -> Value {
    let numbers = (standing.map(|it| it.used), standing.map(|it| it.max));
    let resets = standing.map(|it| to_the_minute(it.month.ends()));
    row(quota.name(), numbers, resets.as_deref())
}

fn trial(end: SystemTime, now: SystemTime) -> Value {
    let state = match end.duration_since(now) {
        Err(_over) => Level::Hard,
        Ok(left) if left <= TRIAL_SOFT => Level::Soft,
        Ok(_) => Level::Ok,
    };
    json!({
        "quota": "trial", "current": null, "max": null, "percent": null,
        "state": state.as_str(), "resets_at": null, "ends_at": to_the_minute(end),
    })
}

/// All quotas and limits of a session's tenant, as JSON, a line for each. Months are those of all
/// proxies, the others of this process alone.
pub(super) fn quota(handle: &SessionHandle) -> String {
    let (tenant, now) = (handle.tenant.load(), SystemTime::now());
    let (limits, caps, terms) = (&tenant.limits, &tenant.limits.caps, &tenant.terms);
    let meter = handle.meter();
    let standings = meter.map(|meter| meter.month.standings(now));
    let mut rows: Vec<_> = Quota::ALL
        .into_iter()
        .zip(standings.unwrap_or_default())
        .map(|(quota, standing)| month(quota, standing))
        .collect();
    let clients = meter.map(|meter| meter.total(handle.key.pid).connections);
    let running = handle.restraints.running().map(u64::from);
    let wide = |limit: Option<std::num::NonZeroU32>| limit.map(|limit| u64::from(limit.get()));
    let bytes = |limit: Option<std::num::NonZeroU64>| limit.map(std::num::NonZeroU64::get);
    for (name, numbers) in [
        (
            "storage_bytes",
            (tenant.storage_used, bytes(limits.max_storage_bytes)),
        ),
        (
            "client_connections",
            (clients, Some(limits.max_client_connections.into())),
        ),
        (
            "max_concurrent_queries",
            (running, wide(caps.max_concurrent_queries)),
        ),
        (
            "transactions_per_second",
            (None, wide(caps.transactions_per_second)),
        ),
        (
            "transactions_per_hour",
            (
                handle.restraints.used_of_hour(),
                wide(caps.transactions_per_hour),
            ),
        ),
        ("bytes_per_second", (None, bytes(caps.bytes_per_second))),
        ("logins_per_second", (None, wide(caps.logins_per_second))),
    ] {
        rows.push(row(name, numbers, None));
    }
    rows.extend(terms.trial_ends_at.map(|end| trial(end, now)));
    let rows: Vec<_> = rows.iter().map(Value::to_string).collect();
    format!("[{}]", rows.join(",\n "))
}
