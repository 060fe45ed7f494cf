//! What the control plane costs: tenants made one by one and a hundred at once, and a registry of
//! ten thousand.
//!
//! A figure that PostgreSQL has a share in stands beside what PostgreSQL takes for the bare
//! statements, in the same run. Nothing here asserts a timing: the exit code says only whether
//! everything ran.

#![expect(
    clippy::print_stdout,
    reason = "a command line program: its report goes to stdout"
)]
#![expect(
    clippy::cast_precision_loss,
    reason = "figures are shown with three digits"
)]
#![allow(
    dead_code,
    clippy::doc_markdown,
    clippy::cast_sign_loss,
    reason = "the macro bench uses more of what is shared with it"
)]

#[path = "../macro/credential.rs"]
mod credential;
#[path = "../macro/postgres.rs"]
mod postgres;
#[path = "../macro/process.rs"]
mod process;
#[path = "../macro/procfs.rs"]
mod procfs;
#[path = "../macro/stats.rs"]
mod stats;
#[path = "../macro/wire/mod.rs"]
mod wire;

mod crowd;
mod office;
mod report;
mod single;
mod thousands;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use office::Office;
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;

/// What the control plane costs.
#[derive(Debug, Parser)]
struct Args {
    /// Set by cargo
    #[arg(long, hide = true)]
    bench: bool,
    /// This binary in place of the one that cargo built along
    #[arg(long, value_name = "BIN")]
    pgusher: Option<PathBuf>,
    /// Only these cases
    #[arg(long, value_name = "CASE", value_delimiter = ',')]
    only: Vec<Case>,
    /// Tenants that are made one by one, of each tier
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Tenants that are made at once
    #[arg(long, default_value_t = 100)]
    crowd: usize,
    /// Tenants in the registry of the last case
    #[arg(long, default_value_t = 10_000)]
    tenants: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Tenants made one by one
    Single,
    /// Tenants made at once
    Crowd,
    /// A registry of ten thousand
    Thousands,
}

/// How tenants are kept apart: the tier, and whether it is the variant shared.
const KINDS: [(&str, &str, bool); 4] = [
    ("database", "database", false),
    ("schema", "schema", false),
    ("row", "row", false),
    ("shared", "row", true),
];

fn main() -> ExitCode {
    let args = Args::parse();
    if !args.bench {
        println!("this bench is run by `cargo bench --bench control`");
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    process::end_all_on_signals()?;
    let is_wanted = |case| args.only.is_empty() || args.only.contains(&case);
    let built = || PathBuf::from(env!("CARGO_BIN_EXE_pgusher"));
    let program = args.pgusher.clone().unwrap_or_else(built);
    let mut report = Report::default();
    let office = Office::set_up(&program)?;
    println!(
        "{}, load before: {}",
        office.postgres.version,
        report::load()
    );
    if is_wanted(Case::Single) {
        single::run(&office, args.rounds, &mut report)?;
    }
    if is_wanted(Case::Crowd) {
        crowd::run(&office, args.crowd, &mut report)?;
    }
    drop(office);
    if is_wanted(Case::Thousands) {
        thousands::run(&program, args.tenants, &mut report)?;
    }
    report.print();
    Ok(())
}
