//! A changed file becomes the running configuration, or changes nothing.

use super::{App, door, follow::look_again, quotas, tls_files};
use crate::{
    config::{Config, watch},
    telemetry::names,
    tls::HttpTls,
};
use std::{path::PathBuf, sync::Arc};
use tokio::sync::mpsc;

impl App {
    /// Reloads on SIGHUP and when a file changes, for ever.
    pub(super) async fn follow_changes(&mut self, mut signals: mpsc::Receiver<()>) {
        loop {
            let mut files = watch::changes(self.watched_files())
                .inspect_err(|error| tracing::warn!(%error, "files are not watched: use SIGHUP"))
                .ok();
            let changed = async {
                match &mut files {
                    Some(files) => files.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(()) = signals.recv() => {}
                Some(()) = changed => {}
                else => std::future::pending().await,
            }
            self.reload().await;
        }
    }

    fn watched_files(&self) -> Vec<PathBuf> {
        let tls = &self.config.proxy.tls;
        let certificates = tls.certificate.iter().chain(&self.config.admin.certificate);
        let certificate = certificates.flat_map(|(cert, key)| [cert, key]);
        let mut files: Vec<_> = certificate.chain(&tls.client_ca).cloned().collect();
        files.push(self.config_path.clone());
        files
    }

    async fn reload(&mut self) {
        let result = match Config::load(&self.config_path) {
            Ok(config) => self.apply(config).await,
            Err(error) => Err(error.into()),
        };
        let label = match &result {
            Ok(()) => names::OK,
            Err(error) => {
                tracing::error!("reload failed, nothing was changed: {error:#}");
                names::ERROR
            }
        };
        metrics::counter!(names::CONFIG_RELOADS_TOTAL, names::RESULT => label).increment(1);
    }

    async fn apply(&mut self, config: Config) -> anyhow::Result<()> {
        let frontend = &self.frontend;
        // A file that is being written is empty for a moment.
        let is_empty = |config: &Config| config.tenants.is_empty() && config.registry.is_none();
        anyhow::ensure!(
            !is_empty(&config) || is_empty(&self.config),
            "{} names no tenant and no registry any more; to end them all, stop pgusher",
            self.config_path.display()
        );
        // First what can fail.
        let admin_tls = HttpTls::read(config.admin.certificate.as_ref())?;
        frontend.tls.load(tls_files(&config.proxy).as_ref())?;
        self.reload_master_keys().await?;
        if !frontend.retired.is_cancelled() {
            for key in config.diff_restart(&self.config) {
                tracing::warn!(
                    key,
                    "this change needs a restart (SIGUSR2: without downtime)"
                );
            }
        }
        self.admin_tls.follow(&admin_tls);
        frontend.door.store(Arc::new(door(&config.proxy)));
        self.series.set_places(config.admin.tenant_series);
        if let Some(control) = &self.control {
            control.prices.store(config.prices.clone());
        }
        self.restart_limits.send_replace((&config.proxy).into());
        frontend.admission.set_quotas(quotas(&config.proxy));
        frontend
            .authenticator
            .throttle()
            .set_failures_max(config.proxy.auth_failures_per_minute);
        if let Some(registry) = self.directory.registry() {
            registry.take_region(config.proxy.region.as_deref());
            registry.take_plans(config.all_plans());
            if let Some(control) = &self.control {
                control.plans.store(Arc::new(config.all_plans()));
            }
        }
        let replaced = self.directory.replace(&config);
        if replaced.is_any() {
            let directory = self.directory.as_ref();
            frontend.pools.follow(directory, |_| true).await;
            for handle in frontend.sessions.all() {
                look_again(directory, &handle).await;
            }
            // A login under way may have put its older view of a tenant back.
            frontend.pools.follow(directory, |_| true).await;
        }
        tracing::info!(?replaced, "configuration reloaded");
        self.config = config;
        Ok(())
    }
}
