//! Who may use the admin API: its tokens, and a tenant's API keys for the tenant itself.

use super::{
    Actor, Control, ControlError, Listed, Page, Role,
    api_key::{TOKEN_PREFIX, has_form, mint_as},
    checks,
};
use crate::{
    registry::{Changes, NewEvent, append},
    tenant::{KeyId, Secret, TenantId},
};
use ipnet::IpNet;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::{net::IpAddr, num::NonZeroU32};
use time::OffsetDateTime;

/// The longest text that is looked at as a token or key, in bytes.
const TOKEN_BYTES_MAX: usize = 1024;

/// A token to be made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// For people.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The one tenant that it may do it to; `None`: an operator's.
    pub tenant: Option<String>,
    /// Not valid from then on.
    pub expires_at: Option<OffsetDateTime>,
}

/// A token without what proves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[expect(missing_docs, reason = "a field is named as its column")]
pub struct TokenView {
    pub id: String,
    pub name: String,
    pub role: String,
    pub tenant: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
}

/// A token just made: the only time that it is seen.
#[derive(Debug)]
pub struct CreatedToken {
    /// What is kept of it.
    pub token: TokenView,
    /// `pga_<id>_<secret><checksum>`
    pub secret: Secret,
}

/// The columns of a [`TokenView`].
macro_rules! columns {
    () => {
        "id, name, role, tenant, expires_at, created_at, revoked_at"
    };
}

impl TokenView {
    /// As the events tell it: a field `token:<id>`.
    fn record(&self) -> Map<String, Value> {
        let mut record = json!(self);
        if let Some(fields) = record.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        Map::from_iter([(format!("token:{}", self.id), record)])
    }
}

impl Control {
    /// Makes a token. Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// There is one then, or none; one that nobody has seen can be revoked.
    pub async fn create_token(
        &self,
        actor: &Actor,
        new: NewToken,
    ) -> Result<CreatedToken, ControlError> {
        actor.may_operate(Role::Admin)?;
        checks::text("name", &new.name)?;
        if new
            .expires_at
            .is_some_and(|time| time <= OffsetDateTime::now_utc())
        {
            return Err(checks::invalid("expires_at", "it is in the past"));
        }
        let minted = mint_as(TOKEN_PREFIX)?;
        let mut tx = self.registry.pool.begin().await?;
        if let Some(tenant) = &new.tenant {
            checks::tenant(&mut tx, tenant).await?;
        }
        let sql = concat!(
            "INSERT INTO pgusher.admin_token (id, sha256, name, role, tenant, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6) RETURNING ",
            columns!()
        );
        let token: TokenView = sqlx::query_as(sql)
            .bind(minted.id.as_str())
            .bind(digest(minted.text.expose()))
            .bind(&new.name)
            .bind(new.role.as_str())
            .bind(&new.tenant)
            .bind(new.expires_at)
            .fetch_one(&mut *tx)
            .await?;
        let changes = Changes::between(&Map::new(), &token.record());
        append(&mut tx, event(actor, "AccessGranted", &token, changes)).await?;
        tx.commit().await?;
        Ok(CreatedToken {
            token,
            secret: minted.text,
        })
    }

