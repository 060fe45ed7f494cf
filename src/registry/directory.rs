//! The registry's tenants, for the data plane.
//!
//! Every look-up is answered from memory as long as the registry tells of changes: it is asked
//! when a tenant is met for the first time after a change, once for all who wait. Who is served at
//! all is known as rows; the ones in use also as [`Tenant`]s.

use super::{
    ClusterRow, Registry, RegistryError,
    changed::{Changed, Gathered},
    changes, cluster_of,
    freshness::{Freshness, Moment},
    known::Known,
    link::{Link, chain},
    load::{self, Rows},
    pauses,
    plans::{self, InForce},
    snapshot, tenant_in_slots, watch_of,
};
use crate::{
    config,
    crypto::Keyring,
    tenant::{Cluster, ClusterName, Directory, DirectoryError, Lookup, Plans, Tenant, TenantId},
};
use arc_swap::ArcSwap;
use moka::sync::Cache;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use time::OffsetDateTime;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Tenants in use, some 3 kB each.
const PRESENT_MAX: u64 = 20_000;

/// Names that are known to be no served tenant's, and for how long they are remembered.
const ABSENT_MAX: u64 = 10_000;
const ABSENT_TIME: Duration = Duration::from_secs(30);

/// How long the registry may take for one tenant.
const LOAD_TIME_MAX: Duration = Duration::from_secs(5);

/// Tenants that are being looked up at the same time; for one more the answer is: try again.
const FLIGHTS_MAX: usize = 2000;

/// A tenant that changes faster than it is read: look-ups in a row.
const TRIES_MAX: usize = 10;

/// Names that nobody has, as far as is known, and that are asked for all the same: per second.
const STRANGERS_PER_SECOND: u32 = 50;

/// A look-up's end: what was found, and when it began.
type Found = Result<(Option<Arc<Tenant>>, Moment), Arc<RegistryError>>;

/// A look-up that many wait for.
type Flight = watch::Receiver<Option<Found>>;

#[derive(Clone)]
struct Present {
    tenant: Arc<Tenant>,
    /// It was made with these.
    plans: Arc<Plans>,
    began: Moment,
}

/// A name that is no served tenant's.
#[derive(Clone, Copy)]
struct Absent {
    began: Moment,
    /// It is being made: who has its key may be here before we are told that it is ready.
    is_coming: bool,
}

/// The tenants and clusters of the registry. Cheap to clone.
#[derive(Clone)]
pub struct RegistryDirectory(Arc<Inner>);

/// What the directory and its tasks share.
pub(super) struct Inner {
    pub(super) registry: Registry,
    pub(super) freshness: Freshness,
    pub(super) known: Known,
    pub(super) link: Link,
    pub(super) gathered: Gathered,
    /// Something changed that the file on disk has not.
    pub(super) is_dirty: Notify,
    pub(super) snapshot: Option<PathBuf>,
    pub(super) stale_max: Duration,
    present: Cache<Box<str>, Present>,
    absent: Cache<Box<str>, Absent>,
    clusters: ArcSwap<Clusters>,
    flights: Mutex<HashMap<Box<str>, Flight>>,
    strangers: Mutex<(Instant, u32)>,
    /// The plans of the tenants.
    plans: InForce,
    /// Where this proxy stands.
    region: Mutex<Option<Box<str>>>,
    generation: watch::Sender<u64>,
    /// Clusters were taken over: others may be paused.
    pub(super) has_pauses: Notify,
    /// Where look-ups run: not on the threads of those who ask.
    runtime: Handle,
}

#[derive(Default)]
struct Clusters {
    rows: Vec<ClusterRow>,
    by_name: HashMap<ClusterName, Arc<Cluster>>,
}

