//! Watches the locks of all clusters, so that no tenant can hold up the others, and ends what goes on
//! behind a connection that is closed, so that none can have more of them than its pool.

use super::{
    Actor, Control, ControlError,
    place::{Ground, upstream},
};
use crate::{
    provisioning::{LockWatch, ProvisioningError, Trespass},
    registry::{self, Changes, ClusterRow, NewEvent},
    tenant::{Address, ClusterName, TenantId},
};
use serde_json::json;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

/// How often it is looked whether closed connections' processes are gone.
const CLOSED_INTERVAL: Duration = Duration::from_secs(1);

/// How often clusters that are new or have changed are looked for, and databases that are new.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

/// The pause before a cluster that failed is connected to again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A look that takes longer has lost its connection.
const LOOK_TIME_MAX: Duration = Duration::from_secs(10);

/// An event may wait so long for the registry.
const EVENT_TIME_MAX: Duration = Duration::from_secs(5);

/// At most one event of a tenant within this time, and so many tenants.
const EVENT_PAUSE: Duration = Duration::from_mins(1);
const TENANTS_MAX: u64 = 10_000;

/// What of the data plane the watch needs.
pub trait Officer: Send + Sync {
    /// Whether a process of a cluster is a tenant's server.
    fn is_tenants(&self, server: &Server, pid: u32) -> bool;

    /// Processes whose connections were closed, with how long ago.
    fn closed(&self, cluster: &ClusterName) -> Vec<(u32, Duration)>;

    /// Stops what a session runs and has it end; what is to be done is done in the background. Whose
    /// it was, if that is known.
    fn stop(&self, server: &Server, pid: u32) -> Option<TenantId>;
}

/// A cluster's primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The cluster.
    pub cluster: ClusterName,
    /// Where it listens.
    pub address: Address,
}

#[derive(Clone)]
struct Watch {
    control: Control,
    pause: Duration,
    officer: Arc<dyn Officer>,
    told: moka::sync::Cache<TenantId, ()>,
}

impl Control {
    /// Looks at the locks of each cluster every `pause`, for ever. Who holds up others is ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn watch_locks(self, pause: Duration, officer: Arc<dyn Officer>) {
        let watch = Watch {
            control: self,
            pause,
            officer,
            told: moka::sync::Cache::builder()
                .max_capacity(TENANTS_MAX)
                .time_to_live(EVENT_PAUSE)
                .build(),
        };
        let mut tasks = JoinSet::new();
        let mut watched = HashMap::new();
        loop {
            // While the registry does not answer, those that are known are watched.
            if let Ok(rows) = watch.clusters().await {
                watch.follow(rows, &mut tasks, &mut watched);
            }
            sleep(REFRESH_INTERVAL).await;
        }
    }
}

/// The databases that tenants share.
fn shared(row: &ClusterRow) -> [&str; 2] {
    [&row.schema_database, &row.row_database]
}

type Watched = HashMap<String, (i64, tokio::task::AbortHandle)>;

impl Watch {
    async fn clusters(&self) -> Result<Vec<ClusterRow>, ControlError> {
        let mut db = self.control.registry.pool.acquire().await?;
        Ok(registry::clusters(&mut db).await?)
    }

    /// Starts to watch what is new or has changed, and leaves what is gone.
    fn follow(&self, rows: Vec<ClusterRow>, tasks: &mut JoinSet<()>, watched: &mut Watched) {
        watched.retain(|name, (generation, task)| {
            let stays = rows
                .iter()
                .any(|row| row.name == *name && row.generation == *generation);
            if !stays {
                task.abort();
            }
            stays
        });
        while tasks.try_join_next().is_some() {}
        for row in rows {
            if !watched.contains_key(&row.name) {
                let place = (row.name.clone(), row.generation);
                let task = tasks.spawn(self.clone().one(row));
                watched.insert(place.0, (place.1, task));
            }
        }
    }

