//! Events: what happened, by whom, from where.

use super::RegistryError;
use serde_json::{Map, Value, json};
use sqlx::{PgConnection, types::Json};
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// What an event changed: for each field its value before and after. No secret is ever in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes(pub Map<String, Value>);

impl Changes {
    /// The fields in which two records differ. A field that one of them lacks is null there.
    pub fn between(before: &Map<String, Value>, after: &Map<String, Value>) -> Self {
        let mut changes = Map::new();
        for field in before.keys().chain(after.keys()) {
            let [old, new] =
                [before, after].map(|record| record.get(field).unwrap_or(&Value::Null));
            if old != new {
                changes.insert(field.clone(), json!({ "before": old, "after": new }));
            }
        }
        Self(changes)
    }

    /// The record after these changes.
    pub fn apply(&self, record: &mut Map<String, Value>) {
        for (field, change) in &self.0 {
            let after = change.get("after").cloned().unwrap_or(Value::Null);
            record.insert(field.clone(), after);
        }
    }
}

/// An event to be written.
#[derive(Debug, Clone)]
pub struct NewEvent<'a> {
    /// The tenant that it concerns, if it does one.
    pub tenant: Option<&'a str>,
    /// `TenantCreated`, `Suspended`, …
    pub kind: &'a str,
    /// `operator:<user>`, `token:<id>`, `key:<id>`, `proxy`.
    pub actor: &'a str,
    /// From where; empty for a process on this machine.
    pub address: &'a str,
    /// What it changed.
    pub changes: Changes,
    /// What else is worth knowing, as a JSON object.
    pub facts: Value,
}

/// Writes an event, in the transaction that makes the change. It waits for every other
/// transaction that has written one: write it last.
///
/// # Errors
/// [`RegistryError::Database`].
///
/// # Cancel safety
/// The transaction has it or has it not.
pub async fn append(db: &mut PgConnection, event: NewEvent<'_>) -> Result<(), RegistryError> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let facts = if event.facts.is_object() {
        event.facts
    } else {
        json!({})
    };
    // seq, previous and hash are the trigger's.
    sqlx::query(
        "INSERT INTO pgusher.event (seq, id, at_us, tenant, kind, actor, address, changes, facts, previous, hash)
         VALUES (0, $1, $2, $3, $4, $5, $6, $7, $8, '', '')",
    )
    .bind(Uuid::now_v7())
    .bind(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
    .bind(event.tenant)
    .bind(event.kind)
    .bind(event.actor)
    .bind(event.address)
    .bind(Json(Value::Object(event.changes.0)))
    .bind(Json(facts))
    .execute(db)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_the_changes_gives_the_record() {
        let record = |value: Value| value.as_object().cloned().unwrap();
        let before = record(json!({"status": "active", "plan": "starter", "pool_size": 5}));
        let after = record(json!({"status": "suspended", "plan": "starter", "name": "Acme"}));
        let changes = Changes::between(&before, &after);
        assert_eq!(changes.0.len(), 3);
        assert_eq!(
            changes.0["status"],
            json!({"before": "active", "after": "suspended"})
        );
        let mut folded = before;
        changes.apply(&mut folded);
        folded.retain(|_, value| !value.is_null());
        assert_eq!(folded, after);
    }
}
