//! Use cases for API keys.

use super::{
    Actor, Control, ControlError, KeyView, Listed, MintError, NewKey, Page, Role, api_key::mint,
    names::no_randomness, verifier::verifier_with, view::key_record,
};
use crate::{
    registry::{self, Changes, KeyEnd, KeyRow, NewEvent, TenantRow},
    tenant::Secret,
};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;
use std::time::Duration;
use time::OffsetDateTime;

/// Keys of one tenant that are neither revoked nor expired: a login is held against each.
const KEYS_MAX: usize = 100;

/// A key just made: the only time that it is seen.
#[derive(Debug, Clone)]
pub struct CreatedKey {
    /// What is kept of it.
    pub key: KeyView,
    /// The key itself.
    pub secret: Secret,
    /// The `DATABASE_URL`, which holds the key.
    pub url: Secret,
}

impl CreatedKey {
    /// All of it, the key too, to be shown once to who asked for it.
    pub fn reveal(&self) -> Value {
        let mut value = serde_json::to_value(&self.key).unwrap_or_default();
        if let Some(map) = value.as_object_mut() {
            map.insert("key".to_owned(), json!(self.secret.expose()));
            map.insert("url".to_owned(), json!(self.url.expose()));
        }
        value
    }
}

impl From<MintError> for ControlError {
    fn from(_error: MintError) -> Self {
        no_randomness()
    }
}

impl Control {
    /// Makes a key for a tenant that is active or suspended. Needs the role `manager`.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// There is one then, or none; one that nobody has seen can be revoked.
    pub async fn create_key(
        &self,
        actor: &Actor,
        tenant: &str,
        new: NewKey,
    ) -> Result<CreatedKey, ControlError> {
        actor.may(Role::Manager, tenant)?;
        new.check(OffsetDateTime::now_utc())?;
        let mut tx = self.registry.pool.begin().await?;
        let row = served(lock(&mut tx, tenant).await?)?;
        let made = self.write_key(&mut tx, &row, &new).await?;
        grant(&mut tx, actor, &made.1, json!({})).await?;
        tx.commit().await?;
        Ok(made.0)
    }

    /// The keys of a tenant, the oldest first, revoked ones too; a page begins behind the key that
    /// it names. Needs the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn list_keys(
        &self,
        actor: &Actor,
        tenant: &str,
        page: &Page,
    ) -> Result<Listed<KeyView>, ControlError> {
        actor.may(Role::Viewer, tenant)?;
        let (limit, rows) = page.rows()?;
        let mut db = self.registry.pool.acquire().await?;
        known(registry::tenant(&mut db, tenant).await?, tenant)?;
        let after = page.after.as_deref();
        let keys = registry::keys_after(&mut db, tenant, (after, rows)).await?;
        let keys = keys.iter().map(KeyView::from).collect();
        Ok(Listed::of(keys, limit, |key: &KeyView| key.id.clone()))
    }

    /// Revokes a key: its sessions end as soon as the proxies hear of it. Done again, it changes
    /// nothing. Needs the role `manager`.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// It is revoked then, or it is not.
    pub async fn revoke_key(
        &self,
        actor: &Actor,
        tenant: &str,
        key: &str,
    ) -> Result<KeyView, ControlError> {
        actor.may(Role::Manager, tenant)?;
        let mut tx = self.registry.pool.begin().await?;
        lock(&mut tx, tenant).await?;
        let before = lock_key(&mut tx, tenant, key).await?;
        if before.status == "revoked" {
            return Ok(KeyView::from(&before));
        }
        let after = registry::end_key(&mut tx, key, KeyEnd::Now).await?;
        end(&mut tx, actor, (&before, &after), json!({})).await?;
        tx.commit().await?;
        Ok(KeyView::from(&after))
    }

    /// Makes a new key like an old one, which expires after a grace (at once, without one). Needs
    /// the role `manager`.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// Both is done then, or nothing.
    pub async fn rotate_key(
        &self,
        actor: &Actor,
        tenant: &str,
        key: &str,
        grace: Duration,
    ) -> Result<CreatedKey, ControlError> {
        actor.may(Role::Manager, tenant)?;
        let now = OffsetDateTime::now_utc();
        let mut tx = self.registry.pool.begin().await?;
        let row = served(lock(&mut tx, tenant).await?)?;
        let before = lock_key(&mut tx, tenant, key).await?;
        still_opens(&before, now)?;
        let new = NewKey {
            not_before: before.not_before.filter(|from| *from > now),
            ..NewKey::like(&before)
        };
        // The old one goes first: a tenant that has as many keys as it may can rotate them all.
        let until = now.checked_add(grace.try_into().unwrap_or(time::Duration::MAX));
        let until = until.ok_or_else(|| ControlError::Invalid {
            field: "grace".to_owned(),
            problem: "it is too long".to_owned(),
        })?;
        let until = before
            .expires_at
            .map_or(until, |expires| expires.min(until));
        let ends = if grace.is_zero() {
            KeyEnd::Now
        } else {
            KeyEnd::At(until)
        };
        let after = registry::end_key(&mut tx, key, ends).await?;
        let made = self.write_key(&mut tx, &row, &new).await?;
        grant(&mut tx, actor, &made.1, json!({ "replaces": key })).await?;
        let facts = json!({ "replaced_by": made.1.id });
        end(&mut tx, actor, (&before, &after), facts).await?;
        tx.commit().await?;
        Ok(made.0)
    }

    /// Makes and writes a key; the event is the caller's.
    pub(super) async fn write_key(
        &self,
        db: &mut PgConnection,
        tenant: &TenantRow,
        new: &NewKey,
    ) -> Result<(CreatedKey, KeyRow), ControlError> {
        let now = OffsetDateTime::now_utc();
        let others = registry::keys(db, &tenant.id).await?;
        let opens = |key: &&KeyRow| {
            key.status == "active" && key.expires_at.is_none_or(|expires| expires > now)
        };
        if others.iter().filter(opens).count() >= KEYS_MAX {
            return Err(ControlError::Conflict(format!(
                "tenant {:?} has {KEYS_MAX} keys already; revoke one that is not used: pgusher key list {}",
                tenant.id, tenant.id
            )));
        }
        let minted = mint()?;
        let row = row(tenant, new, &minted)?;
        registry::insert_key(db, &row).await?;
        let text = minted.text.expose();
        let (id, proxy) = (&tenant.id, &self.proxy);
        let url = Secret::new(format!("postgres://{id}:{text}@{proxy}/{id}"));
        let created = CreatedKey {
            key: KeyView::from(&row),
            secret: minted.text,
            url,
        };
        Ok((created, row))
    }
}

