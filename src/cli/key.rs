//! `pgusher key`.

use super::{Io, UsageError};
use crate::control::{mint, verifier};
use crate::tenant::{ScramVerifier, Secret};
use clap::{Args, Subcommand};
use serde_json::json;
use std::io::{BufRead, Read};
use zeroize::Zeroizing;

/// Longer ones are no keys: a client's password message is limited, too.
const KEY_BYTES_MAX: usize = 1024;

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a new random key, its verifier, and the line for proxy.toml
    Create(CreateArgs),
    /// Print the verifier of a key, read from stdin or the environment
    #[command(after_help = "\
Examples:
  printf %s \"$KEY\" | pgusher key verifier
  pgusher key verifier --key-env KEY --like 'SCRAM-SHA-256$4096:…'")]
    Verifier(VerifierArgs),
}

/// A tenant's keys share salt and iteration count: a client is told them before it shows its key.
#[derive(Debug, Args)]
struct Like {
    /// Use the salt and iteration count of this verifier: for another key of the same tenant
    #[arg(long, value_name = "VERIFIER")]
    like: Option<ScramVerifier>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    like: Like,
}

#[derive(Debug, Args)]
pub(super) struct VerifierArgs {
    #[command(flatten)]
    like: Like,
    /// Read the key from this environment variable instead of stdin
    #[arg(long, value_name = "NAME")]
    key_env: Option<String>,
    /// Only here to be refused with a reason.
    #[arg(hide = true)]
    key: Option<String>,
}

pub(super) fn run(command: KeyCommand, io: &mut Io<'_>) -> anyhow::Result<()> {
    match command {
        KeyCommand::Create(args) => create(&args.like, io),
        KeyCommand::Verifier(args) => print_verifier(args, io),
    }
}

fn create(args: &Like, io: &mut Io<'_>) -> anyhow::Result<()> {
    let key = mint()?;
    let text = key.text.expose();
    let verifier = verifier(text, args.like.as_ref())?.to_string();
    let id = key.id.as_str();
    let line = format!("{{ id = \"{id}\", verifier = \"{verifier}\" }},");
    if args.json {
        let all = json!({ "id": id, "key": text, "verifier": verifier, "line": line });
        writeln!(io.output, "{all:#}")?;
    } else {
        writeln!(io.output, "key       {text}")?;
        writeln!(io.output, "verifier  {verifier}")?;
        writeln!(io.output, "line      {line}")?;
        writeln!(
            io.talk,
            "The key is shown only now. The line belongs into the tenant's keys in proxy.toml."
        )?;
    }
    Ok(())
}

fn print_verifier(args: VerifierArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    if let Some(key) = args.key {
        drop(Zeroizing::new(key));
        return Err(UsageError::KeyOnCommandLine.into());
    }
    let key = match args.key_env {
        Some(name) => {
            let value = std::env::var(&name).unwrap_or_default();
            checked(Secret::new(value), UsageError::Environment(name))?
        }
        None => checked(read_key(io)?, UsageError::NoKey)?,
    };
    let verifier = verifier(key.expose(), args.like.like.as_ref())?.to_string();
    if args.like.json {
        writeln!(io.output, "{:#}", json!({ "verifier": verifier }))?;
    } else {
        writeln!(io.output, "{verifier}")?;
    }
    Ok(())
}

/// The first line of the input.
fn read_key(io: &mut Io<'_>) -> anyhow::Result<Secret> {
    if io.is_interactive {
        write!(io.talk, "API key: ")?;
        io.talk.flush()?;
    }
    let mut line = Zeroizing::new(String::with_capacity(KEY_BYTES_MAX + 3));
    let most = KEY_BYTES_MAX as u64 + 3;
    (&mut *io.input).take(most).read_line(&mut line)?;
    Ok(Secret::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}

fn checked(key: Secret, if_empty: UsageError) -> Result<Secret, UsageError> {
    match key.expose().len() {
        0 => Err(if_empty),
        length if length > KEY_BYTES_MAX => Err(UsageError::LongKey(KEY_BYTES_MAX)),
        _ => Ok(key),
    }
}
