//! `pgbench -S`: what a transaction costs the proxy, and what the client sees.

use std::time::SystemTime;

use anyhow::Result;

use crate::args::Case;
use crate::credential::{Certificate, KeyType};
use crate::figure::Sample;
use crate::lineup::Lineup;
use crate::pgbench::{Load, Mode};
use crate::process::pause;
use crate::procfs::Cpu;
use crate::proxy::{Proxy, Setup};
use crate::report::Report;
use crate::stage::Stage;

/// TLS is measured at one point only.
const TLS_CLIENTS: u32 = 16;

pub(super) fn run(stage: &Stage, report: &mut Report) {
    let mut lineup = Lineup::start(Case::Throughput, &Setup::plain(), stage, report);
    for mode in &stage.args.modes {
        for clients in &stage.args.clients {
            let label = format!("{} c{clients}", mode.name());
            for _ in 0..stage.sizes.rounds {
                lineup.each(report, &label, |proxy| {
                    measure(proxy, stage, *mode, *clients, &label)
                });
            }
        }
    }
    drop(lineup);
    if stage.args.modes.contains(&Mode::Prepared) && stage.args.clients.contains(&TLS_CLIENTS) {
        run_with_tls(stage, report);
    }
}

fn run_with_tls(stage: &Stage, report: &mut Report) {
    let label = format!("TLS prepared c{TLS_CLIENTS}");
    let made = stage
        .folder_for("tls")
        .and_then(|folder| Certificate::create(&folder, KeyType::P256));
    let setup = match made {
        Ok(made) => Setup {
            certificate: Some(made),
            ..Setup::plain()
        },
        Err(error) => return report.fail(&label, &error),
    };
    let mut lineup = Lineup::start(Case::Throughput, &setup, stage, report).without_direct();
    for _ in 0..stage.sizes.rounds {
        let run = |proxy: &Proxy| measure(proxy, stage, Mode::Prepared, TLS_CLIENTS, &label);
        lineup.each(report, &label, run);
    }
}

/// Measures inside a window: logins, first Parses and the end of the load stay outside.
fn measure(
    proxy: &Proxy,
    stage: &Stage,
    mode: Mode,
    clients: u32,
    label: &str,
) -> Result<Vec<Sample>> {
    let window = stage.sizes.window;
    let mut load = Load::around(window, mode, clients).start(proxy, "bench", stage)?;
    load.wait_until_busy()?;
    let before = proxy.pid().map(Cpu::of).ok().transpose()?;
    let from = SystemTime::now();
    pause(window);
    let to = SystemTime::now();
    let after = proxy.pid().map(Cpu::of).ok().transpose()?;

    let latencies = load.finish()?.between(from, to)?;
    let throughput = latencies.count() / to.duration_since(from)?.as_secs_f64();
    let mut samples = Vec::new();
    if let Some((before, after)) = before.zip(after) {
        let spent = after.since(&before);
        let per_100k = spent.total.as_secs_f64() / latencies.count() * 1e5;
        let kernel = spent.total.as_secs_f64() * (1.0 - spent.user_share);
        let kernel_micros = kernel / latencies.count() * 1e6;
        let user_micros = per_100k * 10.0 - kernel_micros;
        samples.push(Sample::new(
            format!("{label}: CPU per 100k transactions"),
            "s",
            per_100k,
        ));
        samples.push(Sample::new(
            format!("{label}: user CPU per transaction"),
            "µs",
            user_micros,
        ));
    }
    samples.push(Sample::new(
        format!("{label}: throughput"),
        "tps",
        throughput,
    ));
    for (name, share) in [("p50", 0.50), ("p99", 0.99)] {
        let milliseconds = latencies.percentile(share)?;
        samples.push(Sample::new(
            format!("{label}: latency {name}"),
            "ms",
            milliseconds,
        ));
    }
    Ok(samples)
}
