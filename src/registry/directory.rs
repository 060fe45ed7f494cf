//! What the data plane knows of the registry: every tenant as it was last read.
//!
//! A tenant is read when it is first asked for, once however many ask, and again when the registry
//! has told of a change. What was told while it was being read makes it be read again: a revocation
//! wins. While the registry does not answer, the last good answer holds, for `stale_max`.

use super::{
    ClusterRow, Registry, RegistryError, TenantRow, cluster_of,
    records::{Records, Snapshot},
    tenant_of,
};
use crate::tenant::{Cluster, ClusterName, Directory, DirectoryError, Lookup, Tenant, TenantId};
use arc_swap::{ArcSwap, ArcSwapOption};
use moka::sync::Cache;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, sync::broadcast};

/// Tenants that are kept. More than that are read again when they come back.
const TENANTS_MAX: u64 = 100_000;
/// Names that are known to be nobody's, and for how long.
const NOBODIES_MAX: u64 = 10_000;
const NOBODY_FOR: Duration = Duration::from_secs(5);
/// How long a look-up may take.
const READ_TIME_MAX: Duration = Duration::from_secs(3);
/// After a look-up that failed: so long the registry is not asked for what is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often a tenant is read again because it changed meanwhile.
const READS_MAX: u32 = 10;
/// Changes that a follower may be behind.
const CHANGES_MAX: usize = 4096;

/// What has changed in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// A tenant, or its keys.
    Tenant(Box<str>),
    /// Anything.
    Anything,
}

/// A tenant as it was last read.
#[derive(Debug)]
struct Known {
    tenant: Arc<Tenant>,
    generation: i64,
    /// The slot's mark when the reading began.
    mark: u64,
}

/// The place of one tenant.
#[derive(Debug, Default)]
struct Slot {
    known: ArcSwapOption<Known>,
    /// Moves on with every change that is told.
    mark: AtomicU64,
    /// One reads at a time.
    reading: tokio::sync::Mutex<()>,
}

/// Since when the registry has not answered, and when it is asked again.
#[derive(Debug, Default)]
struct Outage {
    since: Option<Instant>,
    retry_at: Option<Instant>,
}

/// The registry's tenants and clusters, for the data plane.
pub struct RegistryDirectory {
    registry: Registry,
    stale_max: Duration,
    /// Where the registry is read: not on a thread that relays.
    runtime: Handle,
    slots: Cache<Box<str>, Arc<Slot>>,
    nobodies: Cache<Box<str>, u64>,
    /// Moves on when anything may have changed.
    epoch: AtomicU64,
    clusters: ArcSwap<HashMap<ClusterName, Arc<Cluster>>>,
    /// What a start without the registry goes on with.
    snapshot: ArcSwapOption<Records>,
    outage: Mutex<Outage>,
    changed: broadcast::Sender<Changed>,
}

impl std::fmt::Debug for RegistryDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryDirectory").finish_non_exhaustive()
    }
}

impl RegistryDirectory {
    /// Knows nothing yet. Must be made on the runtime that may read the registry.
    pub fn new(registry: Registry, stale_max: Duration) -> Arc<Self> {
        Arc::new(Self {
            registry,
            stale_max,
            runtime: Handle::current(),
            slots: Cache::new(TENANTS_MAX),
            nobodies: Cache::builder()
                .max_capacity(NOBODIES_MAX)
                .time_to_live(NOBODY_FOR)
                .build(),
            epoch: AtomicU64::new(0),
            clusters: ArcSwap::default(),
            snapshot: ArcSwapOption::empty(),
            outage: Mutex::default(),
            changed: broadcast::Sender::new(CHANGES_MAX),
        })
    }

    /// The system of record behind it.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What changes from now on. A follower that is too far behind is told so, and takes it for
    /// [`Changed::Anything`].
    pub fn follow(&self) -> broadcast::Receiver<Changed> {
        self.changed.subscribe()
    }

    /// Takes the sealed copy on disk for what is known, until the registry answers.
    pub fn use_snapshot(&self, snapshot: Snapshot) {
        let clusters = snapshot.clusters.iter();
        let clusters = clusters.filter_map(|row| usable_cluster(row)).collect();
        self.clusters.store(Arc::new(clusters));
        self.snapshot.store(Some(Arc::new(snapshot.into())));
        self.tell(Changed::Anything);
    }

