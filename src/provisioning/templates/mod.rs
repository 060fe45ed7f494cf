//! The tables of applications: SQL files of a tier, applied in order to each tenant's place.
//!
//! Each file is one transaction. That it was applied is recorded by the admin, in the same database
//! and where the tenant can't write; the record names the tenant's transaction, and counts when
//! PostgreSQL says that this one has committed. So file and record are done together or not at all,
//! whenever somebody pulls the plug.

mod error;
mod files;
mod ledger;
mod run;
mod visitor;

pub use error::TemplateError;

use super::{
    Admin, Place, ProvisioningError,
    admin::Session,
    patience::{LOCK_TIME_MAX, Patience},
    protect,
};
use crate::{sql::quoted_literal, tenant::Tier};
use files::Template;
use std::path::Path;
use visitor::Visitor;

/// How long a statement of a template may take, and how long it may wait for a lock: who uses the
/// table waits behind it.
const LIMITS: &str = "SET statement_timeout = '10min'; SET lock_timeout = '10s'; \
    SET default_transaction_read_only = off; SET check_function_bodies = on; \
    SET standard_conforming_strings = on; SET client_min_messages = warning";

/// What [`apply`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// The version before; 0: none.
    pub from: i64,
    /// The version now.
    pub to: i64,
}

/// A template that was not applied yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its version.
    pub version: i64,
    /// Its name.
    pub name: String,
}

/// The newest version of a tier; 0: there are none.
///
/// # Errors
/// [`TemplateError::Directory`], [`TemplateError::File`].
pub fn newest(directory: &Path, tier: Tier) -> Result<i64, TemplateError> {
    let templates = files::read(directory, tier)?;
    Ok(templates.last().map_or(0, |template| template.version))
}

/// The templates of the place's tier that it does not have yet. Changes nothing.
///
/// # Errors
/// [`TemplateError`].
///
/// # Cancel safety
/// Cancel safe.
pub async fn pending(
    admin: &Admin,
    place: &Place,
    directory: &Path,
) -> Result<(i64, Vec<Pending>), TemplateError> {
    let templates = files::read(directory, place.tier)?;
    let mut session = admin.connect(&place.database).await?;
    let records = ledger::records(&mut session, key(place)).await;
    session.end().await;
    let (from, new) = compare(&records?, &templates)?;
    let pending = new.iter().map(|template| Pending {
        version: template.version,
        name: template.name.clone(),
    });
    Ok((from, pending.collect()))
}

/// Applies the templates of the place's tier that it does not have yet, in order; tier `row`: once
/// for all tenants of the database. Two at once for the same place are one: the second waits for up
/// to a minute (not where the admin may not take advisory locks: there the second ends the first,
/// and goes on).
///
/// # Errors
/// [`TemplateError`]. Files before the one that failed stay applied.
///
/// # Cancel safety
/// Run it again: it goes on where it stood.
pub async fn apply(
    admin: &Admin,
    place: &Place,
    directory: &Path,
) -> Result<Applied, TemplateError> {
    let templates = files::read(directory, place.tier)?;
    let mut session = admin.connect(&place.database).await?;
    // Most often there is nothing to do, and it costs one question.
    let records = ledger::records(&mut session, key(place)).await?;
    let (from, new) = compare(&records, &templates)?;
    if new.is_empty() {
        session.end().await;
        return Ok(Applied { from, to: from });
    }
    ledger::prepare(&mut session).await?;
    lock(&mut session, key(place)).await?;
    let applied = match place.tier {
        Tier::Row => apply_rows(&mut session, place, &templates).await,
        Tier::Database | Tier::Schema => {
            let visitor = Visitor::of(place)?;
            visitor.leave(&mut session).await?;
            let applied = apply_as(&visitor, admin, &mut session, place, &templates).await;
            // A role that stays does no harm, and the next run drops it.
            let left = visitor.leave(&mut session).await;
            applied.and_then(|applied| left.map(|()| applied).map_err(Into::into))
        }
    };
    session.end().await;
    applied
}

/// What the ledger calls a place.
fn key(place: &Place) -> &str {
    place.schema.as_deref().unwrap_or("data")
}

/// The version that the place has, and the templates that it has not.
fn compare<'t>(
    records: &[ledger::Record],
    templates: &'t [Template],
) -> Result<(i64, Vec<&'t Template>), TemplateError> {
    let from = records.last().map_or(0, |record| record.version);
    let of = |version| {
        templates
            .iter()
            .find(move |template| template.version == version)
    };
    for record in records {
        match of(record.version) {
            Some(template) if record.is_of(template) => {}
            Some(template) => {
                return Err(TemplateError::Changed {
                    file: template.file.clone(),
                });
            }
            None => {
                return Err(TemplateError::Gone {
                    version: record.version,
                    name: record.name.clone(),
                });
            }
        }
    }
    let is_new = |template: &&Template| {
        !records
            .iter()
            .any(|record| record.version == template.version)
    };
    let new: Vec<_> = templates.iter().filter(is_new).collect();
    if let Some(late) = new.iter().find(|template| template.version < from) {
        return Err(TemplateError::File {
            file: late.file.clone(),
            line: None,
            problem: format!(
                "version {from} was applied before it: give it a higher version, so that all tenants have one order"
            ),
        });
    }
    Ok((from, new))
}

