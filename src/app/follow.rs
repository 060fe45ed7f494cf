//! A changed registry: who it concerns is revisited, nobody else.

use super::{App, combined::Combined};
use crate::{
    config::Config,
    frontend::Frontend,
    registry::{Registry, RegistryDirectory},
    sessions::SessionHandle,
    tenant::{Directory as _, TenantId},
};
use anyhow::Context as _;
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How often a changed tenant is looked up when the registry is slow, and the pause between.
const LOOKS_MAX: u32 = 10;
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// The directory of the registry that the file names, if it names one.
///
/// # Errors
/// When the master keys can't be read, or the URL. A registry that does not answer is no error.
pub(super) async fn start(
    config: &Config,
    end: &CancellationToken,
) -> anyhow::Result<Option<RegistryDirectory>> {
    let (Some(registry), Some(source)) = (&config.registry, config.master_key.clone()) else {
        return Ok(None);
    };
    let keyring = tokio::task::spawn_blocking(move || source.load())
        .await?
        .context("the registry's secrets can't be opened")?;
    let opened = Registry::new(registry, Arc::new(keyring))?;
    let directory = RegistryDirectory::start(registry, opened, end).await?;
    directory.take_region(config.proxy.region.as_deref());
    directory.take_plans(config.all_plans());
    Ok(Some(directory))
}

/// Has sessions and pools follow the registry, for ever. A tenant whose row takes long delays no
/// other.
pub(super) async fn follow_registry(directory: Arc<Combined>, frontend: Arc<Frontend>) {
    let Some(registry) = directory.registry() else {
        return std::future::pending().await;
    };
    let mut looking = JoinSet::new();
    loop {
        tokio::select! {
            changed = registry.changed() => {
                directory.has_changed();
                // Those without sessions, too: so that all are known when the registry goes.
                for tenant in changed.tenants {
                    looking.spawn(look_up(Arc::clone(&directory), tenant));
                }
                if changed.is_all || changed.has_clusters {
                    revisit(&directory, &frontend, |_| true, changed.is_all).await;
                }
            }
            Some(Ok(tenant)) = looking.join_next() => {
                let concerns = |id: &TenantId| id.as_str() == tenant;
                revisit(&directory, &frontend, concerns, true).await;
            }
        }
    }
}

/// Has the directory know a tenant again.
async fn look_up(directory: Arc<Combined>, tenant: String) -> String {
    for _ in 0..LOOKS_MAX {
        match directory.tenant(&tenant).await {
            Ok(_) => break,
            Err(error) => tracing::debug!(tenant, %error, "a change can't be looked up"),
        }
        // Down: everything is revisited when it answers again.
        if !directory.registry().is_some_and(RegistryDirectory::is_up) {
            break;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    tenant
}

async fn revisit(
    directory: &Combined,
    frontend: &Frontend,
    concerns: impl Fn(&TenantId) -> bool + Send + Copy,
    with_sessions: bool,
) {
    frontend.pools.follow(directory, concerns).await;
    if with_sessions {
        let mut sessions = frontend.sessions.all();
        sessions.retain(|handle| concerns(&handle.tenant.load().id));
        for handle in &sessions {
            look_again(directory, handle).await;
        }
    }
    // A login under way may have put its older view of a tenant back.
    frontend.pools.follow(directory, concerns).await;
}

/// Has a session go on under its tenant's new settings, or ends it. What can't be looked up now is
/// when the registry answers again: then everything is revisited.
pub(super) async fn look_again(directory: &Combined, handle: &SessionHandle) {
    let old = handle.tenant.load_full();
    match directory.tenant(old.id.as_str()).await {
        Ok(new) => handle.follow(new),
        Err(error) => tracing::debug!(%error, "a session's tenant can't be looked up"),
    }
}

impl App {
    /// Reads the master keys again: `pgusher secrets rotate` seals under a new one.
    pub(super) async fn reload_master_keys(&self) -> anyhow::Result<()> {
        let (Some(registry), Some(source)) =
            (self.directory.registry(), self.config.master_key.clone())
        else {
            return Ok(());
        };
        let keyring = tokio::task::spawn_blocking(move || source.load()).await??;
        registry.take_keys(&keyring);
        Ok(())
    }
}
