//! The use cases, for commands that work on the registry themselves.

use super::ConfigFile;
use crate::{
    config::Config,
    control::{Actor, Control},
    registry::Registry,
};
use anyhow::Context as _;
use std::{future::Future, sync::Arc};

/// The command needs a registry, and the file names none.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} has no [registry]: give it a url, and a master key in [secrets] (`pgusher secrets key` makes one)"
)]
pub(super) struct NoRegistry(String);

/// Runs use cases as the operator, over the registry that the file names, brought up to date.
///
/// # Errors
/// [`NoRegistry`], what is wrong with the file, the registry, or the use case.
pub(super) fn run<T, F: Future<Output = anyhow::Result<T>>>(
    file: &ConfigFile,
    work: impl FnOnce(Control, Actor) -> F,
) -> anyhow::Result<T> {
    let config = Config::load(&file.config)?;
    let (Some(registry), Some(source)) = (&config.registry, &config.master_key) else {
        return Err(NoRegistry(file.config.display().to_string()).into());
    };
    let keyring = Arc::new(source.load()?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let done = runtime.block_on(async {
        let registry = Registry::new(registry, keyring)?;
        registry
            .migrate()
            .await
            .context("the registry can't be used")?;
        work(Control::new(registry, &config), Actor::operator()).await
    });
    runtime.shutdown_background();
    done
}
