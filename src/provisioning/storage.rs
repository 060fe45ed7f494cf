//! How many bytes tenants' data takes in their cluster.

use super::{
    Admin, ProvisioningError,
    admin::{MAINTENANCE, Session},
};
use crate::sql::{quoted_literal, quoted_name};

const STEP: &str = "measure storage";

/// Databases that are measured with one statement.
const PART: usize = 50;

/// How long a measurement waits for a lock of a tenant's: it may be at a change of its tables.
const LOCK_WAIT: &str = "SET lock_timeout = '500ms'";

/// Sizes of databases, by their names; of those that there are, and that the admin may measure.
///
/// # Errors
/// [`ProvisioningError`] when the cluster does not answer.
///
/// # Cancel safety
/// Cancel safe: nothing is changed.
pub async fn database_sizes(
    admin: &Admin,
    databases: &[&str],
) -> Result<Vec<(String, i64)>, ProvisioningError> {
    let mut session = admin.connect(MAINTENANCE).await?;
    let mut sizes = Vec::with_capacity(databases.len());
    for part in databases.chunks(PART) {
        let names: Vec<_> = part.iter().map(|name| quoted_literal(name)).collect();
        let query = format!(
            "SELECT datname::text, pg_database_size(oid) FROM pg_database
             WHERE datname IN ({}) AND (has_database_privilege(oid, 'CONNECT')
                 OR pg_has_role('pg_read_all_stats', 'USAGE'))",
            names.join(", ")
        );
        sizes.extend(session.rows(STEP, &query).await?);
    }
    session.end().await;
    Ok(sizes)
}

/// Sizes of schemas in a database, by their names: tables with their indexes and long values,
/// materialized views and sequences. One that is locked for longer is left out.
///
/// # Errors
/// [`ProvisioningError`] when the cluster does not answer, or there is no such database.
///
/// # Cancel safety
/// Cancel safe: nothing is changed.
pub async fn schema_sizes(
    admin: &Admin,
    database: &str,
    schemas: &[&str],
) -> Result<Vec<(String, i64)>, ProvisioningError> {
    let mut session = admin.connect(database).await?;
    session.run(STEP, LOCK_WAIT).await?;
    let mut sizes = Vec::with_capacity(schemas.len());
    for schema in schemas {
        match schema_size(&mut session, schema).await {
            Ok(size) => sizes.extend(size.map(|size| ((*schema).to_owned(), size))),
            // It is locked, is being removed, or takes too long.
            Err(ProvisioningError::Refused { code, .. }) => {
                tracing::debug!(code, "a schema could not be measured now");
            }
            Err(error) => return Err(error),
        }
    }
    session.end().await;
    Ok(sizes)
}

/// `None` where there is no such schema.
async fn schema_size(
    session: &mut Session,
    schema: &str,
) -> Result<Option<i64>, ProvisioningError> {
    let name = quoted_literal(&quoted_name(schema));
    let query = format!(
        "SELECT CASE WHEN to_regnamespace({name}) IS NOT NULL THEN coalesce((
             SELECT sum(pg_total_relation_size(oid)) FROM pg_class
             WHERE relnamespace = to_regnamespace({name}) AND relkind IN ('r', 'm', 'S')), 0)::bigint END"
    );
    let rows: Vec<(Option<i64>,)> = session.rows(STEP, &query).await?;
    Ok(rows.first().and_then(|(size,)| *size))
}
