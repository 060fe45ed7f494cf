//! Puts the parts together and runs them. The only place that knows all.

use crate::{
    api::{self, Api},
    config::Config,
    telemetry::{Metrics, logs},
};
use anyhow::Context;
use std::{path::PathBuf, sync::Arc};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When the configuration is wrong or something can't be started.
#[expect(clippy::needless_pass_by_value, reason = "the reload keeps it")]
pub fn serve(path: PathBuf) -> anyhow::Result<()> {
    let (config, warnings) = Config::inspect(&path)?;
    logs::init(&config.proxy.log)?;
    for warning in warnings {
        tracing::warn!(%warning, "configuration");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(admin(&config))
}

async fn admin(config: &Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let metrics = Metrics::install_recorder()?;
    let upkeep = tokio::spawn(Arc::clone(&metrics).upkeep(stop.clone()));
    let server = match config.admin.listen {
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            let listener = listener.with_context(|| format!("can't listen on {address}"))?;
            let is_ready = Arc::new(|| true);
            Some(tokio::spawn(api::serve(
                listener,
                Api { metrics, is_ready },
                stop.clone(),
            )))
        }
        None => None,
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    if let Some(server) = server {
        server.await??;
    }
    upkeep.await?;
    Ok(())
}
