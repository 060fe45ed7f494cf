//! What replicas bring and cost: CPU with reads split and without, the spread over servers, the share
//! of reads that replicas answer while the tenant writes, and how long a failover is felt.
//!
//! A checker holds every read against what was acknowledged before it: a stale one fails the run.
//! Nothing else here is asserted: the exit code says whether everything ran, and nothing was stale or
//! lost.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::doc_markdown,
    reason = "it is built from what the tests are built from, and prints a report"
)]

#[path = "../../tests/it/harness/mod.rs"]
mod harness;
#[path = "../macro/procfs.rs"]
mod procfs;

mod cost;
mod failover;
mod freshness;
mod ground;
mod report;
mod spread;

use clap::{Parser, ValueEnum};
use report::Report;

/// What replicas bring and cost.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench reads --")]
struct Args {
    /// Set by cargo
    #[arg(long, hide = true)]
    bench: bool,
    /// Short runs: to see that everything works, not to judge
    #[arg(long)]
    quick: bool,
    /// Only these cases
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Case>,
    /// Rounds of the cost
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// CPU of the proxy per transaction, with reads split and without
    Cost,
    /// Which server answers, by weight
    Spread,
    /// Reads on replicas, and stale ones, while the tenant writes and replay stands still
    Freshness,
    /// Errors and silence when the primary goes and a replica is promoted
    Failover,
}

fn main() {
    let args = Args::parse();
    if !args.bench {
        println!("this bench is run by `cargo bench --bench reads`");
        return;
    }
    let is_wanted = |case| args.only.is_empty() || args.only.contains(&case);
    let mut report = Report::default();
    println!("load before: {}", report::load());
    if is_wanted(Case::Cost) {
        cost::run(&args, &mut report);
    }
    if is_wanted(Case::Spread) {
        spread::run(&args, &mut report);
    }
    if is_wanted(Case::Freshness) {
        freshness::run(&args, &mut report);
    }
    if is_wanted(Case::Failover) {
        failover::run(&args, &mut report);
    }
    println!("load after: {}", report::load());
    report.print();
    assert!(report.faults.is_empty(), "{}", report.faults.join("\n"));
}
