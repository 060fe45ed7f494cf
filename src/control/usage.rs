//! What tenants have used, read from the registry.

use super::{Actor, Control, ControlError, Role};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use time::{Duration, OffsetDateTime, Time};
use utoipa::ToSchema;

/// Parts that are told at most; a longer time is an error.
const PARTS_MAX: usize = 10_000;

/// How long the parts are that use is told by. They begin and end in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UsageBy {
    /// Days.
    Day,
    /// Hours.
    Hour,
}

impl UsageBy {
    /// Since when it is told where nothing else is said: this month by days, 24 hours by hours.
    pub fn since(self, now: OffsetDateTime) -> OffsetDateTime {
        let first = now.replace_day(1).unwrap_or(now);
        match self {
            Self::Day => first.replace_time(Time::MIDNIGHT),
            Self::Hour => now - Duration::DAY,
        }
    }

    /// As PostgreSQL calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Hour => "hour",
        }
    }
}

/// What a tenant used in some time, at all proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema, sqlx::FromRow)]
pub struct Used {
    /// Statements.
    pub queries: i64,
    /// Transactions that ended.
    pub transactions: i64,
    /// Of these, those that ran on a replica.
    pub replica_transactions: i64,
    /// Rows that commands were said to return or to change.
    pub rows: i64,
    /// Bytes from clients.
    pub client_bytes: i64,
    /// Bytes from servers.
    pub server_bytes: i64,
    /// Microseconds for which servers were lent.
    pub server_time_us: i64,
    /// Microseconds of waiting for a server.
    pub wait_time_us: i64,
    /// Most clients at the same time at one proxy.
    pub connections_peak: i64,
    /// Errors that clients were told, by SQLSTATE; `other` for what is not told apart.
    #[sqlx(skip)]
    pub errors: BTreeMap<String, i64>,
    /// Bytes of storage, as measured last in that time; `null` where it was not.
    #[sqlx(skip)]
    pub storage_bytes: Option<i64>,
}

impl Used {
    fn add(&mut self, more: &Self) {
        self.queries += more.queries;
        self.transactions += more.transactions;
        self.replica_transactions += more.replica_transactions;
        self.rows += more.rows;
        self.client_bytes += more.client_bytes;
        self.server_bytes += more.server_bytes;
        self.server_time_us += more.server_time_us;
        self.wait_time_us += more.wait_time_us;
        self.connections_peak = self.connections_peak.max(more.connections_peak);
        for (code, count) in &more.errors {
            *self.errors.entry(code.clone()).or_default() += count;
        }
        self.storage_bytes = more.storage_bytes.or(self.storage_bytes);
    }
}

/// A day or an hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct UsedIn {
    /// When it begins.
    #[serde(with = "time::serde::rfc3339")]
    pub start: OffsetDateTime,
    /// What was used.
    #[serde(flatten)]
    pub used: Used,
}

/// What a tenant used, by days or hours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct UsageView {
    /// The tenant.
    pub tenant: String,
    /// From the hour that this is in.
    #[serde(with = "time::serde::rfc3339")]
    pub from: OffsetDateTime,
    /// Up to the hour before this one begins, or that it is in.
    #[serde(with = "time::serde::rfc3339")]
    pub to: OffsetDateTime,
    /// How long the parts are.
    pub by: UsageBy,
    /// Those in which anything was used or measured, the oldest first.
    pub parts: Vec<UsedIn>,
    /// The sum. Peaks and storage are no sums: the highest, and the last.
    pub total: Used,
}

/// What is counted of a tenant's month (UTC) so far, and of its data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Month {
    /// Statements; `None`: nobody counts.
    pub queries: Option<u64>,
    /// Transactions; `None`: nobody counts.
    pub transactions: Option<u64>,
    /// Bytes of storage, as measured last; `None`: never.
    pub storage_bytes: Option<u64>,
}

impl Control {
    /// What a tenant used, also one that is gone; what a proxy has not written yet is not in it. Needs
    /// the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError`]; [`ControlError::NotFound`] for a tenant that there is not and never was one
    /// that used anything, [`ControlError::Invalid`] when the time has too many parts.
    pub async fn usage(
        &self,
        actor: &Actor,
        tenant: &str,
        (from, to): (OffsetDateTime, OffsetDateTime),
        by: UsageBy,
    ) -> Result<UsageView, ControlError> {
        actor.may(Role::Viewer, tenant)?;
        let mut db = self.registry.pool.acquire().await?;
        // Whoever had its name before is not its business.
        let from = match &actor.tenant {
            Some(_) => from.max(made_at(&mut db, tenant).await?.unwrap_or(from)),
            None => from,
        };
        let mut parts = figures(&mut db, tenant, (from, to), by).await?;
        too_many(&parts)?;
        if parts.is_empty() && !is_known(&mut db, tenant).await? {
            return Err(ControlError::NotFound {
                what: "tenant",
                id: tenant.to_owned(),
            });
        }
        add_errors(&mut db, tenant, (from, to), by, &mut parts).await?;
        add_storage(&mut db, tenant, (from, to), by, &mut parts).await?;
        too_many(&parts)?;
        let mut total = Used::default();
        for used in parts.values() {
            total.add(used);
        }
        let parts = parts.into_iter();
        Ok(UsageView {
            tenant: tenant.to_owned(),
            from,
            to,
            by,
            parts: parts.map(|(start, used)| UsedIn { start, used }).collect(),
            total,
        })
    }