/// Waits until nobody else applies templates to the place. The end of the session lets it go.
async fn lock(session: &mut Session, place: &str) -> Result<(), ProvisioningError> {
    let lock = format!(
        "DO $lock$ BEGIN
            IF pg_catalog.has_function_privilege('pg_catalog.pg_advisory_lock(bigint)', 'EXECUTE') THEN
                PERFORM pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended('pgusher template ' || {}, 0));
            END IF;
        END $lock$",
        quoted_literal(place)
    );
    session
        .run_once("wait until nobody else applies templates", &lock)
        .await
}

/// As the tenant, in a session of its own.
async fn apply_as(
    visitor: &Visitor<'_>,
    admin: &Admin,
    session: &mut Session,
    place: &Place,
    templates: &[Template],
) -> Result<Applied, TemplateError> {
    ledger::settle(session, key(place)).await?;
    let records = ledger::records(session, key(place)).await?;
    let (from, new) = compare(&records, templates)?;
    let mut to = from;
    if new.is_empty() {
        return Ok(Applied { from, to });
    }
    let mut visit = visitor.enter(admin, session).await?;
    for template in new {
        let transaction = run::begin(&mut visit).await?;
        let record = ledger::statement(key(place), template, Some(&transaction));
        session.run("record a template", &record).await?;
        let done = match run::statements(&mut visit, template).await {
            Ok(()) => run::commit(&mut visit, template).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            visit.end().await;
            visitor.leave(session).await?;
            ledger::settle(session, key(place)).await?;
            return Err(error);
        }
        ledger::settle(session, key(place)).await?;
        to = template.version;
    }
    visit.end().await;
    Ok(Applied { from, to })
}

/// As who owns the shared tables: in such a database no tenant has code. The tables are protected in
/// the same transaction, so that no tenant ever meets one that is not.
async fn apply_rows(
    session: &mut Session,
    place: &Place,
    templates: &[Template],
) -> Result<Applied, TemplateError> {
    let records = ledger::records(session, key(place)).await?;
    let (from, new) = compare(&records, templates)?;
    let mut to = from;
    let limits = format!("{LIMITS}; SET lock_timeout = '{LOCK_TIME_MAX}'");
    session.run("set limits", &limits).await?;
    for template in new {
        let mut views = Views::Stay;
        let mut patience = Patience::default();
        loop {
            match apply_row(session, place, template, views).await {
                Err(error) if views == Views::Stay && is_in_the_way(&error) => views = Views::Go,
                Err(error) if patience.tries_again(error.code()).await => {}
                done => break done?,
            }
        }
        to = template.version;
    }
    Ok(Applied { from, to })
}

/// Whether the views through which tenants use the tables are there while a template changes them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Views {
    Stay,
    /// They are made anew behind it: a column that a view shows can't be dropped or made another.
    Go,
}

/// A column in use by a view: it can't be dropped (2BP01), nor get another type (0A000).
fn is_in_the_way(error: &TemplateError) -> bool {
    matches!(error, TemplateError::Refused { code, .. } if matches!(code.as_str(), "2BP01" | "0A000"))
}

async fn apply_row(
    session: &mut Session,
    place: &Place,
    template: &Template,
    views: Views,
) -> Result<(), TemplateError> {
    run::begin(session).await?;
    let done = match apply_row_in(session, place, template, views).await {
        Ok(()) => run::commit(session, template).await,
        Err(error) => Err(error),
    };
    if done.is_err() {
        // When it can't be said, the transaction ends with the session.
        session.run_once("roll back", "ROLLBACK").await.ok();
    }
    done
}

async fn apply_row_in(
    session: &mut Session,
    place: &Place,
    template: &Template,
    views: Views,
) -> Result<(), TemplateError> {
    if views == Views::Go {
        protect::drop_views(session).await?;
    }
    // With row_security off, what would silently touch no row (there is no tenant here) is an error.
    session
        .run_once(
            "become the owner of the tables",
            "SET LOCAL ROLE pgusher_data; SET LOCAL search_path = data; SET LOCAL row_security = off",
        )
        .await?;
    run::statements(session, template).await?;
    session
        .run_once(
            "be the admin again",
            "RESET ROLE; SET LOCAL search_path = ''; SET LOCAL row_security = on",
        )
        .await?;
    protect::protect_all(session)
        .await
        .map_err(|source| TemplateError::Protect {
            file: template.file.clone(),
            source,
        })?;
    let record = ledger::statement(key(place), template, None);
    session.run_once("record a template", &record).await?;
    Ok(())
}