impl RegistryDirectory {
    /// Begins to follow the registry, in tasks of the current runtime, until `end`. It waits until
    /// the registry has answered or, after 3 s, the snapshot is read, so that who asks then is
    /// served.
    ///
    /// # Errors
    /// [`RegistryError::Url`]. A registry that does not answer is no error.
    ///
    /// # Cancel safety
    /// Cancel safe; cancel `end` then.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(
        config: &config::Registry,
        registry: Registry,
        end: &CancellationToken,
    ) -> Result<Self, RegistryError> {
        let options = super::options(config)?;
        let inner = Arc::new(Inner {
            registry,
            freshness: Freshness::new(),
            known: Known::default(),
            link: Link::default(),
            gathered: Gathered::default(),
            is_dirty: Notify::new(),
            snapshot: config.snapshot.clone(),
            stale_max: config.stale_max,
            present: Cache::new(PRESENT_MAX),
            absent: Cache::builder()
                .max_capacity(ABSENT_MAX)
                .time_to_live(ABSENT_TIME)
                .build(),
            clusters: ArcSwap::default(),
            flights: Mutex::default(),
            strangers: Mutex::new((Instant::now(), 0)),
            plans: InForce::default(),
            region: Mutex::default(),
            generation: watch::Sender::new(0),
            has_pauses: Notify::new(),
            runtime: Handle::current(),
        });
        let (ready, mut is_ready) = watch::channel(false);
        let follow = changes::follow(Arc::clone(&inner), options, ready);
        tokio::spawn(end.clone().run_until_cancelled_owned(follow));
        let write = changes::write_snapshots(Arc::clone(&inner));
        tokio::spawn(end.clone().run_until_cancelled_owned(write));
        let end_pauses = pauses::end(Arc::clone(&inner));
        tokio::spawn(end.clone().run_until_cancelled_owned(end_pauses));
        drop(is_ready.wait_for(|is_ready| *is_ready).await);
        Ok(Self(inner))
    }

    /// Waits for changes of tenants and clusters.
    ///
    /// # Cancel safety
    /// Cancel safe: what is not returned is returned the next time.
    pub async fn changed(&self) -> Changed {
        self.0.gathered.next().await
    }

    /// The system of record behind it.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Whether the registry has a tenant of this name, as far as is known; it is not asked.
    pub fn knows(&self, id: &str) -> bool {
        self.0.known.contains(id)
    }

    /// Tenants that are served, as far as is known.
    pub fn count(&self) -> usize {
        self.0.known.count()
    }

    /// Opens secrets with these master keys from now on.
    pub fn take_keys(&self, keyring: &Keyring) {
        self.0.registry.keyring.replace(keyring);
        // As whom a cluster is watched may be known now.
        self.0.take_clusters_again();
    }

    /// Where this proxy stands from now on: replicas there are read from first.
    pub fn take_region(&self, region: Option<&str>) {
        let region = region.map(Into::into);
        let before = std::mem::replace(&mut *self.0.region.lock(), region.clone());
        if before != region {
            self.0.take_clusters_again();
        }
    }

    /// The plans of the proxy's file from now on, with the presets.
    pub fn take_plans(&self, plans: Plans) {
        if self.0.plans.take_file(plans) {
            self.0.revisit_all();
        }
    }

    /// Whether the registry answers.
    pub fn is_up(&self) -> bool {
        !self.0.link.is_down()
    }
}

impl Directory for RegistryDirectory {
    fn tenant<'a>(&'a self, id: &'a str) -> Lookup<'a> {
        Box::pin(Inner::look_up(&self.0, id))
    }

    fn cluster(&self, name: &ClusterName) -> Option<Arc<Cluster>> {
        self.0.clusters.load().by_name.get(name).cloned()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }
}

fn unavailable(why: &'static str) -> DirectoryError {
    DirectoryError::Unavailable(why.into())
}

impl Inner {
    /// # Cancel safety
    /// Cancel safe: the registry's answer is remembered all the same.
    pub(super) async fn look_up(
        self: &Arc<Self>,
        id: &str,
    ) -> Result<Option<Arc<Tenant>>, DirectoryError> {
        if TenantId::new(id).is_err() {
            return Ok(None);
        }
        for _ in 0..TRIES_MAX {
            if let Some(answer) = self.remembered(id) {
                return Ok(answer);
            }
            if self.link.is_down() {
                return self
                    .last_known(id)
                    .ok_or_else(|| unavailable("the registry does not answer"));
            }
            if self.known.excludes(id) && !self.is_announced(id) && !self.admit_stranger() {
                return Ok(None);
            }
            match self.fly(id).await? {
                Ok((tenant, began)) if self.freshness.is_fresh(id, began) => return Ok(tenant),
                Ok(_) => {}
                Err(error) => {
                    let last = matches!(*error, RegistryError::Database(_));
                    let last = last.then(|| self.last_known(id)).flatten();
                    return last.ok_or_else(|| DirectoryError::Unavailable(Box::new(error)));
                }
            }
        }
        Err(unavailable("the tenant changes all the time"))
    }

