//! `pgusher import`.

use super::{ConfigFile, Io, control};
use crate::{
    config::Config,
    import::{
        self, Note, Outcome, Report, Tenant,
        pgbouncer::{self, Move},
    },
    tenant::{Secret, Tier},
};
use anyhow::bail;
use clap::{Args, Subcommand};
use comfy_table::{ContentArrangement, LineStyle, Table, presets};
use serde_json::json;
use std::{collections::BTreeMap, path::PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum ImportCommand {
    /// Print the proxy.toml that a pgbouncer.ini amounts to; what has no counterpart is told on stderr
    #[command(after_help = "\
Examples:
  pgusher import pgbouncer /etc/pgbouncer/pgbouncer.ini > proxy.toml
  pgusher import pgbouncer pgbouncer.ini --database shop --database blog   (reached through *)
  pgusher import pgbouncer.ini                                             the same, shorter

The file holds the upstream passwords that PgBouncer's files held: chmod 600.")]
    Pgbouncer(PgbouncerArgs),
    /// Write the tenants of Fineract's tenant store to the registry
    #[command(after_help = REGISTRY_HELP)]
    Fineract(RegistryArgs),
    /// Write the tenants of UltraCore's tenant registry to ours
    #[command(after_help = REGISTRY_HELP)]
    Ultracore(RegistryArgs),
}

const REGISTRY_HELP: &str = "\
Servers are found among the registry's clusters by their address. It can be run again: tenants that
are there with the same facts are passed over, those with others are refused (exit status 1).
A password in --from can be seen by every process: use PGPASSWORD, or PGUSHER_IMPORT_FROM for all of it.";

#[derive(Debug, Args)]
pub(super) struct PgbouncerArgs {
    /// pgbouncer.ini
    #[arg(value_name = "FILE.ini")]
    file: PathBuf,
    /// Read the users from this file instead of the one that the ini names
    #[arg(long, value_name = "FILE")]
    userlist: Option<PathBuf>,
    /// How the tenants are kept apart: database, schema or row
    #[arg(long, default_value = "database")]
    tier: Tier,
    /// A database that clients reach through the entry *; may be given again
    #[arg(long = "database", value_name = "NAME")]
    databases: Vec<String>,
    /// The id of a tenant, where the usual one will not do; may be given again
    #[arg(long = "id", value_name = "NAME=ID", value_parser = pair)]
    ids: Vec<(String, String)>,
    /// Print JSON: the text of proxy.toml, the notes, the logins
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RegistryArgs {
    /// The store: postgres://user@host:port/database
    #[arg(long, value_name = "URL", env = "PGUSHER_IMPORT_FROM", hide_env_values = true, value_parser = secret)]
    from: Secret,
    /// A file with the master password that the store's passwords are sealed under
    #[arg(long, value_name = "FILE")]
    master_password_file: Option<PathBuf>,
    /// The cluster that stands for a server whose address no cluster has
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// The id of a tenant, where the usual one will not do; may be given again
    #[arg(long = "id", value_name = "NAME=ID", value_parser = pair)]
    ids: Vec<(String, String)>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Never fails, so that no error shows it.
#[expect(clippy::unnecessary_wraps, reason = "the form of a parser")]
fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text.to_owned()))
}

/// `NAME=VALUE`
fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.rsplit_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) fn run(command: ImportCommand, io: &mut Io<'_>) -> anyhow::Result<()> {
    match command {
        ImportCommand::Pgbouncer(args) => from_pgbouncer(args, io),
        ImportCommand::Fineract(args) => to_registry(args, Store::Fineract, io),
        ImportCommand::Ultracore(args) => to_registry(args, Store::UltraCore, io),
    }
}

/// Whose tables.
enum Store {
    Fineract,
    UltraCore,
}

fn to_registry(args: RegistryArgs, store: Store, io: &mut Io<'_>) -> anyhow::Result<()> {
    let wanted = import::Wanted {
        from: args.from,
        master_password: args.master_password_file,
        cluster: args.cluster,
        ids: args.ids.into_iter().collect::<BTreeMap<_, _>>(),
        is_dry_run: args.dry_run,
    };
    let config = Config::load(&args.config.config)?;
    let (report, proxy) = control::run(&args.config, |control, actor| async move {
        let report = match store {
            Store::Fineract => import::fineract(&control, &actor, &config, &wanted).await?,
            Store::UltraCore => import::ultracore(&control, &actor, &config, &wanted).await?,
        };
        Ok((report, control.proxy))
    })?;
    show(report, &proxy, args.json, io)
}

