//! `pgusher tenant`.

use super::{
    Io, UsageError, control, plan, table,
    tenant_args::{
        Common, CreateArgs, DeleteArgs, HistoryArgs, ListArgs, OneArgs, ResizeArgs, ShowArgs,
        SweepArgs, TenantCommand,
    },
    tuning, usage,
};
use crate::{
    control::{
        CreatedTenant, EventView, Listed, NewTenant, Page, PoolChange, TenantChange, TenantView,
        Termination,
    },
    provisioning::{Outcome, Report},
};
use anyhow::bail;
use indicatif::ProgressBar;
use serde_json::json;
use std::time::Duration;

/// Entries that are asked for at a time.
const PART: u32 = 1000;

pub(super) fn run(command: TenantCommand, io: &mut Io<'_>) -> anyhow::Result<()> {
    match command {
        TenantCommand::Create(args) => create(args, io),
        TenantCommand::List(args) => list(&args, io),
        TenantCommand::Show(args) => show(&args, io),
        TenantCommand::Suspend(args) => {
            let (id, reason) = (args.id, args.reason);
            let done = control::run(&args.common.config, |control, actor| async move {
                Ok(control.suspend(&actor, &id, &reason).await?)
            });
            said(&done?, "is suspended", &args.common, io)
        }
        TenantCommand::Resume(args) => {
            let id = args.id;
            let done = control::run(&args.common.config, |control, actor| async move {
                Ok(control.resume(&actor, &id).await?)
            });
            said(&done?, "is active", &args.common, io)
        }
        TenantCommand::Resize(args) => resize(args, io),
        TenantCommand::Set(args) => {
            let (id, change) = (args.id, tuning::change(&args.changes)?);
            let done = control::run(&args.common.config, |control, actor| async move {
                Ok(control.update_tenant(&actor, &id, change).await?)
            });
            said(&done?, "is changed", &args.common, io)
        }
        TenantCommand::RotatePassword(args) => {
            let id = args.id;
            let done = control::run(&args.common.config, |control, actor| async move {
                Ok(control.rotate_password(&actor, &id).await?)
            });
            said(&done?, "has new passwords in PostgreSQL", &args.common, io)
        }
        TenantCommand::Delete(args) => delete(args, io),
        TenantCommand::History(args) => history(&args, io),
        TenantCommand::Verify(args) => verify(&args, io),
        TenantCommand::ResumeProvisioning(args) => {
            let id = args.id;
            let made = control::run(&args.common.config, |control, actor| async move {
                Ok(control.resume_provisioning(&actor, &id).await?)
            });
            created(&made?, args.common.json, io)
        }
        TenantCommand::Sweep(args) => sweep(&args, io),
        TenantCommand::Usage(args) => usage::run(&args, io),
        TenantCommand::Quota(args) => plan::quota(&args, io),
    }
}

fn create(args: CreateArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let mut change = tuning::change(&args.set)?;
    change.name = args.name.or(change.name);
    change.plan = args.plan.or(change.plan);
    change.owner_email = args.email.map(Some).or(change.owner_email);
    let new = NewTenant {
        id: args.id,
        tier: args.tier,
        variant: args.variant,
        cluster: args.cluster,
        change,
    };
    let spinner = spinner("making its place in PostgreSQL");
    let made = control::run(&args.common.config, |control, actor| async move {
        Ok(control.create_tenant(&actor, new).await?)
    });
    spinner.finish_and_clear();
    created(&made?, args.common.json, io)
}

