//! The arguments of `pgusher tenant`.

use super::ConfigFile;
use clap::{Args, Subcommand};
use std::{path::PathBuf, time::Duration};
use time::{
    Date, OffsetDateTime,
    format_description::well_known::{Iso8601, Rfc3339},
};

const CREATE_HELP: &str = "\
Examples:
  pgusher tenant create acme --tier schema
  pgusher tenant create initech --tier row --variant shared --cluster eu-1
  pgusher tenant create globex --tier database --plan enterprise --set pool_size=40 --set query_timeout=30s

Tiers:
  database  its own database: the strongest wall, the most work for PostgreSQL
  schema    its own schema in a database that tenants of this tier share
  row       its rows in shared tables; with --variant shared also its connections are shared

The keys are printed once. A creation that ended early is gone on with: run the same command again.";

const SET_HELP: &str = "\
Examples:
  pgusher tenant set acme plan=pro pool_size=40
  pgusher tenant set acme query_timeout=30s idle_transaction_timeout=5m
  pgusher tenant set acme time_zone=Europe/Zurich settings='{\"work_mem\": \"64MB\"}'
  pgusher tenant set acme consistency=session read_replicas=postgres://db2,postgres://db3:5433
  pgusher tenant set acme pin=default                  back to the default

Keys are those of [[tenants]] in proxy.toml from pool_mode on, read_replicas, name, owner_email, plan, metadata
and auto_update. Running proxies learn of it at once.";

const DELETE_HELP: &str = "\
Examples:
  pgusher tenant delete acme                           refused at once, removed after a week
  pgusher tenant delete acme --dump acme.dump          written to a file first
  pgusher tenant delete acme --grace 0s                removed now: there is no way back

Within the grace `pgusher tenant resume acme` takes it back. What is due a running proxy removes, or
`pgusher tenant sweep` does.";

const SHOW_HELP: &str = "\
Examples:
  pgusher tenant show acme
  pgusher tenant show acme --at 2026-03-01T12:00:00Z   as it was then, by its events
  pgusher tenant show acme --at 2h                     as it was two hours ago";

const USAGE_HELP: &str = "\
Examples:
  pgusher tenant usage acme                            this month, by days
  pgusher tenant usage acme --by hour                  the last 24 hours
  pgusher tenant usage acme --from 2026-03-01 --to 2026-04-01 --csv

Days and hours are those of UTC. Proxies write what they have counted every few seconds (flush_interval in
proxy.toml); several are summed. The peak of clients is the highest of one proxy. Rows are those that
PostgreSQL's command tags tell. Times of --json and --csv are microseconds.";

#[derive(Debug, Subcommand)]
pub(super) enum TenantCommand {
    /// Make a tenant, and print the URLs of its database
    #[command(after_help = CREATE_HELP)]
    Create(CreateArgs),
    /// List tenants
    List(ListArgs),
    /// Show a tenant, as it is or was
    #[command(after_help = SHOW_HELP)]
    Show(ShowArgs),
    /// End a tenant's sessions and refuse its logins
    Suspend(SuspendArgs),
    /// Let a suspended tenant in again, or take back a deletion within its grace
    Resume(OneArgs),
    /// Change how a tenant's servers are shared
    Resize(ResizeArgs),
    /// Change limits, settings, plan, name …
    #[command(after_help = SET_HELP)]
    Set(SetArgs),
    /// Give a tenant's roles in PostgreSQL new passwords; nobody sees them, no query fails
    RotatePassword(OneArgs),
    /// End a tenant, and remove its data after a grace
    #[command(visible_alias = "terminate", after_help = DELETE_HELP)]
    Delete(DeleteArgs),
    /// What happened to a tenant, by whom, from where
    History(HistoryArgs),
    /// Attack a tenant's place as its neighbour would, and report what held
    Verify(OneArgs),
    /// Go on with a tenant whose creation ended early
    ResumeProvisioning(OneArgs),
    /// Go on with whatever ended early, and remove what is due; running proxies do so by themselves
    Sweep(SweepArgs),
    /// What a tenant used: statements, rows, bytes, time of servers, errors, storage
    #[command(after_help = USAGE_HELP)]
    Usage(UsageArgs),
    /// Where a tenant stands with its quotas and limits
    Quota(super::plan::QuotaArgs),
}

