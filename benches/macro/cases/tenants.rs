//! Many tenants in the configuration, one that works.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};

use crate::args::Case;
use crate::credential::random_verifier;
use crate::figure::Sample;
use crate::lineup::first_query;
use crate::pgbench::{Load, Mode};
use crate::process::pause;
use crate::procfs::{Cpu, resident_bytes};
use crate::proxy::{Kind, Proxy, Setup, Tenant};
use crate::report::Report;
use crate::stage::Stage;

/// Longer than this is no start.
const START_LIMIT: Duration = Duration::from_mins(2);
/// Clients of the load.
const CLIENTS: u32 = 16;

pub(super) fn run(stage: &Stage, report: &mut Report) {
    let one = Setup::plain();
    let many = with_strangers(one.clone(), stage.sizes.tenants);
    let kinds: Vec<Kind> = stage
        .args
        .proxies
        .iter()
        .copied()
        .filter(|kind| *kind != Kind::Direct)
        .collect();
    for _ in 0..stage.sizes.slow_rounds {
        for kind in &kinds {
            let cost_of = |setup: &Setup, report: &mut Report| {
                let measured = measure(*kind, setup, stage);
                let noted = measured.map(|(samples, cost)| {
                    report.add(Case::Tenants, *kind, samples);
                    cost
                });
                noted.map_err(|error| report.fail(&format!("Tenants, {}", kind.name()), &error))
            };
            if let (Ok(alone), Ok(among)) = (cost_of(&one, report), cost_of(&many, report)) {
                let name = format!(
                    "{} tenants: CPU per transaction, against one tenant",
                    stage.sizes.tenants
                );
                report.add(
                    Case::Tenants,
                    *kind,
                    vec![Sample::new(name, "×", among / alone)],
                );
            }
        }
    }
}

/// Adds tenants whose keys nobody has.
fn with_strangers(mut setup: Setup, count: usize) -> Setup {
    let strangers = (1..count).map(|number| Tenant {
        id: format!("stranger{number:05}"),
        verifier: random_verifier(),
        lines: String::new(),
    });
    setup.tenants.extend(strangers);
    setup
}

/// Starts a proxy; returns also its CPU seconds per transaction under load.
fn measure(kind: Kind, setup: &Setup, stage: &Stage) -> Result<(Vec<Sample>, f64)> {
    let label = match setup.tenants.len() {
        1 => "one tenant".to_owned(),
        count => format!("{count} tenants"),
    };
    let begin = Instant::now();
    let mut proxy = Proxy::launch(kind, setup, stage)?;
    first_query(&mut proxy, "bench", START_LIMIT)?;
    let start = begin.elapsed().as_secs_f64();
    let memory = resident_bytes(proxy.pid()?)? as f64 / 1e6;
    let cost = cost(&proxy, stage).context("under load")?;
    let samples = vec![
        Sample::new(format!("{label}: start to first query"), "s", start),
        Sample::new(format!("{label}: resident memory"), "MB", memory),
        Sample::new(
            format!("{label}: CPU per 100k transactions, prepared c16"),
            "s",
            cost * 1e5,
        ),
    ];
    Ok((samples, cost))
}

/// CPU seconds of a proxy per transaction under load.
pub(super) fn cost(proxy: &Proxy, stage: &Stage) -> Result<f64> {
    let window = stage.sizes.window;
    let mut load = Load::around(window, Mode::Prepared, CLIENTS).start(proxy, "bench", stage)?;
    load.wait_until_busy()?;
    let before = Cpu::of(proxy.pid()?)?;
    let from = SystemTime::now();
    pause(window);
    let to = SystemTime::now();
    let spent = Cpu::of(proxy.pid()?)?.since(&before).total.as_secs_f64();
    Ok(spent / load.finish()?.between(from, to)?.count())
}
