//! `pgusher secrets`: the master keys.

use super::{ConfigFile, Io, control};
use crate::{control::Rotated, crypto::Keyring};
use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

const ROTATE_HELP: &str = "\
A new master key, without a pause:
  1. pgusher secrets key --number 2 >> master.key     add it, on every machine that runs pgusher
  2. kill -HUP every pgusher                          they open with both, and seal with the new one
  3. pgusher secrets rotate                           everything is sealed anew; run it again if it ends early
  4. take key 1 out of master.key, kill -HUP again

What can't be opened is listed and stays; the exit status is then 1.";

/// Master keys
#[derive(Debug, Subcommand)]
pub(super) enum SecretsCommand {
    /// Make a master key: a line for the file that `secrets.master_key_file` names
    Key(KeyArgs),
    /// Seal everything in the registry anew under the newest master key
    #[command(after_help = ROTATE_HELP)]
    Rotate(RotateArgs),
}

#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// Its number; the highest number in the file seals
    #[arg(long, default_value_t = 1)]
    number: u32,
}

#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &SecretsCommand, io: &mut Io<'_>) -> anyhow::Result<()> {
    match command {
        SecretsCommand::Key(args) => {
            writeln!(io.output, "{}", Keyring::new_line(args.number)?.expose())?;
            writeln!(
                io.talk,
                "Keep a copy elsewhere: without it, what it seals is lost."
            )?;
            Ok(())
        }
        SecretsCommand::Rotate(args) => rotate(args, io),
    }
}

fn rotate(args: &RotateArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let rotated: Rotated = control::run(&args.config, |control, actor| async move {
        let bar = ProgressBar::new(control.count_secrets().await?);
        bar.set_style(ProgressStyle::with_template(
            "{bar:30} {pos}/{len} {elapsed}",
        )?);
        let rotated = control.rotate_secrets(&actor, || bar.inc(1)).await?;
        bar.finish_and_clear();
        Ok(rotated)
    })
    .context("the secrets were not all sealed anew; run it again, it goes on")?;
    if args.json {
        writeln!(io.output, "{}", serde_json::to_string_pretty(&rotated)?)?;
    } else {
        writeln!(
            io.output,
            "{} sealed anew under key {}, {} were already",
            rotated.resealed, rotated.key, rotated.current
        )?;
    }
    if rotated.failed.is_empty() {
        return Ok(());
    }
    bail!(
        "{} can't be opened and stay as they are:\n  {}",
        rotated.failed.len(),
        rotated.failed.join("\n  ")
    )
}