    /// All tokens in the order of their ids, revoked ones too. Needs an operator.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn list_tokens(
        &self,
        actor: &Actor,
        page: &Page,
    ) -> Result<Listed<TokenView>, ControlError> {
        actor.may_operate(Role::Admin)?;
        let (limit, rows) = page.rows()?;
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM pgusher.admin_token
             WHERE id COLLATE \"C\" > $1 ORDER BY id COLLATE \"C\" LIMIT $2"
        );
        let tokens = sqlx::query_as(sql)
            .bind(page.after.as_deref().unwrap_or_default())
            .bind(rows)
            .fetch_all(&self.registry.pool)
            .await?;
        Ok(Listed::of(tokens, limit, |token: &TokenView| {
            token.id.clone()
        }))
    }

    /// Revokes a token: the next request with it is refused. Done again, it changes nothing. Needs
    /// an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// It is revoked then, or it is not.
    pub async fn revoke_token(&self, actor: &Actor, id: &str) -> Result<TokenView, ControlError> {
        actor.may_operate(Role::Admin)?;
        let mut tx = self.registry.pool.begin().await?;
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM pgusher.admin_token WHERE id = $1 FOR UPDATE"
        );
        let before: Option<TokenView> = sqlx::query_as(sql)
            .bind(id)
            .fetch_optional(&mut *tx)
            .await?;
        let before = before.ok_or_else(|| ControlError::NotFound {
            what: "token",
            id: id.to_owned(),
        })?;
        if before.revoked_at.is_some() {
            return Ok(before);
        }
        let sql = concat!(
            "UPDATE pgusher.admin_token SET revoked_at = now() WHERE id = $1 RETURNING ",
            columns!()
        );
        let after: TokenView = sqlx::query_as(sql).bind(id).fetch_one(&mut *tx).await?;
        let changes = Changes::between(&before.record(), &after.record());
        append(&mut tx, event(actor, "AccessRevoked", &after, changes)).await?;
        tx.commit().await?;
        Ok(after)
    }

    /// Who presents this: a token of the admin API, or an API key, which may look at its own
    /// tenant. `None` when it is neither, or no longer; nobody learns which. It is found by its
    /// hash, so no comparison tells how much of a guess was right.
    ///
    /// # Errors
    /// [`ControlError::Registry`]; [`ControlError::TooOften`] for an API key that is right.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn authenticate(
        &self,
        presented: &Secret,
        address: IpAddr,
    ) -> Result<Option<Actor>, ControlError> {
        let text = presented.expose();
        if text.len() > TOKEN_BYTES_MAX || !has_form(text) {
            return Ok(None);
        }
        let address = address.to_canonical();
        if text.starts_with(TOKEN_PREFIX) {
            self.actor_of_token(text, address).await
        } else {
            self.actor_of_key(text, address).await
        }
    }

    async fn actor_of_token(
        &self,
        text: &str,
        address: IpAddr,
    ) -> Result<Option<Actor>, ControlError> {
        let found: Option<(String, String, Option<String>)> = sqlx::query_as(
            "SELECT t.id, t.role, t.tenant FROM pgusher.admin_token t
             WHERE t.sha256 = $1 AND t.revoked_at IS NULL
               AND (t.expires_at IS NULL OR t.expires_at > now())",
        )
        .bind(digest(text))
        .fetch_optional(&self.registry.pool)
        .await?;
        let Some((id, role, tenant)) = found else {
            return Ok(None);
        };
        let tenant = tenant.map(|id| TenantId::new(&id)).transpose();
        // What the table's own checks exclude opens nothing.
        Ok(role
            .parse()
            .ok()
            .zip(tenant.ok())
            .map(|(role, tenant)| Actor {
                name: format!("token:{id}"),
                address: address.to_string(),
                role,
                tenant,
            }))
    }

    async fn actor_of_key(
        &self,
        text: &str,
        address: IpAddr,
    ) -> Result<Option<Actor>, ControlError> {
        let found: Option<(String, String, Vec<String>, Option<i32>)> = sqlx::query_as(
            "SELECT k.id, k.tenant, k.allow, k.rate_limit_per_hour
             FROM pgusher.api_key k JOIN pgusher.tenant t ON t.id = k.tenant
             WHERE k.sha256 = $1 AND k.status = 'active' AND t.status = 'active'
               AND (k.not_before IS NULL OR k.not_before <= now())
               AND (k.expires_at IS NULL OR k.expires_at > now())",
        )
        .bind(digest(text))
        .fetch_optional(&self.registry.pool)
        .await?;
        let Some((id, tenant, allow, limit)) = found else {
            return Ok(None);
        };
        let is_listed = |text: &String| {
            let network = text.parse::<IpNet>();
            network.is_ok_and(|network| network.contains(&address))
        };
        if !allow.is_empty() && !allow.iter().any(is_listed) {
            return Ok(None);
        }
        let (Ok(tenant), Ok(id)) = (TenantId::new(&tenant), KeyId::new(&id)) else {
            return Ok(None);
        };
        if let Some(limit) = limit {
            let limit = u32::try_from(limit).ok().and_then(NonZeroU32::new);
            self.uses
                .count((&tenant, &id), limit.unwrap_or(NonZeroU32::MIN))?;
        }
        self.uses.note(&tenant, &id);
        // A key is for data, and sits in applications: here it may only look.
        Ok(Some(Actor {
            name: format!("key:{id}"),
            address: address.to_string(),
            role: Role::Viewer,
            tenant: Some(tenant),
        }))
    }
}

fn digest(text: &str) -> Vec<u8> {
    Sha256::digest(text.as_bytes()).to_vec()
}

fn event<'a>(
    actor: &'a Actor,
    kind: &'a str,
    token: &'a TokenView,
    changes: Changes,
) -> NewEvent<'a> {
    NewEvent {
        tenant: token.tenant.as_deref(),
        kind,
        actor: &actor.name,
        address: &actor.address,
        changes,
        facts: json!({}),
    }
}
