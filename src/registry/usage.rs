//! What tenants use, written from time to time.
//!
//! A batch is one transaction, with its number: tried again after a commit that nobody has heard of,
//! it adds nothing. What can't be written is kept, and gathered by hours meanwhile.

use super::{
    RegistryError,
    link::chain,
    months::{self, Whose},
};
use crate::{
    telemetry::names,
    usage::{Batch, Book, Calendar, Monthly, Outbox, Row},
};
use sqlx::{PgConnection, PgPool};
use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long one batch may take.
const WRITE_TIME_MAX: Duration = Duration::from_secs(5);

/// For everything that is left at the end.
const LAST_TIME_MAX: Duration = Duration::from_secs(5);

/// Rows that are removed with one statement.
const REMOVED_MAX: i64 = 10_000;

const HOUR: Duration = Duration::from_hours(1);

/// How what is used is kept.
#[derive(Debug, Clone, Copy)]
pub struct Keeping {
    /// How often it is written.
    pub flush_interval: Duration,
    /// Hours older than that are removed; `None`: none are.
    pub retention: Option<Duration>,
}

/// The hour that a time is in, and how long it still lasts.
fn hour_of(time: SystemTime) -> (i64, Duration) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let hour = since.as_secs() / HOUR.as_secs();
    let begins = Duration::from_secs(hour * HOUR.as_secs());
    let left = HOUR.saturating_sub(since.saturating_sub(begins));
    (i64::try_from(hour).unwrap_or(i64::MAX), left)
}

/// Writes what is used until `end`, and then what is left. What can't be written is tried again each
/// time; memory stays bounded, sums stay right.
///
/// # Cancel safety
/// Cancel safe: what was not written is lost, nothing is written twice.
pub async fn write_usage(pool: PgPool, book: Arc<Book>, keeping: Keeping, end: CancellationToken) {
    let mut writer = Writer {
        pool,
        book: Arc::clone(&book),
        process: Uuid::new_v4(),
        outbox: Outbox::default(),
        is_told: false,
    };
    let mut removed_in = None;
    loop {
        let (hour, left) = hour_of(SystemTime::now());
        // An interval ends with its hour, so that each hour has what is its own.
        let pause = keeping.flush_interval.min(left);
        let is_end = end.run_until_cancelled(writer.wait(pause)).await.is_none();
        writer.outbox.put(hour, book.take(hour));
        if is_end {
            break;
        }
        let is_written = writer.write().await;
        let whose = if is_written {
            Whose::All
        } else {
            writer.readable()
        };
        months::look(&writer.pool, &book, whose).await;
        if is_written && removed_in != Some(hour) {
            removed_in = Some(hour);
            writer.remove_old(keeping.retention).await;
        }
    }
    if timeout(LAST_TIME_MAX, writer.write()).await != Ok(true) {
        tracing::warn!("what tenants used in the last seconds could not be written");
    }
}

/// A batch is in the registry.
fn note(book: &Book, rows: &[Row]) {
    for row in rows {
        if let Some(meter) = book.meter(row.tenant.as_str()) {
            let (month, figures) = (Calendar::of_hour(row.hour), &row.amount.figures);
            meter.month.written(month, Monthly::from(figures));
        }
    }
}

struct Writer {
    pool: PgPool,
    book: Arc<Book>,
    process: Uuid,
    outbox: Outbox,
    is_told: bool,
}

impl Writer {
    /// Waits, and reads meanwhile what others have used of the months of new tenants.
    async fn wait(&self, pause: Duration) {
        let mut pause = pin!(sleep(pause));
        loop {
            let looking = async {
                self.book.wanted().await;
                months::look(&self.pool, &self.book, self.readable()).await;
            };
            tokio::select! {
                () = &mut pause => return,
                () = looking => {}
            }
        }
    }

    /// Whose months can be read between two rounds.
    fn readable(&self) -> Whose {
        if self.outbox.is_unsure() {
            Whose::Nobody
        } else {
            Whose::New
        }
    }

    /// Writes what there is; whether nothing is left.
    async fn write(&mut self) -> bool {
        while let Some(batch) = self.outbox.due() {
            let writing = write_batch(&self.pool, self.process, batch);
            let written = timeout(WRITE_TIME_MAX, writing).await;
            let result = match written {
                Ok(Ok(())) => names::OK,
                _ => names::ERROR,
            };
            metrics::counter!(names::USAGE_BATCHES_TOTAL, names::RESULT => result).increment(1);
            let timed_out = RegistryError::Database(sqlx::Error::PoolTimedOut);
            if let Err(error) = written.unwrap_or(Err(timed_out)) {
                let error = chain(&error);
                if self.is_told {
                    tracing::debug!(error, "what tenants use still can't be written");
                } else {
                    tracing::warn!(
                        error,
                        "what tenants use can't be written now; it goes on being counted"
                    );
                }
                self.is_told = true;
                return false;
            }
            note(&self.book, &batch.rows);
            self.outbox.written();
        }
        self.is_told = false;
        true
    }

