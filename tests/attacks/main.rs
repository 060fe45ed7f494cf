//! One tenant against another: every attack that we know, against set-ups as one meets them and
//! against tenants that pgusher has made.
//!
//! - `PGUSHER_ATTACK=name`: only attacks whose names contain this;
//! - `PGUSHER_PG_BIN=…`: on another PostgreSQL;
//! - `PGUSHER_SHOW_LOG=1`: what the proxy logs, too.
//!
//! Both tests print a table: `b` blocked, `L` leaked, `r` a stated limit, `.` does not apply.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    dead_code,
    reason = "a test ends when something is not as it should be"
)]

#[allow(unused_imports, reason = "the other tests use more of it")]
#[path = "../it/harness/mod.rs"]
mod harness;

mod attack;
mod catalogue;
mod door;
mod guarded;
mod naive;
mod queue;
mod scene;
mod table;
mod victim;
mod wire;

use attack::{Attack, Tier};
use guarded::Guarded;
use harness::Postgres;
use naive::{LANES, NAIVE, Naive};
use scene::{Stage, Verdict};
use std::{
    collections::BTreeSet,
    env,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};
use table::Table;

/// Stages at a time: each waits for PostgreSQL most of the time.
const THREADS: usize = 16;

/// How often naive set-ups may have to be made anew, as an attack has left them beyond repair.
const REMAKES_MAX: usize = 12;

/// The attacks that were asked for.
fn attacks() -> Vec<Attack> {
    let part = env::var("PGUSHER_ATTACK").unwrap_or_default();
    let mut attacks = catalogue::all();
    attacks.retain(|attack| attack.name.contains(&part));
    attacks
}

/// Runs what has a number below `count` on a few threads.
fn share(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS.min(count) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    work(number);
                }
            });
        }
    });
}

/// One attack, and within a transaction where that may help; whether one of them succeeded.
fn suffer(
    stage: &mut Stage,
    attack: &Attack,
    table: &Mutex<Table>,
    is_enough: bool,
) -> Result<bool, String> {
    let variants = [("", false), ("/tx", true)];
    // There are no transactions in statement mode.
    let has_both = attack.has_variant_in_transaction() && stage.label != "statement";
    let count = 1 + usize::from(has_both);
    let mut has_leaked = false;
    for (variant, in_transaction) in variants.into_iter().take(count) {
        if has_leaked && is_enough {
            break;
        }
        let start = Instant::now();
        let verdict = stage.suffer(attack, in_transaction)?;
        has_leaked |= verdict != Verdict::Blocked;
        let mut table = table.lock().unwrap();
        table.took(attack, start.elapsed());
        table.note(attack, variant, stage, &verdict);
    }
    Ok(has_leaked)
}

/// The attacks of one lane that no naive set-up so far has let through, and a PostgreSQL of its
/// own: what locks out a whole cluster must not hold up another lane.
struct Lane {
    postgres: Postgres,
    tier: Tier,
    number: usize,
    left: Vec<Attack>,
    remakes: usize,
}

impl Lane {
    fn new(number: usize) -> Self {
        let tier = [Tier::Database, Tier::Schema, Tier::Row][number % 3];
        let mut attacks = attacks();
        attacks.retain(|attack| attack.tiers.contains(&tier));
        let left = attacks.into_iter().skip(number / 3);
        Self {
            postgres: Postgres::start(),
            tier,
            number,
            left: left.step_by(LANES / 3).collect(),
            remakes: 0,
        }
    }