    /// A tenant's month so far. Needs the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn month(&self, actor: &Actor, tenant: &str) -> Result<Month, ControlError> {
        actor.may(Role::Viewer, tenant)?;
        let mut db = self.registry.pool.acquire().await?;
        let query = sqlx::query_as::<_, (i64, i64, Option<i64>)>(
            "SELECT coalesce(sum(queries), 0)::bigint, coalesce(sum(transactions), 0)::bigint,
                (SELECT s.bytes FROM pgusher.usage_storage s WHERE s.tenant = $1
                 ORDER BY s.hour DESC LIMIT 1)
             FROM pgusher.usage_hourly
             WHERE tenant = $1 AND hour >= date_trunc('month', now(), 'UTC')
                 AND hour >= coalesce((SELECT date_trunc('hour', created_at, 'UTC')
                     FROM pgusher.tenant WHERE id = $1), '-infinity')",
        );
        let (queries, transactions, storage) = query.bind(tenant).fetch_one(&mut *db).await?;
        let counted = |count: i64| u64::try_from(count).ok().filter(|_| self.is_metered);
        Ok(Month {
            queries: counted(queries),
            transactions: counted(transactions),
            storage_bytes: storage.and_then(|bytes| u64::try_from(bytes).ok()),
        })
    }
}

fn too_many(parts: &Parts) -> Result<(), ControlError> {
    if parts.len() <= PARTS_MAX {
        return Ok(());
    }
    let told = format!("there are more than {PARTS_MAX} parts; ask for days, or less time");
    Err(ControlError::Invalid {
        field: "from".to_owned(),
        problem: told,
    })
}

/// When the tenant that has this name now was made.
async fn made_at(
    db: &mut PgConnection,
    tenant: &str,
) -> Result<Option<OffsetDateTime>, ControlError> {
    let query = sqlx::query_scalar("SELECT created_at FROM pgusher.tenant WHERE id = $1");
    Ok(query.bind(tenant).fetch_optional(db).await?)
}

type Span = (OffsetDateTime, OffsetDateTime);
type Parts = BTreeMap<OffsetDateTime, Used>;

#[derive(sqlx::FromRow)]
struct Part {
    start: OffsetDateTime,
    #[sqlx(flatten)]
    used: Used,
}

async fn figures(
    db: &mut PgConnection,
    tenant: &str,
    (from, to): Span,
    by: UsageBy,
) -> Result<Parts, ControlError> {
    let query = sqlx::query_as::<_, Part>(
        "SELECT date_trunc($4, hour, 'UTC') AS start, sum(queries)::bigint AS queries,
            sum(transactions)::bigint AS transactions,
            sum(replica_transactions)::bigint AS replica_transactions,
            sum(rows)::bigint AS rows, sum(client_bytes)::bigint AS client_bytes,
            sum(server_bytes)::bigint AS server_bytes,
            sum(server_time_us)::bigint AS server_time_us,
            sum(wait_time_us)::bigint AS wait_time_us,
            max(connections_peak) AS connections_peak
         FROM pgusher.usage_hourly
         WHERE tenant = $1 AND hour > $2 - interval '1 hour' AND hour < $3
         GROUP BY 1",
    );
    let query = query.bind(tenant).bind(from).bind(to).bind(by.as_str());
    let parts = query.fetch_all(db).await?.into_iter();
    Ok(parts.map(|part| (part.start, part.used)).collect())
}

async fn add_errors(
    db: &mut PgConnection,
    tenant: &str,
    (from, to): Span,
    by: UsageBy,
    parts: &mut Parts,
) -> Result<(), ControlError> {
    let query = sqlx::query_as::<_, (OffsetDateTime, String, i64)>(
        "SELECT date_trunc($4, hour, 'UTC'), sqlstate, sum(count)::bigint
         FROM pgusher.usage_error
         WHERE tenant = $1 AND hour > $2 - interval '1 hour' AND hour < $3
         GROUP BY 1, 2",
    );
    let query = query.bind(tenant).bind(from).bind(to).bind(by.as_str());
    for (start, code, count) in query.fetch_all(db).await? {
        let part = parts.entry(start).or_default();
        part.errors.insert(code, count);
    }
    Ok(())
}

async fn add_storage(
    db: &mut PgConnection,
    tenant: &str,
    (from, to): Span,
    by: UsageBy,
    parts: &mut Parts,
) -> Result<(), ControlError> {
    let query = sqlx::query_as::<_, (OffsetDateTime, i64)>(
        "SELECT DISTINCT ON (date_trunc($4, hour, 'UTC')) date_trunc($4, hour, 'UTC'), bytes
         FROM pgusher.usage_storage
         WHERE tenant = $1 AND hour > $2 - interval '1 hour' AND hour < $3
         ORDER BY date_trunc($4, hour, 'UTC'), hour DESC",
    );
    let query = query.bind(tenant).bind(from).bind(to).bind(by.as_str());
    for (start, bytes) in query.fetch_all(db).await? {
        parts.entry(start).or_default().storage_bytes = Some(bytes);
    }
    Ok(())
}

/// Whether there is such a tenant, or was one that used anything.
async fn is_known(db: &mut PgConnection, tenant: &str) -> Result<bool, ControlError> {
    let query = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pgusher.tenant WHERE id = $1)
             OR EXISTS (SELECT FROM pgusher.usage_hourly WHERE tenant = $1)",
    );
    Ok(query.bind(tenant).fetch_one(db).await?)
}
