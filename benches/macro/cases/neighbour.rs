//! A quiet tenant beside one that floods the same PostgreSQL: fair is what the quiet one doesn't
//! notice. Both proxies have as many servers: pgusher for all tenants together, with some kept for the
//! quiet one, PgBouncer half of them for each.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use clap::ValueEnum as _;

use super::floods::{Flood, FloodName};
use crate::args::Case;
use crate::figure::Sample;
use crate::lineup::Lineup;
use crate::metronome::Metronome;
use crate::pgbench::{Load, Mode, Running, Script};
use crate::process::pause;
use crate::proxy::{Proxy, Setup};
use crate::report::Report;
use crate::stage::Stage;
use crate::stats::Spread;
use crate::wire::Client;

/// Point selects of the quiet tenant, per second.
const QUIET_RATE: u32 = 50;
const QUIET_CLIENTS: u32 = 4;
/// CPU time of one of the flood's slow queries, alone on a core.
const SLOW_QUERY_MS: f64 = 20.0;
/// Servers of both tenants together.
const SERVERS: usize = 20;
/// Until what a flood has left is gone.
const REST: Duration = Duration::from_secs(1);

pub(super) fn run(stage: &Stage, report: &mut Report) {
    let slow = match slow_query(stage) {
        Ok(slow) => slow,
        Err(error) => return report.fail("Neighbour, slow query", &error),
    };
    println!("  a slow query is: {slow}");
    let asked = &stage.args.floods;
    let floods: Vec<_> = FloodName::value_variants()
        .iter()
        .filter(|name| asked.is_empty() || asked.contains(name))
        .map(|name| (name.label(), Flood::named(*name, &slow)))
        .collect();
    let setup = Setup {
        pgbouncer_pool_size: Some(SERVERS / 2),
        server_budget: SERVERS,
        cluster_lines: format!("{}\n", stage.args.cluster),
        ..Setup::with_tenants(&["quiet", "flood"])
    };
    let setup = setup.tell("quiet", &format!("guaranteed_servers = {QUIET_CLIENTS}\n"));
    let mut lineup = Lineup::start(Case::Neighbour, &setup, stage, report);
    for _ in 0..stage.sizes.slow_rounds {
        lineup.each(report, "quiet tenant", |proxy| {
            measure(proxy, stage, &floods)
        });
    }
}

fn measure(proxy: &Proxy, stage: &Stage, floods: &[(&str, Flood)]) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for (name, flood) in floods {
        // Right before, as what a machine has to give changes within seconds.
        let alone = quiet(proxy, stage)?;
        samples.extend(named("quiet tenant alone", alone));
        let label = format!("quiet tenant beside {name}");
        // Some longer than the quiet tenant works.
        let before = stage.sizes.flood_seconds;
        let seconds = before + stage.sizes.quiet_seconds + 4;
        let flowing = flood.start((proxy, "flood"), seconds, stage)?;
        // Until a limit that is found is found.
        pause(Duration::from_secs(before.into()));
        let from = SystemTime::now();
        let beside = quiet(proxy, stage);
        if let Some(rate) = flowing.end(from)? {
            samples.push(Sample::new(format!("{name}: flood's rate"), "tps", rate));
        }
        let beside = beside?;
        samples.extend(named(&label, beside));
        for (share, (beside, alone)) in ["p50", "p99"].iter().zip(beside.iter().zip(alone)) {
            let name = format!("{label}: {share} against alone");
            samples.push(Sample::new(name, "×", beside / alone));
        }
        pause(REST);
    }
    Ok(samples)
}

fn named(label: &str, [p50, p99, gap]: [f64; 3]) -> Vec<Sample> {
    vec![
        Sample::new(format!("{label}: p50"), "ms", p50),
        Sample::new(format!("{label}: p99"), "ms", p99),
        Sample::new(format!("{label}: machine's longest gap"), "ms", gap),
    ]
}

/// p50 and p99 in milliseconds, from the moment a query was due; and how long the machine stood still.
fn quiet(proxy: &Proxy, stage: &Stage) -> Result<[f64; 3]> {
    let load = Load {
        script: Script::PointSelect,
        mode: Mode::Prepared,
        clients: QUIET_CLIENTS,
        rate: Some(QUIET_RATE),
        seconds: stage.sizes.quiet_seconds,
    };
    let metronome = Metronome::start();
    let latencies = load.start(proxy, "quiet", stage).and_then(Running::finish);
    let gap = metronome.end()?;
    let latencies = latencies?.all()?;
    Ok([
        latencies.percentile(0.50)?,
        latencies.percentile(0.99)?,
        gap,
    ])
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
