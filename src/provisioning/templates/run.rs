//! One file's transaction.

use super::{TemplateError, files::Template};
use crate::provisioning::{ProvisioningError, admin::Session};
use sqlx::{
    AssertSqlSafe,
    postgres::{PgDatabaseError, PgErrorPosition},
};
use std::time::Duration;

/// A little more than PostgreSQL's own limit: for a cluster that has gone away.
const STATEMENT_TIME_MAX: Duration = Duration::from_secs(10 * 60 + 15);

/// Begins it, and says its number.
pub(super) async fn begin(session: &mut Session) -> Result<String, ProvisioningError> {
    session
        .run_once(
            "begin a transaction",
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
        )
        .await?;
    let numbers: Vec<(String,)> = session
        .rows(
            "number a transaction",
            "SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text",
        )
        .await?;
    let number = numbers.into_iter().next();
    number
        .map(|(number,)| number)
        .ok_or(ProvisioningError::Place("its transaction has no number"))
}

/// Runs the statements one by one, so that each error has its line.
pub(super) async fn statements(
    session: &mut Session,
    template: &Template,
) -> Result<(), TemplateError> {
    for range in &template.statements {
        let statement = template.text.get(range.clone()).unwrap_or_default();
        run(session, template, range.start, statement).await?;
    }
    Ok(())
}

/// Commits. What was deferred runs now.
pub(super) async fn commit(
    session: &mut Session,
    template: &Template,
) -> Result<(), TemplateError> {
    let last = template.statements.last().map_or(0, |range| range.start);
    run(session, template, last, "COMMIT").await
}

async fn run(
    session: &mut Session,
    template: &Template,
    start: usize,
    statement: &str,
) -> Result<(), TemplateError> {
    let run = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut session.db);
    let done = tokio::time::timeout(STATEMENT_TIME_MAX, run).await;
    let timed_out = |_elapsed| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    let Err(error) = done.map_err(timed_out).flatten() else {
        return Ok(());
    };
    let refusal = error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    let Some(refusal) = refusal else {
        let error = session.error("apply a template", &error);
        return Err(error.into());
    };
    let offset = match refusal.position() {
        // In characters, from 1.
        Some(PgErrorPosition::Original(position)) => statement
            .char_indices()
            .nth(position.saturating_sub(1))
            .map_or(statement.len(), |(byte, _)| byte),
        _ => 0,
    };
    Err(TemplateError::Refused {
        file: template.file.clone(),
        line: template.line(start + offset),
        code: refusal.code().to_owned(),
        message: format!(
            "{}{}",
            refusal.message(),
            hint(refusal.code(), refusal.message())
        ),
    })
}

/// The way out, where the reason is not the template alone.
fn hint(code: &str, message: &str) -> &'static str {
    match code {
        "42501" if message.contains("row-level security") => {
            "; a template of tier row changes tables, not the rows of all tenants: \
             loop over the tenants, and set pgusher.tenant and row_security for each"
        }
        "42830" => {
            "; keys of shared tables lead with tenant_id: refer to (tenant_id, …), \
             or make both tables in one file"
        }
        "55P03" => "; somebody holds a lock on the table: try again later",
        _ => "",
    }
}