#[derive(Debug, Args)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) config: ConfigFile,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct OneArgs {
    /// The tenant
    pub(super) id: String,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The user name of its clients: 1 to 63 of a-z, 0-9, _ and -
    pub(super) id: String,
    /// How it is kept apart: database, schema or row
    #[arg(long)]
    pub(super) tier: String,
    /// own, or shared: through login roles that many tenants use in turn (tier row only)
    #[arg(long)]
    pub(super) variant: Option<String>,
    /// Where; needed when there is more than one cluster
    #[arg(long)]
    pub(super) cluster: Option<String>,
    /// For people
    #[arg(long)]
    pub(super) name: Option<String>,
    /// The owner's e-mail address
    #[arg(long, value_name = "ADDRESS")]
    pub(super) email: Option<String>,
    /// Its plan
    #[arg(long)]
    pub(super) plan: Option<String>,
    /// As of `pgusher tenant set`; can be given more than once
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// At most so many; all where it is not given
    #[arg(long)]
    pub(super) limit: Option<usize>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The tenant
    pub(super) id: String,
    /// As it was then (2026-03-01T12:00:00Z), or so long ago (2h)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) at: Option<OffsetDateTime>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(super) struct SuspendArgs {
    /// The tenant
    pub(super) id: String,
    /// Why; it stands in the tenant's history
    #[arg(long, default_value = "")]
    pub(super) reason: String,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(super) struct ResizeArgs {
    /// The tenant
    pub(super) id: String,
    /// Server connections per role
    #[arg(long, value_name = "N|default")]
    pub(super) pool_size: Option<String>,
    /// Server connections kept open
    #[arg(long, value_name = "N|default")]
    pub(super) min_pool_size: Option<String>,
    /// Server connections of the cluster that others can't keep from it
    #[arg(long, value_name = "N|default")]
    pub(super) guaranteed_servers: Option<String>,
    /// Its part when all want more than there are, 1 to 1000
    #[arg(long, value_name = "N|default")]
    pub(super) weight: Option<String>,
    /// session, transaction or statement
    #[arg(long, value_name = "MODE|default")]
    pub(super) pool_mode: Option<String>,
    /// Clients at the same time
    #[arg(long, value_name = "N|default")]
    pub(super) max_client_connections: Option<String>,
    /// Servers that sessions may keep
    #[arg(long, value_name = "N|default")]
    pub(super) max_pinned_servers: Option<String>,
    /// Transactions that run at the same time, in each proxy; 0 is no limit
    #[arg(long, value_name = "N|default")]
    pub(super) max_concurrent_queries: Option<String>,
    /// Clients that wait for that at the same time
    #[arg(long, value_name = "N|default")]
    pub(super) max_waiting: Option<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The tenant
    pub(super) id: String,
    /// What to change
    #[arg(value_name = "KEY=VALUE", required = true)]
    pub(super) changes: Vec<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// The tenant
    pub(super) id: String,
    /// How long its data stays
    #[arg(long, default_value = "7d", value_parser = humantime::parse_duration)]
    pub(super) grace: Duration,
    /// Write its data to this file first: an archive for `pg_restore`, in the tier row an SQL text
    #[arg(long, value_name = "FILE")]
    pub(super) dump: Option<PathBuf>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// The tenant; also one that is gone
    pub(super) id: String,
    /// The newest so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) limit: u32,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(super) struct SweepArgs {
    #[command(flatten)]
    pub(super) common: Common,
}

/// How long the parts are that use is told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Part {
    Day,
    Hour,
}

#[derive(Debug, Args)]
pub(super) struct UsageArgs {
    /// The tenant; also one that is gone
    pub(super) id: String,
    /// From then (2026-03-01, 2026-03-01T12:00:00Z), or so long ago (2h); default: this month, or 24 hours
    #[arg(long, value_name = "TIME", value_parser = day_or_moment)]
    pub(super) from: Option<OffsetDateTime>,
    /// Until then; default: now
    #[arg(long, value_name = "TIME", value_parser = day_or_moment)]
    pub(super) to: Option<OffsetDateTime>,
    /// How long the parts are
    #[arg(long, value_enum, default_value = "day")]
    pub(super) by: Part,
    /// Measure its storage now, before that
    #[arg(long)]
    pub(super) measure: bool,
    /// Print CSV
    #[arg(long, conflicts_with = "json")]
    pub(super) csv: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

/// A day's beginning in UTC, a time, or how long ago it was.
fn day_or_moment(text: &str) -> Result<OffsetDateTime, String> {
    let day = Date::parse(text, &Iso8601::DATE).ok();
    let day = day.filter(|_| text.len() == "2026-03-01".len());
    day.map_or_else(|| moment(text), |day| Ok(day.midnight().assume_utc()))
}

/// A time, or how long ago it was.
fn moment(text: &str) -> Result<OffsetDateTime, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text).ok();
    let ago = ago.and_then(|ago| time::Duration::try_from(ago).ok());
    let time = ago.and_then(|ago| OffsetDateTime::now_utc().checked_sub(ago));
    time.ok_or_else(|| "write \"2026-03-01T12:00:00Z\", or how long ago: \"2h\"".to_owned())
}
