//! The primary goes and a replica takes its place: who has to notice.

use super::{Stage, attempt, reads_in_recovery, shared};
use crate::harness::{
    Client, Connect, DEADLINE, Fleet, Postgres, Proxy, Request, Tenant, eventually, fleet::PRIMARY,
    frames, frames::firsts,
};
use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

const CLIENTS: usize = 16;
/// The replica that is promoted.
const NEXT: usize = 1;

/// What was acknowledged: client and number.
#[derive(Default)]
struct Ledger {
    acknowledged: Mutex<Vec<(usize, u32, Instant)>>,
    errors: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

struct Over<'a>(&'a Ledger);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

impl Ledger {
    /// Writes again and again, and comes back when it is sent away.
    fn write(&self, connect: &Connect, client: usize) {
        let mut n = 0;
        while !self.is_over.load(Ordering::SeqCst) {
            let Some(mut connection) = connect.try_login().ok() else {
                thread::park_timeout(std::time::Duration::from_millis(20));
                continue;
            };
            while !self.is_over.load(Ordering::SeqCst) {
                n += 1;
                let sql = format!("insert into ledger values ({client}, {n})");
                if let Err(code) = attempt(&mut connection, &sql) {
                    self.errors.lock().unwrap().push(code);
                    break;
                }
                let entry = (client, n, Instant::now());
                self.acknowledged.lock().unwrap().push(entry);
                thread::park_timeout(std::time::Duration::from_millis(5));
            }
        }
    }

    /// Waits until everybody has written so often since then.
    fn wait_for_all(&self, since: Instant, times: usize) {
        eventually("all clients write", || {
            let all = self.acknowledged.lock().unwrap();
            (0..CLIENTS).all(|client| {
                let own = all
                    .iter()
                    .filter(|entry| entry.0 == client && entry.2 > since);
                own.count() >= times
            })
        });
    }

    fn longest_silence(&self) -> std::time::Duration {
        let mut times: Vec<_> = self
            .acknowledged
            .lock()
            .unwrap()
            .iter()
            .map(|entry| entry.2)
            .collect();
        times.sort();
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }
}

/// Nothing is acknowledged that only the primary has.
fn be_safe(fleet: &Fleet) {
    let mut admin = fleet.admin(PRIMARY);
    let count = fleet.replicas().len();
    admin.exec(&format!(
        "alter system set synchronous_standby_names = 'FIRST {count} (*)'"
    ));
    admin.exec("select pg_reload_conf()");
    let expected = count.to_string();
    eventually("the replicas are synchronous", || {
        admin.value("select count(*) from pg_stat_replication where sync_state = 'sync'")
            == expected
    });
}

/// What of this isn't in a server's ledger.
fn missing(fleet: &Fleet, at: usize, schema: &str, ledger: &Ledger) -> Vec<(usize, u32)> {
    let mut admin = fleet.endpoint(at).admin_of("shared");
    let sql = format!("select client || ' ' || n from {schema}.ledger");
    let there: std::collections::HashSet<_> = admin.values(&sql).into_iter().collect();
    let all = ledger.acknowledged.lock().unwrap();
    let entries = all.iter().map(|entry| (entry.0, entry.1));
    entries
        .filter(|(client, n)| !there.contains(&format!("{client} {n}")))
        .collect()
}

