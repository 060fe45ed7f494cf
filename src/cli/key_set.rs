//! `pgusher key set`.

use super::{ConfigFile, Io, UsageError, control, key::end, table};
use crate::control::{KeyChange, Patch};
use clap::Args;
use std::str::FromStr;
use time::OffsetDateTime;

pub(super) const HELP: &str = "\
Examples:
  pgusher key set acme k3v9x2ab --transactions-per-hour 5000
  pgusher key set acme k3v9x2ab --transactions-per-second none --max-concurrent-queries 4
  pgusher key set acme k3v9x2ab --allow 10.0.0.0/8 --allow 192.0.2.7 --expires 90d
  pgusher key set acme k3v9x2ab --allow none                       from everywhere again

What is not named stays; \"none\" takes a limit away. Running proxies learn of it at once. Sessions
that are open follow new rates and max_concurrent_queries, and end when their key does; networks,
the beginning, the scope, max_client_connections and rate_limit_per_hour are asked at a login. The
key itself never changes: for another one `pgusher key rotate`.";

/// A value, or none.
#[derive(Debug, Clone, Copy)]
struct OrNone<T>(Option<T>);

fn number<T: FromStr>(text: &str) -> Result<OrNone<T>, String> {
    match text {
        "none" => Ok(OrNone(None)),
        _ => match text.parse() {
            Ok(number) => Ok(OrNone(Some(number))),
            Err(_) => Err("write a number, or \"none\"".to_owned()),
        },
    }
}

fn moment(text: &str) -> Result<OrNone<OffsetDateTime>, String> {
    match text {
        "none" => Ok(OrNone(None)),
        _ => end(text).map(|time| OrNone(Some(time))),
    }
}

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The tenant
    tenant: String,
    /// The key's id: what stands between "pgu_" and the next "_"
    key: String,
    /// For people
    #[arg(long)]
    name: Option<String>,
    /// For writing too, or for reading: that lands on a role that can't write
    #[arg(long, value_name = "read_write|read_only")]
    scope: Option<String>,
    /// A network that it may be used from, in the place of those it has; can be given more than once
    #[arg(long, value_name = "NETWORK|none")]
    allow: Vec<String>,
    /// It begins then: after 1h, or at 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME|none", value_parser = moment)]
    not_before: Option<OrNone<OffsetDateTime>>,
    /// It ends then: after 90d, or at 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME|none", value_parser = moment)]
    expires: Option<OrNone<OffsetDateTime>>,
    /// New connections and requests of the admin API in an hour, in each proxy
    #[arg(long, value_name = "N|none", value_parser = number::<i32>)]
    rate_limit_per_hour: Option<OrNone<i32>>,
    /// Clients that use it at the same time
    #[arg(long, value_name = "N|none", value_parser = number::<i32>)]
    max_client_connections: Option<OrNone<i32>>,
    /// Transactions of its clients that run at the same time, in each proxy
    #[arg(long, value_name = "N|none", value_parser = number::<i32>)]
    max_concurrent_queries: Option<OrNone<i32>>,
    /// Transactions of its clients in a second, in each proxy
    #[arg(long, value_name = "N|none", value_parser = number::<i32>)]
    transactions_per_second: Option<OrNone<i32>>,
    /// Transactions of its clients in an hour, in each proxy
    #[arg(long, value_name = "N|none", value_parser = number::<i32>)]
    transactions_per_hour: Option<OrNone<i32>>,
    /// Bytes of its clients in a second, in both directions, in each proxy
    #[arg(long, value_name = "N|none", value_parser = number::<i64>)]
    bytes_per_second: Option<OrNone<i64>>,
    /// Logins with it in a second, in each proxy
    #[arg(long, value_name = "N|none", value_parser = number::<i32>)]
    logins_per_second: Option<OrNone<i32>>,
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn networks(given: Vec<String>) -> Patch<Vec<String>> {
    match given.as_slice() {
        [] => None,
        [none] if none == "none" => Some(None),
        _ => Some(Some(given)),
    }
}

fn patch<T>(given: Option<OrNone<T>>) -> Patch<T> {
    given.map(|OrNone(value)| value)
}

pub(super) fn run(args: SetArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let change = KeyChange {
        name: args.name,
        scope: args.scope,
        allow: networks(args.allow),
        rate_limit_per_hour: patch(args.rate_limit_per_hour),
        max_client_connections: patch(args.max_client_connections),
        max_concurrent_queries: patch(args.max_concurrent_queries),
        transactions_per_second: patch(args.transactions_per_second),
        transactions_per_hour: patch(args.transactions_per_hour),
        bytes_per_second: patch(args.bytes_per_second),
        logins_per_second: patch(args.logins_per_second),
        not_before: patch(args.not_before),
        expires_at: patch(args.expires),
    };
    if change == KeyChange::default() {
        return Err(UsageError::Nothing("--transactions-per-hour 1000").into());
    }
    let (tenant, key) = (args.tenant, args.key);
    let key = control::run(&args.config, |control, actor| async move {
        let name = (tenant.as_str(), key.as_str());
        Ok(control.change_key(&actor, name, change).await?)
    })?;
    if args.json {
        return table::json(io, &key);
    }
    let (id, tenant) = (key.id, key.tenant);
    writeln!(io.output, "key {id} of tenant {tenant} is changed")?;
    Ok(())
}
