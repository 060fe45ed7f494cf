//! `pgusher migrate`: the registry's tables, or the tenants'.

use super::{Io, migrate_registry, migrate_tenants};
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    registry: migrate_registry::MigrateRegistryArgs,
    #[command(subcommand)]
    what: Option<MigrateCommand>,
}

#[derive(Debug, Subcommand)]
enum MigrateCommand {
    /// Apply the templates to all tenants that don't have them yet
    Tenants(migrate_tenants::MigrateTenantsArgs),
}

pub(super) fn run(args: MigrateArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    match args.what {
        None => migrate_registry::run(&args.registry, io),
        Some(MigrateCommand::Tenants(args)) => migrate_tenants::run(args, io),
    }
}
