//! `pgusher plan`, and `pgusher tenant quota`.

use super::{Io, UsageError, control, table, tenant_args::Common};
use crate::{
    control::{PlanOrigin, PlanView, QuotaView},
    tenant::Plan,
};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

#[derive(Debug, Subcommand)]
pub(super) enum PlanCommand {
    /// All plans: presets, those of proxy.toml, those of the registry
    List(ListArgs),
    /// One plan
    Show(OneArgs),
    /// Write a plan to the registry, in the place of the one of its name; it holds at once
    Set(SetArgs),
    /// Remove a plan from the registry
    Remove(OneArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct OneArgs {
    /// The plan
    name: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The plan: 1 to 63 of a-z, 0-9, _ and -
    name: String,
    /// What it gives; what is not named it does not give; 0 is no limit
    #[arg(value_name = "KEY=NUMBER")]
    limits: Vec<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct QuotaArgs {
    /// The tenant
    id: String,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(command: PlanCommand, io: &mut Io<'_>) -> anyhow::Result<()> {
    match command {
        PlanCommand::List(args) => list(&args, io),
        PlanCommand::Show(args) => {
            let name = args.name;
            let plan = control::run(&args.common.config, |control, actor| async move {
                Ok(control.plan(&actor, &name).await?)
            });
            shown(&plan?, args.common.json, io)
        }
        PlanCommand::Set(args) => {
            let plan = read(&args.name, &args.limits)?;
            let plan = control::run(&args.common.config, |control, actor| async move {
                Ok(control.set_plan(&actor, plan).await?)
            });
            shown(&plan?, args.common.json, io)
        }
        PlanCommand::Remove(args) => {
            let name = args.name.clone();
            control::run(&args.common.config, |control, actor| async move {
                Ok(control.remove_plan(&actor, &name).await?)
            })?;
            if args.common.json {
                return table::json(io, &json!({ "removed": args.name }));
            }
            writeln!(io.talk, "plan {} is removed", args.name)?;
            Ok(())
        }
    }
}

fn read(name: &str, limits: &[String]) -> Result<Plan, UsageError> {
    let mut fields = Map::new();
    fields.insert("name".to_owned(), json!(name));
    for pair in limits {
        let wrong = |problem: &str| UsageError::Change(pair.clone(), problem.to_owned());
        let (key, number) = pair
            .split_once('=')
            .ok_or_else(|| wrong("write KEY=NUMBER"))?;
        let number: u64 = number.parse().map_err(|_error| wrong("write a number"))?;
        if fields.insert(key.to_owned(), json!(number)).is_some() {
            return Err(wrong("it is given twice"));
        }
    }
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| UsageError::Change(limits.join(" "), error.to_string()))
}

fn origin(view: &PlanView) -> &'static str {
    match view.origin {
        PlanOrigin::Registry => "registry",
        PlanOrigin::Proxy => "proxy.toml or preset",
    }
}

fn list(args: &ListArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let plans = control::run(&args.common.config, |control, actor| async move {
        Ok(control.list_plans(&actor).await?.items)
    })?;
    if args.common.json {
        return table::json(io, &plans);
    }
    let mut table = table::table(&["plan", "from", "gives"]);
    for view in plans {
        let given = view.plan.given();
        let given: Vec<_> = given.map(|(key, value)| format!("{key}={value}")).collect();
        let from = origin(&view).to_owned();
        table.add_row([view.plan.name, from, given.join(" ")]);
    }
    table::print(io, &table)
}

fn shown(view: &PlanView, is_json: bool, io: &mut Io<'_>) -> anyhow::Result<()> {
    if is_json {
        table::json(io, view)
    } else {
        table::record(io, view)
    }
}

/// Where a tenant stands.
pub(super) fn quota(args: &QuotaArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let id = args.id.clone();
    let quotas = control::run(&args.common.config, |control, actor| async move {
        Ok(control.quotas(&actor, &id).await?)
    })?;
    if args.common.json {
        return table::json(io, &quotas);
    }
    let mut table = table::table(&["quota", "current", "max", "percent", "state", "resets"]);
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    for quota in &quotas.quotas {
        let QuotaView {
            name,
            current,
            max,
            percentage,
            state,
            resets_at,
            ..
        } = quota;
        let percent = percentage.map(|percent| format!("{percent:.0}"));
        table.add_row([
            (*name).to_owned(),
            number(*current),
            number(*max),
            percent.unwrap_or_default(),
            (*state).to_owned(),
            table::maybe_time(*resets_at),
        ]);
    }
    table::print(io, &table)?;
    let trial = quotas.trial_ends_at.map(table::time);
    if let Some(end) = trial {
        writeln!(io.talk, "plan {}; the trial ends at {end}", quotas.plan)?;
    }
    Ok(())
}
