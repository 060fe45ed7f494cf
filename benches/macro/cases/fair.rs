//! Tenants that all want more than there is. Jain's index of what each gets is 1 when all get the
//! same, and 1/n when one gets everything.

use std::time::SystemTime;

use anyhow::Result;

use crate::args::Case;
use crate::figure::Sample;
use crate::lineup::Lineup;
use crate::pgbench::{Load, Mode, Script};
use crate::process::pause;
use crate::proxy::{Proxy, Setup};
use crate::report::Report;
use crate::stage::Stage;

const TENANTS: [&str; 10] = ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8", "t9"];
/// Servers of all tenants: one for each, so that PgBouncer can be given as many.
const SERVERS: usize = 10;
/// Some milliseconds of one core, in little memory: what takes a megabyte costs a backend 1.4 times as much
/// as another if its allocator gives that back to the system each time, which depends on what it did before.
const QUERY: &str = "SELECT count(*) FROM (SELECT generate_series(1, 40000)) AS numbers;";

pub(super) fn run(stage: &Stage, report: &mut Report) {
    let setup = Setup {
        pool_size: SERVERS,
        pgbouncer_pool_size: Some(1),
        server_budget: SERVERS,
        cluster_lines: format!("{}\n", stage.args.cluster),
        ..Setup::with_tenants(&TENANTS)
    };
    let mut lineup = Lineup::start(Case::Fair, &setup, stage, report);
    for _ in 0..stage.sizes.slow_rounds {
        lineup.each(report, "equal tenants", |proxy| {
            measure(proxy, stage, "ten equal tenants", |_| 6)
        });
        lineup.each(report, "unequal tenants", |proxy| {
            measure(proxy, stage, "ten tenants of 2 to 20 clients", |tenant| {
                2 * (tenant + 1)
            })
        });
    }
}

fn measure(
    proxy: &Proxy,
    stage: &Stage,
    label: &str,
    clients: impl Fn(u32) -> u32,
) -> Result<Vec<Sample>> {
    let mut loads = Vec::new();
    for (number, tenant) in (0..).zip(TENANTS) {
        let load = Load {
            script: Script::Sql(QUERY.into()),
            mode: Mode::Simple,
            clients: clients(number),
            rate: None,
            // Until the last of them is under way, it takes some seconds.
            seconds: stage.sizes.quiet_seconds + 12,
        };
        loads.push(load.start(proxy, tenant, stage)?);
    }
    for load in &mut loads {
        load.wait_until_busy()?;
    }
    let from = SystemTime::now();
    pause(std::time::Duration::from_secs(
        stage.sizes.quiet_seconds.into(),
    ));
    let to = SystemTime::now();
    let mut counts = Vec::new();
    for load in loads {
        counts.push(load.finish()?.between(from, to)?.count());
    }
    let seconds = to.duration_since(from)?.as_secs_f64();
    let sum: f64 = counts.iter().sum();
    Ok(vec![
        Sample::new(format!("{label}: Jain's index"), "", jain(&counts)),
        Sample::new(format!("{label}: throughput"), "tps", sum / seconds),
    ])
}

/// Jain's fairness index.
pub(super) fn jain(counts: &[f64]) -> f64 {
    let sum: f64 = counts.iter().sum();
    let squares: f64 = counts.iter().map(|count| count * count).sum();
    if squares > 0.0 {
        sum * sum / (counts.len() as f64 * squares)
    } else {
        0.0
    }
}
