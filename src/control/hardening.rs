//! Use cases for what a cluster shows to tenants: hardened, hardened another way, attacked.

use super::{
    Actor, ClusterView, Control, ControlError, Role,
    clusters::{check_profile, harden, locked, tell},
    place::{Ground, holes_value, upstream},
    view::cluster_record,
};
use crate::{
    provisioning::Report,
    registry::{self, Changes},
};
use serde_json::Value;

impl Control {
    /// Hardens a cluster again with all databases that tenants have or share there, after an upgrade
    /// for example. Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// Can be done again.
    pub async fn harden_cluster(
        &self,
        actor: &Actor,
        name: &str,
    ) -> Result<ClusterView, ControlError> {
        actor.may_operate(Role::Admin)?;
        let before = self.cluster_row(name).await?;
        let ground = Ground::new(&before, &self.registry.keyring)?;
        ground.probe().await?;
        let holes = harden(&ground).await?;
        let databases = ground.harden_databases().await;
        let databases = databases.map_err(|cause| {
            let what = format!("not all databases of cluster {name:?} could be hardened");
            upstream(what, cause)
        })?;
        let mut tx = self.registry.pool.begin().await?;
        let after = registry::set_cluster_holes(&mut tx, name, holes).await?;
        let changes = Changes::between(&cluster_record(&before), &cluster_record(&after));
        tell(&mut tx, actor, "ClusterHardened", (name, changes)).await?;
        tx.commit().await?;
        for (database, holes) in &databases {
            self.note_holes_of(actor, (name, database), holes_value(holes))
                .await?;
        }
        Ok(ClusterView::from(&after))
    }

    /// Writes down what is open for the tenants of a database.
    async fn note_holes_of(
        &self,
        actor: &Actor,
        place: (&str, &str),
        holes: Value,
    ) -> Result<(), ControlError> {
        let mut db = self.registry.pool.acquire().await?;
        let tenants = registry::tenants_with_other_holes(&mut db, place, &holes).await?;
        drop(db);
        for id in tenants {
            let found = ("harden", holes.clone());
            match self.note_holes(actor, &id, found).await {
                // It has gone meanwhile.
                Err(ControlError::NotFound { .. }) => {}
                noted => noted?,
            }
        }
        Ok(())
    }

    /// Changes how a cluster is hardened, and hardens all of it that way. The record comes first:
    /// what is made meanwhile is hardened that way, too. Done again, it goes on. Needs an operator
    /// with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`]; where the message says so, the record has changed and not all of the
    /// cluster.
    ///
    /// # Cancel safety
    /// Can be done again.
    pub async fn set_profile(
        &self,
        actor: &Actor,
        name: &str,
        profile: &str,
    ) -> Result<ClusterView, ControlError> {
        actor.may_operate(Role::Admin)?;
        check_profile(profile)?;
        let row = self.cluster_row(name).await?;
        Ground::new(&row, &self.registry.keyring)?.probe().await?;
        let mut tx = self.registry.pool.begin().await?;
        let before = locked(&mut tx, name).await?;
        let after = registry::set_cluster_profile(&mut tx, name, profile).await?;
        let changes = Changes::between(&cluster_record(&before), &cluster_record(&after));
        if !changes.0.is_empty() {
            tell(&mut tx, actor, "ConfigUpdated", (name, changes)).await?;
        }
        tx.commit().await?;
        self.harden_cluster(actor, name).await.map_err(|error| {
            let what = format!(
                "cluster {name:?} has the profile {profile:?} in the registry, but not all of it is hardened that way; go on: pgusher cluster harden {name}"
            );
            upstream(what, error.into())
        })
    }

    /// Attacks a cluster as a tenant would, and reports what held. Needs an operator with the role
    /// `viewer`.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// Canaries may be left; the next run removes them.
    pub async fn verify_cluster(&self, actor: &Actor, name: &str) -> Result<Report, ControlError> {
        actor.may_operate(Role::Viewer)?;
        let row = self.cluster_row(name).await?;
        let ground = Ground::new(&row, &self.registry.keyring)?;
        ground.probe().await?;
        let report = ground.verify().await;
        report.map_err(|cause| upstream(format!("cluster {name:?} could not be verified"), cause))
    }
}
