//! `pgusher cost`: what a month costs whom.

use super::{ConfigFile, Io, control, table};
use crate::control::{CostLine, CostMonth, CostReport};
use clap::{Args, Subcommand, ValueEnum};
use time::OffsetDateTime;

const REPORT_HELP: &str = "\
Prices stand in [prices] of proxy.toml. What proxies have not written yet is not in it.

Amounts are exact to six decimals: each is rounded there, half a millionth upwards, and sums are sums
of what stands above them. A cluster's cost is shared by its tenants by the time that servers were lent
to them; of one that nobody used it stands at (unused). A tenant that is gone is charged for what it
used; which plan and cluster it had is not known any more.";

/// What use costs
#[derive(Debug, Subcommand)]
pub(super) enum CostCommand {
    /// Print what a month costs each tenant
    #[command(after_help = REPORT_HELP)]
    Report(ReportArgs),
}

/// How it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// RFC 4180, with headings
    Csv,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// The month in UTC, such as 2026-11; default: this one
    #[arg(long, value_name = "MONTH")]
    month: Option<CostMonth>,
    /// This tenant alone; also one that is gone
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// How it is printed
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Print JSON
    #[arg(long, conflicts_with = "format")]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) fn run(command: CostCommand, io: &mut Io<'_>) -> anyhow::Result<()> {
    let CostCommand::Report(args) = command;
    let month = args
        .month
        .unwrap_or_else(|| CostMonth::of(OffsetDateTime::now_utc()));
    let tenant = args.tenant;
    let report = control::run(&args.config, |control, actor| async move {
        Ok(match tenant {
            Some(tenant) => control.tenant_costs(&actor, &tenant, month).await?,
            None => control.costs(&actor, month).await?,
        })
    })?;
    match args.format {
        _ if args.json => table::json(io, &report),
        Format::Json => table::json(io, &report),
        Format::Csv => Ok(io.output.write_all(report.csv().as_bytes())?),
        Format::Table => print(io, &report),
    }
}

fn print(io: &mut Io<'_>, report: &CostReport) -> anyhow::Result<()> {
    let amount = format!("total {}", report.currency);
    let mut table = table::table(&[
        "tenant",
        "plan",
        "cluster",
        "queries",
        "txns",
        "in",
        "out",
        "server h",
        "GB-months",
        "use",
        "plan fee",
        "share",
        &amount,
    ]);
    for line in report.lines.iter().chain([&report.total]) {
        table.add_row(shown(line));
    }
    table::print(io, &table)
}

fn shown(line: &CostLine) -> [String; 13] {
    let (used, amounts) = (&line.quantities, &line.amounts);
    let bytes = |count| indicatif::HumanBytes(count).to_string();
    [
        line.tenant.clone(),
        line.plan.clone().unwrap_or_default(),
        line.cluster.clone().unwrap_or_default(),
        used.queries.to_string(),
        used.transactions.to_string(),
        bytes(used.client_bytes),
        bytes(used.server_bytes),
        used.server_hours().to_string(),
        used.gb_months.to_string(),
        amounts.of_use().to_string(),
        amounts.plan.to_string(),
        amounts.cluster.to_string(),
        line.total.to_string(),
    ]
}
