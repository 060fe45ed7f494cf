//! Stand-in until the composition root exists.

use std::{net::SocketAddr, path::Path};
use tokio_util::sync::CancellationToken;

/// Where the proxy answers.
#[derive(Debug)]
pub struct Ready {
    /// The listeners.
    pub listen: Vec<String>,
    /// The admin listener.
    pub admin: Option<SocketAddr>,
}

/// Runs the proxy with this configuration until `shutdown` is cancelled; `on_ready` is called once
/// everything answers.
pub async fn run(
    _config_path: &Path,
    shutdown: CancellationToken,
    on_ready: impl FnOnce(&Ready) + Send,
) -> anyhow::Result<()> {
    on_ready(&Ready {
        listen: Vec::new(),
        admin: None,
    });
    shutdown.cancelled().await;
    Ok(())
}
