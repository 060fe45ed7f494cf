//! The command line, and the sizes that follow from it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::cases::floods::FloodName;
use crate::pgbench::Mode;
use crate::proxy::Kind;

/// Compares pgusher with PgBouncer on this machine.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench macro --")]
pub(crate) struct Args {
    /// Short runs and small numbers: to see that everything works, not to judge
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these cases
    #[arg(long, value_enum, value_delimiter = ',', num_args = 1..)]
    only: Vec<Case>,
    /// Rounds of each case [default: 5, of slow cases 3; with --quick 1]
    #[arg(long)]
    rounds: Option<usize>,
    /// Write every sample, ratio and budget to this file
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// The pgusher to measure [default: the one that cargo built with the bench]
    #[arg(long)]
    pub(crate) pgusher: Option<PathBuf>,
    /// What to measure; the first is what the others are compared with
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "pgbouncer,pgusher"
    )]
    pub(crate) proxies: Vec<Kind>,
    /// Protocols of the throughput, syscalls and settings cases
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "simple,extended,prepared"
    )]
    pub(crate) modes: Vec<Mode>,
    /// Client counts of the throughput and syscalls cases
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    pub(crate) clients: Vec<u32>,
    /// Floods of the neighbour case [default: all]
    #[arg(long, value_enum, value_delimiter = ',', num_args = 1..)]
    pub(crate) floods: Vec<FloodName>,
    /// Lines for pgusher's cluster in the neighbour and fair cases, such as "max_running_statements = 4"
    #[arg(long, default_value = "")]
    pub(crate) cluster: String,
    /// Given by cargo
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

/// One part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// `pgbench -S`: CPU per transaction, tps, p50 and p99
    Throughput,
    /// Syscalls per transaction of the same
    Syscalls,
    /// Login rate and CPU per login, with SCRAM and with SCRAM over TLS
    Login,
    /// Memory per idle client, and after they left
    Idle,
    /// COPY and SELECT of much data, one huge value, a reader that stalls
    Bulk,
    /// Start and memory with many tenants configured
    Tenants,
    /// A quiet tenant beside a flooding one
    Neighbour,
    /// Tenants that all want more than there is: Jain's index of what each gets
    Fair,
    /// Ten thousand tenants with a client each, over fifty servers
    Crowd,
    /// CPU per transaction with all limits on, against off
    Limits,
    /// Clients with eight settings each, on servers that they share
    Settings,
    /// Clients with 500 prepared statements each, on servers that they share
    Statements,
    /// Tenants that share server connections: hand-overs, and many tenants over few connections
    Slots,
}

/// How much of everything.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    /// Rounds of each case.
    pub(crate) rounds: usize,
    /// Rounds of cases that take a minute each.
    pub(crate) slow_rounds: usize,
    /// One measurement under load.
    pub(crate) window: Duration,
    /// Logins of one measurement, without and with TLS.
    pub(crate) logins: usize,
    pub(crate) tls_logins: usize,
    /// Idle clients: memory is taken at each of these counts.
    pub(crate) idle_clients: [usize; 2],
    /// COPY and SELECT.
    pub(crate) bulk_bytes: u64,
    /// The one huge value.
    pub(crate) value_bytes: u64,
    /// Tenants in the configuration.
    pub(crate) tenants: usize,
    /// One run of the quiet tenant.
    pub(crate) quiet_seconds: u32,
    /// From the start of a flood to the quiet tenant's run.
    pub(crate) flood_seconds: u32,
}

impl Args {
    /// Whether pgusher is among them, however it is set up.
    pub(crate) fn wants_pgusher(&self) -> bool {
        let is_pgusher = |kind: &Kind| matches!(kind, Kind::Pgusher | Kind::Unlimited);
        self.proxies.iter().any(is_pgusher)
    }

    /// The cases asked for, in order.
    pub(crate) fn cases(&self) -> Vec<Case> {
        let all = Case::value_variants().iter().copied();
        all.filter(|case| self.only.is_empty() || self.only.contains(case))
            .collect()
    }

    /// The sizes asked for.
    pub(crate) fn sizes(&self) -> Sizes {
        let mut sizes = if self.quick {
            Sizes::quick()
        } else {
            Sizes::full()
        };
        if let Some(rounds) = self.rounds {
            (sizes.rounds, sizes.slow_rounds) = (rounds.max(1), rounds.max(1));
        }
        sizes
    }
}

impl Sizes {
    fn full() -> Self {
        Self {
            // Many short rounds rather than few long ones: drift then hits both of a pair.
            rounds: 5,
            slow_rounds: 3,
            window: Duration::from_secs(2),
            logins: 4000,
            tls_logins: 1000,
            idle_clients: [1000, 10_000],
            bulk_bytes: 250_000_000,
            value_bytes: 100_000_000,
            tenants: 10_000,
            quiet_seconds: 8,
            flood_seconds: 15,
        }
    }

    fn quick() -> Self {
        Self {
            rounds: 1,
            slow_rounds: 1,
            window: Duration::from_secs(1),
            logins: 500,
            tls_logins: 200,
            idle_clients: [200, 1000],
            bulk_bytes: 50_000_000,
            value_bytes: 20_000_000,
            tenants: 1000,
            quiet_seconds: 3,
            flood_seconds: 1,
        }
    }
}
