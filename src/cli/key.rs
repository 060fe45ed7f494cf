//! `pgusher key`.

use super::{ConfigFile, Io, UsageError, control, key_set, table};
use crate::{
    control::{CreatedKey, KeyView, Listed, NewKey, Page, mint, verifier},
    tenant::{ScramVerifier, Secret},
};
use clap::{Args, Subcommand};
use serde_json::json;
use std::{
    io::{BufRead, Read},
    time::Duration,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use zeroize::Zeroizing;

/// Longer ones are no keys: a client's password message is limited, too.
const KEY_BYTES_MAX: usize = 1024;

/// Keys that are asked for at a time.
const PAGE: u32 = 1000;

const CREATE_HELP: &str = "\
Examples:
  pgusher key create acme                              another key for a tenant of the registry
  pgusher key create acme --name reports --scope read_only --allow 10.0.0.0/8 --expires 90d
  pgusher key create acme --permission read --permission orders.list --rate-limit-per-hour 1000
  pgusher key create acme --transactions-per-hour 500  requests in an hour; 1000 if nothing stands behind it
  pgusher key create                                   without a registry: the line for proxy.toml
  pgusher key create --like 'SCRAM-SHA-256$4096:…'      another key of the same tenant, for proxy.toml

Permissions: \"read\" is a key that only reads (scope read_only), \"write\" one that reads and
writes; any other word is recorded for the tenant's own applications, pgusher makes nothing of it.
At the admin API a tenant's key may look at its own tenant, whatever its permissions are.

The rate limit per hour counts new connections and requests of the admin API together, in each
proxy; transactions per hour count what its clients do once they are there. At once as many as they
say, then one more each time that this part of an hour has passed. Beyond it a client gets 53400, a
request 429, and both are told when to come back.

The key is printed once.";

const ROTATE_HELP: &str = "\
Makes a new key like the old one, which goes on working for the grace. Example:
  pgusher key rotate acme k3v9x2ab --grace 1d";

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a new random key: for a tenant of the registry, or a line for proxy.toml
    #[command(after_help = CREATE_HELP)]
    Create(Box<CreateArgs>),
    /// List a tenant's keys
    List(ListArgs),
    /// Change a key's limits, and from where and when it opens; what runs goes on
    #[command(after_help = key_set::HELP)]
    Set(Box<key_set::SetArgs>),
    /// Revoke a key: its sessions end at once
    Revoke(RevokeArgs),
    /// Replace a key by a new one
    #[command(after_help = ROTATE_HELP)]
    Rotate(RotateArgs),
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
    /// A tenant of the registry; without one, the key is for proxy.toml
    #[arg(conflicts_with = "like")]
    tenant: Option<String>,
    #[command(flatten)]
    like: Like,
    /// For people
    #[arg(long, requires = "tenant")]
    name: Option<String>,
    /// For writing too, or for reading: that lands on a role that can't write
    #[arg(long, requires = "tenant", value_name = "read_write|read_only")]
    scope: Option<String>,
    /// A network that it may be used from, such as 10.0.0.0/8; can be given more than once
    #[arg(long, requires = "tenant", value_name = "NETWORK")]
    allow: Vec<String>,
    /// read, write, or a word for the tenant's own applications; can be given more than once
    #[arg(long, requires = "tenant", value_name = "WORD")]
    permission: Vec<String>,
    /// It ends then: after 90d, or at 2027-01-31T00:00:00Z
    #[arg(long, requires = "tenant", value_name = "TIME", value_parser = end)]
    expires: Option<OffsetDateTime>,
    /// New connections and requests of the admin API in an hour, in each proxy
    #[arg(long, requires = "tenant", value_name = "N")]
    rate_limit_per_hour: Option<i32>,
    /// Clients that use it at the same time
    #[arg(long, requires = "tenant", value_name = "N")]
    max_client_connections: Option<i32>,
    /// Transactions of its clients that run at the same time, in each proxy
    #[arg(long, requires = "tenant", value_name = "N")]
    max_concurrent_queries: Option<i32>,
    /// Transactions of its clients in a second, in each proxy
    #[arg(long, requires = "tenant", value_name = "N")]
    transactions_per_second: Option<i32>,
    /// Transactions of its clients in an hour, in each proxy; without a number 1000
    #[arg(long, requires = "tenant", value_name = "N", num_args = 0..=1, default_missing_value = "1000")]
    transactions_per_hour: Option<i32>,
    /// Bytes of its clients in a second, in both directions, in each proxy
    #[arg(long, requires = "tenant", value_name = "N")]
    bytes_per_second: Option<i64>,
    /// Logins with it in a second, in each proxy
    #[arg(long, requires = "tenant", value_name = "N")]
    logins_per_second: Option<i32>,
    #[command(flatten)]
    config: ConfigFile,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// The tenant
    tenant: String,
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The tenant
    tenant: String,
    /// The key's id: what stands between "pgu_" and the next "_"
    key: String,
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    /// The tenant
    tenant: String,
    /// The key's id
    key: String,
    /// How long the old one goes on working
    #[arg(long, default_value = "1d", value_parser = humantime::parse_duration)]
    grace: Duration,
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
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
        KeyCommand::Create(args) => match args.tenant.clone() {
            Some(tenant) => create_for(tenant, *args, io),
            None => create(&args.like, io),
        },
        KeyCommand::List(args) => list(args, io),
        KeyCommand::Set(args) => key_set::run(*args, io),
        KeyCommand::Revoke(args) => revoke(args, io),
        KeyCommand::Rotate(args) => rotate(args, io),
        KeyCommand::Verifier(args) => print_verifier(args, io),
    }
}

