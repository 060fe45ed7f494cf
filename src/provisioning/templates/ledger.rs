//! What was applied, as it is recorded in the target database.

use super::{TemplateError, files::Template};
use crate::{
    provisioning::{ProvisioningError, admin::Session, text::ONE_AT_A_TIME},
    sql::quoted_literal,
};
use std::time::Duration;

const LEDGER: &str = include_str!("../sql/template_ledger.sql");
/// How often a transaction that has not ended is looked at again, and how long.
const PAUSE: Duration = Duration::from_millis(50);
const LOOKS_MAX: u32 = 400;

/// One version that was applied.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) version: i64,
    pub(super) name: String,
    sha256: String,
}

impl Record {
    pub(super) fn is_of(&self, template: &Template) -> bool {
        self.sha256 == hex::encode(template.sha256)
    }
}

/// Makes the ledger where it is missing.
pub(super) async fn prepare(session: &mut Session) -> Result<(), ProvisioningError> {
    let step = "make the record of templates";
    let make = format!("{ONE_AT_A_TIME}{LEDGER}");
    match session.run(step, &make).await {
        // Somebody else has made it at the same time, where the admin may not take turns.
        Err(error) if matches!(error.code(), Some("42710" | "42P07" | "42P06")) => {
            session.run(step, &make).await
        }
        done => done,
    }
}

/// What was applied to a place, in order; nothing where there is no ledger yet.
pub(super) async fn records(
    session: &mut Session,
    place: &str,
) -> Result<Vec<Record>, ProvisioningError> {
    let query = format!(
        "SELECT version, name, pg_catalog.encode(sha256, 'hex') FROM pgusher.template
         WHERE place = {} AND (transaction IS NULL OR pg_catalog.pg_xact_status(transaction) = 'committed')
         ORDER BY version",
        quoted_literal(place)
    );
    let rows: Result<Vec<(i64, String, String)>, _> = session
        .rows("look which templates were applied", &query)
        .await;
    let rows = match rows {
        Err(error) if matches!(error.code(), Some("42P01" | "3F000")) => Vec::new(),
        rows => rows?,
    };
    let record = |(version, name, sha256)| Record {
        version,
        name,
        sha256,
    };
    Ok(rows.into_iter().map(record).collect())
}

/// Asks PostgreSQL what became of transactions whose end nobody saw.
pub(super) async fn settle(session: &mut Session, place: &str) -> Result<(), TemplateError> {
    let step = "look what became of a template";
    let place = quoted_literal(place);
    let query = format!(
        "SELECT version, pg_catalog.pg_xact_status(transaction) FROM pgusher.template
         WHERE place = {place} AND transaction IS NOT NULL ORDER BY version"
    );
    for _ in 0..LOOKS_MAX {
        let open: Vec<(i64, Option<String>)> = session.rows(step, &query).await?;
        let mut is_under_way = false;
        for (version, status) in open {
            let settle = match status.as_deref() {
                Some("committed") => "UPDATE pgusher.template SET transaction = NULL",
                Some("aborted") => "DELETE FROM pgusher.template",
                Some(_) => {
                    is_under_way = true;
                    continue;
                }
                None => return Err(TemplateError::Forgotten { version }),
            };
            let settle = format!("{settle} WHERE place = {place} AND version = {version}");
            session.run(step, &settle).await?;
        }
        if !is_under_way {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(ProvisioningError::Refused {
        step,
        code: "55006".to_owned(),
        message: "its transaction does not end".to_owned(),
    }
    .into())
}

/// The statement that records a template, applied in that transaction or in this one.
pub(super) fn statement(place: &str, template: &Template, transaction: Option<&str>) -> String {
    let transaction =
        transaction.map_or_else(|| "NULL".to_owned(), |id| quoted_literal(id) + "::xid8");
    format!(
        "INSERT INTO pgusher.template (place, version, name, sha256, transaction)
         VALUES ({}, {}, {}, pg_catalog.decode('{}', 'hex'), {transaction})",
        quoted_literal(place),
        template.version,
        quoted_literal(&template.name),
        hex::encode(template.sha256),
    )
}
