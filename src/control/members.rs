//! The people of a tenant, and their roles.

use super::{Actor, Control, ControlError, Listed, Page, Role, checks};
use crate::registry::{Changes, NewEvent, append};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// More than any plan has.
const MEMBERS_MAX: i64 = 10_000;

/// Somebody to be added.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMember {
    /// The e-mail address; case does not matter.
    pub email: String,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// What they may do.
    pub role: Role,
}

/// Somebody who belongs to a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema, sqlx::FromRow)]
pub struct MemberView {
    /// The e-mail address, in lower case.
    pub email: String,
    /// For people.
    pub name: String,
    /// `admin`, `manager`, `user` or `viewer`.
    pub role: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl MemberView {
    /// As the tenant's events tell it: a field `user:<email>` of the tenant's record.
    fn record(&self) -> Map<String, Value> {
        let field = format!("user:{}", self.email);
        Map::from_iter([(field, json!({ "name": self.name, "role": self.role }))])
    }
}

impl Control {
    /// The people of a tenant in the order of their addresses. Needs the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn list_members(
        &self,
        actor: &Actor,
        tenant: &str,
        page: &Page,
    ) -> Result<Listed<MemberView>, ControlError> {
        actor.may(Role::Viewer, tenant)?;
        let (limit, rows) = page.rows()?;
        let mut db = self.registry.pool.acquire().await?;
        checks::seen(&mut db, tenant).await?;
        let members = sqlx::query_as(
            "SELECT email, name, role, created_at FROM pgusher.member
             WHERE tenant = $1 AND email COLLATE \"C\" > $2 ORDER BY email COLLATE \"C\" LIMIT $3",
        )
        .bind(tenant)
        .bind(page.after.as_deref().unwrap_or_default())
        .bind(rows)
        .fetch_all(&mut *db)
        .await?;
        Ok(Listed::of(members, limit, |member: &MemberView| {
            member.email.clone()
        }))
    }

    /// Adds somebody. Needs the role `manager`, and nobody gives a role above their own.
    ///
    /// # Errors
    /// [`ControlError::Conflict`] when they belong to it already; remove them first to change the
    /// role.
    ///
    /// # Cancel safety
    /// They are added then, or not.
    pub async fn add_member(
        &self,
        actor: &Actor,
        tenant: &str,
        new: NewMember,
    ) -> Result<MemberView, ControlError> {
        actor.may(Role::Manager, tenant)?;
        actor.may(new.role, tenant)?;
        let email = checks::email(&new.email)?;
        checks::text("name", &new.name)?;
        let mut tx = self.registry.pool.begin().await?;
        checks::tenant(&mut tx, tenant).await?;
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM pgusher.member WHERE tenant = $1")
                .bind(tenant)
                .fetch_one(&mut *tx)
                .await?;
        if count >= MEMBERS_MAX {
            return Err(ControlError::Conflict(format!(
                "it has {MEMBERS_MAX} users already"
            )));
        }
        let added: Option<MemberView> = sqlx::query_as(
            "INSERT INTO pgusher.member (tenant, email, name, role) VALUES ($1, $2, $3, $4)
             ON CONFLICT (tenant, email) DO NOTHING RETURNING email, name, role, created_at",
        )
        .bind(tenant)
        .bind(&email)
        .bind(&new.name)
        .bind(new.role.as_str())
        .fetch_optional(&mut *tx)
        .await?;
        let Some(added) = added else {
            return Err(ControlError::Conflict(format!(
                "{email} belongs to it already; to change the role, remove them first"
            )));
        };
        let changes = Changes::between(&Map::new(), &added.record());
        tell(&mut tx, actor, tenant, ("AccessGranted", changes)).await?;
        tx.commit().await?;
        Ok(added)
    }

    /// Removes somebody. Needs the role `manager`, and nobody removes who has a role above theirs.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] when they do not belong to it.
    ///
    /// # Cancel safety
    /// They are removed then, or not.
    pub async fn remove_member(
        &self,
        actor: &Actor,
        tenant: &str,
        email: &str,
    ) -> Result<(), ControlError> {
        actor.may(Role::Manager, tenant)?;
        let unknown = || ControlError::NotFound {
            what: "user",
            id: email.to_owned(),
        };
        let email = checks::email(email).map_err(|_error| unknown())?;
        let mut tx = self.registry.pool.begin().await?;
        checks::tenant(&mut tx, tenant).await?;
        let removed: Option<MemberView> = sqlx::query_as(
            "DELETE FROM pgusher.member WHERE tenant = $1 AND email = $2
             RETURNING email, name, role, created_at",
        )
        .bind(tenant)
        .bind(&email)
        .fetch_optional(&mut *tx)
        .await?;
        let removed = removed.ok_or_else(unknown)?;
        if let Ok(role) = removed.role.parse() {
            actor.may(role, tenant)?;
        }
        let changes = Changes::between(&removed.record(), &Map::new());
        tell(&mut tx, actor, tenant, ("AccessRevoked", changes)).await?;
        tx.commit().await?;
        Ok(())
    }
}

async fn tell(
    db: &mut PgConnection,
    actor: &Actor,
    tenant: &str,
    (kind, changes): (&str, Changes),
) -> Result<(), ControlError> {
    let event = NewEvent {
        tenant: Some(tenant),
        kind,
        actor: &actor.name,
        address: &actor.address,
        changes,
        facts: json!({}),
    };
    Ok(append(db, event).await?)
}
