//! Use cases for a planned change of a cluster's primary: nothing begins there for a while.

use super::{
    Actor, ClusterView, Control, ControlError, Role,
    checks::invalid,
    clusters::{locked, one, tell},
    place::{Ground, upstream},
    view::cluster_record,
};
use crate::{
    provisioning::OpenTransactions,
    registry::{self, Changes},
};
use serde::Serialize;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

/// The shortest pause: it is waited for so long at least. And the longest.
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_mins(10);

/// How often it is looked for open transactions, and for how long there must be none: a proxy that
/// has not heard of the pause yet begins others.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
const QUIET: Duration = Duration::from_secs(1);

/// A cluster whose primary has no open transaction of a tenant, and gets none for now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Paused {
    /// The cluster.
    pub cluster: String,
    /// When it goes on by itself.
    #[serde(with = "time::serde::rfc3339::option")]
    pub paused_until: Option<OffsetDateTime>,
    /// Transactions of tenants that are open on the primary: 0.
    pub open_transactions: i64,
}

impl Control {
    /// Lets no transaction begin on a cluster's primary for this time (2 s to 10 min), and waits,
    /// for at most as long, until none of a tenant is open there. `progress` is told how many are.
    /// When some still are at the end, or the primary can't be asked, nothing is paused any more.
    /// Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`]; [`ControlError::Conflict`] when transactions are still open.
    ///
    /// # Cancel safety
    /// It is paused then, until its time is over, or it is not.
    pub async fn pause_cluster(
        &self,
        actor: &Actor,
        name: &str,
        time: Duration,
        progress: impl Fn(i64),
    ) -> Result<Paused, ControlError> {
        actor.may_operate(Role::Admin)?;
        if !(PAUSE_MIN..=PAUSE_MAX).contains(&time) {
            return Err(invalid("for", "it must be 2s to 10m"));
        }
        let end = Instant::now() + time;
        // Asked before: who can't be looked at is not paused.
        let mut primary = self.open_transactions(name).await?;
        let view = self.set_pause(actor, name, Some(time)).await?;
        let drained = self.drain(name, &mut primary, end, progress).await;
        primary.end().await;
        match drained {
            Ok(0) => Ok(Paused {
                cluster: view.name,
                paused_until: view.paused_until,
                open_transactions: 0,
            }),
            Ok(open) => {
                self.set_pause(actor, name, None).await?;
                let time = humantime::format_duration(time);
                Err(ControlError::Conflict(format!(
                    "{open} transactions of tenants are still open on the primary of cluster {name:?} after {time}: it is not paused any more"
                )))
            }
            Err(error) => {
                self.set_pause(actor, name, None).await?;
                Err(error)
            }
        }
    }

    /// Lets transactions begin again on a cluster's primary. Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`]. One that is not paused is no error.
    ///
    /// # Cancel safety
    /// It goes on then, or it does not.
    pub async fn resume_cluster(
        &self,
        actor: &Actor,
        name: &str,
    ) -> Result<ClusterView, ControlError> {
        actor.may_operate(Role::Admin)?;
        self.set_pause(actor, name, None).await
    }

    async fn set_pause(
        &self,
        actor: &Actor,
        name: &str,
        time: Option<Duration>,
    ) -> Result<ClusterView, ControlError> {
        let mut tx = self.registry.pool.begin().await?;
        let before = locked(&mut tx, name).await?;
        let after = registry::set_pause(&mut tx, name, time).await?;
        let changes = Changes::between(&cluster_record(&before), &cluster_record(&after));
        if changes.0.is_empty() {
            return Ok(ClusterView::from(&before));
        }
        tell(&mut tx, actor, "ConfigUpdated", (name, changes)).await?;
        tx.commit().await?;
        Ok(ClusterView::from(&after))
    }

    /// At the server that is the primary now, which may have been a replica.
    async fn open_transactions(&self, name: &str) -> Result<OpenTransactions, ControlError> {
        let row = {
            let mut db = self.registry.pool.acquire().await?;
            one(&mut db, name).await?
        };
        let Ground {
            admin, standbys, ..
        } = Ground::new(&row, &self.registry.keyring)?;
        let servers: Vec<_> = [admin].into_iter().chain(standbys).collect();
        let what = || format!("the primary of cluster {name:?} can't be asked");
        let found = OpenTransactions::connect(&servers).await;
        found
            .map_err(|error| upstream(what(), error.into()))?
            .ok_or_else(|| upstream(what(), "none of its servers is one".into()))
    }

    /// Waits until there were no open transactions for a while; how many there are at the end.
    async fn drain(
        &self,
        name: &str,
        primary: &mut OpenTransactions,
        end: Instant,
        progress: impl Fn(i64),
    ) -> Result<i64, ControlError> {
        let mut quiet_since = Instant::now();
        loop {
            let open = self.count_open(name, primary).await?;
            progress(open);
            let now = Instant::now();
            if open > 0 {
                quiet_since = now;
            }
            if now >= end {
                return Ok(open);
            }
            if now - quiet_since >= QUIET {
                return Ok(0);
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// Of roles that were made for tenants, and of those that tenants of the registry brought.
    async fn count_open(
        &self,
        name: &str,
        primary: &mut OpenTransactions,
    ) -> Result<i64, ControlError> {
        let roles = primary.roles().await;
        let roles = roles.map_err(|error| {
            let what = format!("the primary of cluster {name:?} can't be asked any more");
            upstream(what, error.into())
        })?;
        let (made, others): (Vec<_>, Vec<_>) = roles
            .into_iter()
            .partition(|(_, _, is_tenants)| *is_tenants);
        let mut open = made.iter().map(|(_, count, _)| count).sum();
        if !others.is_empty() {
            let names: Vec<_> = others.iter().map(|(role, _, _)| role.clone()).collect();
            let brought = {
                let mut db = self.registry.pool.acquire().await?;
                registry::tenants_roles(&mut db, name, &names).await?
            };
            let others = others.iter().filter(|(role, ..)| brought.contains(role));
            open += others.map(|(_, count, _)| count).sum::<i64>();
        }
        Ok(open)
    }
}
