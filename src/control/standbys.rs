//! Use cases for a cluster's hot standbys, and how they are used.

use super::{
    Actor, ClusterView, Control, ControlError, Patch, Role, TenantChange,
    change::{TIME_MAX, given, number},
    checks::invalid,
    clusters::{locked, replica, tell},
    view::cluster_record,
};
use crate::{
    config::{cluster_url, replica_url},
    registry::{self, Changes, ClusterRow},
    tenant::{Address, Replica, Standbys},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A change of how a cluster's servers are used: absent fields stay, `null` is the default. Times
/// are milliseconds; a limit of 0 is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "a field is named as in proxy.toml")]
pub struct StandbysChange {
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub primary_weight: Patch<i32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub replica_lag_max: Patch<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub replica_lag_bytes_max: Patch<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub replica_fallback: Patch<bool>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub replica_slow_start: Patch<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub watch_interval: Patch<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub watch_timeout: Patch<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub max_running_statements: Patch<i32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub adaptive_running_statements: Patch<bool>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub min_running_statements: Patch<i32>,
}

impl StandbysChange {
    fn check(&self) -> Result<(), ControlError> {
        let weight_max = i32::try_from(Standbys::PRIMARY_WEIGHT_MAX).unwrap_or(i32::MAX);
        number("primary_weight", self.primary_weight, &(0..=weight_max))?;
        number(
            "replica_lag_bytes_max",
            self.replica_lag_bytes_max,
            &(0..=i64::MAX),
        )?;
        for (field, value) in [
            ("replica_lag_max", self.replica_lag_max),
            ("replica_slow_start", self.replica_slow_start),
        ] {
            number(field, value, &(0..=TIME_MAX))?;
        }
        let [min, max] = [Standbys::WATCH_MIN, Standbys::WATCH_MAX]
            .map(|time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
        number("watch_interval", self.watch_interval, &(min..=max))?;
        number("watch_timeout", self.watch_timeout, &(min..=max))?;
        let running = self.max_running_statements;
        number("max_running_statements", running, &(0..=100_000))?;
        let at_least = self.min_running_statements;
        number("min_running_statements", at_least, &(1..=100_000))
    }

    /// The columns that it names.
    fn columns(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        }
    }
}

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

    /// Changes how a cluster's servers are used. Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// It is changed then, or it is not.
    pub async fn set_standbys(
        &self,
        actor: &Actor,
        name: &str,
        change: StandbysChange,
    ) -> Result<ClusterView, ControlError> {
        actor.may_operate(Role::Admin)?;
        change.check()?;
        let mut tx = self.registry.pool.begin().await?;
        let before = locked(&mut tx, name).await?;
        let after = registry::change_standbys(&mut tx, name, change.columns()).await?;
        if let (Some(least), Some(most)) =
            (after.min_running_statements, after.max_running_statements)
            && most > 0
        {
            number("min_running_statements", Some(Some(least)), &(1..=most))?;
        }
        let changes = Changes::between(&cluster_record(&before), &cluster_record(&after));
        if changes.0.is_empty() {
            return Ok(ClusterView::from(&before));
        }
        tell(&mut tx, actor, "ConfigUpdated", (name, changes)).await?;
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

/// That the replicas a tenant is to read from are some of its cluster's.
pub(super) fn check_read_replicas(
    change: &TenantChange,
    cluster: &ClusterRow,
) -> Result<(), ControlError> {
    let field = "read_replicas";
    let Some(Some(urls)) = &change.read_replicas else {
        return Ok(());
    };
    if urls.is_empty() {
        let way = "name some of the cluster's replicas; read_splitting false keeps all reads on the primary";
        return Err(invalid(field, way));
    }
    let mut seen = Vec::with_capacity(urls.len().min(Replica::COUNT_MAX));
    for url in urls {
        let Replica { address, .. } = replica(field, url)?;
        let known = &cluster.replica_urls;
        if !known.iter().any(|known| is_at(known, &address)) {
            let has = match known.as_slice() {
                [] => "it has none".to_owned(),
                known => format!("it has {}", known.join(", ")),
            };
            let name = &cluster.name;
            let problem = format!("{url} is no replica of cluster {name:?}: {has}");
            return Err(invalid(field, problem));
        }
        if seen.contains(&address) {
            return Err(invalid(field, format!("{address} is given twice")));
        }
        seen.push(address);
    }
    Ok(())
}

fn is_at(url: &str, address: &Address) -> bool {
    replica_url(url).is_ok_and(|replica| replica.address == *address)
}

fn is_there(url: &str, name: &str) -> ControlError {
    ControlError::Conflict(format!("{url} is a server of cluster {name:?} already"))
}
