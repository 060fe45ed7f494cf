//! `pgusher migrate tenants`.

use super::{ConfigFile, Io, control, table};
use crate::control::{Migration, MigrationOutcome};
use anyhow::bail;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::{num::NonZeroUsize, path::PathBuf};

const HELP: &str = "\
The directory of templates has a sub-directory for each tier: database, schema, row. In them are
files <version>_<name>.sql, applied in the order of their numbers, each as one transaction. A file
that was applied is never changed: what is new goes into a file of a higher version.

A tenant that fails is listed, and the others go on; run it again when the reason is gone. The exit
status is 1 when one failed.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct MigrateTenantsArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// So many tenants at the same time, 8 at most
    #[arg(long, value_name = "N", default_value = "4")]
    parallel: NonZeroUsize,
    /// Say what would be applied, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// This tenant alone, also when its auto_update is off; may be repeated
    #[arg(long, value_name = "ID")]
    tenant: Vec<String>,
    /// The directory of the templates [default: the one that proxy.toml names]
    #[arg(long, value_name = "DIR")]
    templates: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: MigrateTenantsArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let is_dry_run = args.dry_run;
    let migration = Migration {
        parallel: args.parallel,
        is_dry_run,
        tenants: args.tenant,
    };
    let templates = args.templates;
    let outcome = control::run(&args.config, |mut control, actor| async move {
        control.templates = templates.or(control.templates);
        let bar = ProgressBar::new(0);
        bar.set_style(ProgressStyle::with_template(
            "{bar:30} {pos}/{len} tenants {elapsed}",
        )?);
        let shown = bar.clone();
        let progress = Box::new(move |ready, count| {
            shown.set_length(count);
            shown.set_position(ready);
        });
        let outcome = control.migrate_tenants(&actor, migration, progress).await;
        bar.finish_and_clear();
        Ok(outcome?)
    })?;
    if args.json {
        table::json(io, &outcome)?;
    } else {
        print(&outcome, is_dry_run, io)?;
    }
    // What was printed stays, also when this ends badly.
    io.output.flush()?;
    let (failed, all) = (
        outcome.failed.len(),
        outcome.done.len() + outcome.failed.len(),
    );
    if failed > 0 {
        bail!("{failed} of {all} tenants failed; the others are done");
    }
    Ok(())
}

fn print(outcome: &MigrationOutcome, is_dry_run: bool, io: &mut Io<'_>) -> anyhow::Result<()> {
    let changed: Vec<_> = outcome.done.iter().filter(|it| it.from != it.to).collect();
    for it in &changed {
        let files = it.pending.join(", ");
        let files = if files.is_empty() {
            files
        } else {
            format!("  {files}")
        };
        writeln!(io.output, "{}  {} -> {}{files}", it.tenant, it.from, it.to)?;
    }
    let current = outcome.done.len() - changed.len();
    let verb = if is_dry_run { "would be" } else { "were" };
    writeln!(
        io.output,
        "{} {verb} migrated, {current} were up to date",
        changed.len()
    )?;
    if !outcome.skipped.is_empty() {
        let skipped = outcome.skipped.len();
        writeln!(
            io.output,
            "{skipped} were left out: their auto_update is off"
        )?;
    }
    for it in &outcome.failed {
        writeln!(io.talk, "failed: {}: {}", it.tenant, it.reason)?;
    }
    Ok(())
}
