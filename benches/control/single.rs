//! Tenants made one by one.

use crate::office::Office;
use crate::report::Report;
use crate::{KINDS, wire::Client};
use anyhow::Result;
use std::time::Instant;

/// By the command and by the API, and the bare statements of PostgreSQL beside them.
pub(crate) fn run(office: &Office, rounds: usize, report: &mut Report) -> Result<()> {
    let mut admin = office.admin("postgres")?;
    for (kind, tier, is_shared) in KINDS {
        // The first of its tier prepares the shared database.
        office.post_tenant(&format!("first-{kind}"), tier, is_shared)?;
        let (mut command, mut api, mut bare) = (vec![], vec![], vec![]);
        for round in 0..rounds {
            api.push(timed(|| {
                office.post_tenant(&format!("api-{kind}-{round}"), tier, is_shared)
            })?);
            bare.push(timed(|| statements(&mut admin, tier, round))?);
            let id = format!("cli-{kind}-{round}");
            let mut arguments = vec!["tenant", "create", &id, "--tier", tier, "--json"];
            if is_shared {
                arguments.extend(["--variant", "shared"]);
            }
            command.push(timed(|| office.command(&arguments).map(drop))?);
            statements_undone(&mut admin, tier, round)?;
        }
        let budget = if tier == "database" {
            "< 2000"
        } else {
            "< 300"
        };
        let (api_name, command_name) = (
            format!("create {kind}, POST /api/tenants"),
            format!("create {kind}, pgusher tenant create"),
        );
        report.spread(&api_name, "ms", &api, Some(&bare), budget);
        report.spread(&command_name, "ms", &command, Some(&bare), budget);
    }
    Ok(())
}

/// Milliseconds.
pub(crate) fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// What it would be by hand, without any isolation: a role, and a place of its own.
fn statements(admin: &mut Client, tier: &str, round: usize) -> Result<()> {
    admin.query(&format!("CREATE ROLE bare_{round} LOGIN PASSWORD 'bare'"))?;
    match tier {
        "database" => admin.query(&format!("CREATE DATABASE bare_{round} OWNER bare_{round}"))?,
        "schema" => admin.query(&format!(
            "CREATE SCHEMA bare_{round} AUTHORIZATION bare_{round}"
        ))?,
        _ => 0,
    };
    Ok(())
}

fn statements_undone(admin: &mut Client, tier: &str, round: usize) -> Result<()> {
    match tier {
        "database" => admin.query(&format!("DROP DATABASE bare_{round}"))?,
        "schema" => admin.query(&format!("DROP SCHEMA bare_{round}"))?,
        _ => 0,
    };
    admin.query(&format!("DROP ROLE bare_{round}")).map(drop)
}
