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

#[path = "../it/slots/stage.rs"]
mod slots;

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
use harness::{Postgres, postgres::Endpoint};
use naive::{NAIVE, Naive};
use scene::{Stage, Verdict};
use std::{
    collections::BTreeMap,
    env,
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use table::Table;

/// Stages at a time: each waits for PostgreSQL most of the time.
const THREADS: usize = 6;

/// Parts of the attacks that run beside each other against naive set-ups.
const HALVES: usize = 2;

/// The attacks that were asked for.
fn attacks() -> Vec<Attack> {
    let part = env::var("PGUSHER_ATTACK").unwrap_or_default();
    let mut attacks = catalogue::all();
    attacks.retain(|attack| attack.name.contains(&part));
    attacks
}

/// Those for a tier, or a part of them.
fn attacks_of(tier: Tier, half: usize) -> Vec<Attack> {
    let mut attacks = attacks();
    attacks.retain(|attack| attack.tiers.contains(&tier));
    attacks.into_iter().skip(half).step_by(HALVES).collect()
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

/// One attack, and within a transaction when that may help; whether it failed.
fn suffer_one(stage: &mut Stage, attack: &Attack, column: &str, table: &Mutex<Table>) -> bool {
    let variants = [("", false), ("/tx", true)];
    let count = 1 + usize::from(attack.has_variant_in_transaction());
    variants
        .iter()
        .take(count)
        .all(|(variant, in_transaction)| {
            let verdict = stage.suffer(attack, *in_transaction);
            table
                .lock()
                .unwrap()
                .note(attack, variant, column, &verdict);
            verdict == Verdict::Blocked
        })
}

#[test]
fn every_attack_succeeds_where_tenants_are_kept_apart_naively() {
    let postgres = Postgres::start();
    let table = Mutex::new(Table::default());
    // For each part of the attacks on each tier: those that have failed so far.
    let tiers = [Tier::Database, Tier::Schema, Tier::Row];
    let lanes: Vec<_> = (0..tiers.len() * HALVES)
        .map(|lane| (tiers[lane / HALVES], lane % HALVES))
        .collect();
    let left: Vec<_> = lanes
        .iter()
        .map(|(tier, half)| Mutex::new(attacks_of(*tier, *half)))
        .collect();
    let try_all = |naive: Naive, lane: usize, endpoint: &Endpoint| {
        let (tier, half) = lanes[lane];
        let mut left = left[lane].lock().unwrap();
        let stage = (!left.is_empty()).then(|| naive::stage(naive, tier, half, endpoint));
        let Some(mut stage) = stage.flatten() else {
            return;
        };
        stage.look();
        let column = format!("{} {naive:?}", tier.name());
        left.retain(|attack| {
            // Some attacks leave a set-up that can't be put back: the next one starts anew.
            let tried = || suffer_one(&mut stage, attack, &column, &table);
            panic::catch_unwind(AssertUnwindSafe(tried)).unwrap_or_else(|_| {
                stage.forget();
                true
            })
        });
        let names: Vec<_> = left.iter().map(|attack| attack.name).collect();
        println!("{column}: not yet: {names:?}");
    };
    share(lanes.len(), |lane| {
        for naive in NAIVE {
            try_all(naive, lane, postgres.endpoint());
        }
    });
    // Superusers can change what is everybody's: each gets a PostgreSQL of its own.
    share(lanes.len(), |lane| {
        let own = Postgres::start();
        try_all(Naive::Superuser, lane, own.endpoint());
    });
    let table = table.into_inner().unwrap();
    print!("{}", table.print("naive"));
    let leaked: BTreeMap<_, _> = table.leaks();
    for attack in attacks() {
        match (leaked.get(attack.name), attack.unproven) {
            (None, None) => println!("not proven yet: {}", attack.name),
            (None, Some(why)) => println!("never succeeds: {}: {why}", attack.name),
            (Some(_), _) => {}
        }
    }
    let proven = leaked.len();
    println!("{proven} of {} attacks succeed somewhere", attacks().len());
    // What is missing is told above; this many are known to succeed.
    let expected = if env::var_os("PGUSHER_ATTACK").is_some() {
        0
    } else {
        120
    };
    assert!(proven >= expected, "only {proven} attacks succeed");
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
