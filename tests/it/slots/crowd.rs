//! Many tenants, few slots.

use super::{Rows, Stage, ids, stage::quick_key, token};
use crate::harness::{
    Request,
    frames::{error, firsts},
};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Small and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

#[test]
fn two_hundred_tenants_on_four_slots_never_see_anothers_row() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 600;
    let ids = ids(200);
    let stage = Stage::of(&ids, 4, |_| ());
    let (tables, asked) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for (thread, own) in ids.chunks(200 / THREADS).enumerate() {
            let (stage, asked, tables) = (&stage, &asked, &tables);
            scope.spawn(move || {
                let mut dice = Dice(thread as u64);
                let mut clients: Vec<_> = own.iter().map(|id| (id, stage.client(id), BTreeSet::new())).collect();
                tables.fetch_add(clients.len(), Ordering::Relaxed);
                for round in 0..ROUNDS {
                    let (id, client, rows) = &mut clients[dice.roll(own.len())];
                    let mine = token(id);
                    match dice.roll(6) {
                        0 => {
                            client.exec(&format!("insert into accounts values ({round}, '{mine}')"));
                            rows.insert(round);
                        }
                        1 => {
                            client.exec("begin");
                            client.exec("update accounts set secret = secret");
                            client.exec("delete from accounts where id > 100000");
                            client.exec(["commit", "rollback"][dice.roll(2)]);
                        }
                        2 => {
                            let frames = client.ask(&Request::new().run(
                                "select distinct tenant_id || secret from accounts where id >= $1::int",
                                &["0"],
                            ).sync());
                            assert_eq!(error(&frames), None);
                            let expected = (!rows.is_empty()).then(|| format!("{mine}{mine}"));
                            assert_eq!(firsts(&frames), Vec::from_iter(expected));
                        }
                        3 => assert_eq!(client.value("select ctl.tenant()"), mine),
                        4 => {
                            client.exec(["set work_mem = '5MB'", "reset all", "select 1/1"][dice.roll(3)]);
                        }
                        _ => {
                            let found = client.values("select id from accounts order by id");
                            let expected: Vec<_> = rows.iter().map(ToString::to_string).collect();
                            assert_eq!(found, expected, "{id}");
                        }
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(asked.load(Ordering::Relaxed), THREADS * ROUNDS);
    assert_eq!(tables.load(Ordering::Relaxed), ids.len());
    let mut admin = Rows::shared().admin();
    let strays =
        "select count(*) from data.accounts where secret <> tenant_id and length(secret) = 20";
    assert_eq!(admin.value(strays), "0");
}

/// How many tenants come by; `PGUSHER_SLOT_TENANTS` has more of them come for a look at throughput.
fn tenants() -> usize {
    let asked = std::env::var("PGUSHER_SLOT_TENANTS").ok();
    asked.and_then(|count| count.parse().ok()).unwrap_or(400)
}

#[test]
fn far_more_tenants_than_slots_are_all_served() {
    const SLOTS: u32 = 20;
    const WORKERS: usize = 16;
    let ids = ids(tenants());
    let stage = Stage::of(&ids, SLOTS, |tenant| tenant.keys = vec![quick_key()]);
    let began = Instant::now();
    thread::scope(|scope| {
        for own in ids.chunks(ids.len().div_ceil(WORKERS)) {
            let stage = &stage;
            scope.spawn(move || {
                for id in own {
                    let mut client = stage.client(id);
                    client.exec(&format!("insert into accounts values (1, 'of {id}')"));
                    let found = client.values("select secret from accounts");
                    assert_eq!(found, [format!("of {id}")]);
                }
            });
        }
    });
    let first = began.elapsed();
    assert!(stage.pools.idle_slots() <= SLOTS as usize);
    // All of a worker's tenants stay connected, and take turns.
    let some: Vec<_> = ids.iter().take(400).collect();
    let asked = AtomicUsize::new(0);
    let began = Instant::now();
    thread::scope(|scope| {
        for own in some.chunks(some.len().div_ceil(WORKERS)) {
            let (stage, asked) = (&stage, &asked);
            scope.spawn(move || {
                let mut clients: Vec<_> = own.iter().map(|id| (id, stage.client(id))).collect();
                for _ in 0..10 {
                    for (id, client) in &mut clients {
                        let found = client.values("select secret from accounts where id = 1");
                        assert_eq!(found, [format!("of {id}")]);
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let asked = asked.load(Ordering::Relaxed);
    assert_eq!(asked, some.len() * 10);
    let each = |count: usize, time: Duration| count as u128 * 1000 / time.as_millis().max(1);
    eprintln!(
        "{} tenants, {SLOTS} slots: {} logins with two transactions a second; {asked} queries of {} \
         connected tenants in turn: {} a second",
        ids.len(),
        each(ids.len(), first),
        some.len(),
        each(asked, began.elapsed())
    );
}

#[test]
fn a_handover_costs_a_round_trip_and_not_a_login() {
    const ROUNDS: u32 = 300;
    let ids = ids(2);
    let stage = Stage::of(&ids, 1, |_| ());
    let mut clients: Vec<_> = ids.iter().map(|id| stage.client(id)).collect();
    for (id, client) in ids.iter().zip(&mut clients) {
        client.exec(&format!("insert into accounts values (1, 'of {id}')"));
    }
    let mut ask = |at: usize| {
        let found = clients[at].value("select secret from accounts where id = 1");
        assert_eq!(found, format!("of {}", ids[at]));
    };
    let mut timed = |what: &str, who: fn(u32) -> usize| {
        let mut times: Vec<_> = (0..ROUNDS)
            .map(|round| {
                let began = Instant::now();
                ask(who(round));
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        eprintln!(
            "{what}: median {:?}, least {:?}",
            times[times.len() / 2],
            times[0]
        );
    };
    timed("the same tenant again", |_| 0);
    timed("another tenant each time", |round| (round % 2) as usize);
    let mut logins = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        let slot = Stage::new_slot(&ids[0]);
        logins.push(began.elapsed());
        drop(slot);
    }
    logins.sort_unstable();
    eprintln!(
        "a new slot, leased, logged in and bound: median {:?}",
        logins[10]
    );
}
