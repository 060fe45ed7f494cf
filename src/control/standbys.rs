//! Use cases for a cluster's hot standbys.

use super::{
    Actor, ClusterView, Control, ControlError, Role,
    clusters::{REPLICAS_MAX, check_url, locked, parsed, tell},
    view::cluster_record,
};
use crate::{
    config::cluster_url,
    registry::{self, Changes},
};

impl Control {
    /// Adds a hot standby. Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// It is added then, or it is not.
    pub async fn add_replica(
        &self,
        actor: &Actor,
        name: &str,
        url: &str,
    ) -> Result<ClusterView, ControlError> {
        actor.may_operate(Role::Admin)?;
        check_url("replica_url", url)?;
        let mut tx = self.registry.pool.begin().await?;
        let before = locked(&mut tx, name).await?;
        if before.replica_urls.iter().any(|other| other == url) || before.primary_url == url {
            return Err(ControlError::Conflict(format!(
                "{url} is a server of cluster {name:?} already"
            )));
        }
        let mut urls = before.replica_urls.clone();
        urls.push(url.to_owned());
        if urls.len() > REPLICAS_MAX {
            return Err(ControlError::Conflict(format!(
                "cluster {name:?} has {REPLICAS_MAX} replicas already"
            )));
        }
        let after = registry::set_replicas(&mut tx, name, &urls).await?;
        let changes = Changes::between(&cluster_record(&before), &cluster_record(&after));
        tell(&mut tx, actor, "ReadReplicaAdded", (name, changes)).await?;
        tx.commit().await?;
        Ok(ClusterView::from(&after))
    }

    /// Forgets a hot standby, whether it answers or not. Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// It is removed then, or it is not.
    pub async fn remove_replica(
        &self,
        actor: &Actor,
        name: &str,
        url: &str,
    ) -> Result<ClusterView, ControlError> {
        actor.may_operate(Role::Admin)?;
        let wanted = parsed("replica_url", url)?;
        let mut tx = self.registry.pool.begin().await?;
        let before = locked(&mut tx, name).await?;
        let mut urls = before.replica_urls.clone();
        urls.retain(|other| cluster_url(other).ok().as_ref() != Some(&wanted));
        if urls.len() == before.replica_urls.len() {
            let has = match urls.as_slice() {
                [] => "it has none".to_owned(),
                urls => format!("it has {}", urls.join(", ")),
            };
            let told = format!("{url} is no replica of cluster {name:?}: {has}");
            return Err(ControlError::Conflict(told));
        }
        let after = registry::set_replicas(&mut tx, name, &urls).await?;
        let changes = Changes::between(&cluster_record(&before), &cluster_record(&after));
        tell(&mut tx, actor, "ReadReplicaRemoved", (name, changes)).await?;
        tx.commit().await?;
        Ok(ClusterView::from(&after))
    }
}
