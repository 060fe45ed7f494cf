//! A quiet tenant beside one that floods the same PostgreSQL: fair is what the quiet one doesn't
//! notice.

use std::time::Instant;

use anyhow::Result;

use crate::args::Case;
use crate::figure::Sample;
use crate::lineup::Lineup;
use crate::pgbench::{Load, Mode, Script};
use crate::proxy::{Proxy, Setup};
use crate::report::Report;
use crate::stage::Stage;
use crate::stats::Spread;
use crate::wire::Client;

/// Point selects of the quiet tenant, per second.
const QUIET_RATE: u32 = 50;
const QUIET_CLIENTS: u32 = 4;
const FLOOD_CLIENTS: u32 = 64;
/// CPU time of one of the flood's slow queries, alone on a core.
const SLOW_QUERY_MS: f64 = 20.0;

pub(super) fn run(stage: &Stage, report: &mut Report) {
    let slow = match slow_query(stage) {
        Ok(slow) => slow,
        Err(error) => return report.fail("Neighbour, slow query", &error),
    };
    println!("  a slow query is: {slow}");
    let floods = [
        ("20 ms queries", Script::Sql(slow)),
        ("point selects", Script::PointSelect),
        ("20 ms sleeps", Script::Sql("SELECT pg_sleep(0.02);".into())),
    ];
    let setup = Setup::with_tenants(&["quiet", "flood"]);
    let mut lineup = Lineup::start(Case::Neighbour, &setup, stage, report);
    for _ in 0..stage.sizes.slow_rounds {
        lineup.each(report, "quiet tenant", |proxy| {
            measure(proxy, stage, &floods)
        });
    }
}

fn measure(proxy: &Proxy, stage: &Stage, floods: &[(&str, Script)]) -> Result<Vec<Sample>> {
    let alone = quiet(proxy, stage)?;
    let mut samples = named("quiet tenant alone", alone);
    for (name, script) in floods {
        let flood = Load {
            script: script.clone(),
            mode: Mode::Simple,
            clients: FLOOD_CLIENTS,
            rate: None,
            // Ended by dropping it.
            seconds: 600,
        };
        let mut flood = flood.start(proxy, "flood", stage)?;
        flood.wait_until_busy()?;
        let beside = quiet(proxy, stage)?;
        drop(flood);
        let label = format!("quiet tenant beside {name}");
        samples.extend(named(&label, beside));
        for (share, (beside, alone)) in ["p50", "p99"].iter().zip(beside.iter().zip(alone)) {
            let name = format!("{label}: {share} against alone");
            samples.push(Sample::new(name, "×", beside / alone));
        }
    }
    Ok(samples)
}

fn named(label: &str, [p50, p99]: [f64; 2]) -> Vec<Sample> {
    vec![
        Sample::new(format!("{label}: p50"), "ms", p50),
        Sample::new(format!("{label}: p99"), "ms", p99),
    ]
}

/// p50 and p99 in milliseconds, from the moment a query was due.
fn quiet(proxy: &Proxy, stage: &Stage) -> Result<[f64; 2]> {
    let load = Load {
        script: Script::PointSelect,
        mode: Mode::Prepared,
        clients: QUIET_CLIENTS,
        rate: Some(QUIET_RATE),
        seconds: stage.sizes.quiet_seconds,
    };
    let latencies = load.start(proxy, "quiet", stage)?.finish()?.all()?;
    Ok([latencies.percentile(0.50)?, latencies.percentile(0.99)?])
}

/// A query that keeps a core busy for [`SLOW_QUERY_MS`].
fn slow_query(stage: &Stage) -> Result<String> {
    let query = |rows: u64| format!("SELECT count(*) FROM generate_series(1, {rows});");
    let mut client = Client::login(&stage.postgres.login())?;
    let mut rows = 50_000;
    for _ in 0..3 {
        let mut took = Vec::new();
        for _ in 0..5 {
            let begin = Instant::now();
            client.query(&query(rows))?;
            took.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        let fastest = Spread::of(&took).map_or(SLOW_QUERY_MS, |spread| spread.min);
        rows = (rows as f64 * SLOW_QUERY_MS / fastest) as u64;
    }
    client.terminate()?;
    Ok(query(rows))
}
