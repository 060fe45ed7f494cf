//! `pgusher audit`: what happened, and whether the log of it is whole.

use super::{ConfigFile, Io, control};
use crate::control::{Break, Head};
use anyhow::bail;
use clap::{Args, Subcommand};

const VERIFY_HELP: &str = "\
Every event's hash covers the one before it: an event that was changed, removed or put in shows. Who
can rewrite the whole log can't be seen that way; note the head that is printed elsewhere, and give it
the next time:
  pgusher audit verify --head 1042:9f86d081884c7d65…

The exit status is 1 when the log is broken.";

/// The log of events
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Recompute the chain of all events
    #[command(after_help = VERIFY_HELP)]
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// A head that was noted earlier: it must still be there
    #[arg(long, value_name = "SEQ:HASH", value_parser = head)]
    head: Option<Head>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn head(text: &str) -> Result<Head, String> {
    let head = text.split_once(':').and_then(|(seq, hash)| {
        Some(Head {
            seq: seq.parse().ok()?,
            hash: hash.to_ascii_lowercase(),
        })
    });
    head.ok_or_else(|| "write it as it was printed: 1042:9f86d081…".to_owned())
}

pub(super) fn run(command: &AuditCommand, io: &mut Io<'_>) -> anyhow::Result<()> {
    let AuditCommand::Verify(args) = command;
    let verified = control::run(&args.config, |control, actor| async move {
        Ok(control.verify_audit(&actor, args.head.as_ref()).await?)
    })?;
    if args.json {
        writeln!(io.output, "{}", serde_json::to_string_pretty(&verified)?)?;
    } else if let (Some(head), None) = (&verified.head, &verified.broken) {
        writeln!(io.output, "{} events, whole", verified.events)?;
        writeln!(io.output, "head {}:{}", head.seq, head.hash)?;
    } else if verified.broken.is_none() {
        writeln!(io.output, "no events yet")?;
    }
    match verified.broken {
        None => Ok(()),
        Some(Break::Gap { seq, expected }) => {
            bail!("events {expected} to {} were removed", seq - 1)
        }
        Some(Break::Chain { seq }) => {
            bail!("event {seq} does not follow from the one before it: that one was replaced")
        }
        Some(Break::Changed { seq }) => bail!("event {seq} was changed"),
        Some(Break::Head { seq }) => {
            bail!("event {seq} is not the one that was noted: the end was removed or rewritten")
        }
    }
}