    /// Watches one cluster, for ever.
    async fn one(self, row: ClusterRow) {
        let mut is_told = false;
        loop {
            match self.connect(&row).await {
                Ok((mut locks, server)) => {
                    is_told = false;
                    let ended = self.look_on(&mut locks, &server, &row).await;
                    tracing::debug!(cluster = row.name, error = ended, "locks are watched anew");
                }
                Err(error) if !is_told => {
                    is_told = true;
                    let error = error.with_causes();
                    tracing::warn!(cluster = row.name, error, "its locks can't be watched now");
                }
                Err(_) => {}
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn connect(&self, row: &ClusterRow) -> Result<(LockWatch, Server), ControlError> {
        let failed = |cause| upstream(format!("the admin of cluster {:?}", row.name), cause);
        let cluster = ClusterName::new(&row.name).map_err(|error| failed(error.into()))?;
        // Its password may be sealed with a master key that is not known here yet.
        let ground = Ground::new(row, &self.control.registry.keyring)?;
        let locks = LockWatch::connect(&ground.admin, &shared(row)).await;
        let locks = locks.map_err(|error| failed(error.into()))?;
        let address = ground.admin.address;
        Ok((locks, Server { cluster, address }))
    }

    /// Looks until the connection is lost; why it is.
    async fn look_on(&self, locks: &mut LockWatch, server: &Server, row: &ClusterRow) -> String {
        let mut ticks = interval(self.pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut refreshed, mut reaped) = (Instant::now(), Instant::now());
        loop {
            ticks.tick().await;
            let round = async {
                let is_ours = |pid| self.officer.is_tenants(server, pid);
                let found = locks.look(is_ours).await?;
                self.stop(locks, server, &found).await?;
                if found.is_empty() && reaped.elapsed() > CLOSED_INTERVAL {
                    reaped = Instant::now();
                    let found = locks.in_the_way(is_ours).await?;
                    self.stop(locks, server, &found).await?;
                    self.end_closed(locks, server).await?;
                }
                if found.is_empty() && refreshed.elapsed() > REFRESH_INTERVAL {
                    refreshed = Instant::now();
                    locks.refresh(&shared(row)).await?;
                }
                Ok::<_, ProvisioningError>(())
            };
            match timeout(LOOK_TIME_MAX, round).await {
                Ok(Ok(())) => {}
                // PostgreSQL ended what took too long: the next look goes on.
                Ok(Err(error)) if error.code() == Some("57014") => {}
                Ok(Err(error)) => return error.to_string(),
                Err(_elapsed) => return "no answer".to_owned(),
            }
        }
    }

    async fn end_closed(
        &self,
        locks: &mut LockWatch,
        server: &Server,
    ) -> Result<(), ProvisioningError> {
        let closed = self.officer.closed(&server.cluster);
        if closed.is_empty() {
            return Ok(());
        }
        let cluster = server.cluster.as_str();
        match locks.end_closed(&closed).await {
            Ok(0) => Ok(()),
            Ok(count) => {
                tracing::warn!(
                    cluster,
                    count,
                    "statements that ignored their cancel are ended"
                );
                Ok(())
            }
            Err(error) if error.code() == Some("42501") => {
                tracing::debug!(cluster, %error, "what goes on behind closed connections can't be ended");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Ends sessions: what they run is cancelled by the data plane, which needs no lock for that, and
    /// then PostgreSQL ends them.
    async fn stop(
        &self,
        locks: &mut LockWatch,
        server: &Server,
        found: &[Trespass],
    ) -> Result<(), ProvisioningError> {
        for trespass in found {
            let tenant = self.officer.stop(server, trespass.pid);
            metrics::counter!("pgusher_lock_trespasses_total").increment(1);
            let (cluster, pid) = (server.cluster.as_str(), trespass.pid);
            let (lock, whose) = (&trespass.lock, tenant.as_ref().map(TenantId::as_str));
            tracing::warn!(
                cluster,
                tenant = whose,
                pid,
                lock,
                "a session that holds up other tenants is ended"
            );
            if let Some(tenant) = tenant.filter(|tenant| !self.told.contains_key(tenant)) {
                self.told.insert(tenant.clone(), ());
                tokio::spawn(self.clone().record(tenant, trespass.lock.clone()));
            }
        }
        for trespass in found {
            match locks.end(trespass).await {
                // It may not, or has to wait itself: then what is cancelled is all, and it is looked at
                // again.
                Err(error) if matches!(error.code(), Some("42501" | "57014")) => {
                    let (cluster, pid) = (server.cluster.as_str(), trespass.pid);
                    tracing::debug!(cluster, pid, %error, "it is cancelled, but not ended");
                }
                ended => ended?,
            }
        }
        Ok(())
    }

    /// Tells the tenant's history.
    async fn record(self, tenant: TenantId, lock: String) {
        let actor = Actor::system();
        let written = async {
            let mut tx = self.control.registry.pool.begin().await?;
            // One of the configuration file has no history.
            if registry::tenant(&mut tx, tenant.as_str()).await?.is_none() {
                return Ok(());
            }
            let event = NewEvent {
                tenant: Some(tenant.as_str()),
                kind: "ResourceLimitExceeded",
                actor: &actor.name,
                address: &actor.address,
                changes: Changes::default(),
                facts: json!({ "resource": "locks of others", "lock": lock }),
            };
            registry::append(&mut tx, event).await?;
            tx.commit().await?;
            Ok::<_, ControlError>(())
        };
        match timeout(EVENT_TIME_MAX, written).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error = error.with_causes();
                tracing::debug!(error, "a trespass is not in the tenant's history");
            }
            Err(_elapsed) => {
                tracing::debug!("a trespass is not in the tenant's history: no answer");
            }
        }
    }
}
