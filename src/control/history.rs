//! Use cases for what happened: a tenant's events, and the tenant as it was.

use super::{Actor, Control, ControlError, EventView, Listed, Page, Role, TenantView};
use crate::registry::{self, Changes};
use serde_json::{Map, Value, json};
use sqlx::PgConnection;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Events that are read at a time.
const PART: i64 = 1000;

impl Control {
    /// A tenant's events, the newest first. They outlive the tenant. Needs the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn history(
        &self,
        actor: &Actor,
        id: &str,
        page: Page,
    ) -> Result<Listed<EventView>, ControlError> {
        actor.may(Role::Viewer, id)?;
        let (limit, rows) = page.rows()?;
        let before = match &page.after {
            Some(text) => text.parse().map_err(|_error| ControlError::Invalid {
                field: "after".to_owned(),
                problem: "it is not what the page before gave".to_owned(),
            })?,
            None => i64::MAX,
        };
        let mut db = self.registry.pool.acquire().await?;
        let events = registry::newest_events(&mut db, id, before, rows).await?;
        if events.is_empty() && page.after.is_none() {
            return Err(none(id));
        }
        let views = events.into_iter().map(EventView::from).collect();
        Ok(Listed::of(views, limit, |view: &EventView| {
            view.seq.to_string()
        }))
    }

    /// A tenant as it was at a time, by its events. Needs the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] when it was not there then.
    pub async fn tenant_at(
        &self,
        actor: &Actor,
        id: &str,
        at: OffsetDateTime,
    ) -> Result<TenantView, ControlError> {
        actor.may(Role::Viewer, id)?;
        let at_us = i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX);
        let mut db = self.registry.pool.acquire().await?;
        let last = registry::last_event_at(&mut db, id, at_us).await?;
        let folded = fold(&mut db, id, last).await?;
        if folded.record.is_empty() {
            return Err(none(id));
        }
        let mut record = folded.record;
        record.retain(|field, _| !field.starts_with("key:"));
        for (field, time) in [
            ("created_at", folded.created),
            ("updated_at", folded.updated),
        ] {
            let text = time.format(&Rfc3339).unwrap_or_default();
            record.insert(field.to_owned(), json!(text));
        }
        let view = serde_json::from_value(Value::Object(record));
        Ok(view.map_err(|error| registry::RegistryError::Row {
            what: format!("what the events tell of tenant {id}"),
            problem: error.to_string(),
        })?)
    }

    /// The record of a tenant by its events alone, with a field `key:<id>` for each of its keys;
    /// empty when it is not there. Needs the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn rebuilt(
        &self,
        actor: &Actor,
        id: &str,
    ) -> Result<Map<String, Value>, ControlError> {
        actor.may(Role::Viewer, id)?;
        let mut db = self.registry.pool.acquire().await?;
        Ok(fold(&mut db, id, i64::MAX).await?.record)
    }
}

fn none(id: &str) -> ControlError {
    ControlError::NotFound {
        what: "tenant",
        id: id.to_owned(),
    }
}

struct Folded {
    record: Map<String, Value>,
    created: OffsetDateTime,
    updated: OffsetDateTime,
}

/// The record after all events up to `last`. An id may have been used before: what was removed
/// leaves nothing.
async fn fold(db: &mut PgConnection, id: &str, last: i64) -> Result<Folded, ControlError> {
    let mut folded = Folded {
        record: Map::new(),
        created: OffsetDateTime::UNIX_EPOCH,
        updated: OffsetDateTime::UNIX_EPOCH,
    };
    let mut after = 0;
    loop {
        let events = registry::oldest_events(db, id, (after, last), PART).await?;
        let Some(newest) = events.last() else {
            return Ok(folded);
        };
        after = newest.seq;
        for event in events {
            let event = EventView::from(event);
            if folded.record.is_empty() {
                folded.created = event.at;
            }
            Changes(event.changes).apply(&mut folded.record);
            folded.record.retain(|_, value| !value.is_null());
            folded.updated = event.at;
        }
    }
}