    /// Tries them all on one kind of set-up.
    fn try_on(&mut self, naive: Naive, table: &Mutex<Table>) {
        let (mut stage, mut left) = (None, Vec::new());
        for attack in std::mem::take(&mut self.left) {
            if !naive.is_for(&attack, self.tier) {
                left.push(attack);
                continue;
            }
            loop {
                let plan = (naive, self.tier, self.number);
                let make = || naive::stage(plan, self.remakes, self.postgres.endpoint());
                let tried = standing(&mut stage, make);
                match tried.and_then(|stage| suffer(stage, &attack, table, true)) {
                    Ok(true) => break,
                    Ok(false) => {
                        left.push(attack);
                        break;
                    }
                    Err(error) => {
                        self.remakes += 1;
                        let name = self.tier.name();
                        println!("{name} {naive:?}, ahead of {}: {error}", attack.name);
                        assert!(self.remakes <= REMAKES_MAX, "naive set-ups don't last");
                        stage = None;
                        // One that is beyond repair may have taken its server with it.
                        if naive == Naive::Superuser {
                            self.postgres = Postgres::start();
                        }
                    }
                }
            }
        }
        self.left = left;
    }
}

/// The stage, or a new one.
fn standing(
    stage: &mut Option<Stage>,
    make: impl FnOnce() -> Result<Stage, String>,
) -> Result<&mut Stage, String> {
    let kept = match stage.take() {
        Some(stage) => stage,
        None => make()?,
    };
    Ok(stage.insert(kept))
}

#[test]
fn every_attack_succeeds_where_tenants_are_kept_apart_naively() {
    let table = Mutex::new(Table::default());
    let remakes = AtomicUsize::new(0);
    share(LANES, |number| {
        let mut lane = Lane::new(number);
        for naive in NAIVE {
            lane.try_on(naive, &table);
        }
        remakes.fetch_add(lane.remakes, Ordering::Relaxed);
    });
    let table = table.into_inner().unwrap();
    print!("{}", table.print("naive"));
    println!("set-ups made anew: {}", remakes.into_inner());
    let attacks = attacks();
    let mut unproven = BTreeSet::new();
    for attack in &attacks {
        if let Some(why) = attack.unproven {
            println!("succeeds in no naive set-up: {}: {why}", attack.name);
            unproven.insert(attack.name);
        }
    }
    let proven: BTreeSet<_> = table.leaks().keys().copied().collect();
    println!("{} of {} attacks succeed", proven.len(), attacks.len());
    let never: BTreeSet<_> = attacks
        .iter()
        .map(|attack| attack.name)
        .filter(|name| !proven.contains(name))
        .collect();
    let unmarked: Vec<_> = never.difference(&unproven).collect();
    let marked: Vec<_> = unproven.difference(&never).collect();
    assert!(
        unmarked.is_empty() && marked.is_empty(),
        "these succeed nowhere and don't say so: {unmarked:?}; these are said to and do: {:#?}",
        marked
            .iter()
            .map(|name| (**name, &table.leaks()[**name]))
            .collect::<Vec<_>>()
    );
}

#[test]
fn no_attack_succeeds_on_tenants_that_pgusher_has_made() {
    let mut guarded = Guarded::start();
    let table = Mutex::new(Table::default());
    let stages = &guarded;
    let broken = Mutex::new(Vec::new());
    share(stages.count(), |number| {
        for mut stage in stages.stages(number) {
            for attack in attacks() {
                // What is not as it should be for one is so for the others.
                if broken.lock().unwrap().is_empty() && attack.is_for(stage.who, stage.tier) {
                    let suffered = suffer(&mut stage, &attack, &table, false);
                    if let Err(error) = suffered {
                        let column = stage.column();
                        let what = format!("{column}, ahead of {}: {error}", attack.name);
                        broken.lock().unwrap().push(what);
                    }
                }
            }
        }
    });
    let broken = broken.into_inner().unwrap();
    if env::var_os("PGUSHER_SHOW_LOG").is_some() {
        println!("{}", guarded.log());
    }
    let table = table.into_inner().unwrap();
    print!("{}", table.print("pgusher"));
    assert!(broken.is_empty(), "the harness can't go on: {broken:#?}");
    guarded.is_well();
    let leaks = table.leaks();
    assert!(leaks.is_empty(), "{leaks:#?}");
}
