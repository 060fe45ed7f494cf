//! A tenant's configuration for its applications.
//!
//! What is sensitive goes in and never comes out here: it is sealed, and shown as being there.

use super::{Actor, Control, ControlError, Listed, Page, Role, checks};
use crate::{
    crypto::Purpose,
    registry::{Changes, NewEvent, RegistryError, append},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;
use utoipa::ToSchema;
use zeroize::Zeroizing;

/// Of one tenant.
const ENTRIES_MAX: i64 = 1000;
/// Of one value, as JSON.
const VALUE_BYTES_MAX: usize = 32 * 1024;
const KEY_BYTES_MAX: usize = 128;

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// Logo, colours, texts.
    Branding,
    /// What is switched on.
    Feature,
    /// Other systems. Sensitive, unless said otherwise.
    Integration,
    /// Policies and secrets. Sensitive, unless said otherwise.
    Security,
    /// Invoices.
    Billing,
}

impl EntryKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Branding => "branding",
            Self::Feature => "feature",
            Self::Integration => "integration",
            Self::Security => "security",
            Self::Billing => "billing",
        }
    }
}

/// An entry to be kept. Neither it nor its value is printed: it may be a secret.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEntry {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: EntryKind,
    /// Any JSON, at most 32 KiB.
    #[schema(value_type = Value)]
    pub value: Value,
    /// Whether it is sealed and never shown. Where nothing is said: yes for `security` and
    /// `integration`.
    pub sensitive: Option<bool>,
}

impl std::fmt::Debug for NewEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewEntry")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl NewEntry {
    fn is_sensitive(&self) -> bool {
        let by_kind = matches!(self.kind, EntryKind::Integration | EntryKind::Security);
        self.sensitive.unwrap_or(by_kind)
    }
}

/// An entry as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema, sqlx::FromRow)]
pub struct EntryView {
    /// Its name.
    pub key: String,
    /// `branding`, `feature`, `integration`, `security` or `billing`.
    #[serde(rename = "type")]
    #[sqlx(rename = "kind")]
    pub kind: String,
    /// What it says; `null` when it is sensitive.
    #[schema(value_type = Value)]
    #[sqlx(json(nullable))]
    pub value: Option<Value>,
    /// Whether it is sealed.
    pub sensitive: bool,
    /// When it was written.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// The columns of an [`EntryView`].
macro_rules! columns {
    () => {
        "key, kind, value, sealed IS NOT NULL AS sensitive, updated_at"
    };
}

impl EntryView {
    /// As the tenant's events tell it: a field `entry:<key>` of the tenant's record.
    fn record(&self) -> Map<String, Value> {
        let field = format!("entry:{}", self.key);
        let fields = if self.sensitive {
            // That it was changed shows by the time; the value never does.
            let at = self.updated_at.unix_timestamp_nanos() / 1000;
            json!({ "type": self.kind, "sensitive": true, "updated_at_us": at.to_string() })
        } else {
            json!({ "type": self.kind, "value": self.value })
        };
        Map::from_iter([(field, fields)])
    }