    async fn remove_old(&self, retention: Option<Duration>) {
        let Some(retention) = retention else {
            return;
        };
        let seconds = retention.as_secs_f64();
        for sql in REMOVE {
            loop {
                let removing = sqlx::query(sql).bind(seconds).bind(REMOVED_MAX);
                match timeout(WRITE_TIME_MAX, removing.execute(&self.pool)).await {
                    Ok(Ok(done)) if done.rows_affected() == REMOVED_MAX.unsigned_abs() => {}
                    Ok(Ok(_)) => break,
                    Ok(Err(error)) => {
                        tracing::debug!(error = chain(&error), "old usage was not removed");
                        return;
                    }
                    Err(_elapsed) => return,
                }
            }
        }
    }
}

/// One for each table.
const REMOVE: [&str; 6] = [
    "DELETE FROM pgusher.usage_hourly WHERE ctid = ANY (ARRAY(
         SELECT ctid FROM pgusher.usage_hourly
         WHERE hour < now() - make_interval(secs => $1) LIMIT $2 FOR UPDATE SKIP LOCKED))",
    "DELETE FROM pgusher.usage_error WHERE ctid = ANY (ARRAY(
         SELECT ctid FROM pgusher.usage_error
         WHERE hour < now() - make_interval(secs => $1) LIMIT $2 FOR UPDATE SKIP LOCKED))",
    "DELETE FROM pgusher.usage_storage WHERE ctid = ANY (ARRAY(
         SELECT ctid FROM pgusher.usage_storage
         WHERE hour < now() - make_interval(secs => $1) LIMIT $2 FOR UPDATE SKIP LOCKED))",
    "DELETE FROM pgusher.usage_batch WHERE ctid = ANY (ARRAY(
         SELECT ctid FROM pgusher.usage_batch
         WHERE written_at < now() - make_interval(secs => $1) LIMIT $2 FOR UPDATE SKIP LOCKED))",
    "DELETE FROM pgusher.usage_monthly WHERE ctid = ANY (ARRAY(
         SELECT ctid FROM pgusher.usage_monthly
         WHERE month < now() - make_interval(secs => $1) LIMIT $2 FOR UPDATE SKIP LOCKED))",
    "DELETE FROM pgusher.quota_reached WHERE ctid = ANY (ARRAY(
         SELECT ctid FROM pgusher.quota_reached
         WHERE month < now() - make_interval(secs => $1) LIMIT $2 FOR UPDATE SKIP LOCKED))",
];