/// Nothing where nobody looks.
pub(super) fn spinner(text: &'static str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(text);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

fn created(made: &CreatedTenant, is_json: bool, io: &mut Io<'_>) -> anyhow::Result<()> {
    if is_json {
        return table::json(io, &made.reveal());
    }
    let tenant = &made.tenant;
    writeln!(
        io.output,
        "tenant {} is active: tier {}, cluster {}, database {}\n",
        tenant.id, tenant.tier, tenant.cluster, tenant.database_name
    )?;
    writeln!(io.output, "DATABASE_URL={}", made.url.expose())?;
    writeln!(
        io.output,
        "READ_ONLY_DATABASE_URL={}",
        made.read_only_url.expose()
    )?;
    let holes = tenant.open_holes.as_array().map_or(0, Vec::len);
    if holes > 0 {
        writeln!(
            io.talk,
            "{holes} things can't be closed there: pgusher tenant verify {}",
            tenant.id
        )?;
    }
    writeln!(io.talk, "The keys in the URLs are shown only now.")?;
    Ok(())
}

fn list(args: &ListArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let most = args.limit.unwrap_or(usize::MAX);
    let tenants = control::run(&args.common.config, |control, actor| async move {
        let mut tenants: Vec<TenantView> = Vec::new();
        let mut after = None;
        loop {
            let page = Page {
                limit: Some(PART),
                after,
            };
            let Listed { items, next } = control.list_tenants(&actor, page).await?;
            tenants.extend(items);
            if next.is_none() || tenants.len() >= most {
                tenants.truncate(most);
                return Ok(tenants);
            }
            after = next;
        }
    })?;
    if args.common.json {
        return table::json(io, &tenants);
    }
    let mut table = table::table(&[
        "tenant", "tier", "status", "cluster", "plan", "name", "created",
    ]);
    for tenant in tenants {
        let tier = match tenant.variant.as_str() {
            "own" => tenant.tier,
            variant => format!("{} ({variant})", tenant.tier),
        };
        let status = match tenant.remove_at {
            Some(at) => format!("{}, removed {}", tenant.status, table::time(at)),
            None => tenant.status,
        };
        table.add_row([
            tenant.id,
            tier,
            status,
            tenant.cluster,
            tenant.plan,
            tenant.name,
            table::time(tenant.created_at),
        ]);
    }
    table::print(io, &table)
}

fn show(args: &ShowArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let (id, at) = (args.id.clone(), args.at);
    let tenant = control::run(&args.common.config, |control, actor| async move {
        Ok(match at {
            Some(at) => control.tenant_at(&actor, &id, at).await?,
            None => control.tenant(&actor, &id).await?,
        })
    })?;
    if args.common.json {
        table::json(io, &tenant)
    } else {
        table::record(io, &tenant)
    }
}

fn resize(args: ResizeArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let pairs = [
        ("pool_size", args.pool_size),
        ("min_pool_size", args.min_pool_size),
        ("guaranteed_servers", args.guaranteed_servers),
        ("weight", args.weight),
        ("pool_mode", args.pool_mode),
        ("max_client_connections", args.max_client_connections),
        ("max_pinned_servers", args.max_pinned_servers),
        ("max_concurrent_queries", args.max_concurrent_queries),
        ("max_waiting", args.max_waiting),
    ];
    let pairs = pairs.into_iter();
    let pairs = pairs.filter_map(|(key, value)| Some(format!("{key}={}", value?)));
    let pairs: Vec<String> = pairs.collect();
    if pairs.is_empty() {
        return Err(UsageError::Nothing("--pool-size 40").into());
    }
    let TenantChange {
        pool_mode,
        pool_size,
        min_pool_size,
        guaranteed_servers,
        weight,
        max_client_connections,
        max_pinned_servers,
        max_concurrent_queries,
        max_waiting,
        ..
    } = tuning::change(&pairs)?;
    let change = PoolChange {
        pool_mode,
        pool_size,
        min_pool_size,
        guaranteed_servers,
        weight,
        max_client_connections,
        max_pinned_servers,
        max_concurrent_queries,
        max_waiting,
    };
    let id = args.id;
    let done = control::run(&args.common.config, |control, actor| async move {
        Ok(control.resize_pool(&actor, &id, change).await?)
    });
    said(&done?, "has another pool", &args.common, io)
}

fn delete(args: DeleteArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let how = Termination {
        grace: args.grace,
        dump: args.dump,
    };
    let (id, is_gone) = (args.id.clone(), args.grace.is_zero());
    let spinner = spinner("ending it");
    let done = control::run(&args.common.config, |control, actor| async move {
        Ok(control.terminate(&actor, &id, how).await?)
    });
    spinner.finish_and_clear();
    let left = done?;
    if args.common.json {
        let answer = json!({
            "id": args.id,
            "removed": is_gone,
            "grace_seconds": args.grace.as_secs(),
            "left": left,
        });
        return table::json(io, &answer);
    }
    if is_gone {
        writeln!(io.output, "tenant {} is gone", args.id)?;
    } else {
        let grace = humantime::format_duration(args.grace);
        writeln!(
            io.output,
            "tenant {} is ended; what is left of it goes in {grace}: a running proxy removes it then, or pgusher tenant sweep",
            args.id
        )?;
    }
    if let Some(left) = left {
        writeln!(io.output, "{left}")?;
    }
    Ok(())
}

/// What was done to a tenant.
fn said(tenant: &TenantView, done: &str, common: &Common, io: &mut Io<'_>) -> anyhow::Result<()> {
    if common.json {
        table::json(io, &tenant)
    } else {
        writeln!(io.output, "tenant {} {done}", tenant.id)?;
        Ok(())
    }
}

fn history(args: &HistoryArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let page = Page {
        limit: Some(args.limit),
        after: None,
    };
    let id = args.id.clone();
    let Listed { mut items, next } =
        control::run(&args.common.config, |control, actor| async move {
            Ok(control.history(&actor, &id, page).await?)
        })?;
    items.reverse();
    if args.common.json {
        return table::json(io, &items);
    }
    let mut table = table::table(&["when", "what", "who", "from", "changes"]);
    for event in &items {
        table.add_row([
            table::time(event.at),
            event.kind.clone(),
            event.actor.clone(),
            event.address.clone(),
            told(event),
        ]);
    }
    table::print(io, &table)?;
    if next.is_some() {
        writeln!(io.talk, "There are older ones: --limit {}", args.limit * 2)?;
    }
    Ok(())
}

/// The changes and facts of an event in a line. A new tenant's would be too long.
fn told(event: &EventView) -> String {
    const MOST: usize = 4;
    const WIDE: usize = 60;
    let mut parts: Vec<String> = Vec::new();
    for (field, change) in &event.changes {
        let side = |side: &str| change.get(side).map(table::text).unwrap_or_default();
        let (before, after) = (side("before"), side("after"));
        parts.push(match (field.split_once(':'), before.is_empty()) {
            (Some(_), _) => field.clone(),
            (None, true) => format!("{field}={after}"),
            (None, false) => format!("{field}: {before} → {after}"),
        });
    }
    if let Some(facts) = event.facts.as_object() {
        let facts = facts.iter().map(|(name, fact)| (name, table::text(fact)));
        let facts = facts.filter(|(_, fact)| !fact.is_empty());
        parts.extend(facts.map(|(name, fact)| format!("{name}={fact}")));
    }
    let more = parts.len().saturating_sub(MOST);
    parts.truncate(MOST);
    for part in &mut parts {
        if let Some((end, _)) = part.char_indices().nth(WIDE) {
            part.truncate(end);
            part.push('…');
        }
    }
    let mut line = parts.join(", ");
    if more > 0 {
        line = format!("{line} … and {more} more");
    }
    line
}

fn verify(args: &OneArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let id = args.id.clone();
    let spinner = spinner("attacking it");
    let report = control::run(&args.common.config, |control, actor| async move {
        Ok(control.verify_tenant(&actor, &id).await?)
    });
    spinner.finish_and_clear();
    reported(&report?, args.common.json, io)
}

/// Prints a report; something open that no hole tells is a failure.
pub(super) fn reported(report: &Report, is_json: bool, io: &mut Io<'_>) -> anyhow::Result<()> {
    if is_json {
        table::json(io, report)?;
    } else {
        let mut table = table::table(&["attack", "outcome", "what"]);
        for check in &report.checks {
            let outcome = match (&check.outcome, &check.hole) {
                (Outcome::Closed, _) => "closed".to_owned(),
                (Outcome::NotApplicable, _) => "not applicable".to_owned(),
                (Outcome::Open { how }, Some(hole)) => format!("known ({hole}): {how}"),
                (Outcome::Open { how }, None) => format!("OPEN: {how}"),
            };
            table.add_row([check.name.clone(), outcome, check.what.clone()]);
        }
        table::print(io, &table)?;
        for hole in &report.holes {
            writeln!(
                io.output,
                "known: {}: {} ({})",
                hole.name, hole.what, hole.way_out
            )?;
        }
    }
    let open: Vec<_> = report.open().map(|check| check.name.as_str()).collect();
    if open.is_empty() {
        return Ok(());
    }
    bail!("it does not hold: {}", open.join(", "))
}

fn sweep(args: &SweepArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let spinner = spinner("looking for what ended early");
    let swept = control::run(&args.common.config, |control, actor| async move {
        Ok(control.sweep(&actor).await?)
    });
    spinner.finish_and_clear();
    let swept = swept?;
    if args.common.json {
        table::json(io, &swept)?;
    } else {
        for (what, ids) in [
            ("active, without keys yet", &swept.activated),
            ("removed", &swept.removed),
            ("password put right", &swept.repaired),
            ("somebody else is at it", &swept.busy),
        ] {
            for id in ids {
                writeln!(io.output, "{id}: {what}")?;
            }
        }
    }
    if swept.failed.is_empty() && swept.left.is_empty() {
        return Ok(());
    }
    let failed = swept.failed.iter().chain(&swept.left);
    let failed = failed.map(|(id, why)| format!("{id}: {why}"));
    bail!(
        "could not be gone on with:\n  {}",
        failed.collect::<Vec<_>>().join("\n  ")
    )
}
