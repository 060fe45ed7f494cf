//! `pgusher check`.

use super::{ConfigFile, Io};
use crate::config::Config;
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON instead of TOML
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CheckArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let path = &args.file.config;
    let (config, warnings) = Config::inspect(path)?;
    for warning in warnings {
        writeln!(io.talk, "pgusher: warning: {}: {warning}", path.display())?;
    }
    if args.json {
        writeln!(io.output, "{:#}", config.to_json())?;
    } else {
        write!(io.output, "{}", config.to_toml())?;
    }
    Ok(())
}