    /// The role that it takes to write it.
    fn needs(&self) -> Role {
        needs(self.sensitive)
    }
}

fn needs(is_sensitive: bool) -> Role {
    if is_sensitive {
        Role::Manager
    } else {
        Role::User
    }
}

fn unknown(key: &str) -> ControlError {
    ControlError::NotFound {
        what: "entry",
        id: key.to_owned(),
    }
}

fn is_key(key: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    !key.is_empty() && key.len() <= KEY_BYTES_MAX && key.chars().all(allowed)
}

impl Control {
    /// A tenant's entries in the order of their keys. Needs the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn list_entries(
        &self,
        actor: &Actor,
        tenant: &str,
        (kind, page): (Option<EntryKind>, &Page),
    ) -> Result<Listed<EntryView>, ControlError> {
        actor.may(Role::Viewer, tenant)?;
        let (limit, rows) = page.rows()?;
        let mut db = self.registry.pool.acquire().await?;
        checks::seen(&mut db, tenant).await?;
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM pgusher.entry
             WHERE tenant = $1 AND key COLLATE \"C\" > $2 AND ($3::text IS NULL OR kind = $3)
             ORDER BY key COLLATE \"C\" LIMIT $4"
        );
        let entries = sqlx::query_as(sql)
            .bind(tenant)
            .bind(page.after.as_deref().unwrap_or_default())
            .bind(kind.map(EntryKind::as_str))
            .bind(rows)
            .fetch_all(&mut *db)
            .await?;
        Ok(Listed::of(entries, limit, |entry: &EntryView| {
            entry.key.clone()
        }))
    }

    /// One entry. Needs the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn entry(
        &self,
        actor: &Actor,
        tenant: &str,
        key: &str,
    ) -> Result<EntryView, ControlError> {
        actor.may(Role::Viewer, tenant)?;
        let mut db = self.registry.pool.acquire().await?;
        checks::seen(&mut db, tenant).await?;
        let found = if is_key(key) {
            find(&mut db, tenant, key).await?
        } else {
            None
        };
        found.ok_or_else(|| unknown(key))
    }

    /// Writes an entry, whether it was there or not. Needs the role `user`; `manager` where it is
    /// sensitive or was.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// It is written then, or not.
    pub async fn set_entry(
        &self,
        actor: &Actor,
        tenant: &str,
        (key, new): (&str, NewEntry),
    ) -> Result<EntryView, ControlError> {
        actor.may(needs(new.is_sensitive()), tenant)?;
        if !is_key(key) {
            let problem =
                format!("it must have 1 to {KEY_BYTES_MAX} of a-z, A-Z, 0-9, \"_\", \".\", \"-\"");
            return Err(checks::invalid("key", problem));
        }
        let text = Zeroizing::new(new.value.to_string());
        if text.len() > VALUE_BYTES_MAX {
            let problem = format!("it has more than {VALUE_BYTES_MAX} bytes");
            return Err(checks::invalid("value", problem));
        }
        if new.is_sensitive() {
            self.registry.check_keyring().await?;
        }
        let mut tx = self.registry.pool.begin().await?;
        checks::tenant(&mut tx, tenant).await?;
        let before = find(&mut tx, tenant, key).await?;
        match &before {
            Some(before) => actor.may(before.needs(), tenant)?,
            None => has_room(&mut tx, tenant).await?,
        }
        let sealed = new
            .is_sensitive()
            .then(|| self.seal_entry(tenant, key, &text));
        let sealed = sealed.transpose()?;
        let value = sealed.is_none().then_some(Json(new.value));
        let sql = concat!(
            "INSERT INTO pgusher.entry (tenant, key, kind, value, sealed) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (tenant, key) DO UPDATE SET kind = excluded.kind, value = excluded.value,
                 sealed = excluded.sealed, updated_at = clock_timestamp()
             RETURNING ",
            columns!()
        );
        let after: EntryView = sqlx::query_as(sql)
            .bind(tenant)
            .bind(key)
            .bind(new.kind.as_str())
            .bind(value)
            .bind(sealed)
            .fetch_one(&mut *tx)
            .await?;
        let record = before.as_ref().map(EntryView::record).unwrap_or_default();
        let changes = Changes::between(&record, &after.record());
        tell(&mut tx, actor, tenant, changes).await?;
        tx.commit().await?;
        Ok(after)
    }

    /// Removes an entry. Needs the role `user`; `manager` where it is sensitive.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// It is removed then, or not.
    pub async fn remove_entry(
        &self,
        actor: &Actor,
        tenant: &str,
        key: &str,
    ) -> Result<(), ControlError> {
        actor.may(Role::User, tenant)?;
        let mut tx = self.registry.pool.begin().await?;
        checks::tenant(&mut tx, tenant).await?;
        let before = if is_key(key) {
            find(&mut tx, tenant, key).await?
        } else {
            None
        };
        let before = before.ok_or_else(|| unknown(key))?;
        actor.may(before.needs(), tenant)?;
        sqlx::query("DELETE FROM pgusher.entry WHERE tenant = $1 AND key = $2")
            .bind(tenant)
            .bind(key)
            .execute(&mut *tx)
            .await?;
        let changes = Changes::between(&before.record(), &Map::new());
        tell(&mut tx, actor, tenant, changes).await?;
        tx.commit().await?;
        Ok(())
    }

    fn seal_entry(&self, tenant: &str, key: &str, text: &str) -> Result<Vec<u8>, ControlError> {
        let (owner, what) = (format!("tenant:{tenant}"), format!("entry:{key}"));
        let purpose = Purpose {
            owner: &owner,
            what: &what,
        };
        let sealed = self.registry.keyring.seal(purpose, text.as_bytes());
        Ok(sealed.map_err(RegistryError::from)?)
    }
}

async fn find(
    db: &mut PgConnection,
    tenant: &str,
    key: &str,
) -> Result<Option<EntryView>, ControlError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM pgusher.entry WHERE tenant = $1 AND key = $2"
    );
    let query = sqlx::query_as(sql).bind(tenant).bind(key);
    Ok(query.fetch_optional(db).await?)
}

async fn has_room(db: &mut PgConnection, tenant: &str) -> Result<(), ControlError> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM pgusher.entry WHERE tenant = $1")
        .bind(tenant)
        .fetch_one(db)
        .await?;
    if count < ENTRIES_MAX {
        return Ok(());
    }
    Err(ControlError::Conflict(format!(
        "it has {ENTRIES_MAX} entries already; remove some"
    )))
}

async fn tell(
    db: &mut PgConnection,
    actor: &Actor,
    tenant: &str,
    changes: Changes,
) -> Result<(), ControlError> {
    let event = NewEvent {
        tenant: Some(tenant),
        kind: "ConfigUpdated",
        actor: &actor.name,
        address: &actor.address,
        changes,
        facts: json!({}),
    };
    Ok(append(db, event).await?)
}
