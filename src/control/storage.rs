//! How much storage tenants take, asked of their clusters from time to time.
//!
//! The tier database is measured by the size of its database, the tier schema by what stands in its
//! schema, the tier row by its rows' part of the tables that it shares: all tenants of a database at once,
//! as only reading the tables tells.

use super::{
    Actor, Control, ControlError, Role, fullness,
    place::{Cause, Ground},
};
use crate::{
    provisioning,
    registry::{self, Measured},
};
use sqlx::Connection as _;
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

/// The first half of the lock's number: the second says what for.
const LOCK: i32 = 7_202_415;

/// For a connection to the registry, and for its end.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// After the start, others have more to do.
const FIRST_PAUSE_MAX: Duration = Duration::from_mins(1);

/// How often a tenant that is full is measured, as it may free space: or more often.
const FULL_PAUSE_MAX: Duration = Duration::from_secs(30);

/// A database whose tables are read takes at most this part of the time: one twentieth.
const READ_SHARE: u32 = 20;

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
    token: String,
}

/// When shared databases, by cluster and name, may be read again.
type Rests = HashMap<(String, String), Instant>;

impl Control {
    /// Measures a tenant's storage now: the bytes, or `None` where that can't be told (in the tier row,
    /// outside of databases that pgusher has prepared). Needs an operator with the role `viewer`.
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
            "SELECT id, tier, cluster, database_name, schema_name, token
             FROM pgusher.tenant WHERE id = $1",
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
        let measured = self
            .measure(actor, &cluster, vec![due], &mut Rests::new())
            .await?;
        let own = measured.iter().find(|one| one.tenant == tenant);
        Ok(own.map(|one| one.bytes))
    }

    /// Measures every tenant's storage every `pause`, and that of a tenant that is full every 30 s, for
    /// ever. Proxies that do so over the same registry do it one at a time, and each tenant is measured
    /// once in that time.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn measure_storage_every(self, pause: Duration) {
        let mut next_round = Instant::now() + pause.min(FIRST_PAUSE_MAX);
        let mut ticks = interval_at(next_round, pause.min(FULL_PAUSE_MAX));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rests = Rests::new();
        loop {
            let now = ticks.tick().await;
            let is_round = now >= next_round;
            if is_round {
                next_round = now + pause;
            }
            if let Err(error) = self.measure_alone(pause, is_round, &mut rests).await {
                // The directory says once that the registry does not answer.
                tracing::debug!(error = error.with_causes(), "storage could not be measured");
            }
        }
    }

    async fn measure_alone(
        &self,
        pause: Duration,
        is_round: bool,
        rests: &mut Rests,
    ) -> Result<(), ControlError> {
        // The lock ends with its connection, and that with the process.
        let mut db = self.registry.connect(CONNECT_TIME_MAX).await?;
        let lock = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, 0)").bind(LOCK);
        if lock.fetch_one(&mut db).await? {
            rests.retain(|_, until| *until > Instant::now());
            for (cluster, due) in self.due(pause, is_round).await? {
                let actor = Actor::system();
                if let Err(error) = self.measure(&actor, &cluster, due, rests).await {
                    let error = error.with_causes();
                    tracing::warn!(cluster, error, "its tenants' storage can't be measured now");
                }
            }
        }
        timeout(CONNECT_TIME_MAX, db.close()).await.ok();
        Ok(())
    }

    /// Who was not measured lately, by cluster: of all in a round, else of those that are full, or whose plan
    /// has changed.
    async fn due(
        &self,
        pause: Duration,
        is_round: bool,
    ) -> Result<BTreeMap<String, Vec<Due>>, ControlError> {
        let query = sqlx::query_as::<_, Due>(
            "SELECT id, tier, cluster, database_name, schema_name, token FROM pgusher.tenant t
             LEFT JOIN pgusher.storage s ON s.tenant = t.id
             WHERE status IN ('active', 'suspended')
                 AND ($3 AND (measured_at IS NULL
                         OR measured_at <= now() - make_interval(secs => $1))
                     OR fullness = 3 AND measured_at <= now() - make_interval(secs => $2)
                     OR measured_at < (SELECT p.updated_at FROM pgusher.plan p
                                       WHERE p.name = t.plan))
             ORDER BY measured_at NULLS FIRST, id LIMIT $4",
        );
        // What another has done a moment ago need not be done again.
        let lately = |pause: Duration| pause.as_secs_f64() * 0.9;
        let query = query
            .bind(lately(pause))
            .bind(lately(pause.min(FULL_PAUSE_MAX)))
            .bind(is_round)
            .bind(TENANTS_MAX);
        let mut by_cluster = BTreeMap::<_, Vec<_>>::new();
        for due in query.fetch_all(&self.registry.pool).await? {
            by_cluster.entry(due.cluster.clone()).or_default().push(due);
        }
        Ok(by_cluster)
    }

    /// Measures these tenants of one cluster, and whom else that tells of, and writes what was found.
    async fn measure(
        &self,
        actor: &Actor,
        cluster: &str,
        mut due: Vec<Due>,
        rests: &mut Rests,
    ) -> Result<Vec<Measured>, ControlError> {
        let (row, plans) = {
            let mut db = self.registry.pool.acquire().await?;
            let plans = self.plans_in_force(&mut db).await?;
            (registry::cluster(&mut db, cluster).await?, plans)
        };
        let row = row.ok_or_else(|| ControlError::NotFound {
            what: "cluster",
            id: cluster.to_owned(),
        })?;
        due.retain(|due| {
            due.tier != "row"
                || !rests.contains_key(&(due.cluster.clone(), due.database_name.clone()))
        });
        self.add_neighbours(cluster, &mut due).await?;
        let ground = Ground::new(&row, &self.registry.keyring)?;
        let upstream = |source| ControlError::Upstream {
            what: format!("the storage of tenants of cluster {cluster:?} can't be measured"),
            source,
        };
        let mut sizes = Sizes::default();
        ground.database_sizes(&due, &mut sizes).await;
        ground.schema_sizes(&due, &mut sizes).await;
        ground.row_sizes(&due, &mut sizes, rests).await;
        let Sizes { measured, failed } = sizes;
        fullness::write((&self.registry.pool, &plans), actor, &measured).await?;
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

    /// Adds all tenants of the shared databases whose tables are to be read.
    async fn add_neighbours(&self, cluster: &str, due: &mut Vec<Due>) -> Result<(), ControlError> {
        let of_rows = due.iter().filter(|due| due.tier == "row");
        let databases: Vec<_> = of_rows.map(|due| due.database_name.clone()).collect();
        if databases.is_empty() {
            return Ok(());
        }
        let query = sqlx::query_as::<_, Due>(
            "SELECT id, tier, cluster, database_name, schema_name, token FROM pgusher.tenant
             WHERE cluster = $1 AND tier = 'row' AND database_name = ANY ($2)
                 AND status IN ('active', 'suspended')",
        );
        let query = query.bind(cluster).bind(databases);
        due.retain(|due| due.tier != "row");
        due.extend(query.fetch_all(&self.registry.pool).await?);
        Ok(())
    }
}

