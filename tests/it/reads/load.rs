//! Writers and readers at once, over a pause of the replicas, and a checker of every read.

use super::{Stage, own_writes::Turn};
use crate::harness::{Client, Request, Tenant, frames::firsts};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

const ROWS: usize = 4;

/// What was acknowledged, row by row, and what the readers have found.
#[derive(Default)]
struct Ledger {
    rows: [AtomicU64; ROWS],
    is_over: AtomicBool,
    reads: AtomicU64,
    stale: AtomicU64,
}

fn write(ledger: &Ledger, mut client: Client, row: usize, every: Duration) {
    let mut n = 0;
    let prepare = Request::new().parse("w", "update counter set n = $2::int where id = $1::int");
    client.ask(&prepare.sync());
    while !ledger.is_over.load(Ordering::SeqCst) {
        n += 1;
        if n % 2 == 0 {
            client.exec(&format!("update counter set n = {n} where id = {row}"));
        } else {
            let values = [row.to_string(), n.to_string()];
            let run = Request::new().run_prepared("w", &[&values[0], &values[1]]);
            assert_eq!(crate::harness::frames::code(&client.ask(&run.sync())), "");
        }
        ledger.rows[row].store(n, Ordering::SeqCst);
        thread::park_timeout(every);
    }
}

fn read(ledger: &Ledger, mut client: Client, first: usize) {
    let prepare = Request::new().parse("r", "select n from counter where id = $1::int");
    client.ask(&prepare.sync());
    let mut row = first;
    while !ledger.is_over.load(Ordering::SeqCst) {
        row = (row + 1) % ROWS;
        let least = ledger.rows[row].load(Ordering::SeqCst);
        let got = if row.is_multiple_of(2) {
            client.value(&format!("select n from counter where id = {row}"))
        } else {
            firsts(&client.ask(&Request::new().run_prepared("r", &[&row.to_string()]).sync()))
                .remove(0)
        };
        ledger.reads.fetch_add(1, Ordering::SeqCst);
        if got.parse::<u64>().unwrap() < least {
            ledger.stale.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// The share of reads that replicas have answered meanwhile, and the reads that were stale.
fn run(turn: &Turn, every: Duration) -> [f64; 3] {
    let fleet = turn.fleet();
    let tenant = Tenant::new("acme", &fleet.quiet_place()).pool_size(8);
    let proxy = fleet.proxy([tenant]).start();
    let stage = Stage { fleet, proxy };
    stage.client().exec(&format!(
        "create table counter (id int primary key, n int); \
         insert into counter select i, 0 from generate_series(0, {ROWS} - 1) i"
    ));
    fleet.catch_up();
    let ledger = Ledger::default();
    let mut shares = [0.0; 3];
    thread::scope(|scope| {
        let _over = Over(&ledger);
        for row in 0..ROWS {
            let (client, ledger) = (stage.client(), &ledger);
            scope.spawn(move || write(ledger, client, row, every));
            let client = stage.client();
            scope.spawn(move || read(ledger, client, row));
        }
        for (phase, share) in shares.iter_mut().enumerate() {
            if phase == 1 {
                turn.pause();
            } else if phase == 2 {
                turn.resume();
            }
            let count = || {
                let replica = stage.figure("pgusher_routed_total", "target=\"replica\"");
                (replica, ledger.reads.load(Ordering::SeqCst))
            };
            let before = count();
            let from = Instant::now();
            while from.elapsed() < Duration::from_millis(1500) {
                thread::park_timeout(Duration::from_millis(50));
            }
            let after = count();
            let reads = (after.1 - before.1).max(1);
            #[expect(clippy::cast_precision_loss, reason = "a share")]
            let reads = reads as f64;
            *share = (after.0 - before.0) / reads;
        }
    });
    let reads = ledger.reads.load(Ordering::SeqCst);
    assert!(reads > 100, "{reads} reads");
    assert_eq!(
        ledger.stale.load(Ordering::SeqCst),
        0,
        "stale, of {reads} reads"
    );
    eprintln!(
        "writes every {every:?}: {reads} reads; on replicas before, while paused, after: {shares:.2?}"
    );
    shares
}

/// Ends the threads, also when one has failed.
struct Over<'a>(&'a Ledger);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

#[test]
fn no_read_is_stale_while_a_tenant_writes_now_and_then() {
    let turn = Turn::take();
    let [before, _, after] = run(&turn, Duration::from_millis(400));
    assert!(
        before > 0.0 && after > 0.0,
        "replicas were used: {before}, {after}"
    );
}

#[test]
fn no_read_is_stale_while_a_tenant_writes_all_the_time() {
    let turn = Turn::take();
    run(&turn, Duration::from_millis(2));
}