fn promoted_under_load(end: fn(&mut Postgres)) {
    let mut fleet = Fleet::start(2);
    let place = fleet.quiet_place();
    let tenant = Tenant::new("acme", &place).pool_size(8);
    let proxy = fleet.proxy([tenant]).start();
    let mut idle: Vec<_> = (0..3).map(|_| proxy.connect("acme").login()).collect();
    idle[0].exec("create table ledger (client int, n int)");
    be_safe(&fleet);
    let prepared = Request::new().parse("s", "select count(*) from ledger where client = $1");
    idle[1].ask(&prepared.sync());
    idle[2].exec("set application_name = 'patient'");
    let ledger = Ledger::default();
    thread::scope(|scope| {
        let _over = Over(&ledger);
        for client in 0..CLIENTS {
            let (connect, ledger) = (proxy.connect("acme"), &ledger);
            scope.spawn(move || ledger.write(&connect, client));
        }
        ledger.wait_for_all(Instant::now(), 3);
        end(&mut fleet[PRIMARY]);
        fleet.promote(NEXT);
        fleet.follow(2, NEXT);
        ledger.wait_for_all(Instant::now(), 5);
    });
    let errors = ledger.errors.lock().unwrap();
    eprintln!(
        "{} errors: {errors:?}; longest silence {:?}",
        errors.len(),
        ledger.longest_silence()
    );
    let schema = place.role();
    assert_eq!(missing(&fleet, NEXT, schema, &ledger), []);
    // Who was idle has noticed nothing.
    let own = ledger
        .acknowledged
        .lock()
        .unwrap()
        .iter()
        .filter(|entry| entry.0 == 7)
        .count();
    let run = Request::new().run_prepared("s", &["7"]).sync();
    let found: usize = firsts(&idle[1].ask(&run))[0].parse().unwrap();
    assert!(found >= own, "{found} of {own}");
    assert_eq!(
        idle[2].value("select current_setting('application_name')"),
        "patient"
    );
    for (number, client) in idle.iter_mut().enumerate() {
        let written = attempt(client, "insert into ledger values (100, 0)");
        assert!(written.is_ok(), "idle {number}: {written:?}");
    }
    old_primary_returns(&mut fleet, &proxy, schema);
}

/// The old primary comes back, as the primary that it was.
fn old_primary_returns(fleet: &mut Fleet, proxy: &Proxy, schema: &str) {
    fleet[PRIMARY].run();
    let count = format!("select count(*) from {schema}.ledger");
    let mut old = fleet.endpoint(PRIMARY).admin_of("shared");
    let mut new = fleet.endpoint(NEXT).admin_of("shared");
    assert_eq!(old.value("select pg_is_in_recovery()"), "f");
    // It would wait for replicas that it has no longer.
    old.exec("alter system reset synchronous_standby_names");
    old.exec("select pg_reload_conf()");
    let mut client = proxy.connect("acme").login();
    let mut file = proxy.file.clone();
    file.admin.clear();
    file.proxy.remove("listen");
    let mut second = Proxy::with(file).start();
    eventually("it has found the new primary", || {
        let mut client = second.connect("acme").login();
        let written = attempt(&mut client, "insert into ledger values (300, 0)");
        written.is_ok() && new.value(&format!("{count} where client = 300")) != "0"
    });
    // Until then it had only its file to go by.
    let before = old.value(&count);
    for (which, proxy) in [proxy, &second].into_iter().enumerate() {
        let start = Instant::now();
        while start.elapsed() < std::time::Duration::from_millis(1200) {
            let there: u32 = new.value(&count).parse().unwrap();
            client.exec("insert into ledger values (200, 0)");
            proxy
                .connect("acme")
                .login()
                .exec("insert into ledger values (201, 0)");
            assert_eq!(new.value(&count), (there + 2).to_string(), "proxy {which}");
        }
    }
    assert_eq!(old.value(&count), before);
    assert!(second.is_alive());
}

#[test]
fn a_primary_is_stopped_under_load_and_a_replica_promoted() {
    promoted_under_load(Postgres::stop_fast);
}

#[test]
fn a_primary_is_killed_under_load_and_a_replica_promoted() {
    promoted_under_load(Postgres::kill);
}

#[test]
fn a_primary_that_hangs_is_replaced() {
    promoted_under_load_frozen();
}

