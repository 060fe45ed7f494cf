//! Sixteen clients that write while the primary goes and a replica is promoted at once.

use crate::{
    Args,
    ground::{attempt, pause, tenant},
    harness::{Connect, Fleet, Postgres, fleet::PRIMARY},
    report::Report,
};
use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const CLIENTS: usize = 16;
const NEXT: usize = 1;

#[derive(Default)]
struct Ledger {
    done: Mutex<Vec<(usize, u32, Instant)>>,
    errors: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Ledger {
    fn write(&self, connect: &Connect, client: usize) {
        let mut n = 0;
        while !self.is_over.load(Ordering::SeqCst) {
            let Ok(mut connection) = connect.try_login() else {
                self.errors.lock().unwrap().push("login".into());
                thread::park_timeout(Duration::from_millis(20));
                continue;
            };
            while !self.is_over.load(Ordering::SeqCst) {
                n += 1;
                let sql = format!("insert into ledger values ({client}, {n})");
                if let Err(code) = attempt(&mut connection, &sql) {
                    self.errors.lock().unwrap().push(code);
                    break;
                }
                self.done.lock().unwrap().push((client, n, Instant::now()));
            }
        }
    }

    /// The longest time in which nobody had an answer, and the longest of one client.
    fn silences(&self) -> (Duration, Duration) {
        let done = self.done.lock().unwrap();
        let longest = |times: &mut Vec<Instant>| {
            times.sort();
            let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
            gaps.max().unwrap_or_default()
        };
        let of = |client| {
            done.iter()
                .filter(move |entry| entry.0 == client)
                .map(|entry| entry.2)
        };
        let own = (0..CLIENTS).map(|client| longest(&mut of(client).collect()));
        let all = longest(&mut done.iter().map(|entry| entry.2).collect());
        (all, own.max().unwrap_or_default())
    }
}

/// Nothing is acknowledged that only the primary has.
fn be_safe(fleet: &Fleet) {
    let mut admin = fleet.admin(PRIMARY);
    admin.exec("alter system set synchronous_standby_names = 'FIRST 2 (*)'");
    admin.exec("select pg_reload_conf()");
    crate::harness::eventually("the replicas are synchronous", || {
        admin.value("select count(*) from pg_stat_replication where sync_state = 'sync'") == "2"
    });
}

fn fail_over(name: &str, end: fn(&mut Postgres), report: &mut Report) {
    let mut fleet = Fleet::start(2);
    let proxy = fleet.proxy([tenant(&fleet, "acme")]).start();
    proxy
        .connect("acme")
        .login()
        .exec("create table ledger (client int, n int)");
    be_safe(&fleet);
    let ledger = Ledger::default();
    let mut promotion = Duration::ZERO;
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (connect, ledger) = (proxy.connect("acme"), &ledger);
            scope.spawn(move || ledger.write(&connect, client));
        }
        pause(Duration::from_secs(2));
        let start = Instant::now();
        end(&mut fleet[PRIMARY]);
        fleet.promote(NEXT);
        promotion = start.elapsed();
        fleet.follow(2, NEXT);
        pause(Duration::from_secs(8));
        ledger.is_over.store(true, Ordering::SeqCst);
    });
    let errors = ledger.errors.lock().unwrap();
    let (all, own) = ledger.silences();
    let value = format!(
        "{} errors {errors:?}; silence of all {:.2} s, of one client {:.2} s; PostgreSQL took {:.2} s of it",
        errors.len(),
        all.as_secs_f64(),
        own.as_secs_f64(),
        promotion.as_secs_f64()
    );
    report.row(name, value, "errors <= 16, silence < 2 s");
    let schema = proxy.place("acme").role().to_owned();
    let mut admin = fleet.endpoint(NEXT).admin_of("shared");
    let there = admin.values(&format!("select client || ' ' || n from {schema}.ledger"));
    let there: HashSet<_> = there.into_iter().collect();
    let done = ledger.done.lock().unwrap();
    let lost = done
        .iter()
        .filter(|(client, n, _)| !there.contains(&format!("{client} {n}")))
        .count();
    if lost > 0 {
        report
            .faults
            .push(format!("{name}: {lost} acknowledged writes are lost"));
    }
    if done
        .iter()
        .all(|entry| entry.2.elapsed() > Duration::from_secs(3))
    {
        report.faults.push(format!("{name}: nobody writes since"));
    }
}

pub fn run(_args: &Args, report: &mut Report) {
    fail_over(
        "primary stopped (fast), replica promoted, 16 clients",
        Postgres::stop_fast,
        report,
    );
    fail_over(
        "primary killed (-9), replica promoted, 16 clients",
        Postgres::kill,
        report,
    );
}
