//! The use cases, for commands that work on the registry themselves.

use super::ConfigFile;
use crate::{
    config::Config,
    control::{Actor, Control, ControlError},
    registry::Registry,
};
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
        let registry = Registry::for_command(registry, keyring)?;
        registry
            .migrate()
            .await
            .map_err(|error| registry.explained(error))?;
        let done = work(Control::new(registry.clone(), &config), Actor::operator()).await;
        done.map_err(|error| explained(&registry, error))
    });
    runtime.shutdown_background();
    done
}

/// A registry that did not answer is told of by its address, whatever asked it.
fn explained(registry: &Registry, error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<ControlError>() {
        Ok(ControlError::Registry(error)) => registry.explained(error).into(),
        Ok(error) => error.into(),
        Err(error) => error,
    }
}
