//! Telling where a cluster's servers are now.

use super::{Actor, ClusterView, Control, ControlError, Role, clusters, view::cluster_record};
use crate::registry::{self, Changes};

impl Control {
    /// Changes the addresses of a cluster: its servers have moved, the data has not. Open server
    /// connections stay until their transactions end. Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// It is changed then, or it is not.
    pub async fn move_cluster(
        &self,
        actor: &Actor,
        name: &str,
        (primary_url, replica_urls): (&str, &[String]),
    ) -> Result<ClusterView, ControlError> {
        actor.may_operate(Role::Admin)?;
        clusters::check_servers(primary_url, replica_urls)?;
        let mut tx = self.registry.pool.begin().await?;
        let before = clusters::one(&mut tx, name).await?;
        let after = registry::set_addresses(&mut tx, name, (primary_url, replica_urls)).await?;
        let changes = Changes::between(&cluster_record(&before), &cluster_record(&after));
        if !changes.0.is_empty() {
            clusters::tell(&mut tx, actor, "ConfigUpdated", (name, changes)).await?;
        }
        tx.commit().await?;
        Ok(ClusterView::from(&after))
    }
}
