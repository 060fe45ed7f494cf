//! The macro bench: pgusher beside PgBouncer, in one run, on a private PostgreSQL.
//!
//! Why ratios: on a small shared machine throughput moves by a factor of two between minutes, and
//! CPU per transaction by a third. So every round measures each proxy right after the other, a
//! figure is compared with its neighbour of the same round, and the table shows the median of those
//! ratios with their spread. See `benches/README.md` for how to run it and what to beware of.
//!
//! Nothing here asserts a timing: the exit code says only whether everything ran.

#![expect(
    clippy::print_stdout,
    reason = "a command line program: its report goes to stdout"
)]
#![allow(
    clippy::doc_markdown,
    reason = "names of products and of protocol messages are words"
)]
#![expect(
    clippy::cast_precision_loss,
    reason = "figures are shown with three digits"
)]
#![expect(
    clippy::cast_sign_loss,
    reason = "durations and counts are never negative"
)]

mod args;
mod budget;
mod cases;
mod clients;
mod credential;
mod figure;
mod limits;
mod lineup;
mod metronome;
mod pgbench;
mod pgbouncer;
mod pgusher;
mod postgres;
mod process;
mod procfs;
mod proxy;
mod report;
mod stage;
mod stats;
mod wire;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use crate::args::Args;
use crate::report::Report;
use crate::stage::Stage;

fn main() -> ExitCode {
    let args = Args::parse();
    if !args.bench {
        println!("the macro bench is run by `cargo bench --bench macro`");
        return ExitCode::SUCCESS;
    }
    match run(args) {
        Ok(report) if report.is_complete() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<Report> {
    limits::raise_open_files()?;
    process::end_all_on_signals()?;
    let stage = Stage::set_up(args)?;
    let mut report = Report::new(stage.environment());
    report.print_environment();
    for case in stage.args.cases() {
        cases::run(case, &stage, &mut report);
    }
    report.print_table();
    if let Some(file) = &stage.args.json {
        report.write_json(file)?;
    }
    Ok(report)
}
