//! The registry behind the data plane: opened at the start, followed for ever.

use super::App;
use crate::{
    config::Config,
    registry::{Changed, Registry, RegistryDirectory, Snapshot, listen},
    tenant::TenantId,
};
use anyhow::Context as _;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{sleep, timeout},
};

/// How long a start waits for the registry.
const START_TIME_MAX: Duration = Duration::from_secs(5);
/// Changes within this time go into one snapshot.
const SNAPSHOT_AFTER: Duration = Duration::from_secs(2);

/// Opens the registry that the configuration names and brings it up to date. When it does not
/// answer, the start goes on with the sealed snapshot, or with the tenants of `proxy.toml` alone
/// until it does.
///
/// # Errors
/// The master key, or what the registry says against us.
pub(super) async fn open(config: &Config) -> anyhow::Result<Option<Arc<RegistryDirectory>>> {
    let (Some(settings), Some(source)) = (&config.registry, &config.master_key) else {
        return Ok(None);
    };
    let keyring = Arc::new(source.load()?);
    let registry = Registry::new(settings, keyring)?;
    let directory = RegistryDirectory::new(registry.clone(), settings.stale_max);
    let ready = timeout(START_TIME_MAX, async {
        registry.migrate().await?;
        registry.check_keyring().await?;
        directory.read_clusters().await
    });
    match ready.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) if !error.is_unavailable() => {
            return Err(error).context("the registry can't be used");
        }
        not_ready => {
            let cause = not_ready.map_or_else(
                |_elapsed| "no answer".to_owned(),
                |answer| {
                    answer
                        .err()
                        .map(|e| format!("{:#}", anyhow::Error::from(e)))
                        .unwrap_or_default()
                },
            );
            tracing::error!(cause, "the registry does not answer");
            use_snapshot(&directory, settings.snapshot.clone()).await;
        }
    }
    tokio::spawn(listen(Arc::clone(&directory)));
    if let Some(path) = settings.snapshot.clone() {
        tokio::spawn(keep_snapshot(Arc::clone(&directory), path));
    }
    Ok(Some(directory))
}

async fn use_snapshot(directory: &RegistryDirectory, path: Option<PathBuf>) {
    let Some(path) = path else {
        tracing::warn!("there is no registry.snapshot: only tenants of the file are served");
        return;
    };
    let keyring = Arc::clone(&directory.registry().keyring);
    let reading = tokio::task::spawn_blocking(move || Snapshot::read(&path, &keyring));
    match reading.await {
        Ok(Ok(snapshot)) => {
            let tenants = snapshot.tenants.len();
            tracing::warn!(tenants, "serving from the registry's snapshot");
            directory.use_snapshot(snapshot);
        }
        Ok(Err(error)) => {
            let error = anyhow::Error::from(error);
            tracing::error!("{error:#}: only tenants of the file are served");
        }
        Err(error) => tracing::error!(%error, "the snapshot was not read"),
    }
}

/// Writes a sealed snapshot soon after each change, for ever.
async fn keep_snapshot(directory: Arc<RegistryDirectory>, path: PathBuf) {
    let mut changes = directory.follow();
    loop {
        if let Err(error) = write_snapshot(&directory, path.clone()).await {
            tracing::warn!("the registry's snapshot was not written: {error:#}");
        }
        if next(&mut changes).await.is_none() {
            return;
        }
        sleep(SNAPSHOT_AFTER).await;
        while changes.try_recv().is_ok() {}
    }
}

async fn write_snapshot(directory: &RegistryDirectory, path: PathBuf) -> anyhow::Result<()> {
    let registry = directory.registry();
    let snapshot = Snapshot::take(registry).await?;
    let keyring = Arc::clone(&registry.keyring);
    tokio::task::spawn_blocking(move || snapshot.write(&path, &keyring)).await??;
    Ok(())
}

/// The next change; who is too far behind takes it that anything may have changed.
async fn next(changes: &mut broadcast::Receiver<Changed>) -> Option<Changed> {
    match changes.recv().await {
        Ok(one) => Some(one),
        Err(RecvError::Lagged(_)) => Some(Changed::Anything),
        Err(RecvError::Closed) => None,
    }
}

/// The next change of the registry; never, without one.
pub(super) async fn changed(changes: &mut Option<broadcast::Receiver<Changed>>) -> Changed {
    if let Some(receiver) = changes {
        if let Some(changed) = next(receiver).await {
            return changed;
        }
        *changes = None;
    }
    std::future::pending().await
}

impl App {
    /// Takes over what has changed in the registry: pools and sessions of the tenant, or of all.
    pub(super) async fn follow_registry(&self, changed: Changed) {
        let frontend = &self.frontend;
        let directory = self.directory.as_ref();
        match changed {
            Changed::Anything => self.revisit_all().await,
            Changed::Tenant(id) => {
                let Ok(id) = TenantId::new(&id) else { return };
                let is_used = frontend.pools.has(&id);
                let sessions = frontend.sessions.of_tenant(&id);
                if !is_used && sessions.is_empty() {
                    return;
                }
                frontend.pools.follow_tenant(&id, directory).await;
                for handle in frontend.sessions.of_tenant(&id) {
                    self.revisit(&handle).await;
                }
                // A login under way may have put its older view of the tenant back.
                frontend.pools.follow_tenant(&id, directory).await;
            }
        }
    }

    /// Has every pool and session go on as the directory says now.
    pub(super) async fn revisit_all(&self) {
        let frontend = &self.frontend;
        let directory = self.directory.as_ref();
        frontend.pools.follow(directory).await;
        for handle in frontend.sessions.all() {
            self.revisit(&handle).await;
        }
        frontend.pools.follow(directory).await;
    }
}
