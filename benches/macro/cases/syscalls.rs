//! Syscalls per transaction.
//!
//! `perf stat` counts them without slowing the proxy; where perf may not (see
//! `kernel.perf_event_paranoid`) strace does, which slows the proxy several times over, so that
//! more arrives between two of its reads.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};

use crate::args::Case;
use crate::figure::Sample;
use crate::lineup::Lineup;
use crate::pgbench::Load;
use crate::process::{self, Ending, Process, pause};
use crate::proxy::Setup;
use crate::report::Report;
use crate::stage::Stage;

const EVENT: &str = "raw_syscalls:sys_enter";

/// How they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counter {
    Perf,
    Strace,
}

pub(super) fn run(stage: &Stage, report: &mut Report) {
    let counter = match Counter::find() {
        Ok(counter) => counter,
        Err(error) => return report.fail("Syscalls", &error),
    };
    println!("  counted by {counter:?}");
    let setup = Setup::plain();
    let mut lineup = Lineup::start(Case::Syscalls, &setup, stage, report).without_direct();
    // The load has to outlive the start and the end of the counter.
    let window = stage.sizes.window + Duration::from_secs(2);
    for mode in &stage.args.modes {
        for clients in &stage.args.clients {
            let label = format!("{} c{clients}", mode.name());
            lineup.each(report, &label, |proxy| {
                let mut load =
                    Load::around(window, *mode, *clients).start(proxy, "bench", stage)?;
                load.wait_until_busy()?;
                let from = SystemTime::now();
                let rate = counter.calls_per_second(proxy.pid()?, stage)?;
                let to = SystemTime::now();
                let transactions = load.finish()?.between(from, to)?.count();
                let throughput = transactions / to.duration_since(from)?.as_secs_f64();
                let name = format!("{label}: syscalls per transaction");
                Ok(vec![Sample::new(name, "", rate / throughput)])
            });
        }
    }
}

impl Counter {
    fn find() -> Result<Self> {
        let mut perf = Command::new("perf");
        perf.args(["stat", "-x,", "-e", EVENT, "--", "true"]);
        if perf.output().is_ok_and(|output| output.status.success()) {
            return Ok(Self::Perf);
        }
        process::find_program("strace").context("neither perf may count nor is strace here")?;
        Ok(Self::Strace)
    }

    fn calls_per_second(self, pid: u32, stage: &Stage) -> Result<f64> {
        match self {
            Self::Perf => by_perf(pid, stage.sizes.window),
            Self::Strace => by_strace(pid, stage),
        }
    }
}

/// Reads perf's text: its CSV has the duration only as an event, which it adds up over threads.
fn by_perf(pid: u32, window: Duration) -> Result<f64> {
    let mut perf = Command::new("perf");
    perf.args(["stat", "-e", EVENT, "-p", &pid.to_string()]);
    perf.args(["--", "sleep", &window.as_secs_f64().to_string()])
        .env("LC_ALL", "C");
    let output = perf.output().context("can't run perf")?;
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    let number_before = |what: &str| {
        let line = report.lines().find(|line| line.contains(what));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        number.with_context(|| format!("perf reports no {what}: {}", report.trim()))
    };
    Ok(number_before(EVENT)? / number_before("seconds time elapsed")?)
}

fn by_strace(pid: u32, stage: &Stage) -> Result<f64> {
    let folder = stage.folder_for("strace")?;
    let summary = folder.join("summary");
    let log = folder.join("log");
    let mut command = process::command("strace");
    command
        .args(["-f", "-c", "-p", &pid.to_string(), "-o"])
        .arg(&summary);
    let mut strace = Process::start("strace", command, Ending::Kill, log.clone())?;
    let attached = || {
        std::fs::read_to_string(&log)?
            .contains("attached")
            .then_some(())
            .context("not attached")
    };
    process::retry_while(Duration::from_secs(5), || strace.check_alive(), attached)?;
    let begin = Instant::now();
    pause(stage.sizes.window);
    let counted = begin.elapsed();
    process::send(strace.pid(), "INT")?;
    let ended = strace.finish(Duration::from_secs(10));
    let text = std::fs::read_to_string(&summary).unwrap_or_default();
    // "100.00    0.123456           1     12345         7 total"
    let total = text.lines().find(|line| line.ends_with(" total"));
    let calls = total.and_then(|line| line.split_whitespace().nth(3)?.parse::<f64>().ok());
    match (calls, ended) {
        (Some(calls), _) => Ok(calls / counted.as_secs_f64()),
        (None, Err(error)) => Err(error),
        (None, Ok(_)) => anyhow::bail!("strace gave no total: {text}"),
    }
}