/// Adds a batch, unless it is there already.
async fn write_batch(pool: &PgPool, process: Uuid, batch: &Batch) -> Result<(), RegistryError> {
    let mut db = pool.begin().await?;
    let first = sqlx::query(
        "INSERT INTO pgusher.usage_batch AS b (process, sequence) VALUES ($1, $2)
         ON CONFLICT (process) DO UPDATE SET sequence = excluded.sequence, written_at = now()
         WHERE b.sequence < excluded.sequence",
    );
    let first = first.bind(process).bind(batch.sequence);
    if first.execute(&mut *db).await?.rows_affected() == 0 {
        return Ok(());
    }
    add_figures(&mut db, &batch.rows).await?;
    add_months(&mut db, &batch.rows).await?;
    add_errors(&mut db, &batch.rows).await?;
    Ok(db.commit().await?)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

async fn add_figures(db: &mut PgConnection, rows: &[Row]) -> Result<(), RegistryError> {
    let each = |of: fn(&Row) -> u64| -> Vec<i64> { rows.iter().map(of).map(signed).collect() };
    let tenants: Vec<_> = rows.iter().map(|row| row.tenant.as_str()).collect();
    let hours: Vec<_> = rows.iter().map(|row| row.hour).collect();
    // In one order, so that proxies wait for each other in one direction.
    let query = sqlx::query(
        "INSERT INTO pgusher.usage_hourly AS u (tenant, hour, queries, transactions,
             replica_transactions, rows, client_bytes, server_bytes, server_time_us, wait_time_us,
             connections_peak)
         SELECT n.tenant, to_timestamp(n.hour * 3600), n.queries, n.transactions,
             n.replica_transactions, n.rows, n.client_bytes, n.server_bytes, n.server_time_us,
             n.wait_time_us, n.connections_peak
         FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[],
             $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
             n (tenant, hour, queries, transactions, replica_transactions, rows, client_bytes,
                server_bytes, server_time_us, wait_time_us, connections_peak)
         ORDER BY n.tenant, n.hour
         ON CONFLICT (tenant, hour) DO UPDATE SET
             queries = u.queries + excluded.queries,
             transactions = u.transactions + excluded.transactions,
             replica_transactions = u.replica_transactions + excluded.replica_transactions,
             rows = u.rows + excluded.rows,
             client_bytes = u.client_bytes + excluded.client_bytes,
             server_bytes = u.server_bytes + excluded.server_bytes,
             server_time_us = u.server_time_us + excluded.server_time_us,
             wait_time_us = u.wait_time_us + excluded.wait_time_us,
             connections_peak = greatest(u.connections_peak, excluded.connections_peak)",
    );
    let query = query
        .bind(tenants)
        .bind(hours)
        .bind(each(|row| row.amount.figures.queries))
        .bind(each(|row| row.amount.figures.transactions))
        .bind(each(|row| row.amount.figures.replica_transactions))
        .bind(each(|row| row.amount.figures.rows))
        .bind(each(|row| row.amount.figures.client_bytes))
        .bind(each(|row| row.amount.figures.server_bytes))
        .bind(each(|row| row.amount.figures.server_time_us))
        .bind(each(|row| row.amount.figures.wait_time_us))
        .bind(each(|row| row.amount.connections_peak));
    query.execute(db).await?;
    Ok(())
}

/// Adds to the sums of months, which quotas are judged by.
async fn add_months(db: &mut PgConnection, rows: &[Row]) -> Result<(), RegistryError> {
    let each = |of: fn(&Row) -> u64| -> Vec<i64> { rows.iter().map(of).map(signed).collect() };
    let tenants: Vec<_> = rows.iter().map(|row| row.tenant.as_str()).collect();
    let hours: Vec<_> = rows.iter().map(|row| row.hour).collect();
    let query = sqlx::query(
        "INSERT INTO pgusher.usage_monthly AS u (tenant, month, queries, transactions)
         SELECT n.tenant, date_trunc('month', to_timestamp(n.hour * 3600), 'UTC'),
             sum(n.queries)::bigint, sum(n.transactions)::bigint
         FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[])
             n (tenant, hour, queries, transactions)
         GROUP BY 1, 2 ORDER BY 1, 2
         ON CONFLICT (tenant, month) DO UPDATE SET
             queries = u.queries + excluded.queries,
             transactions = u.transactions + excluded.transactions",
    );
    let query = query
        .bind(tenants)
        .bind(hours)
        .bind(each(|row| row.amount.figures.queries))
        .bind(each(|row| row.amount.figures.transactions));
    query.execute(db).await?;
    Ok(())
}

async fn add_errors(db: &mut PgConnection, rows: &[Row]) -> Result<(), RegistryError> {
    let all = rows.iter().flat_map(|row| {
        let errors = row.amount.errors.iter();
        errors.map(move |(code, count)| (row.tenant.as_str(), row.hour, code.to_string(), count))
    });
    let (mut tenants, mut hours, mut codes, mut counts) = (vec![], vec![], vec![], vec![]);
    for (tenant, hour, code, count) in all {
        tenants.push(tenant);
        hours.push(hour);
        codes.push(code);
        counts.push(signed(count));
    }
    if tenants.is_empty() {
        return Ok(());
    }
    let query = sqlx::query(
        "INSERT INTO pgusher.usage_error AS e (tenant, hour, sqlstate, count)
         SELECT n.tenant, to_timestamp(n.hour * 3600), n.sqlstate, n.count
         FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[])
             n (tenant, hour, sqlstate, count)
         ORDER BY n.tenant, n.hour, n.sqlstate
         ON CONFLICT (tenant, hour, sqlstate) DO UPDATE SET count = e.count + excluded.count",
    );
    let query = query.bind(tenants).bind(hours).bind(codes).bind(counts);
    query.execute(db).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_ends_with_its_hour() {
        let begins = UNIX_EPOCH + HOUR * 490_000;
        assert_eq!(hour_of(begins), (490_000, HOUR));
        let later = begins + Duration::from_millis(3_599_500);
        assert_eq!(hour_of(later), (490_000, Duration::from_millis(500)));
    }
}
