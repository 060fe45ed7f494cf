//! The command line: what it accepts, what it prints, how it ends.
//!
//! stdout is data, stderr is talk. It ends with 0, with 1 when something went wrong, and with 2
//! when the command or the configuration is wrong.

mod audit;
mod check;
mod cluster;
mod control;
mod cost;
mod health;
mod import;
mod key;
mod key_set;
mod migrate;
mod migrate_registry;
mod migrate_tenants;
mod output;
mod plan;
mod protect;
mod secrets;
mod table;
mod tenant;
mod tenant_args;
mod token;
mod tuning;
mod usage;

use crate::{
    app,
    config::{Config, ConfigError, Log, LogFormat, LogLevel},
    control::ControlError,
    demo::DemoArgs,
    telemetry::logs,
};
use clap::{Args, Parser, Subcommand};
use output::Output;
use std::{
    ffi::OsString,
    io::{self, BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\nPostgreSQL protocol 3.0, 3.2");

const EXAMPLES: &str = "\
Start:
  pgusher key create                      make an API key, and the line for proxy.toml
  pgusher check --config proxy.toml       is the file right, and what does it mean?
  pgusher serve --config proxy.toml       serve
  psql postgres://TENANT:KEY@127.0.0.1:6432/TENANT
  pgusher demo                            all of it, with a PostgreSQL of its own

With a [registry] in proxy.toml:
  pgusher migrate                         create the registry's tables
  pgusher cluster add main --primary postgres://db --admin-role admin --admin-password-env PW
  pgusher tenant create acme --tier schema

A change of proxy.toml is noticed by itself (or at SIGHUP); a file with an error changes nothing.
SIGUSR2 replaces the program, or what only a restart can change, without downtime.
Exit status: 0 well, 1 something went wrong, 2 wrong command or configuration.";

/// A PostgreSQL proxy that routes by tenant.
#[derive(Debug, Parser)]
#[command(name = "pgusher", version = VERSION, after_help = EXAMPLES)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve clients until SIGTERM or Ctrl-C
    Serve(ConfigFile),
    /// Start a private PostgreSQL with a replica, tenants, and the proxy before them; Ctrl-C ends all
    Demo(DemoArgs),
    /// Check proxy.toml and print what it means, defaults filled in, secrets redacted
    Check(check::CheckArgs),
    /// Create the registry's tables, or bring them up to date; with `tenants`: the tenants' tables
    Migrate(migrate::MigrateArgs),
    /// Turn tables into tables of tier row: each tenant finds its own rows in them
    Protect(protect::ProtectArgs),
    /// Tenants: make, change, end them; what happened to them
    #[command(subcommand)]
    Tenant(tenant_args::TenantCommand),
    /// Plans: bundles of limits and monthly quotas
    #[command(subcommand)]
    Plan(plan::PlanCommand),
    /// API keys of a tenant, and verifiers for proxy.toml
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// PostgreSQL clusters that tenants are made in
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// What a month costs each tenant, by the prices of proxy.toml
    #[command(subcommand)]
    Cost(cost::CostCommand),
    /// Master keys: make one, seal everything anew
    #[command(subcommand)]
    Secrets(secrets::SecretsCommand),
    /// Tokens of the admin API
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// The log of events: is it whole?
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Take tenants over from PgBouncer, Fineract or UltraCore
    #[command(subcommand)]
    Import(import::ImportCommand),
    /// Ask a running pgusher whether it is well; for a container's health check
    Health(health::HealthArgs),
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration; proxy.toml itself explains every key
    #[arg(
        long,
        value_name = "FILE",
        env = "PGUSHER_CONFIG",
        default_value = "proxy.toml"
    )]
    config: PathBuf,
}