    /// Reads all clusters.
    ///
    /// # Errors
    /// [`RegistryError`]; those that are known stay.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn read_clusters(&self) -> Result<(), RegistryError> {
        let mut db = self.registry.pool.acquire().await?;
        let rows = super::clusters(&mut db).await?;
        let old = self.clusters.load_full();
        let keep = |(name, cluster): (ClusterName, Arc<Cluster>)| match old.get(&name) {
            Some(same) if **same == *cluster => (name, Arc::clone(same)),
            _ => (name, cluster),
        };
        let new: HashMap<_, _> = rows.iter().filter_map(usable_cluster).map(keep).collect();
        let is_other = *old != new;
        self.clusters.store(Arc::new(new));
        if is_other {
            self.tell(Changed::Anything);
        }
        Ok(())
    }

    /// A tenant has changed: what is known of it is too old.
    pub fn tenant_changed(&self, id: &str, generation: i64) {
        self.nobodies.invalidate(id);
        if let Some(slot) = self.slots.get(id) {
            let known = slot.known.load();
            let is_old = known
                .as_ref()
                .is_none_or(|known| known.generation < generation);
            if is_old {
                slot.mark.fetch_add(1, SeqCst);
                self.tell(Changed::Tenant(id.into()));
            }
        } else {
            self.tell(Changed::Tenant(id.into()));
        }
    }

    /// Something may have changed and not been told: everything is read again.
    pub fn anything_changed(&self) {
        self.epoch.fetch_add(1, SeqCst);
        self.nobodies.invalidate_all();
        self.tell(Changed::Anything);
    }

    fn tell(&self, changed: Changed) {
        // Nobody has to listen.
        self.changed.send(changed).ok();
    }

    fn mark(&self, slot: &Slot) -> u64 {
        // Both only grow, so the sum is another one after every change.
        slot.mark.load(SeqCst) + self.epoch.load(SeqCst)
    }

    async fn look_up(self: Arc<Self>, id: TenantId) -> Result<Option<Arc<Tenant>>, DirectoryError> {
        let slot = self.slots.get_with(id.as_str().into(), Arc::default);
        let _reading = slot.reading.lock().await;
        if let Some(answer) = self.at_hand(id.as_str()) {
            return Ok(answer); // somebody else has read it meanwhile
        }
        let mut last = None;
        for _ in 0..READS_MAX {
            let mark = self.mark(&slot);
            let known = slot.known.load_full();
            if let Some(known) = known.filter(|known| known.mark == mark) {
                return Ok(Some(Arc::clone(&known.tenant)));
            }
            if self.is_to_wait()
                && let Some(answer) = self.last_good(&slot, &id)
            {
                return Ok(Some(answer));
            }
            match self.read(&id).await {
                Ok(found) => {
                    self.answered();
                    last = self.keep(&slot, &id, (found, mark));
                }
                Err(error) => return self.not_read(&slot, &id, error),
            }
            if self.mark(&slot) == mark {
                break;
            }
        }
        Ok(last)
    }

    /// The row, then its keys: what changes between the two is newer than the row says.
    async fn read(&self, id: &TenantId) -> Result<Option<super::Assembled>, RegistryError> {
        let reading = async {
            let mut db = self.registry.pool.acquire().await?;
            let Some(row) = super::tenant(&mut db, id.as_str()).await? else {
                return Ok(None);
            };
            let keys = super::keys(&mut db, id.as_str()).await?;
            tenant_of(&row, &keys, &self.registry.keyring)
        };
        let timed_out = |_elapsed| RegistryError::Database(sqlx::Error::PoolTimedOut);
        tokio::time::timeout(READ_TIME_MAX, reading)
            .await
            .map_err(timed_out)?
    }

    fn keep(
        &self,
        slot: &Arc<Slot>,
        id: &TenantId,
        (found, mark): (Option<super::Assembled>, u64),
    ) -> Option<Arc<Tenant>> {
        let Some(found) = found else {
            // In this order, so that a change that is told in between takes one of the two away.
            slot.known.store(None);
            self.nobodies
                .insert(id.as_str().into(), self.epoch.load(SeqCst));
            self.slots.invalidate(id.as_str());
            return None;
        };
        // An equal value stays the same one: pointer equality means unchanged.
        let before = slot.known.load_full();
        let tenant = match before {
            Some(known) if *known.tenant == *found.tenant => Arc::clone(&known.tenant),
            _ => found.tenant,
        };
        slot.known.store(Some(Arc::new(Known {
            tenant: Arc::clone(&tenant),
            generation: found.generation,
            mark,
        })));
        self.slots.insert(id.as_str().into(), Arc::clone(slot));
        self.nobodies.invalidate(id.as_str());
        Some(tenant)
    }

    fn not_read(
        &self,
        slot: &Slot,
        id: &TenantId,
        error: RegistryError,
    ) -> Result<Option<Arc<Tenant>>, DirectoryError> {
        if error.is_unavailable() {
            self.failed(&error);
            if let Some(tenant) = self.last_good(slot, id) {
                return Ok(Some(tenant));
            }
        } else {
            tracing::error!(tenant = %id, %error, cause = cause(&error), "a tenant of the registry can't be used");
        }
        Err(DirectoryError::Unavailable(Box::new(error)))
    }

    /// What was known last, while the registry may be down.
    fn last_good(&self, slot: &Slot, id: &TenantId) -> Option<Arc<Tenant>> {
        let since = self.outage.lock().since;
        if since.is_some_and(|since| since.elapsed() > self.stale_max) {
            return None;
        }
        if let Some(known) = slot.known.load_full() {
            return Some(Arc::clone(&known.tenant));
        }
        let snapshot = self.snapshot.load_full()?;
        let (row, keys) = snapshot.tenant(id.as_str())?;
        let found = tenant_of(row, keys, &self.registry.keyring);
        Some(found.ok()??.tenant)
    }

    /// Whether the registry was asked in vain a moment ago.
    fn is_to_wait(&self) -> bool {
        let outage = self.outage.lock();
        outage.retry_at.is_some_and(|at| Instant::now() < at)
    }

    fn failed(&self, error: &RegistryError) {
        let mut outage = self.outage.lock();
        let now = Instant::now();
        outage.retry_at = Some(now + RETRY_AFTER);
        if outage.since.is_none() {
            outage.since = Some(now);
            metrics::gauge!("pgusher_registry_up").set(0.0);
            tracing::error!(%error, cause = cause(error), "the registry does not answer: tenants are served as they were last known");
        }
    }

    /// The registry has answered.
    pub(super) fn answered(&self) {
        let mut outage = self.outage.lock();
        if let Some(since) = outage.since {
            let seconds = since.elapsed().as_secs();
            tracing::info!(seconds, "the registry answers again");
        }
        *outage = Outage::default();
        metrics::gauge!("pgusher_registry_up").set(1.0);
    }

    /// What is known now and need not be asked for.
    fn at_hand(&self, id: &str) -> Option<Option<Arc<Tenant>>> {
        if let Some(slot) = self.slots.get(id)
            && let Some(known) = slot.known.load_full()
        {
            return (known.mark == self.mark(&slot)).then(|| Some(Arc::clone(&known.tenant)));
        }
        let epoch = self.nobodies.get(id)?;
        (epoch == self.epoch.load(SeqCst)).then_some(None)
    }
}

