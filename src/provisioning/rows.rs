//! How many rows tenants have in the tables that they share, and what part of those tables is theirs.

use super::{Admin, ProvisioningError, admin::Session};
use crate::sql::quoted_literal;
use std::collections::BTreeMap;

const STEP: &str = "measure tenants' rows";

/// Of a table that is larger, in bytes, so much is read, pages by chance.
pub const SAMPLE_BYTES: u64 = 256 * 1024 * 1024;

/// A millionth is the smallest part of a table that is read.
const WHOLE: u64 = 1_000_000;

/// Reads beside others: on one core, without waiting for a lock of a tenant's, and whatever policies say.
const CAREFULLY: &str = "SET lock_timeout = '500ms'; SET row_security = off;
    SET max_parallel_workers_per_gather = 0; SET default_transaction_read_only = on";

/// Shared tables with what they take; and SQL for what a row of each takes, compressed and moved out of
/// line as it is.
const TABLES: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname),
        pg_catalog.pg_relation_size(c.oid), pg_catalog.pg_total_relation_size(c.oid),
        pg_catalog.string_agg(pg_catalog.format('coalesce(pg_catalog.pg_column_size(t.%I), 0)', a.attname), ' + ')
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE n.nspname = 'data' AND c.relkind = 'r'
    GROUP BY c.oid, n.nspname, c.relname
    HAVING pg_catalog.bool_or(a.attname = 'tenant_id') ORDER BY c.oid";

/// What a row takes beside its columns: its header and its pointer.
const ROW_BYTES: u64 = 28;

/// What a tenant has in the tables that it shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// Its rows; an estimate where a table is larger than what is read of it.
    pub rows: u64,
    /// Its part of the tables, with their indexes and long values: all tenants' parts are the whole.
    pub bytes: u64,
}

/// What tenants have in the shared tables of a database, by their tokens; empty where it has no such
/// tables. Each table is read once for all of them; one that is larger than `sample_bytes`, only in part.
///
/// # Errors
/// [`ProvisioningError`] when the cluster does not answer, a table is locked for longer, or the admin may
/// not see the rows of all tenants (42501): it must be a superuser or have BYPASSRLS.
///
/// # Cancel safety
/// Cancel safe: nothing is changed.
pub async fn row_sizes(
    admin: &Admin,
    database: &str,
    sample_bytes: u64,
) -> Result<BTreeMap<String, Share>, ProvisioningError> {
    let mut session = admin.connect(database).await?;
    let shares = measure(&mut session, sample_bytes).await;
    session.end().await;
    shares
}

async fn measure(
    session: &mut Session,
    sample_bytes: u64,
) -> Result<BTreeMap<String, Share>, ProvisioningError> {
    session.run(STEP, CAREFULLY).await?;
    let mut shares = BTreeMap::<String, Share>::new();
    let tables: Vec<(String, i64, i64, String)> = session.rows(STEP, TABLES).await?;
    for (table, main, total, columns) in tables {
        let part = part_of(unsigned(main), sample_bytes);
        let query = rows_of(&table, &columns, part);
        let found: Vec<(String, i64, i64)> = session.rows(STEP, &query).await?;
        let weights: Vec<u64> = found.iter().map(|(_, _, bytes)| unsigned(*bytes)).collect();
        let bytes = divide(unsigned(total), &weights);
        for ((token, rows, _), bytes) in found.into_iter().zip(bytes) {
            let share = shares.entry(token).or_default();
            share.rows += unsigned(rows).saturating_mul(WHOLE) / part;
            share.bytes += bytes;
        }
    }
    Ok(shares)
}

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// How many millionths of a table are read.
fn part_of(table_bytes: u64, sample_bytes: u64) -> u64 {
    if table_bytes <= sample_bytes {
        return WHOLE;
    }
    let part = u128::from(sample_bytes) * u128::from(WHOLE) / u128::from(table_bytes);
    u64::try_from(part).unwrap_or(WHOLE).max(1)
}

/// Asks for rows and bytes by tenant.
fn rows_of(table: &str, columns: &str, part: u64) -> String {
    let sample = if part == WHOLE {
        String::new()
    } else {
        // In percent.
        let percent = quoted_literal(&format!("{}.{:04}", part / 10_000, part % 10_000));
        format!(" TABLESAMPLE SYSTEM ({percent}::real)")
    };
    format!(
        "SELECT t.tenant_id::text, pg_catalog.count(*),
             pg_catalog.sum({ROW_BYTES} + {columns})::bigint
         FROM ONLY {table} AS t{sample} WHERE t.tenant_id IS NOT NULL GROUP BY t.tenant_id"
    )
}

/// A whole in parts of these weights, which add up to it to the byte.
fn divide(whole: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u128 = weights.iter().copied().map(u128::from).sum();
    let (mut weight, mut given) = (0_u128, 0_u64);
    let part = |one: &u64| {
        weight += u128::from(*one);
        let up_to = u128::from(whole)
            .saturating_mul(weight)
            .checked_div(sum)
            .unwrap_or(0);
        let up_to = u64::try_from(up_to).unwrap_or(whole);
        let part = up_to - given;
        given = up_to;
        part
    };
    weights.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_whole() {
        assert_eq!(divide(10, &[1, 1, 1]), [3, 3, 4]);
        assert_eq!(divide(8192, &[100, 0, 300]), [2048, 0, 6144]);
        assert_eq!(divide(8192, &[]), [0; 0]);
        assert_eq!(divide(8192, &[0, 0]), [0, 0]);
        let large = divide(i64::MAX as u64, &[i64::MAX as u64, i64::MAX as u64]);
        assert_eq!(large.iter().sum::<u64>(), i64::MAX as u64);
    }

    #[test]
    fn of_a_large_table_a_part_is_read() {
        assert_eq!(part_of(100, 100), WHOLE);
        assert_eq!(part_of(1000, 100), 100_000);
        assert_eq!(part_of(u64::MAX, 1), 1);
        let query = rows_of("data.t", "1", 123_456);
        assert!(query.contains("SYSTEM ('12.3456'::real)"), "{query}");
        assert!(!rows_of("data.t", "1", WHOLE).contains("SYSTEM"));
    }
}
