//! What was used in a month, read from the registry.

use super::{Asked, ControlError, CostLine, TENANTS_MAX};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use time::OffsetDateTime;

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn limit() -> i64 {
    i64::try_from(TENANTS_MAX).map_or(i64::MAX, |max| max + 1)
}

/// A line for each tenant that is there, or was and used something, in the order of their names; without
/// amounts.
pub(super) async fn lines(
    db: &mut PgConnection,
    asked: Asked<'_>,
) -> Result<Vec<CostLine>, ControlError> {
    let mut lines = BTreeMap::<String, CostLine>::new();
    for (tenant, plan, cluster, is_plan_due) in records(db, asked).await? {
        let line = lines.entry(tenant).or_default();
        (line.plan, line.cluster) = (Some(plan), Some(cluster));
        line.is_plan_due = is_plan_due;
    }
    for figures in figures(db, asked).await? {
        let used = &mut lines.entry(figures.tenant).or_default().quantities;
        used.queries = unsigned(figures.queries);
        used.transactions = unsigned(figures.transactions);
        used.client_bytes = unsigned(figures.client_bytes);
        used.server_bytes = unsigned(figures.server_bytes);
        used.server_time_us = unsigned(figures.server_time_us);
    }
    for (tenant, byte_hours) in storage(db, asked).await? {
        lines.entry(tenant).or_default().quantities.byte_hours = unsigned(byte_hours);
    }
    if lines.len() > TENANTS_MAX {
        return Err(ControlError::Invalid {
            field: "tenant".to_owned(),
            problem: format!("there are more than {TENANTS_MAX}; ask for one"),
        });
    }
    let lines = lines.into_iter();
    Ok(lines
        .map(|(tenant, line)| CostLine { tenant, ..line })
        .collect())
}

/// Tenants that were made before the month's end: name, plan, cluster, and whether the plan is to be paid.
/// It is not by who was not there yet, or was ended in an earlier month.
async fn records(
    db: &mut PgConnection,
    asked: Asked<'_>,
) -> Result<Vec<(String, String, String, bool)>, ControlError> {
    let query = sqlx::query_as(
        "SELECT id, plan, cluster, status IN ('active', 'suspended')
             OR status = 'terminated' AND EXISTS (SELECT FROM pgusher.event e
                 WHERE e.tenant = t.id AND e.kind = 'Terminated'
                     AND e.at_us >= extract(epoch FROM $1::timestamptz) * 1000000)
         FROM pgusher.tenant t
         WHERE created_at < $2 AND ($3::text IS NULL OR id = $3)
         LIMIT $4",
    );
    let query = query.bind(asked.begin).bind(asked.end).bind(asked.tenant);
    Ok(query.bind(limit()).fetch_all(db).await?)
}

#[derive(sqlx::FromRow)]
struct Figures {
    tenant: String,
    queries: i64,
    transactions: i64,
    client_bytes: i64,
    server_bytes: i64,
    server_time_us: i64,
}

async fn figures(db: &mut PgConnection, asked: Asked<'_>) -> Result<Vec<Figures>, ControlError> {
    let query = sqlx::query_as(
        "SELECT tenant, sum(queries)::bigint AS queries, sum(transactions)::bigint AS transactions,
             sum(client_bytes)::bigint AS client_bytes, sum(server_bytes)::bigint AS server_bytes,
             sum(server_time_us)::bigint AS server_time_us
         FROM pgusher.usage_hourly
         WHERE hour >= $1 AND hour < $2 AND ($3::text IS NULL OR tenant = $3)
         GROUP BY tenant LIMIT $4",
    );
    let query = query.bind(asked.from).bind(asked.end).bind(asked.tenant);
    Ok(query.bind(limit()).fetch_all(db).await?)
}

/// Bytes times hours. What was measured holds until it is measured again, for a day at most; the last
/// measurement for an hour.
async fn storage(
    db: &mut PgConnection,
    asked: Asked<'_>,
) -> Result<Vec<(String, i64)>, ControlError> {
    let query = sqlx::query_as(
        "SELECT tenant, least(sum(bytes::numeric * hours), 9223372036854775807)::bigint
         FROM (SELECT tenant, bytes, extract(epoch FROM
                     least(coalesce(lead(hour) OVER later, hour + interval '1 hour'),
                         hour + interval '24 hours', $2)
                     - greatest(hour, $1)) / 3600 AS hours
             FROM pgusher.usage_storage
             WHERE hour > $1 - interval '24 hours' AND hour < $2 + interval '24 hours'
                 AND ($3::text IS NULL OR tenant = $3)
             WINDOW later AS (PARTITION BY tenant ORDER BY hour)) measured
         WHERE hours > 0 GROUP BY tenant LIMIT $4",
    );
    let query = query.bind(asked.from).bind(asked.end).bind(asked.tenant);
    Ok(query.bind(limit()).fetch_all(db).await?)
}

/// For how many microseconds servers were lent to each tenant of a cluster, in the order of their names.
pub(super) async fn times_of(
    db: &mut PgConnection,
    cluster: &str,
    asked: Asked<'_>,
) -> Result<Vec<(String, u64)>, ControlError> {
    let query = sqlx::query_as::<_, (String, i64)>(
        "SELECT t.id, coalesce(sum(u.server_time_us), 0)::bigint
         FROM pgusher.tenant t LEFT JOIN pgusher.usage_hourly u
             ON u.tenant = t.id AND u.hour >= $1 AND u.hour < $2
         WHERE t.cluster = $3 AND t.created_at < $2 GROUP BY t.id LIMIT $4",
    );
    let query = query.bind(asked.begin).bind(asked.end).bind(cluster);
    let mut times = query.bind(limit()).fetch_all(db).await?;
    // As the lines of a report are, whatever the database's collation.
    times.sort_unstable();
    let times = times.into_iter();
    Ok(times
        .map(|(tenant, time)| (tenant, unsigned(time)))
        .collect())
}

/// The hour in which the tenant that has this name now was made.
pub(super) async fn made_in_hour(
    db: &mut PgConnection,
    tenant: &str,
) -> Result<Option<OffsetDateTime>, ControlError> {
    let query = sqlx::query_scalar(
        "SELECT date_trunc('hour', created_at, 'UTC') FROM pgusher.tenant WHERE id = $1",
    );
    Ok(query.bind(tenant).fetch_optional(db).await?)
}