fn show(report: Report, proxy: &str, is_json: bool, io: &mut Io<'_>) -> anyhow::Result<()> {
    if is_json {
        let tenants: Vec<_> = report
            .tenants
            .iter()
            .map(|one| tenant_json(one, proxy))
            .collect();
        let broken_off = report.broken_off.as_ref().map(ToString::to_string);
        let all = json!({ "tenants": tenants, "notes": report.notes, "broken_off": broken_off });
        writeln!(io.output, "{all:#}")?;
    } else {
        let rows = report.tenants.iter().map(|one| {
            let (word, what) = outcome(&one.outcome);
            let url = new_url(one, proxy).unwrap_or(what);
            [
                one.id.clone(),
                word.to_owned(),
                one.cluster.clone(),
                one.old_url.clone(),
                url,
            ]
        });
        let head = ["tenant", "", "cluster", "before", "new DATABASE_URL"];
        writeln!(io.output, "{}", table(head, rows))?;
        readers(&report, proxy, io)?;
        notes(&report.notes, io)?;
        if report
            .tenants
            .iter()
            .any(|one| matches!(one.outcome, Outcome::Written(_)))
        {
            writeln!(io.talk, "Keys are shown only now.")?;
        }
    }
    io.output.flush()?;
    if let Some(error) = report.broken_off {
        return Err(error.into());
    }
    let is_refused = |one: &&Tenant| matches!(one.outcome, Outcome::Different(_));
    let refused: Vec<_> = report.tenants.iter().filter(is_refused).collect();
    if !refused.is_empty() {
        let ids: Vec<_> = refused.iter().map(|one| one.id.as_str()).collect();
        bail!(
            "refused, as the registry has them with other facts: {}",
            ids.join(", ")
        );
    }
    Ok(())
}

/// The URLs that only read.
fn readers(report: &Report, proxy: &str, io: &mut Io<'_>) -> anyhow::Result<()> {
    let url = |one: &Tenant| match &one.outcome {
        Outcome::Written(keys) => {
            let key = keys.read_only_key.as_ref()?;
            Some([one.id.clone(), url(&one.id, key, proxy)])
        }
        _ => None,
    };
    let rows: Vec<_> = report.tenants.iter().filter_map(url).collect();
    if !rows.is_empty() {
        writeln!(
            io.output,
            "{}",
            table(["tenant", "DATABASE_URL that only reads"], rows)
        )?;
    }
    Ok(())
}

/// A word, and what else there is to say.
fn outcome(outcome: &Outcome) -> (&'static str, String) {
    match outcome {
        Outcome::New => ("would be written", String::new()),
        Outcome::Written(_) => ("written", String::new()),
        Outcome::Same => ("there already", String::new()),
        Outcome::Different(names) => ("refused", format!("there with other {}", names.join(", "))),
        Outcome::Left(why) => ("left", why.clone()),
    }
}

fn url(id: &str, key: &Secret, proxy: &str) -> String {
    format!("postgres://{id}:{}@{proxy}/{id}", key.expose())
}

fn new_url(tenant: &Tenant, proxy: &str) -> Option<String> {
    match &tenant.outcome {
        Outcome::Written(keys) => Some(url(&tenant.id, &keys.key, proxy)),
        _ => None,
    }
}

fn tenant_json(tenant: &Tenant, proxy: &str) -> serde_json::Value {
    let (key, read_only_key) = match &tenant.outcome {
        Outcome::Written(keys) => (
            Some(keys.key.expose().to_owned()),
            keys.read_only_key
                .as_ref()
                .map(|key| key.expose().to_owned()),
        ),
        _ => (None, None),
    };
    let (word, why) = outcome(&tenant.outcome);
    let differs = match &tenant.outcome {
        Outcome::Different(names) => names.as_slice(),
        _ => &[],
    };
    json!({
        "id": tenant.id,
        "name": tenant.name,
        "cluster": tenant.cluster,
        "old_url": tenant.old_url,
        "outcome": word.replace(' ', "_"),
        "why": why,
        "differs": differs,
        "url": new_url(tenant, proxy),
        "key": key,
        "read_only_key": read_only_key,
    })
}

fn from_pgbouncer(args: PgbouncerArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let wanted = pgbouncer::Wanted {
        file: args.file,
        userlist: args.userlist,
        tier: args.tier,
        databases: args.databases,
        ids: args.ids.into_iter().collect::<BTreeMap<_, _>>(),
    };
    let imported = pgbouncer::import(&wanted)?;
    if args.json {
        let moves: Vec<_> = imported.moves.iter().map(move_json).collect();
        let all = json!({
            "proxy_toml": imported.toml.expose(),
            "notes": imported.notes,
            "logins": moves,
        });
        writeln!(io.output, "{all:#}")?;
        return Ok(());
    }
    write!(io.output, "{}", imported.toml.expose())?;
    notes(&imported.notes, io)?;
    if !imported.moves.is_empty() {
        let rows = imported.moves.iter().map(|one| {
            let key = one.new_key.as_ref().map(|key| key.expose().to_owned());
            let key = key.unwrap_or_else(|| "as before".to_owned());
            [one.old_url.clone(), one.new_url.clone(), key]
        });
        let table = table(["old DATABASE_URL", "new DATABASE_URL", "<password>"], rows);
        writeln!(io.talk, "\n{table}")?;
    }
    if imported.moves.iter().any(|one| one.new_key.is_some()) {
        writeln!(io.talk, "New keys are shown only now.")?;
    }
    Ok(())
}

fn move_json(one: &Move) -> serde_json::Value {
    json!({
        "tenant": one.tenant,
        "database": one.database,
        "user": one.user,
        "old_url": one.old_url,
        "new_url": one.new_url,
        "new_key": one.new_key.as_ref().map(|key| key.expose().to_owned()),
    })
}

fn notes(notes: &[Note], io: &mut Io<'_>) -> anyhow::Result<()> {
    for note in notes {
        writeln!(io.talk, "pgusher: note: {note}")?;
    }
    Ok(())
}

fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head);
    for row in rows {
        table.add_row(row);
    }
    table
}
