//! A tenant that writes: what share of its reads replicas answer, and whether any is stale.

use crate::{
    Args,
    ground::{figure, pause, settle, tenant},
    harness::{Client, Fleet, Proxy, Request, frames::firsts},
    report::Report,
};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

const ROWS: usize = 8;
const READERS: usize = 8;

/// What was acknowledged, row by row, and what the readers have found.
#[derive(Default)]
struct Ledger {
    rows: [AtomicU64; ROWS],
    is_over: AtomicBool,
    writes: AtomicU64,
    reads: AtomicU64,
    stale: AtomicU64,
}

impl Ledger {
    /// Writes its rows in turn, at this rate.
    fn write(&self, client: &mut Client, rows: &[usize], rate: f64) {
        let start = Instant::now();
        let mut n = 0_u32;
        while !self.is_over.load(Ordering::SeqCst) {
            let due = start + Duration::from_secs_f64(f64::from(n) / rate);
            while let Some(left) = due.checked_duration_since(Instant::now()) {
                if left.is_zero() || self.is_over.load(Ordering::SeqCst) {
                    break;
                }
                thread::park_timeout(left.min(Duration::from_millis(100)));
            }
            n += 1;
            let row = rows[n as usize % rows.len()];
            client.exec(&format!("update counter set n = {n} where id = {row}"));
            self.rows[row].store(u64::from(n), Ordering::SeqCst);
            self.writes.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn read(&self, client: &mut Client, first: usize) {
        let prepare = Request::new().parse("r", "select n from counter where id = $1::int");
        client.ask(&prepare.sync());
        let mut row = first;
        while !self.is_over.load(Ordering::SeqCst) {
            row = (row + 1) % ROWS;
            let least = self.rows[row].load(Ordering::SeqCst);
            let run = Request::new().run_prepared("r", &[&row.to_string()]).sync();
            let got: u64 = firsts(&client.ask(&run))[0].parse().unwrap();
            self.reads.fetch_add(1, Ordering::SeqCst);
            if got < least {
                self.stale.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    fn phase(&self, proxy: &Proxy, length: Duration) -> Phase {
        let count = || Phase {
            writes: self.writes.load(Ordering::SeqCst) as f64,
            reads: self.reads.load(Ordering::SeqCst) as f64,
            on_replicas: figure(proxy, "pgusher_routed_total", "target=\"replica\""),
            stale: self.stale.load(Ordering::SeqCst) as f64,
        };
        let before = count();
        let start = Instant::now();
        pause(length);
        let after = count();
        Phase {
            writes: (after.writes - before.writes) / start.elapsed().as_secs_f64(),
            reads: after.reads - before.reads,
            on_replicas: after.on_replicas - before.on_replicas,
            stale: after.stale - before.stale,
        }
    }
}

struct Phase {
    writes: f64,
    reads: f64,
    on_replicas: f64,
    stale: f64,
}

pub fn run(args: &Args, report: &mut Report) {
    let fleet = Fleet::start(2);
    let (length, pause) = if args.quick { (3, 3) } else { (8, 10) };
    for rate in [1, 20, 1000] {
        at_rate(&fleet, rate, [length, pause, length], report);
    }
}

fn at_rate(fleet: &Fleet, rate: u32, seconds: [u64; 3], report: &mut Report) {
    let proxy = fleet.proxy([tenant(fleet, "acme")]).start();
    proxy.connect("acme").login().exec(&format!(
        "create table counter (id int primary key, n int) with (fillfactor = 50); \
         insert into counter select i, 0 from generate_series(0, {ROWS} - 1) i"
    ));
    fleet.catch_up();
    settle(&proxy, "acme");
    let ledger = Ledger::default();
    // One client can't write a thousand times a second on a busy machine.
    let writers = if rate > 100 { 4 } else { 1 };
    thread::scope(|scope| {
        for writer in 0..writers {
            let (ledger, mut client) = (&ledger, proxy.connect("acme").login());
            let rows: Vec<_> = (0..ROWS).filter(|row| row % writers == writer).collect();
            let rate = f64::from(rate) / writers as f64;
            scope.spawn(move || ledger.write(&mut client, &rows, rate));
        }
        for reader in 0..READERS {
            let (ledger, mut client) = (&ledger, proxy.connect("acme").login());
            scope.spawn(move || ledger.read(&mut client, reader));
        }
        for (phase, seconds) in ["before", "paused", "after"].into_iter().zip(seconds) {
            match phase {
                "paused" => fleet.replicas().for_each(|at| fleet.pause(at)),
                "after" => fleet.replicas().for_each(|at| fleet.resume(at)),
                _ => {}
            }
            let found = ledger.phase(&proxy, Duration::from_secs(seconds));
            let value = format!(
                "{:.0} writes/s, {:.0} reads/s, {:.1} % on replicas, {} stale",
                found.writes,
                found.reads / seconds as f64,
                100.0 * found.on_replicas / found.reads.max(1.0),
                found.stale
            );
            report.row(
                &format!("{rate} writes/s asked for, {phase}"),
                value,
                "0 stale",
            );
        }
        ledger.is_over.store(true, Ordering::SeqCst);
    });
    let stale = ledger.stale.load(Ordering::SeqCst);
    if stale > 0 {
        report
            .faults
            .push(format!("{stale} stale reads at {rate} writes/s"));
    }
}