fn row(tenant: &TenantRow, new: &NewKey, minted: &super::Minted) -> Result<KeyRow, ControlError> {
    let text = minted.text.expose();
    let now = OffsetDateTime::now_utc();
    Ok(KeyRow {
        id: minted.id.as_str().to_owned(),
        tenant: tenant.id.clone(),
        name: new.name.clone(),
        sha256: Some(Sha256::digest(text.as_bytes()).to_vec()),
        verifier: verifier_with(text, &tenant.scram_salt)?.to_string(),
        scope: new.scope().to_owned(),
        permissions: new.permissions.clone(),
        allow: new.networks(),
        rate_limit_per_hour: new.rate_limit_per_hour,
        max_client_connections: new.max_client_connections,
        max_concurrent_queries: new.max_concurrent_queries,
        transactions_per_second: new.transactions_per_second,
        transactions_per_hour: new.transactions_per_hour,
        bytes_per_second: new.bytes_per_second,
        logins_per_second: new.logins_per_second,
        not_before: new.not_before.map(whole),
        expires_at: new.expires_at.map(whole),
        status: "active".to_owned(),
        last_used_at: None,
        created_at: whole(now),
        revoked_at: None,
    })
}

/// As PostgreSQL keeps it: whole microseconds. A record is compared with its events.
pub(super) fn whole(time: OffsetDateTime) -> OffsetDateTime {
    let microsecond = time.microsecond();
    time.replace_microsecond(microsecond)
        .unwrap_or(time)
        .to_offset(time::UtcOffset::UTC)
}

/// The event of a new key.
pub(super) async fn grant(
    db: &mut PgConnection,
    actor: &Actor,
    key: &KeyRow,
    facts: Value,
) -> Result<(), ControlError> {
    let event = NewEvent {
        tenant: Some(&key.tenant),
        kind: "AccessGranted",
        actor: &actor.name,
        address: &actor.address,
        changes: Changes::between(&Map::new(), &key_record(key)),
        facts,
    };
    Ok(registry::append(db, event).await?)
}

/// The event of a key that ends.
async fn end(
    db: &mut PgConnection,
    actor: &Actor,
    (before, after): (&KeyRow, &KeyRow),
    facts: Value,
) -> Result<(), ControlError> {
    let event = NewEvent {
        tenant: Some(&after.tenant),
        kind: "AccessRevoked",
        actor: &actor.name,
        address: &actor.address,
        changes: Changes::between(&key_record(before), &key_record(after)),
        facts,
    };
    Ok(registry::append(db, event).await?)
}

/// A tenant that is there.
pub(super) fn known(row: Option<TenantRow>, id: &str) -> Result<TenantRow, ControlError> {
    row.ok_or_else(|| ControlError::NotFound {
        what: "tenant",
        id: id.to_owned(),
    })
}

pub(super) async fn lock(db: &mut PgConnection, id: &str) -> Result<TenantRow, ControlError> {
    known(registry::lock_tenant(db, id).await?, id)
}

pub(super) async fn lock_key(
    db: &mut PgConnection,
    tenant: &str,
    id: &str,
) -> Result<KeyRow, ControlError> {
    let row = registry::lock_key(db, tenant, id).await?;
    row.ok_or_else(|| ControlError::NotFound {
        what: "key",
        id: id.to_owned(),
    })
}

/// That a key is neither revoked nor expired.
pub(super) fn still_opens(key: &KeyRow, now: OffsetDateTime) -> Result<(), ControlError> {
    if key.status != "revoked" && key.expires_at.is_none_or(|time| time > now) {
        return Ok(());
    }
    Err(ControlError::Conflict(format!(
        "key {:?} is revoked or has expired; make a new one: pgusher key create {}",
        key.id, key.tenant
    )))
}

/// A tenant that keys may be made for.
fn served(row: TenantRow) -> Result<TenantRow, ControlError> {
    match row.status.as_str() {
        "active" | "suspended" => Ok(row),
        status => Err(ControlError::Conflict(format!(
            "tenant {:?} is {status}: it gets no keys",
            row.id
        ))),
    }
}