/// What was measured, and why something was not.
#[derive(Default)]
struct Sizes {
    measured: Vec<Measured>,
    failed: Option<Cause>,
}

impl Sizes {
    fn add(&mut self, tenant: &str, bytes: i64, rows: Option<i64>) {
        self.measured.push(Measured {
            tenant: tenant.to_owned(),
            bytes,
            rows,
        });
    }
}

fn of_tier<'a>(due: &'a [Due], tier: &'a str) -> impl Iterator<Item = &'a Due> {
    due.iter().filter(move |due| due.tier == tier)
}

fn by_database<'a>(due: impl Iterator<Item = &'a Due>) -> BTreeMap<&'a str, Vec<&'a Due>> {
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for due in due {
        all.entry(&*due.database_name).or_default().push(due);
    }
    all
}

impl Ground {
    async fn database_sizes(&self, due: &[Due], sizes: &mut Sizes) {
        let tenants: Vec<_> = of_tier(due, "database").collect();
        if tenants.is_empty() {
            return;
        }
        let names: Vec<_> = tenants.iter().map(|due| &*due.database_name).collect();
        match provisioning::database_sizes(&self.admin, &names).await {
            Ok(found) => {
                let found: BTreeMap<_, _> = found.into_iter().collect();
                for due in tenants {
                    if let Some(bytes) = found.get(&due.database_name) {
                        sizes.add(&due.id, *bytes, None);
                    }
                }
            }
            Err(error) => sizes.failed = Some(error.into()),
        }
    }

    async fn schema_sizes(&self, due: &[Due], sizes: &mut Sizes) {
        for (database, tenants) in by_database(of_tier(due, "schema")) {
            let schemas: Vec<_> = tenants
                .iter()
                .filter_map(|due| due.schema_name.as_deref())
                .collect();
            match provisioning::schema_sizes(&self.admin, database, &schemas).await {
                Ok(found) => {
                    let found: BTreeMap<_, _> = found.into_iter().collect();
                    for due in tenants {
                        let bytes = due.schema_name.as_ref().and_then(|name| found.get(name));
                        if let Some(bytes) = bytes {
                            sizes.add(&due.id, *bytes, None);
                        }
                    }
                }
                Err(error) => sizes.failed = Some(error.into()),
            }
        }
    }

    async fn row_sizes(&self, due: &[Due], sizes: &mut Sizes, rests: &mut Rests) {
        for (database, tenants) in by_database(of_tier(due, "row")) {
            let began = Instant::now();
            let shares =
                provisioning::row_sizes(&self.admin, database, provisioning::SAMPLE_BYTES).await;
            let rest = began.elapsed() * READ_SHARE;
            rests.insert(
                (self.name.clone(), database.to_owned()),
                Instant::now() + rest,
            );
            match shares {
                // Not a database that pgusher has prepared.
                Ok(shares) if shares.is_empty() => {}
                Ok(shares) => {
                    for due in tenants {
                        let share = shares.get(&due.token).copied().unwrap_or_default();
                        let signed = |count| i64::try_from(count).unwrap_or(i64::MAX);
                        sizes.add(&due.id, signed(share.bytes), Some(signed(share.rows)));
                    }
                }
                // A table is locked, or was dropped meanwhile: what was measured before stays.
                Err(error) if matches!(error.code(), Some("55P03" | "42P01")) => {
                    tracing::debug!(database, %error, "its tables could not be measured now");
                }
                Err(error) => sizes.failed = Some(error.into()),
            }
        }
    }
}
