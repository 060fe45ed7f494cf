//! `pgusher migrate`: the registry's tables.

use super::{ConfigFile, Io, control};
use crate::registry;
use clap::Args;
use serde_json::json;

#[derive(Debug, Args)]
pub(super) struct MigrateRegistryArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &MigrateRegistryArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    // Every command that uses the registry brings it up to date; this one does nothing else.
    control::run(&args.config, |_control, _actor| async { Ok(()) })?;
    let version = registry::version();
    if args.json {
        super::table::json(io, &json!({ "version": version }))
    } else {
        writeln!(io.output, "the registry is up to date: version {version}")?;
        Ok(())
    }
}
