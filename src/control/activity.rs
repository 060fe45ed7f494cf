//! What is known of a tenant's doings without a ledger of its use: counts from the registry.

use super::{Actor, Control, ControlError, EventView, Listed, Page, Role, place::Ground};
use serde::Serialize;
use sqlx::types::Json;
use utoipa::ToSchema;

/// Counts of what a tenant has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema, sqlx::FromRow)]
pub struct Counts {
    /// People.
    pub users: i64,
    /// Keys that open it now.
    pub active_keys: i64,
    /// Keys that were revoked or have expired.
    pub ended_keys: i64,
    /// Keys that were used in the last 30 days.
    pub keys_used_30d: i64,
    /// Configuration entries.
    pub entries: i64,
    /// Events of the last 30 days.
    pub events_30d: i64,
}

/// What anybody may know of a tenant.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PublicInfo {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `metadata.logo`: a URL.
    pub logo: Option<String>,
    /// `metadata.colours`, also read from `metadata.colors`.
    #[schema(value_type = Option<Object>)]
    pub colours: Option<serde_json::Value>,
}

/// How a tenant is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Health {
    /// Whether its clients can work: it is active, and its cluster answers.
    pub healthy: bool,
    /// `provisioning`, `active`, `suspended` or `terminated`.
    pub status: String,
    /// Whether its cluster's primary answers, can be written to, and lets tenants be made.
    pub cluster: bool,
    /// What is wrong with the cluster, for operators; `null` where nothing is, and for the tenant
    /// itself.
    pub cluster_problem: Option<String>,
}

impl Control {
    /// What happened to a tenant, the newest first: [`Control::history`]. To the tenant itself it
    /// does not tell which operator did it, nor from where. Needs the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn activity(
        &self,
        actor: &Actor,
        tenant: &str,
        page: Page,
    ) -> Result<Listed<EventView>, ControlError> {
        let mut events = self.history(actor, tenant, page).await?;
        if actor.tenant.is_some() {
            let strange = events.items.iter_mut();
            let strange = strange.filter(|event| event.actor.starts_with("operator:"));
            for event in strange {
                "operator".clone_into(&mut event.actor);
                event.address.clear();
            }
        }
        Ok(events)
    }

    /// Whether a tenant's clients can work. Asks its cluster. Needs the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError`]; a cluster that does not answer is none.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn health(&self, actor: &Actor, tenant: &str) -> Result<Health, ControlError> {
        let view = self.tenant(actor, tenant).await?;
        let ground = {
            let mut db = self.registry.pool.acquire().await?;
            let row = crate::registry::cluster(&mut db, &view.cluster).await?;
            row.ok_or_else(|| ControlError::NotFound {
                what: "cluster",
                id: view.cluster.clone(),
            })?
        };
        let answered = match Ground::new(&ground, &self.registry.keyring) {
            Ok(ground) => ground.probe().await,
            Err(error) => Err(error),
        };
        let is_operator = actor.tenant.is_none();
        let problem = answered.as_ref().err().filter(|_| is_operator);
        Ok(Health {
            healthy: view.status == "active" && answered.is_ok(),
            status: view.status,
            cluster: answered.is_ok(),
            cluster_problem: problem.map(ToString::to_string),
        })
    }

    /// Counts what a tenant has. Needs the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn counts(&self, actor: &Actor, tenant: &str) -> Result<Counts, ControlError> {
        actor.may(Role::Viewer, tenant)?;
        // 30 days in microseconds.
        let counts = sqlx::query_as(
            "SELECT
                (SELECT count(*) FROM pgusher.member m WHERE m.tenant = t.id) AS users,
                count(k.id) FILTER (WHERE k.status = 'active'
                    AND (k.expires_at IS NULL OR k.expires_at > now())) AS active_keys,
                count(k.id) FILTER (WHERE k.status <> 'active' OR k.expires_at <= now()) AS ended_keys,
                count(k.id) FILTER (WHERE k.last_used_at > now() - interval '30 days') AS keys_used_30d,
                (SELECT count(*) FROM pgusher.entry e WHERE e.tenant = t.id) AS entries,
                (SELECT count(*) FROM pgusher.event v WHERE v.tenant = t.id
                    AND v.at_us > (extract(epoch FROM now() - interval '30 days') * 1e6)::bigint) AS events_30d
             FROM pgusher.tenant t LEFT JOIN pgusher.api_key k ON k.tenant = t.id
             WHERE t.id = $1 GROUP BY t.id",
        )
        .bind(tenant)
        .fetch_optional(&self.registry.pool)
        .await?;
        counts.ok_or_else(|| unknown(tenant))
    }

    /// What anybody may know: of tenants that are served, or would be but for a suspension.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] for all others, whether they exist or not.
    pub async fn public_info(&self, tenant: &str) -> Result<PublicInfo, ControlError> {
        let found: Option<(String, Json<serde_json::Value>)> = sqlx::query_as(
            "SELECT name, metadata FROM pgusher.tenant
             WHERE id = $1 AND status IN ('active', 'suspended')",
        )
        .bind(tenant)
        .fetch_optional(&self.registry.pool)
        .await?;
        let (name, Json(metadata)) = found.ok_or_else(|| unknown(tenant))?;
        let logo = metadata.get("logo").and_then(serde_json::Value::as_str);
        let colours = metadata.get("colours").or_else(|| metadata.get("colors"));
        Ok(PublicInfo {
            id: tenant.to_owned(),
            name,
            logo: logo.map(str::to_owned),
            colours: colours.filter(|value| value.is_object()).cloned(),
        })
    }
}

fn unknown(tenant: &str) -> ControlError {
    ControlError::NotFound {
        what: "tenant",
        id: tenant.to_owned(),
    }
}