/// The command is wrong in a way that the parser can't see.
#[derive(Debug, thiserror::Error)]
enum UsageError {
    /// A key as an argument.
    #[error(
        "a key on the command line can be seen by every process; pipe it: printf %s \"$KEY\" | pgusher key verifier"
    )]
    KeyOnCommandLine,
    /// Nothing to make a verifier from.
    #[error("there is no key on stdin; pipe it: printf %s \"$KEY\" | pgusher key verifier")]
    NoKey,
    /// A key that no client can send.
    #[error("the key has more than {0} bytes")]
    LongKey(usize),
    /// The variable is not there.
    #[error("the environment variable {0:?} is not set or is empty")]
    Environment(String),
    /// A change of a tenant that can't be read.
    #[error("{0:?}: {1}")]
    Change(String, String),
    /// Nothing is to be changed.
    #[error("nothing is to be changed; give at least one option, such as {0}")]
    Nothing(&'static str),
    /// A file with a secret.
    #[error("can't read {0}: {1}")]
    SecretFile(String, String),
    /// Neither an address nor a cluster of that name in the file.
    #[error(
        "give --primary postgres://host[:port]; {0} has no cluster {1:?} whose address could be taken"
    )]
    NoPrimary(String, String),
    /// Not a URL that we can ask.
    #[error("{0:?} is no URL; write \"http://127.0.0.1:6433/healthz\"")]
    Url(String),
}

/// What a command reads and writes, so that tests can stand in.
struct Io<'a> {
    input: &'a mut dyn BufRead,
    output: &'a mut dyn Write,
    /// stderr.
    talk: &'a mut dyn Write,
    /// Whether a person types the input.
    is_interactive: bool,
}

/// Runs the command of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(words(std::env::args_os().collect())) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout and is no failure; a closed pipe is none either.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let mut io = Io {
        input: &mut io::stdin().lock(),
        output: &mut Output(io::stdout().lock()),
        talk: &mut io::stderr(),
        is_interactive: io::stdin().is_terminal(),
    };
    match run(cli, &mut io) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io.talk, "pgusher: {}", told(&error)).ok();
            exit_code(&error)
        }
    }
}

/// `pgusher import pgbouncer.ini` says whose file it is, and needs no other word for it.
fn words(mut words: Vec<OsString>) -> Vec<OsString> {
    let is_ini = |word: &OsString| Path::new(word).extension().is_some_and(|end| end == "ini");
    if words.get(1).is_some_and(|word| word == "import") && words.get(2).is_some_and(is_ini) {
        words.insert(2, "pgbouncer".into());
    }
    words
}

fn run(cli: Cli, io: &mut Io<'_>) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve(file) => serve(file.config)?,
        Command::Demo(args) => demo(args)?,
        Command::Check(args) => check::run(&args, io)?,
        Command::Migrate(args) => migrate::run(args, io)?,
        Command::Protect(args) => protect::run(args, io)?,
        Command::Tenant(command) => tenant::run(command, io)?,
        Command::Plan(command) => plan::run(command, io)?,
        Command::Key(command) => key::run(command, io)?,
        Command::Cluster(command) => cluster::run(command, io)?,
        Command::Cost(command) => cost::run(command, io)?,
        Command::Secrets(command) => secrets::run(&command, io)?,
        Command::Token(command) => token::run(command, io)?,
        Command::Audit(command) => audit::run(&command, io)?,
        Command::Import(command) => import::run(command, io)?,
        Command::Health(args) => health::run(&args, io)?,
    }
    io.output.flush()?;
    Ok(())
}

fn serve(path: PathBuf) -> anyhow::Result<()> {
    let (config, warnings) = Config::inspect(&path)?;
    logs::init(&config.proxy.log)?;
    for warning in warnings {
        tracing::warn!(%warning, "configuration");
    }
    app::serve(&config, path)
}

fn demo(args: DemoArgs) -> anyhow::Result<()> {
    logs::init(&Log {
        format: LogFormat::Text,
        level: LogLevel::Warn,
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(crate::demo::run(args));
    runtime.shutdown_background();
    result
}

/// An error with its causes; one that its effect has told of already is not told again.
fn told(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |told, cause| {
        let cause = cause.to_string();
        if told.ends_with(&cause) {
            told
        } else if told.is_empty() {
            cause
        } else {
            format!("{told}: {cause}")
        }
    })
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    let is_wrong = error.is::<ConfigError>()
        || error.is::<UsageError>()
        || error.is::<control::NoRegistry>()
        || matches!(error.downcast_ref(), Some(ControlError::Invalid { .. }));
    if is_wrong {
        ExitCode::from(2)
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests;
