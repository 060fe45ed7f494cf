//! `pgusher protect`.

use super::{ConfigFile, Io, control, table};
use crate::control::Protection;
use clap::Args;

const HELP: &str = "\
The tables must be in the cluster's database of tier row. They move to the schema data, out of the
tenants' reach; each tenant finds its own rows through a view of the same name. Keys, indexes and
foreign keys are led by tenant_id, so tables that refer to each other go in one command.

What an application then can't do: ON CONFLICT (key) without tenant_id among the columns (without
columns it works), COPY to or from the table, TRUNCATE, MERGE, LOCK TABLE, WHERE CURRENT OF, ctid and
currval. Serial and identity columns become numbers of the tenant's own, counted from 1; who inserts
waits for the tenant's own transactions that have taken one.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct ProtectArgs {
    /// The tables: alone (found in data or public) or behind their schema and a dot
    #[arg(required = true, value_name = "TABLE")]
    tables: Vec<String>,
    #[command(flatten)]
    config: ConfigFile,
    /// The cluster [default: the only one]
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// The tenant whose the rows are that are there
    #[arg(long, value_name = "TENANT")]
    assign: Option<String>,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: ProtectArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let is_dry_run = args.dry_run;
    let protection = Protection {
        cluster: args.cluster,
        tables: args.tables,
        assign: args.assign,
        is_dry_run,
    };
    let steps = control::run(&args.config, |control, actor| async move {
        Ok(Box::pin(control.protect(&actor, &protection)).await?)
    })?;
    if args.json {
        return table::json(io, &steps);
    }
    if steps.is_empty() {
        writeln!(io.output, "protected already: nothing to do")?;
    }
    for step in steps {
        writeln!(io.output, "-- {}", step.what)?;
        if is_dry_run {
            writeln!(io.output, "{};", step.sql)?;
        }
    }
    Ok(())
}
