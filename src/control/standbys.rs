//! Use cases for a cluster's hot standbys.

use super::{
    Actor, ClusterView, Control, ControlError, Role,
    clusters::{locked, replica, tell},
    view::cluster_record,
};
use crate::{
    config::{cluster_url, replica_url},
    registry::{self, Changes},
    tenant::{Address, Replica},
};

impl Control {
    /// Adds a hot standby, or changes the weight and the region of one that is there. Needs an operator with the role `admin`.
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
        let wanted = replica("replica_url", url)?;
        let mut tx = self.registry.pool.begin().await?;
        let before = locked(&mut tx, name).await?;
        let mut urls = before.replica_urls.clone();
        let is_primary = cluster_url(&before.primary_url).ok().as_ref() == Some(&wanted.address);
        let known = urls.iter_mut().find(|other| is_at(other, &wanted.address));
        let kind = match known {
            _ if is_primary => return Err(is_there(url, name)),
            Some(known) if replica_url(known).ok().as_ref() == Some(&wanted) => {
                return Err(is_there(url, name));
            }
            Some(known) => {
                url.clone_into(known);
                "ReadReplicaChanged"
            }
            None => {
                urls.push(url.to_owned());
                "ReadReplicaAdded"
            }
        };
        if urls.len() > Replica::COUNT_MAX {
            return Err(ControlError::Conflict(format!(
                "cluster {name:?} has {} replicas already",
                Replica::COUNT_MAX
            )));
        }
        let after = registry::set_replicas(&mut tx, name, &urls).await?;
        let changes = Changes::between(&cluster_record(&before), &cluster_record(&after));
        tell(&mut tx, actor, kind, (name, changes)).await?;
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
        let wanted = replica("replica_url", url)?.address;
        let mut tx = self.registry.pool.begin().await?;
        let before = locked(&mut tx, name).await?;
        let mut urls = before.replica_urls.clone();
        urls.retain(|other| !is_at(other, &wanted));
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

fn is_at(url: &str, address: &Address) -> bool {
    replica_url(url).is_ok_and(|replica| replica.address == *address)
}

fn is_there(url: &str, name: &str) -> ControlError {
    ControlError::Conflict(format!("{url} is a server of cluster {name:?} already"))
}
