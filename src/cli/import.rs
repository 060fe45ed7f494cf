//! `pgusher import`.

use super::Io;
use crate::{
    import::{
        Note,
        pgbouncer::{self, Move},
    },
    tenant::Tier,
};
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

The file holds the upstream passwords that PgBouncer's files held: chmod 600.")]
    Pgbouncer(PgbouncerArgs),
}

#[derive(Debug, Args)]
pub(super) struct PgbouncerArgs {
    /// pgbouncer.ini
    #[arg(value_name = "FILE.ini")]
    file: PathBuf,
    /// Read the users from this file instead of the ini's auth_file
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

/// `NAME=VALUE`
fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.rsplit_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) fn run(command: ImportCommand, io: &mut Io<'_>) -> anyhow::Result<()> {
    match command {
        ImportCommand::Pgbouncer(args) => from_pgbouncer(args, io),
    }
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