/// The old one is cut off, and comes back to life when another has long taken its place.
fn promoted_under_load_frozen() {
    let mut fleet = Fleet::start(1);
    let place = fleet.place();
    let proxy = fleet.proxy([Tenant::new("acme", &place)]).start();
    let mut clients: Vec<_> = (0..3).map(|_| proxy.connect("acme").login()).collect();
    clients[0].exec("create table ledger (client int, n int)");
    fleet.catch_up();
    fleet[PRIMARY].freeze();
    fleet.promote(NEXT);
    for client in &mut clients {
        eventually("it is written on the new primary", || {
            attempt(client, "insert into ledger values (1, 1)").is_ok() || {
                *client = proxy.connect("acme").login();
                false
            }
        });
    }
    fleet[PRIMARY].thaw();
    let count = format!("select count(*) from {}.ledger", place.role());
    let mut new = fleet.endpoint(NEXT).admin_of("shared");
    let there: u32 = new.value(&count).parse().unwrap();
    assert!(there >= 3);
    for _ in 0..100 {
        for client in &mut clients {
            client.exec("insert into ledger values (2, 2)");
        }
    }
    assert_eq!(new.value(&count), (there + 300).to_string());
    let mut old = fleet.endpoint(PRIMARY).admin_of("shared");
    assert_eq!(old.value(&format!("{count} where client = 2")), "0");
}

/// Of a transaction that was in flight: one error, and no more.
fn has_one_error(busy: &mut Client) {
    busy.send(&Request::new().query("insert into items values (98, 'lost')"));
    let mut answer = Vec::new();
    while let Some(frame) = busy.next_or_end() {
        let is_ready = frame.tag == b'Z';
        answer.push(frame);
        if is_ready {
            break;
        }
    }
    let errors = answer.iter().filter(|frame| frame.tag == b'E').count();
    assert_eq!(errors, 1, "{answer:?}");
}

#[test]
fn sessions_at_a_boundary_wait_and_reads_go_on() {
    let mut fleet = Fleet::start(1);
    let patient = fleet.tenant("acme").set("failover_hold", "15s");
    let hasty = fleet.tenant("hasty").set("failover_hold", "200ms");
    let proxy = fleet.proxy([patient, hasty]).start();
    let stage = Stage {
        fleet: &fleet,
        proxy,
    };
    let mut simple = stage.furnished();
    let mut impatient = stage.proxy.connect("hasty").login();
    impatient.exec("create table t (i int)");
    eventually("it is read on the replica", || {
        reads_in_recovery(&mut impatient, "begin read only")
    });
    let [mut prepared, mut busy, mut reader, mut piped] = [(); 4].map(|()| stage.client());
    let parse = Request::new().parse(
        "s",
        "insert into items values ($1, 'prepared') returning id",
    );
    prepared.ask(&parse.sync());
    stage.settled(&mut reader);
    busy.exec("begin; insert into items values (99, 'lost')");
    let Stage { proxy, .. } = stage;
    fleet.catch_up();

    fleet[PRIMARY].stop_fast();
    simple.send(&Request::new().query("insert into items values (10, 'simple')"));
    prepared.send(&Request::new().run_prepared("s", &["11"]).sync());
    piped.send(
        &Request::new()
            .query("select 'piped'")
            .query("insert into items values (12, 'piped')")
            .run("select name from items where id = $1", &["12"])
            .sync(),
    );
    // A write that was in flight may have been committed: then a read is to see it, and waits.
    reader.send(&Request::new().query("select count(*) from items where id < 10"));
    // Reads of a tenant without such a one go on.
    for _ in 0..20 {
        assert_eq!(impatient.value("select count(*) from t"), "0");
    }
    assert_eq!(
        attempt(&mut impatient, "insert into t values (1)"),
        Err("57P03".into())
    );
    has_one_error(&mut busy);

    fleet.promote(NEXT);
    assert_eq!(firsts(&reader.until_ready()), ["3"]);
    assert_eq!(frames::error(&simple.until_ready()), None);
    let frames = prepared.until_ready();
    assert_eq!(
        (firsts(&frames), frames::code(&frames)),
        (vec!["11".into()], String::new())
    );
    assert_eq!(firsts(&piped.until_ready()), ["piped"]);
    assert_eq!(frames::error(&piped.until_ready()), None);
    assert_eq!(firsts(&piped.until_ready()), ["piped"]);
    let mut newcomer = proxy.connect("acme").login();
    let ids = "select string_agg(id::text, ' ' order by id) from items";
    assert_eq!(newcomer.value(ids), "1 2 3 10 11 12");
    assert_eq!(reader.value(ids), "1 2 3 10 11 12");
    eventually("who didn't wait comes back", || {
        let connected = proxy.connect("hasty").try_login();
        connected.is_ok_and(|mut client| attempt(&mut client, "insert into t values (1)").is_ok())
    });
}