/// Why, without the SQL and without a secret.
fn cause(error: &RegistryError) -> String {
    let source = std::error::Error::source(error);
    source.map(ToString::to_string).unwrap_or_default()
}

fn usable_cluster(row: &ClusterRow) -> Option<(ClusterName, Arc<Cluster>)> {
    let cluster = cluster_of(row).inspect_err(|error| {
        tracing::error!(%error, "a cluster of the registry can't be used");
    });
    cluster.ok().map(|it| (it.name.clone(), Arc::new(it)))
}

/// A tenant's row, for [`Records`].
pub(super) fn id_of(row: &TenantRow) -> Box<str> {
    row.id.as_str().into()
}

/// Shared, as a reading goes on when who asked has gone.
#[derive(Debug, Clone)]
pub struct SharedDirectory(pub Arc<RegistryDirectory>);

impl Directory for SharedDirectory {
    fn tenant<'a>(&'a self, id: &'a str) -> Lookup<'a> {
        if let Some(answer) = self.0.at_hand(id) {
            return Box::pin(std::future::ready(Ok(answer)));
        }
        // What is no id is nobody's: the registry need not be asked.
        let Ok(id) = TenantId::new(id) else {
            return Box::pin(std::future::ready(Ok(None)));
        };
        let directory = Arc::clone(&self.0);
        let reading = directory.runtime.clone().spawn(directory.look_up(id));
        Box::pin(async move {
            let gone = |error| DirectoryError::Unavailable(Box::new(error));
            reading.await.map_err(gone)?
        })
    }

    fn cluster(&self, name: &ClusterName) -> Option<Arc<Cluster>> {
        self.0.clusters.load().get(name).cloned()
    }
}
