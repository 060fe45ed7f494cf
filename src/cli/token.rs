//! `pgusher token`: tokens of the admin API.

use super::{ConfigFile, Io, control, table};
use crate::control::{Actor, Control, Listed, NewToken, Page, Role, TokenView};
use clap::{Args, Subcommand};
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

const CREATE_HELP: &str = "\
Roles, each may what those before it may:
  viewer   look
  user     change configuration entries that are not sensitive
  manager  make and revoke keys, manage users, change pools
  admin    everything, also make and end tenants

Examples:
  pgusher token create --name ci --role admin
  pgusher token create --name acme-portal --role manager --tenant acme --expires-at 2027-01-31T00:00:00Z
  curl -H \"Authorization: Bearer $TOKEN\" http://127.0.0.1:6433/api/tenants";

/// Entries that are asked for at a time.
const PAGE: u32 = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token; it is shown only now
    #[command(after_help = CREATE_HELP)]
    Create(CreateArgs),
    /// List all tokens, revoked ones too
    List(ListArgs),
    /// Revoke a token: the next request with it is refused
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// For people
    #[arg(long, default_value = "")]
    name: String,
    /// What it may do: viewer, user, manager or admin
    #[arg(long)]
    role: Role,
    /// Only to this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Not valid from then on, such as 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time_of)]
    expires_at: Option<OffsetDateTime>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The token's id: the part between the underscores
    id: String,
    #[command(flatten)]
    common: Common,
}

fn time_of(text: &str) -> Result<OffsetDateTime, String> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339);
    parsed.map_err(|_error| "write it as 2027-01-31T00:00:00Z".to_owned())
}

pub(super) fn run(command: TokenCommand, io: &mut Io<'_>) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create(args) => create(args, io),
        TokenCommand::List(args) => list(&args.common, io),
        TokenCommand::Revoke(args) => revoke(&args, io),
    }
}

fn create(args: CreateArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let new = NewToken {
        name: args.name,
        role: args.role,
        tenant: args.tenant,
        expires_at: args.expires_at,
    };
    let created = control::run(&args.common.config, |control, actor| async move {
        Ok(control.create_token(&actor, new).await?)
    })?;
    let token = created.secret.expose();
    if args.common.json {
        let all = json!({ "id": created.token.id, "token": token, "role": created.token.role,
            "tenant": created.token.tenant, "expires_at": created.token.expires_at.map(table::time) });
        writeln!(io.output, "{all:#}")?;
    } else {
        writeln!(io.output, "{token}")?;
        writeln!(
            io.talk,
            "The token is shown only now. Its id is {}.",
            created.token.id
        )?;
    }
    Ok(())
}

fn list(args: &Common, io: &mut Io<'_>) -> anyhow::Result<()> {
    let tokens = control::run(&args.config, all)?;
    if args.json {
        return table::json(io, &tokens);
    }
    let mut table = table::table(&["id", "role", "tenant", "status", "expires", "name"]);
    for token in &tokens {
        let now = OffsetDateTime::now_utc();
        let status = match token {
            token if token.revoked_at.is_some() => "revoked",
            token if token.expires_at.is_some_and(|time| time <= now) => "expired",
            _ => "valid",
        };
        table.add_row([
            token.id.clone(),
            token.role.clone(),
            token.tenant.clone().unwrap_or_else(|| "(all)".to_owned()),
            status.to_owned(),
            table::maybe_time(token.expires_at),
            token.name.clone(),
        ]);
    }
    table::print(io, &table)
}

async fn all(control: Control, actor: Actor) -> anyhow::Result<Vec<TokenView>> {
    let mut tokens = Vec::new();
    let mut page = Page {
        limit: Some(PAGE),
        after: None,
    };
    loop {
        let Listed { items, next } = control.list_tokens(&actor, &page).await?;
        tokens.extend(items);
        if next.is_none() {
            return Ok(tokens);
        }
        page.after = next;
    }
}

fn revoke(args: &RevokeArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let id = args.id.clone();
    let revoked = control::run(&args.common.config, |control, actor| async move {
        Ok(control.revoke_token(&actor, &id).await?)
    })?;
    if args.common.json {
        return table::json(io, &revoked);
    }
    writeln!(io.talk, "{} is revoked.", revoked.id)?;
    Ok(())
}
