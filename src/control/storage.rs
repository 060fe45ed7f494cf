//! How much storage tenants take, asked of their clusters from time to time.
//!
//! The tier database is measured by the size of its database, the tier schema by what stands in its
//! schema. The tier row is not measured: its rows are in tables that it shares, of whose values the
//! planner keeps no statistics, so that only counting would tell.

use super::{
    Actor, Control, ControlError, Role,
    place::{Cause, Ground},
};
use crate::{provisioning, registry};
use sqlx::Connection as _;
use std::{collections::BTreeMap, time::Duration};
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval_at, timeout};

/// The first half of the lock's number: the second says what for.
const LOCK: i32 = 7_202_415;

/// For a connection to the registry, and for its end.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// After the start, others have more to do.
const FIRST_PAUSE_MAX: Duration = Duration::from_mins(1);

/// Tenants that one round measures; the others are next.
const TENANTS_MAX: i64 = 10_000;

/// A tenant that is due.
#[derive(Debug, sqlx::FromRow)]
struct Due {
    id: String,
    tier: String,
    cluster: String,
    database_name: String,
    schema_name: Option<String>,
}

impl Control {
    /// Measures a tenant's storage now: the bytes, or `None` in the tier row, which is not measured.
    /// Needs an operator with the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError`]; [`ControlError::Upstream`] when its cluster can't tell.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn measure_storage(
        &self,
        actor: &Actor,
        tenant: &str,
    ) -> Result<Option<i64>, ControlError> {
        actor.may_operate(Role::Viewer)?;
        let query = sqlx::query_as::<_, Due>(
            "SELECT id, tier, cluster, database_name, schema_name FROM pgusher.tenant WHERE id = $1",
        );
        let found = query
            .bind(tenant)
            .fetch_optional(&self.registry.pool)
            .await?;
        let due = found.ok_or_else(|| ControlError::NotFound {
            what: "tenant",
            id: tenant.to_owned(),
        })?;
        let cluster = due.cluster.clone();
        let measured = self.measure(&cluster, &[due]).await?;
        Ok(measured.first().map(|(_, bytes)| *bytes))
    }

    /// Measures every tenant's storage every `pause`, for ever. Proxies that do so over the same
    /// registry do it one at a time, and each tenant is measured once in that time.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn measure_storage_every(self, pause: Duration) {
        let first = tokio::time::Instant::now() + pause.min(FIRST_PAUSE_MAX);
        let mut ticks = interval_at(first, pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.measure_alone(pause).await {
                // The directory says once that the registry does not answer.
                tracing::debug!(error = error.with_causes(), "storage could not be measured");
            }
        }
    }

    async fn measure_alone(&self, pause: Duration) -> Result<(), ControlError> {
        // The lock ends with its connection, and that with the process.
        let mut db = self.registry.connect(CONNECT_TIME_MAX).await?;
        let lock = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, 0)").bind(LOCK);
        if lock.fetch_one(&mut db).await? {
            for (cluster, due) in self.due(pause).await? {
                if let Err(error) = self.measure(&cluster, &due).await {
                    let error = error.with_causes();
                    tracing::warn!(cluster, error, "its tenants' storage can't be measured now");
                }
            }
        }
        timeout(CONNECT_TIME_MAX, db.close()).await.ok();
        Ok(())
    }

    /// Who was not measured lately, by cluster.
    async fn due(&self, pause: Duration) -> Result<BTreeMap<String, Vec<Due>>, ControlError> {
        let query = sqlx::query_as::<_, Due>(
            "SELECT id, tier, cluster, database_name, schema_name FROM pgusher.tenant t
             LEFT JOIN LATERAL (SELECT measured_at FROM pgusher.usage_storage s
                 WHERE s.tenant = t.id ORDER BY hour DESC LIMIT 1) last ON true
             WHERE status IN ('active', 'suspended') AND tier IN ('database', 'schema')
                 AND (measured_at IS NULL OR measured_at <= now() - make_interval(secs => $1))
             ORDER BY measured_at NULLS FIRST, id LIMIT $2",
        );
        // What another has done a moment ago need not be done again.
        let lately = pause.as_secs_f64() * 0.9;
        let query = query.bind(lately).bind(TENANTS_MAX);
        let mut by_cluster = BTreeMap::<_, Vec<_>>::new();
        for due in query.fetch_all(&self.registry.pool).await? {
            by_cluster.entry(due.cluster.clone()).or_default().push(due);
        }
        Ok(by_cluster)
    }

    /// Measures these tenants of one cluster, and writes what was found.
    async fn measure(
        &self,
        cluster: &str,
        due: &[Due],
    ) -> Result<Vec<(String, i64)>, ControlError> {
        let row = {
            let mut db = self.registry.pool.acquire().await?;
            registry::cluster(&mut db, cluster).await?
        };
        let row = row.ok_or_else(|| ControlError::NotFound {
            what: "cluster",
            id: cluster.to_owned(),
        })?;
        let ground = Ground::new(&row, &self.registry.keyring)?;
        let upstream = |source| ControlError::Upstream {
            what: format!("the storage of tenants of cluster {cluster:?} can't be measured"),
            source,
        };
        let (measured, failed) = ground.sizes(due).await;
        registry::write_storage(&self.registry.pool, &measured, OffsetDateTime::now_utc()).await?;
        match failed.map(upstream) {
            Some(error) if measured.is_empty() => return Err(error),
            Some(error) => {
                let error = error.with_causes();
                tracing::warn!(
                    cluster,
                    error,
                    "some tenants' storage can't be measured now"
                );
            }
            None => {}
        }
        Ok(measured)
    }
}

impl Ground {
    /// Bytes by tenant, of those that can be measured; and why others can't be, of one database.
    async fn sizes(&self, due: &[Due]) -> (Vec<(String, i64)>, Option<Cause>) {
        let mut failed = None;
        let of_tier = |tier| due.iter().filter(move |due| due.tier == tier);
        let databases: Vec<_> = of_tier("database").map(|due| &*due.database_name).collect();
        let mut measured = Vec::with_capacity(due.len());
        if !databases.is_empty() {
            match provisioning::database_sizes(&self.admin, &databases).await {
                Ok(sizes) => {
                    let sizes: BTreeMap<_, _> = sizes.into_iter().collect();
                    let found = of_tier("database")
                        .filter_map(|due| Some((due.id.clone(), *sizes.get(&due.database_name)?)));
                    measured.extend(found);
                }
                Err(error) => failed = Some(error.into()),
            }
        }
        let mut by_database = BTreeMap::<&str, Vec<(&str, &str)>>::new();
        for due in of_tier("schema") {
            if let Some(schema) = &due.schema_name {
                let there = by_database.entry(&due.database_name).or_default();
                there.push((schema, &due.id));
            }
        }
        for (database, tenants) in by_database {
            let schemas: Vec<_> = tenants.iter().map(|(schema, _)| *schema).collect();
            match provisioning::schema_sizes(&self.admin, database, &schemas).await {
                Ok(sizes) => {
                    let sizes: BTreeMap<_, _> = sizes.into_iter().collect();
                    let found = tenants
                        .iter()
                        .filter_map(|(schema, id)| Some(((*id).to_owned(), *sizes.get(*schema)?)));
                    measured.extend(found);
                }
                Err(error) => failed = Some(error.into()),
            }
        }
        (measured, failed)
    }
}
