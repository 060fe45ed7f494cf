//! One tenant against another: every attack that we know, against set-ups as one meets them and
//! against tenants that pgusher has made.
//!
//! - `PGUSHER_ATTACK=name`: only attacks whose names contain this;
//! - `PGUSHER_PG_BIN=…`: on another PostgreSQL.
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
mod scene;
mod table;
mod victim;
mod wire;

use attack::{Attack, Tier};
use guarded::Guarded;
use harness::Postgres;
use naive::NAIVE;
use scene::Stage;
use std::{
    collections::BTreeMap,
    env,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use table::Table;

/// Stages at a time: each waits for PostgreSQL most of the time.
const THREADS: usize = 4;

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
        for _ in 0..THREADS {
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

/// All attacks that make sense here, and those within a transaction.
fn suffer_all(stage: &mut Stage, column: &str, table: &Mutex<Table>) {
    for attack in attacks() {
        if !attack.tiers.contains(&stage.tier) {
            continue;
        }
        let verdict = stage.suffer(&attack, false);
        table.lock().unwrap().note(&attack, "", column, &verdict);
        if attack.has_variant_in_transaction() {
            let verdict = stage.suffer(&attack, true);
            table.lock().unwrap().note(&attack, "/tx", column, &verdict);
        }
    }
}

#[test]
fn every_attack_succeeds_where_tenants_are_kept_apart_naively() {
    let postgres = Postgres::start();
    let mut lanes = Vec::new();
    for tier in [Tier::Database, Tier::Schema, Tier::Row] {
        for naive in NAIVE {
            lanes.push((naive, tier));
        }
    }
    let table = Mutex::new(Table::default());
    share(lanes.len(), |number| {
        let (naive, tier) = lanes[number];
        if let Some(mut stage) = naive::stage(naive, tier, postgres.endpoint()) {
            suffer_all(&mut stage, &format!("{} {naive:?}", tier.name()), &table);
        }
    });
    let table = table.into_inner().unwrap();
    print!("{}", table.print("naive"));
    let leaked: BTreeMap<_, _> = table.leaks();
    let mut wrong = Vec::new();
    for attack in attacks() {
        match (leaked.get(attack.name), attack.unproven) {
            (None, None) => wrong.push(format!("{} never succeeds", attack.name)),
            (Some(how), Some(_)) => wrong.push(format!("{} does succeed: {how:?}", attack.name)),
            (None, Some(why)) => println!("never succeeds: {}: {why}", attack.name),
            (Some(_), None) => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_attack_succeeds_on_tenants_that_pgusher_has_made() {
    let mut guarded = Guarded::start();
    let table = Mutex::new(Table::default());
    let pairs = guarded.pairs();
    let stages = &guarded;
    share(pairs.len(), |number| {
        let (pair, tier, mode) = pairs[number];
        let mut stage = stages.stage(pair);
        suffer_all(&mut stage, &format!("{} {mode}", tier.name()), &table);
    });
    let table = table.into_inner().unwrap();
    print!("{}", table.print("pgusher"));
    guarded.proxy_is_well();
    let leaks = table.leaks();
    assert!(leaks.is_empty(), "{leaks:#?}");
}
