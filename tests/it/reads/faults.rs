//! Replicas that die, hang, never answer, or don't know yet: the clients read on.

use super::{Stage, attempt, own_writes::Turn, shared};
use crate::harness::{
    Fleet, Place, Postgres, Proxy, Request, Tenant, eventually, eventually_some,
    fleet::{PRIMARY, mark},
    frames,
    place::Login,
};
use std::{
    net::TcpListener,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
};

/// The fleet whose servers are killed, one test after the other.
struct Ward(MutexGuard<'static, Fleet>);

impl Ward {
    fn take() -> Self {
        static FLEET: OnceLock<Mutex<Fleet>> = OnceLock::new();
        let fleet = FLEET.get_or_init(|| Mutex::new(Fleet::start(2)));
        let mut ward = Self(fleet.lock().unwrap_or_else(PoisonError::into_inner));
        // A test that failed may have left them as they were.
        for at in [PRIMARY, 1, 2] {
            ward.0[at].thaw();
            if !ward.0[at].is_running() {
                ward.0[at].run();
            }
        }
        ward.0.catch_up();
        ward
    }
}

/// Reads until it is over; how often.
fn read_on(proxy: &Proxy, is_over: &AtomicBool, reads: &AtomicU32) {
    let mut client = proxy.connect("acme").login();
    client.ask(
        &Request::new()
            .parse("s", "select count(*) from items")
            .sync(),
    );
    let run = Request::new().run_prepared("s", &[]).sync();
    while !is_over.load(Ordering::SeqCst) {
        assert_eq!(client.value("select count(*) from items"), "3");
        let frames = client.ask(&run);
        assert_eq!(frames::firsts(&frames), ["3"], "{frames:?}");
        reads.fetch_add(1, Ordering::SeqCst);
    }
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Hurts a replica under a load of reads, which go on, and has it come back.
fn hurt(fleet: &mut Fleet, hurt: fn(&mut Postgres), heal: fn(&mut Postgres)) {
    let tenant = Tenant::new("acme", &fleet.quiet_place()).pool_size(6);
    let proxy = fleet.proxy([tenant]).start();
    let mut client = proxy.connect("acme").login();
    client.exec("create table items as select generate_series(1, 3) as id");
    fleet.catch_up();
    let (is_over, reads) = (AtomicBool::new(false), AtomicU32::new(0));
    let go_on = |times: u32| {
        let from = reads.load(Ordering::SeqCst);
        eventually("reads go on", || {
            reads.load(Ordering::SeqCst) >= from + times
        });
    };
    thread::scope(|scope| {
        let _over = Over(&is_over);
        for _ in 0..6 {
            scope.spawn(|| read_on(&proxy, &is_over, &reads));
        }
        go_on(100);
        hurt(&mut fleet[1]);
        go_on(300);
        heal(&mut fleet[1]);
        go_on(100);
        let role = proxy.place("acme").role().to_owned();
        eventually("the replica that came back answers again", || {
            let sql = format!(
                "select count(*) from pg_stat_activity where usename = '{role}' \
                and query like 'select count(*) from items%'"
            );
            fleet.admin(1).value(&sql) != "0"
        });
    });
}

#[test]
fn a_replica_is_killed_and_no_client_notices() {
    let mut ward = Ward::take();
    hurt(&mut ward.0, Postgres::kill, Postgres::run);
}

#[test]
fn a_replica_is_stopped_and_no_client_notices() {
    let mut ward = Ward::take();
    hurt(&mut ward.0, Postgres::stop_fast, Postgres::run);
}

#[test]
fn a_replica_hangs_and_no_client_notices() {
    let mut ward = Ward::take();
    hurt(&mut ward.0, Postgres::freeze, Postgres::thaw);
}

#[test]
fn without_replicas_reads_go_to_the_primary_or_fail_if_that_is_wanted() {
    let mut ward = Ward::take();
    let fleet = &mut ward.0;
    let acme = fleet.tenant("acme");
    let strict = fleet.tenant("acme").set("failover_hold", "500ms");
    let fallback = fleet.proxy([acme]).start();
    let none = fleet
        .proxy([strict])
        .cluster("replica_fallback", false)
        .start();
    let stages = [fallback, none].map(|proxy| Stage {
        fleet: &*fleet,
        proxy,
    });
    for stage in &stages {
        let mut client = stage.furnished();
        stage.settled(&mut client);
    }
    let proxies = stages.map(|stage| stage.proxy);
    for at in [1, 2] {
        fleet[at].kill();
    }
    let mut client = proxies[0].connect("acme").login();
    for _ in 0..50 {
        assert_eq!(client.value("select count(*) from items"), "3");
    }
    client.exec("delete from items where id = 3");
    assert_eq!(client.value("select count(*) from items"), "2");
    let sql = "select count(*) from items";
    eventually("reads are refused", || {
        let mut strict = proxies[1].connect("acme").login();
        attempt(&mut strict, sql) == Err("57P03".into())
    });
    let mut strict = proxies[1].connect("acme").login();
    strict.exec("delete from items where id = 3");
    for at in [1, 2] {
        fleet[at].run();
    }
    for proxy in proxies {
        let stage = Stage {
            fleet: &*fleet,
            proxy,
        };
        eventually("reads are answered again", || {
            attempt(&mut stage.client(), sql).is_ok()
        });
        assert_eq!(stage.on_replica(&mut stage.client(), sql), ["2"]);
    }
}

#[test]
fn all_servers_die_and_come_back() {
    let mut ward = Ward::take();
    let fleet = &mut ward.0;
    let tenant = fleet.tenant("acme").set("failover_hold", "300ms");
    let stage = Stage {
        fleet: &*fleet,
        proxy: fleet.proxy([tenant]).start(),
    };
    let mut idle = stage.furnished();
    stage.settled(&mut idle);
    let proxy = stage.proxy;
    for at in [1, 2, PRIMARY] {
        fleet[at].kill();
    }
    for sql in ["select count(*) from items", "delete from items"] {
        let refused = match proxy.connect("acme").try_login() {
            Ok(mut client) => attempt(&mut client, sql).unwrap_err(),
            Err(frames) => frames::code(&frames),
        };
        assert!(
            ["57P03", "08006", "08001", "57P01"].contains(&refused.as_str()),
            "{refused}"
        );
    }
    for at in [PRIMARY, 1, 2] {
        fleet[at].run();
    }
    assert_eq!(
        idle.value("select count(*) from items"),
        "3",
        "it was idle all the time"
    );
    idle.exec("delete from items where id = 3");
    let stage = Stage {
        fleet: &*fleet,
        proxy,
    };
    let sql = "select count(*) from items";
    assert_eq!(stage.on_replica(&mut stage.client(), sql), ["2"]);
    assert_eq!(stage.on_replica(&mut idle, sql), ["2"]);
}

#[test]
fn the_primary_restarts_and_is_written_to_again() {
    let mut ward = Ward::take();
    let fleet = &mut ward.0;
    let stage = Stage {
        fleet: &*fleet,
        proxy: fleet.proxy([fleet.tenant("acme")]).start(),
    };
    let mut client = stage.furnished();
    stage.settled(&mut client);
    let proxy = stage.proxy;
    fleet.catch_up();
    let mut reader = proxy.connect("acme").login();
    fleet[PRIMARY].stop_fast();
    client.send(&Request::new().query("insert into items values (4, 'waits')"));
    for _ in 0..20 {
        assert_eq!(reader.value("select count(*) from items"), "3");
    }
    fleet[PRIMARY].run();
    assert_eq!(frames::error(&client.until_ready()), None);
    assert_eq!(reader.value("select count(*) from items"), "4");
}

#[test]
fn a_transaction_on_a_replica_that_dies_has_one_error() {
    let mut ward = Ward::take();
    let fleet = &mut ward.0;
    let only = vec![toml::Value::from(fleet.endpoint(1).url())];
    let tenant = fleet.tenant("acme").set("read_replicas", only);
    let stage = Stage {
        fleet: &*fleet,
        proxy: fleet.proxy([tenant]).start(),
    };
    let mut client = stage.furnished();
    stage.settled(&mut client);
    client.exec("begin read only");
    assert_eq!(client.value("select count(*) from items"), "3");
    let proxy = stage.proxy;
    fleet[1].kill();
    client.send(&Request::new().query("select count(*) from items"));
    let mut errors = 0;
    while let Some(frame) = client.next_or_end() {
        assert_ne!(frame.tag, b'D', "a row of another snapshot");
        errors += u32::from(frame.tag == b'E');
        if frame.tag == b'Z' {
            break;
        }
    }
    assert_eq!(errors, 1);
    let mut client = proxy.connect("acme").login();
    assert_eq!(client.value("select count(*) from items"), "3");
    fleet[1].run();
}

#[test]
fn replicas_that_never_answer_hold_nobody_up() {
    let fleet = shared();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf = silent.local_addr().unwrap().port();
    let nobody = crate::harness::port::free();
    let urls = [deaf, nobody].map(|port| format!("postgres://127.0.0.1:{port}"));
    let [mute, absent] = urls;
    let real = fleet.endpoint(1).url();
    let replicas = [mute.clone(), absent, real].map(toml::Value::from).to_vec();
    let elsewhere = fleet
        .tenant("elsewhere")
        .set("cluster", "dead")
        .set("failover_hold", "300ms");
    let builder = fleet.proxy([fleet.tenant("acme"), elsewhere]);
    let proxy = builder
        .cluster("replicas", replicas)
        .another_cluster("dead", &mute)
        .start();
    let stage = Stage { fleet, proxy };
    let mut client = stage.furnished();
    let sql = "select count(*) from items";
    assert_eq!(stage.on_replica(&mut client, sql), ["3"]);
    // Somebody waits for the one that never answers.
    let mut stuck = stage.proxy.connect("elsewhere").open();
    stuck.send_bytes(&stage.proxy.connect("elsewhere").startup_packet());
    let (mark, since) = (mark(), fleet.now());
    for _ in 0..30 {
        let mut client = stage.client();
        for _ in 0..5 {
            assert_eq!(client.value(&format!("{sql} {mark}")), "3");
        }
    }
    assert!(fleet.seen(&since, &mark).contains(&1));
    client.exec("delete from items where id = 1");
    assert_eq!(client.value(sql), "2");
    drop(silent);
}

#[test]
fn a_tenant_that_replicas_do_not_know_yet_reads() {
    let turn = Turn::take();
    let fleet = turn.fleet();
    turn.pause();
    let place = Place::room(fleet.endpoint(PRIMARY), Login::Scram);
    let proxy = fleet.proxy([Tenant::new("acme", &place)]).start();
    let mut client = proxy.connect("acme").login();
    client.exec("create table items as select generate_series(1, 3) as id");
    let mut other = proxy.connect("acme").login();
    for _ in 0..30 {
        assert_eq!(client.value("select count(*) from items"), "3");
        assert_eq!(other.value("select count(*) from items"), "3");
        assert_eq!(proxy.connect("acme").login().value("select 1"), "1");
    }
    let log = format!("alter role {} set log_statement = 'all'", place.role());
    fleet.admin(PRIMARY).exec(&log);
    turn.resume();
    fleet.catch_up();
    // Servers that log in from now on have that setting, so this proxy is a new one.
    let stage = Stage {
        fleet,
        proxy: fleet.proxy([Tenant::new("acme", &place)]).start(),
    };
    assert_eq!(
        stage.on_replica(&mut stage.client(), "select count(*) from items"),
        ["3"]
    );
}

#[test]
fn a_read_that_stands_in_the_way_of_replay_is_run_on_the_primary() {
    let turn = Turn::take();
    let fleet = turn.fleet();
    for at in fleet.replicas() {
        let mut admin = fleet.admin(at);
        admin.exec("alter system set max_standby_streaming_delay = 0");
        admin.exec("select pg_reload_conf()");
    }
    let stage = Stage::over(fleet, |tenant| tenant);
    let mut client = stage.furnished();
    stage.settled(&mut client);
    let mut admin = stage.proxy.place("acme").admin();
    let role = stage.proxy.place("acme").role().to_owned();
    let (mark, since) = eventually_some("it begins on a replica", || {
        let (mark, since) = (mark(), fleet.now());
        let sql = format!("select count(*) from items, (select pg_sleep(2)) s {mark}");
        client.send(&Request::new().query(&sql));
        eventually("it runs", || !fleet.seen(&since, &mark).is_empty());
        if fleet.seen(&since, &mark) != [PRIMARY] {
            return Some((mark, since));
        }
        client.until_ready();
        None
    });
    let first = fleet.seen(&since, &mark);
    admin.exec(&format!("delete from {role}.items where id = 3"));
    admin.exec(&format!("vacuum (freeze) {role}.items"));
    admin.exec(&format!("alter table {role}.items add more int"));
    let frames = client.until_ready();
    assert_eq!(frames::error(&frames), None, "first on {first:?}");
    for at in fleet.replicas() {
        let mut admin = fleet.admin(at);
        admin.exec("alter system reset max_standby_streaming_delay");
        admin.exec("select pg_reload_conf()");
    }
    assert_eq!(
        fleet.seen(&since, &mark).len(),
        2,
        "and ended on the primary"
    );
    let conflicts = stage.figure("pgusher_reads_retried_total", "reason=\"conflict\"");
    assert!(conflicts >= 1.0);
}
