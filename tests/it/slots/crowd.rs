//! Many tenants, few slots.

use super::{Rows, Stage, ids, token};
use crate::harness::{
    Request,
    frames::{error, firsts},
};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
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