/// A time, or how long until then.
pub(super) fn end(text: &str) -> Result<OffsetDateTime, String> {
    if let Ok(end) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(end);
    }
    let rest = humantime::parse_duration(text);
    let rest = rest.map_err(|_error| "write \"90d\", or \"2027-01-31T00:00:00Z\"".to_owned())?;
    let rest = time::Duration::try_from(rest).ok();
    let end = rest.and_then(|rest| OffsetDateTime::now_utc().checked_add(rest));
    end.ok_or_else(|| "it is too long".to_owned())
}

fn create_for(tenant: String, args: CreateArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let new = NewKey {
        name: args.name.unwrap_or_default(),
        scope: args.scope,
        permissions: args.permission,
        allow: args.allow,
        rate_limit_per_hour: args.rate_limit_per_hour,
        max_client_connections: args.max_client_connections,
        max_concurrent_queries: args.max_concurrent_queries,
        transactions_per_second: args.transactions_per_second,
        transactions_per_hour: args.transactions_per_hour,
        bytes_per_second: args.bytes_per_second,
        logins_per_second: args.logins_per_second,
        not_before: None,
        expires_at: args.expires,
    };
    let foreign: Vec<_> = new
        .foreign_permissions()
        .map(|word| format!("{word:?}"))
        .collect();
    let made = control::run(&args.config, |control, actor| async move {
        Ok(control.create_key(&actor, &tenant, new).await?)
    });
    created(&made?, args.like.json, io)?;
    if !foreign.is_empty() {
        let foreign = foreign.join(", ");
        writeln!(
            io.talk,
            "pgusher makes nothing of {foreign}: that is for the tenant's own applications."
        )?;
    }
    Ok(())
}

fn created(made: &CreatedKey, is_json: bool, io: &mut Io<'_>) -> anyhow::Result<()> {
    if is_json {
        return table::json(io, &made.reveal());
    }
    writeln!(io.output, "id            {}", made.key.id)?;
    writeln!(io.output, "key           {}", made.secret.expose())?;
    writeln!(io.output, "DATABASE_URL  {}", made.url.expose())?;
    writeln!(io.talk, "The key is shown only now.")?;
    Ok(())
}

fn list(args: ListArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let tenant = args.tenant;
    let keys = control::run(&args.config, |control, actor| async move {
        let (mut keys, mut page) = (Vec::new(), Page::default());
        loop {
            page.limit = Some(PAGE);
            let Listed { items, next } = control.list_keys(&actor, &tenant, &page).await?;
            keys.extend(items);
            if next.is_none() {
                return Ok(keys);
            }
            page.after = next;
        }
    })?;
    if args.json {
        return table::json(io, &keys);
    }
    let mut table = table::table(&[
        "key",
        "name",
        "scope",
        "status",
        "from",
        "expires",
        "last used",
    ]);
    let now = OffsetDateTime::now_utc();
    for key in keys {
        let status = status(&key, now).to_owned();
        let from = key.allow.join(", ");
        let ends = table::maybe_time(key.expires_at);
        let used = table::maybe_time(key.last_used_at);
        table.add_row([key.id, key.name, key.scope, status, from, ends, used]);
    }
    table::print(io, &table)
}

fn status(key: &KeyView, now: OffsetDateTime) -> &'static str {
    if key.status == "revoked" {
        "revoked"
    } else if key.expires_at.is_some_and(|end| end <= now) {
        "expired"
    } else if key.not_before.is_some_and(|begin| begin > now) {
        "not yet"
    } else {
        "active"
    }
}

fn revoke(args: RevokeArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let (tenant, key) = (args.tenant, args.key);
    let key = control::run(&args.config, |control, actor| async move {
        Ok(control.revoke_key(&actor, &tenant, &key).await?)
    })?;
    if args.json {
        return table::json(io, &key);
    }
    writeln!(
        io.output,
        "key {} of tenant {} is revoked",
        key.id, key.tenant
    )?;
    Ok(())
}

fn rotate(args: RotateArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let (tenant, old, grace) = (args.tenant, args.key.clone(), args.grace);
    let made = control::run(&args.config, |control, actor| async move {
        Ok(control.rotate_key(&actor, &tenant, &old, grace).await?)
    })?;
    created(&made, args.json, io)?;
    let ends = humantime::format_duration(args.grace);
    writeln!(io.talk, "Key {} ends in {ends}.", args.key)?;
    Ok(())
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
