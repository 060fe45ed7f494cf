//! Clients with 500 prepared statements each, many to a server, executed at random.
//!
//! With the same texts for all, every server can keep all of them. With texts of each client's own
//! there are 32,000, so that a server rarely has the next one: that is what parsing again costs.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::args::Case;
use crate::clients::{self, Script, WarmUp, execute, parse};
use crate::lineup::Lineup;
use crate::proxy::Setup;
use crate::report::Report;
use crate::stage::Stage;
use crate::wire::message;

const CLIENTS: u32 = 64;
const POOL_SIZE: usize = 8;
/// Of each client, and of each server in PgBouncer; it is pgusher's default, too.
const STATEMENTS: u32 = 500;
/// Rows of `pgbench_accounts`.
const ACCOUNTS: u32 = 1_000_000;

/// Whose texts they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Texts {
    Shared,
    Own,
}

struct Worker {
    /// Of its first text.
    first: u32,
    name: String,
}

pub(super) fn run(stage: &Stage, report: &mut Report) {
    let setup = Setup {
        pool_size: POOL_SIZE,
        pgbouncer_statements: STATEMENTS as usize,
        ..Setup::plain()
    };
    let mut lineup = Lineup::start(Case::Statements, &setup, stage, report);
    for _ in 0..stage.sizes.slow_rounds {
        for texts in [Texts::Shared, Texts::Own] {
            let label = format!("{STATEMENTS} statements, {}", texts.label());
            lineup.each(report, &label, |proxy| {
                let workers = (0..CLIENTS).map(|number| Worker::new(texts, number));
                let outcome = clients::run(workers.collect(), texts.warm_up(), proxy, stage)?;
                outcome.samples(&label)
            });
        }
    }
}

impl Texts {
    fn label(self) -> &'static str {
        match self {
            Self::Shared => "all clients the same",
            Self::Own => "of each client's own",
        }
    }

    /// Shared ones are warm when each server has most of them, with a generic plan each, which
    /// PostgreSQL makes in the sixth execution.
    fn warm_up(self) -> WarmUp {
        let transactions = match self {
            Self::Shared => 12 * u64::from(STATEMENTS) * POOL_SIZE as u64,
            Self::Own => 5000,
        };
        WarmUp {
            time: Duration::from_secs(1),
            transactions,
            limit: Duration::from_secs(10),
        }
    }
}

impl Worker {
    fn new(texts: Texts, number: u32) -> Self {
        let first = match texts {
            Texts::Shared => 0,
            Texts::Own => number * STATEMENTS,
        };
        Self {
            first,
            name: String::new(),
        }
    }
}

impl Script for Worker {
    fn prepare(&self) -> Vec<Vec<u8>> {
        let mut messages: Vec<_> = (0..STATEMENTS)
            .map(|number| {
                let text = self.first + number;
                let sql = format!("SELECT abalance + {text} FROM pgbench_accounts WHERE aid = $1");
                parse(&format!("statement {number}"), &sql)
            })
            .collect();
        messages.push(message(b'S', &[]));
        vec![messages.concat()]
    }

    fn write(&mut self, _: usize, to: &mut Vec<u8>) -> ControlFlow<()> {
        self.name.clear();
        let number = rand::random_range(0..STATEMENTS);
        write!(self.name, "statement {number}").expect("a String takes everything");
        let account = rand::random_range(1..=ACCOUNTS).to_string();
        execute(&self.name, &[&account], to);
        ControlFlow::Break(())
    }

    /// All balances are 0, so that the answer names its text.
    fn check(&self) -> (Vec<u8>, String) {
        let mut messages = Vec::new();
        execute("statement 123", &["1"], &mut messages);
        (messages, (self.first + 123).to_string())
    }
}