#[test]
fn a_read_only_transaction_outlives_the_primary() {
    let mut fleet = Fleet::start(2);
    let only = vec![toml::Value::from(fleet.endpoint(2).url())];
    let tenant = fleet.tenant("acme").set("read_replicas", only);
    let proxy = fleet.proxy([tenant]).start();
    let stage = Stage {
        fleet: &fleet,
        proxy,
    };
    let mut client = stage.furnished();
    eventually("it is on a replica", || {
        client.exec("begin isolation level repeatable read read only");
        let is_there = client.value("select pg_is_in_recovery()") == "t"
            && client.query("select * from items").len() == 6;
        if !is_there {
            client.exec("rollback");
        }
        is_there
    });
    let Stage { proxy, .. } = stage;
    fleet[PRIMARY].kill();
    for _ in 0..5 {
        assert_eq!(client.value("select count(*) from items"), "3");
    }
    fleet.promote(NEXT);
    fleet.follow(2, NEXT);
    let mut writer = proxy.connect("acme").login();
    writer.exec("insert into items values (4, 'four')");
    assert_eq!(client.value("select count(*) from items"), "3");
    client.exec("commit");
    assert_eq!(client.value("select count(*) from items"), "4");
    for id in 5..40 {
        writer.exec(&format!("insert into items values ({id}, 'more')"));
        assert_eq!(client.value("select count(*) from items"), id.to_string());
    }
    let stage = Stage {
        fleet: &fleet,
        proxy,
    };
    assert_eq!(
        stage.on_replica(&mut client, "select count(*) from items"),
        ["39"]
    );
}

#[test]
fn roles_are_found_whatever_the_file_says() {
    let fleet = shared();
    let tenant = fleet.tenant("acme");
    let mut file = fleet.file([tenant]);
    let urls = [PRIMARY, 2].map(|at| toml::Value::from(fleet.endpoint(at).url()));
    file.set_cluster("primary", fleet.endpoint(1).url());
    file.set_cluster("replicas", urls.to_vec());
    let proxy = Proxy::with(file).admin().start();
    let stage = Stage { fleet, proxy };
    eventually("the primary is found", || {
        attempt(&mut stage.client(), "create table found ()").is_ok()
    });
    let mut client = stage.furnished();
    let sql = "select count(*) from items";
    assert_eq!(stage.on_replica(&mut client, sql), ["3"]);
    stage.on_primary(&mut client, "delete from items where id = 3");
    assert_eq!(client.value(sql), "2");
    eventually("both replicas read", || {
        let seen: Vec<_> = (0..10).map(|_| stage.ask(&mut client, sql).1[0]).collect();
        seen.contains(&1) && seen.contains(&2)
    });
}

#[test]
fn without_a_primary_writes_have_an_honest_error() {
    let fleet = shared();
    let tenant = fleet.tenant("acme").set("failover_hold", "300ms");
    let mut table = tenant.place.direct().login();
    table.exec("create table items as select generate_series(1, 3) as id");
    fleet.catch_up();
    let mut file = fleet.file([tenant]);
    file.set_cluster("primary", fleet.endpoint(1).url());
    file.set_cluster("replicas", vec![toml::Value::from(fleet.endpoint(2).url())]);
    let proxy = Proxy::with(file).admin().start();
    let start = Instant::now();
    assert_eq!(proxy.connect("acme").refused().code(), "57P03");
    assert!(start.elapsed() < DEADLINE);
}
