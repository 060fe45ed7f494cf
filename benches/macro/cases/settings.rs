//! Clients with eight settings each, many to a server: what it costs to hand them over.
//!
//! PgBouncer carries only what PostgreSQL reports, and no setting of an application's own: it runs
//! the same load without settings, under the same label, for the scale.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::Result;

use crate::args::Case;
use crate::clients::{self, Outcome, Script, WarmUp, execute, query};
use crate::figure::Sample;
use crate::lineup::Lineup;
use crate::pgbench::Mode;
use crate::proxy::{Kind, Proxy, Setup};
use crate::report::Report;
use crate::stage::Stage;
use crate::wire::message;

const CLIENTS: u32 = 64;
const POOL_SIZE: usize = 8;
/// Rows of `pgbench_accounts`.
const ACCOUNTS: u32 = 1_000_000;
const WARM_UP: WarmUp = WarmUp {
    time: Duration::from_secs(1),
    transactions: 2000,
    limit: Duration::from_secs(4),
};

/// Which settings the clients have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    None,
    /// All clients the same eight.
    Same,
    /// Each client its own values of the eight.
    Own,
    /// One setting for each transaction, as row-level security is used.
    Local,
}

struct Worker {
    number: u32,
    variant: Variant,
    mode: Mode,
}

impl Variant {
    const ALL: [Self; 4] = [Self::None, Self::Same, Self::Own, Self::Local];

    fn label(self) -> &'static str {
        match self {
            Self::None => "no settings",
            Self::Same => "8 settings, all clients the same (PgBouncer has none)",
            Self::Own => "8 settings of each client's own (PgBouncer has none)",
            Self::Local => "SET LOCAL in each transaction",
        }
    }

    /// What can be asked of this proxy.
    fn for_kind(self, kind: Kind) -> Self {
        match (self, kind) {
            (Self::Same | Self::Own, Kind::Pgbouncer) => Self::None,
            _ => self,
        }
    }
}

pub(super) fn run(stage: &Stage, report: &mut Report) {
    let setup = Setup {
        pool_size: POOL_SIZE,
        ..Setup::plain()
    };
    let mut lineup = Lineup::start(Case::Settings, &setup, stage, report);
    let modes = [Mode::Simple, Mode::Prepared];
    for _ in 0..stage.sizes.slow_rounds {
        for mode in modes.iter().filter(|mode| stage.args.modes.contains(mode)) {
            let mut without = BTreeMap::new();
            for variant in Variant::ALL {
                let label = format!("{}, {}", mode.name(), variant.label());
                lineup.each(report, &label, |proxy| {
                    let outcome = measure(proxy, stage, *mode, variant)?;
                    let mut samples = outcome.samples(&label)?;
                    match variant {
                        Variant::None => drop(without.insert(proxy.kind, outcome)),
                        Variant::Same | Variant::Own if proxy.kind != Kind::Pgbouncer => {
                            samples.extend(
                                (without.get(&proxy.kind))
                                    .map(|without| against(&outcome, without, &label))
                                    .into_iter()
                                    .flatten(),
                            );
                        }
                        _ => {}
                    }
                    Ok(samples)
                });
            }
        }
    }
}

fn measure(proxy: &Proxy, stage: &Stage, mode: Mode, variant: Variant) -> Result<Outcome> {
    let variant = variant.for_kind(proxy.kind);
    let workers = (0..CLIENTS).map(|number| Worker {
        number,
        variant,
        mode,
    });
    clients::run(workers.collect(), WARM_UP, proxy, stage)
}

/// The same load with settings, divided by that without.
fn against(with: &Outcome, without: &Outcome, label: &str) -> Vec<Sample> {
    let names = ["CPU", "PostgreSQL's CPU"];
    let pairs = with.cpu_per_100k().into_iter().zip(without.cpu_per_100k());
    let ratios = pairs.filter_map(|(with, without)| Some(with? / without?));
    let labelled = names.iter().zip(ratios);
    labelled
        .map(|(name, ratio)| {
            Sample::new(format!("{label}: {name} against no settings"), "×", ratio)
        })
        .collect()
}

impl Worker {
    /// Four for the planner and the executor, two that PostgreSQL reports, two of the application.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let number = match self.variant {
            Variant::None | Variant::Local => return Vec::new(),
            Variant::Same => 7,
            Variant::Own => self.number,
        };
        vec![
            ("work_mem", format!("{}kB", 5001 + number)),
            ("random_page_cost", format!("{}.5", 2 + number)),
            (
                "effective_cache_size",
                format!("{}kB", 8 * (75_010 + number)),
            ),
            ("statement_timeout", format!("{}ms", 60_001 + number)),
            ("application_name", format!("client {number}")),
            (
                "TimeZone",
                format!("CLI+0{}:{:02}", 1 + number / 60, number % 60),
            ),
            ("app.tenant", format!("tenant {number}")),
            ("app.person", format!("person {number} of the tenant")),
        ]
    }

    fn select(&self, to: &mut Vec<u8>) {
        let account = rand::random_range(1..=ACCOUNTS).to_string();
        if self.mode == Mode::Prepared {
            execute("account", &[&account], to);
        } else {
            let sql = format!("SELECT abalance FROM pgbench_accounts WHERE aid = {account}");
            query(&sql, to);
        }
    }

    /// The tenant of a transaction, as a parameter where there are any.
    fn set_local(&self, to: &mut Vec<u8>) {
        let tenant = format!("tenant {}", self.number);
        if self.mode == Mode::Prepared {
            execute("tenant", &[&tenant], to);
        } else {
            query(&format!("SET LOCAL app.tenant = '{tenant}'"), to);
        }
    }

    fn simple_or_named(&self, sql: &str, to: &mut Vec<u8>) {
        if self.mode == Mode::Prepared {
            execute(&sql.to_lowercase(), &[], to);
        } else {
            query(sql, to);
        }
    }
}

impl Script for Worker {
    fn prepare(&self) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        for (name, value) in self.settings() {
            let mut part = Vec::new();
            query(&format!("SET {name} = '{value}'"), &mut part);
            parts.push(part);
        }
        if self.mode == Mode::Prepared {
            let statements = [
                (
                    "account",
                    "SELECT abalance FROM pgbench_accounts WHERE aid = $1",
                ),
                ("tenant", "SELECT set_config('app.tenant', $1, true)"),
                ("begin", "BEGIN"),
                ("commit", "COMMIT"),
            ];
            let named = statements.map(|(name, sql)| {
                let parts = [name.as_bytes(), &[0], sql.as_bytes(), &[0, 0, 0]];
                message(b'P', &parts)
            });
            parts.push([named.concat(), message(b'S', &[])].concat());
        }
        parts
    }

    fn write(&mut self, trip: usize, to: &mut Vec<u8>) -> ControlFlow<()> {
        match (self.variant, trip) {
            (Variant::Local, 0) => self.simple_or_named("BEGIN", to),
            (Variant::Local, 1) => self.set_local(to),
            (Variant::Local, 3) => {
                self.simple_or_named("COMMIT", to);
                return ControlFlow::Break(());
            }
            (Variant::Local, _) => self.select(to),
            _ => {
                self.select(to);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn check(&self) -> (Vec<u8>, String) {
        let (mut calls, mut expected) = (String::from("'all'"), String::from("all"));
        for (name, value) in self.settings() {
            calls.push_str(", current_setting('");
            calls.push_str(name);
            calls.push_str("')");
            expected.push('|');
            expected.push_str(&value);
        }
        let mut messages = Vec::new();
        query(&format!("SELECT concat_ws('|', {calls})"), &mut messages);
        (messages, expected)
    }
}