    /// What memory says for sure.
    #[expect(
        clippy::option_option,
        reason = "not known is another answer than none"
    )]
    fn remembered(&self, id: &str) -> Option<Option<Arc<Tenant>>> {
        let is_fresh = |began| self.freshness.is_fresh(id, began);
        if let Some(present) = self.made(id).filter(|it| is_fresh(it.began)) {
            return Some(Some(present.tenant));
        }
        let absent = self.absent.get(id).filter(|it| !it.is_coming);
        if absent.is_some_and(|it| is_fresh(it.began)) {
            return Some(None);
        }
        let row = self.known.get(id).filter(|row| is_fresh(row.began))?;
        // A row that can't be used is looked up, and the log says what is wrong with it.
        self.make(id, &row.rows()?, row.began).ok().map(Some)?
    }

    /// The tenant as it was made with the plans that hold now.
    fn made(&self, id: &str) -> Option<Present> {
        let plans = self.plans.now();
        let present = self.present.get(id);
        present.filter(|it| Arc::ptr_eq(&it.plans, &plans))
    }

    /// What was last known, while it may be served. Nobody was ever served who was not there.
    #[expect(clippy::option_option, reason = "as the answer of a look-up")]
    fn last_known(&self, id: &str) -> Option<Option<Arc<Tenant>>> {
        if !self.link.is_within(self.stale_max) {
            return None;
        }
        let may_serve = |began| self.freshness.may_serve(id, began);
        if let Some(present) = self.made(id).filter(|it| may_serve(it.began)) {
            return Some(Some(present.tenant));
        }
        let row = self.known.get(id).filter(|row| may_serve(row.began))?;
        match self.make(id, &row.rows()?, row.began) {
            Ok(tenant) => tenant.map(Some),
            Err(error) => {
                tracing::error!(
                    tenant = id,
                    error = chain(&error),
                    "a tenant can't be served"
                );
                None
            }
        }
    }

    /// Makes a tenant of its rows, and remembers it. One that has not changed stays the same value.
    fn make(
        &self,
        id: &str,
        rows: &Rows,
        began: Moment,
    ) -> Result<Option<Arc<Tenant>>, RegistryError> {
        let plans = self.plans.now();
        let made = tenant_in_slots(
            &rows.tenant,
            &rows.keys,
            rows.slot_key.as_ref(),
            (&plans, &self.registry.keyring),
        )?;
        let Some(mut tenant) = made.map(|assembled| assembled.tenant) else {
            return Ok(None);
        };
        let used = rows.storage_used.and_then(|used| u64::try_from(used).ok());
        Arc::make_mut(&mut tenant).storage_used = used;
        if let Some(before) = self.present.get(id)
            && before.tenant == tenant
        {
            tenant = before.tenant;
        }
        let present = Present {
            tenant: Arc::clone(&tenant),
            plans,
            began,
        };
        self.present.insert(id.into(), present);
        Ok(Some(tenant))
    }

    /// Asks the registry; who asks for the same meanwhile gets the same answer.
    async fn fly(self: &Arc<Self>, id: &str) -> Result<Found, DirectoryError> {
        let mut flight = {
            let mut flights = self.flights.lock();
            match flights.get(id) {
                Some(flight) => flight.clone(),
                None if flights.len() >= FLIGHTS_MAX => {
                    return Err(unavailable("too many tenants are being looked up"));
                }
                None => {
                    let (found, flight) = watch::channel(None);
                    flights.insert(id.into(), flight.clone());
                    let (inner, id) = (Arc::clone(self), Box::<str>::from(id));
                    self.runtime.spawn(async move {
                        let result = inner.load(&id).await;
                        inner.flights.lock().remove(&id);
                        found.send_replace(Some(result));
                    });
                    flight
                }
            }
        };
        let landed = flight.wait_for(Option::is_some).await;
        let found = landed.ok().and_then(|found| found.clone());
        found.ok_or_else(|| unavailable("pgusher is shutting down"))
    }

    async fn load(&self, id: &str) -> Found {
        let began = self.freshness.now();
        let loaded = tokio::time::timeout(LOAD_TIME_MAX, async {
            let rows = load::tenant(&self.registry.pool, id).await?;
            // A tenant of a cluster that was not told of yet.
            let cluster = rows.as_ref().map(|rows| rows.tenant.cluster.as_str());
            if cluster.is_some_and(|name| !self.clusters.load().by_name.contains_key(name)) {
                self.load_clusters().await?;
            }
            Ok::<_, RegistryError>(rows)
        })
        .await
        .unwrap_or(Err(RegistryError::Database(sqlx::Error::PoolTimedOut)));
        let made = loaded.and_then(|rows| self.accept(id, rows.as_ref(), began));
        made.map(|tenant| (tenant, began)).map_err(|error| {
            if !matches!(error, RegistryError::Database(_)) {
                tracing::error!(
                    tenant = id,
                    error = chain(&error),
                    "a tenant can't be served"
                );
            }
            Arc::new(error)
        })
    }

    /// Takes over what the registry said of a tenant.
    fn accept(
        &self,
        id: &str,
        rows: Option<&Rows>,
        began: Moment,
    ) -> Result<Option<Arc<Tenant>>, RegistryError> {
        let made = rows.map(|rows| self.make(id, rows, began)).transpose()?;
        let tenant = made.flatten();
        self.known.put(id, rows.filter(|_| tenant.is_some()), began);
        self.is_dirty.notify_one();
        if tenant.is_some() {
            self.absent.invalidate(id);
        } else {
            self.present.invalidate(id);
            let is_coming = rows.is_some_and(|rows| rows.tenant.status == "provisioning");
            self.absent.insert(id.into(), Absent { began, is_coming });
        }
        Ok(tenant)
    }

    /// Whether the registry told of this name since it was last asked for it: then it is no stranger.
    fn is_announced(&self, id: &str) -> bool {
        let asked = self.absent.get(id).map(|absent| absent.began);
        self.freshness.is_told_since(id, asked)
    }

    /// Whether one more name may be asked for that nobody seems to have: it may be new.
    fn admit_stranger(&self) -> bool {
        let mut strangers = self.strangers.lock();
        if strangers.0.elapsed() >= Duration::from_secs(1) {
            *strangers = (Instant::now(), 0);
        }
        strangers.1 += 1;
        strangers.1 <= STRANGERS_PER_SECOND
    }

    /// The registry told of a change of this tenant.
    /// Returns whether there were so many that everything is to be read.
    pub(super) fn tell_tenant(&self, id: &str) -> bool {
        self.freshness.tell(id);
        self.generation.send_modify(|generation| *generation += 1);
        let is_all = self.gathered.tenant(id);
        if is_all {
            self.known.lose();
        }
        is_all
    }

    /// Changes may have been missed.
    pub(super) fn lose(&self) {
        self.freshness.lose();
        self.known.lose();
    }

    /// Reads everything. Who asks meanwhile does not wait for it.
    ///
    /// # Cancel safety
    /// Cancel safe: what was read is kept.
    pub(super) async fn load_all(&self) -> Result<(), RegistryError> {
        let began = self.freshness.now();
        self.load_clusters().await?;
        self.load_plans().await?;
        let mut last = String::new();
        loop {
            let page_began = self.freshness.now();
            let page = load::page(&self.registry.pool, &last);
            let page = tokio::time::timeout(LOAD_TIME_MAX, page).await;
            let page = page.map_err(|_elapsed| sqlx::Error::PoolTimedOut)??;
            let Some(rows) = page.last() else { break };
            last.clone_from(&rows.tenant.id);
            for rows in &page {
                let id = rows.tenant.id.as_str();
                self.known.put(id, Some(rows), page_began);
            }
            // This thread has others to serve, too.
            tokio::task::yield_now().await;
        }
        self.known.complete(began);
        self.generation.send_modify(|generation| *generation += 1);
        self.gathered.all();
        self.is_dirty.notify_one();
        Ok(())
    }

    /// Every tenant may be another than it was.
    fn revisit_all(&self) {
        self.generation.send_modify(|generation| *generation += 1);
        self.gathered.all();
    }

    /// Reads the plans.
    pub(super) async fn load_plans(&self) -> Result<(), RegistryError> {
        let all = tokio::time::timeout(LOAD_TIME_MAX, plans::all(&self.registry.pool)).await;
        let all = all.map_err(|_elapsed| sqlx::Error::PoolTimedOut)??;
        if self.plans.take_registry(all) {
            self.revisit_all();
            self.is_dirty.notify_one();
        }
        Ok(())
    }

    pub(super) async fn load_clusters(&self) -> Result<(), RegistryError> {
        let rows = tokio::time::timeout(LOAD_TIME_MAX, load::clusters(&self.registry.pool)).await;
        let rows = rows.map_err(|_elapsed| sqlx::Error::PoolTimedOut)??;
        self.take_clusters(rows);
        self.generation.send_modify(|generation| *generation += 1);
        self.is_dirty.notify_one();
        Ok(())
    }

    /// Takes clusters over; those that have not changed stay the same values.
    fn take_clusters(&self, rows: Vec<ClusterRow>) {
        // Until it is done: nothing older may be put in its place.
        let region = self.region.lock();
        self.take_clusters_of(rows, region.as_deref());
    }

    fn take_clusters_of(&self, rows: Vec<ClusterRow>, region: Option<&str>) {
        let old = self.clusters.load();
        let mut by_name = HashMap::new();
        for row in &rows {
            let mut cluster = match cluster_of(row) {
                Ok(cluster) => cluster,
                Err(error) => {
                    tracing::error!(error = chain(&error), "a cluster can't be used");
                    continue;
                }
            };
            cluster.standbys.region = region.map(Into::into);
            match watch_of(row, &self.registry.keyring) {
                Ok(watch) => cluster.watch = Some(watch),
                Err(error) => {
                    let error = chain(&error);
                    tracing::error!(error, "a cluster's servers can't be watched");
                }
            }
            let name = cluster.name.clone();
            let before = old.by_name.get(&name).filter(|old| ***old == cluster);
            let cluster = before.map_or_else(|| Arc::new(cluster), Arc::clone);
            by_name.insert(name, cluster);
        }
        self.clusters.store(Arc::new(Clusters { rows, by_name }));
        self.has_pauses.notify_one();
    }

    /// When the next pause of a cluster ends, of those that are paused.
    pub(super) fn next_end_of_pause(&self) -> Option<OffsetDateTime> {
        let clusters = self.clusters.load();
        let paused = clusters.rows.iter().filter(|row| {
            let mut made = clusters.by_name.values();
            made.any(|cluster| cluster.is_paused && cluster.name.as_str() == row.name)
        });
        paused.filter_map(|row| row.paused_until).min()
    }

    /// Makes the clusters anew of the rows that are known.
    pub(super) fn take_clusters_again(&self) {
        let before = {
            let region = self.region.lock();
            let before = self.clusters.load_full();
            self.take_clusters_of(before.rows.clone(), region.as_deref());
            before
        };
        if before.by_name != self.clusters.load().by_name {
            self.generation.send_modify(|generation| *generation += 1);
            self.gathered.clusters();
        }
    }

    /// Everything as it is known now, for the file.
    pub(super) fn picture(&self) -> Option<snapshot::Snapshot> {
        Some(snapshot::Snapshot {
            as_of: self.link.contact()?,
            clusters: self.clusters.load().rows.clone(),
            plans: self.plans.registry(),
            tenants: self.known.copy(&self.freshness),
        })
    }

    /// Takes over what the file knew.
    pub(super) fn remember(&self, snapshot: snapshot::Snapshot) {
        self.link.remember(snapshot.as_of);
        if self.clusters.load().by_name.is_empty() {
            self.take_clusters(snapshot.clusters);
            self.plans.take_registry(snapshot.plans);
        }
        self.known.remember(snapshot.tenants);
    }
}

/// A task that ends with who waits for it.
pub(super) fn beside(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}
