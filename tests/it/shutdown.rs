//! The end of the proxy, and its next start.

use crate::harness::{
    DEADLINE, Mode, Postgres, Proxy, Request, Tenant, eventually,
    frames::{code, error, firsts},
    proxy::{one_tenant, pooled},
};
use std::time::{Duration, Instant};

#[test]
fn idle_clients_are_told_and_the_process_ends_well() {
    for name in ["TERM", "INT"] {
        for mode in [Mode::Session, Mode::Transaction] {
            let mut proxy = pooled(mode, 2);
            let mut clients = [proxy.connect("acme").login(), proxy.connect("acme").login()];
            clients[0].exec("select 1");
            proxy.signal(name);
            for client in &mut clients {
                client.ends_with("57P01");
            }
            assert_eq!(proxy.end().code(), Some(0), "after {name}");
        }
    }
}

#[test]
fn an_open_transaction_may_finish() {
    for mode in [Mode::Session, Mode::Transaction] {
        let mut proxy = pooled(mode, 2);
        let mut client = proxy.connect("acme").login();
        client.exec("create table t (i int)");
        client.exec("begin; insert into t values (1)");
        let mut idle = proxy.connect("acme").login();
        proxy.signal("TERM");
        idle.ends_with("57P01");
        client.exec("insert into t values (2)");
        let commit = client.query("commit");
        assert_eq!(error(&commit), None, "{commit:?}");
        client.ends_with("57P01");
        assert!(proxy.end().success());
        let mut direct = proxy.place("acme").direct().login();
        assert_eq!(direct.value("select count(*) from t"), "2");
    }
}

#[test]
fn a_running_statement_may_finish() {
    let mut proxy = pooled(Mode::Transaction, 1);
    let mut client = proxy.connect("acme").login();
    client.send(&Request::new().query("select 'done', pg_sleep(1)"));
    let place = proxy.place("acme");
    let mut admin = place.admin();
    let sql = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and usename = ";
    eventually("it runs", || {
        admin.value(&format!("{sql}'{}'", place.role())) == "1"
    });
    proxy.signal("TERM");
    assert_eq!(firsts(&client.until_ready()), ["done"]);
    client.ends_with("57P01");
    assert!(proxy.end().success());
}

#[test]
fn new_clients_are_not_taken() {
    let mut proxy = pooled(Mode::Transaction, 1);
    let mut client = proxy.connect("acme").login();
    client.exec("begin");
    proxy.signal("TERM");
    eventually("newcomers are refused", || {
        match proxy.connect("acme").try_open() {
            Err(_) => true,
            Ok(mut newcomer) => {
                newcomer
                    .try_send_bytes(&proxy.connect("acme").startup_packet())
                    .ok();
                newcomer.next_or_end().is_none_or(|frame| frame.tag == b'E')
            }
        }
    });
    client.exec("commit");
    assert!(proxy.end().success());
}

#[test]
fn a_transaction_without_end_does_not_keep_the_process() {
    let place = Postgres::shared().place();
    let mut proxy = Proxy::of([Tenant::new("acme", &place)])
        .set("shutdown_timeout", "700ms")
        .start();
    let mut client = proxy.connect("acme").login();
    client.exec("create table t (i int)");
    client.exec("begin; insert into t values (1)");
    let start = Instant::now();
    proxy.signal("TERM");
    assert_eq!(code(&client.rest()), "57P01");
    proxy.end();
    assert!(
        start.elapsed() > Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
    assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
    let mut direct = place.direct().login();
    eventually("the transaction is rolled back", || {
        direct.value("select count(*) from t") == "0"
    });
}

#[test]
fn a_second_signal_does_no_harm() {
    let mut proxy = pooled(Mode::Transaction, 1);
    let mut client = proxy.connect("acme").login();
    client.exec("begin");
    proxy.signal("TERM");
    proxy.signal("HUP");
    proxy.signal("TERM");
    // The second one may hurry the end, but neither hangs nor crashes.
    client
        .try_send_bytes(Request::new().query("commit").bytes())
        .ok();
    client.raw_rest();
    let status = proxy.end();
    assert!(status.code().is_some(), "{status}");
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
}

#[test]
fn it_starts_again_on_the_same_port() {
    let mut proxy = one_tenant(|tenant| tenant);
    for name in ["TERM", "KILL"] {
        let mut client = proxy.connect("acme").login();
        client.exec("begin");
        proxy.signal(name);
        if name == "TERM" {
            client.exec("commit");
        }
        client.raw_rest();
        proxy.end();
        proxy.start_again();
        proxy.connect("acme").login().is_in_step();
    }
}

#[test]
fn its_servers_leave_with_it() {
    let mut proxy = pooled(Mode::Transaction, 3);
    let place = proxy.place("acme");
    let mut admin = place.admin();
    let mut clients: Vec<_> = (0..3).map(|_| proxy.connect("acme").login()).collect();
    for client in &mut clients {
        client.exec("begin; select 1");
    }
    assert_eq!(place.server_pids(&mut admin).len(), 3);
    proxy.signal("KILL");
    proxy.end();
    eventually("PostgreSQL saw them go", || {
        place.server_pids(&mut admin).is_empty()
    });
}

#[test]
fn a_copy_under_way_may_finish() {
    for mode in [Mode::Session, Mode::Transaction] {
        let mut proxy = pooled(mode, 1);
        let mut client = proxy.connect("acme").login();
        client.exec("create table t (i int)");
        client.send(&Request::new().query("copy t from stdin"));
        client.until('G');
        client.send(&Request::new().copy_data(b"1\n"));
        proxy.signal("TERM");
        eventually("newcomers are refused", || {
            proxy.connect("acme").try_open().is_err()
        });
        let end = client.ask(&Request::new().copy_data(b"2\n").copy_done());
        assert_eq!(error(&end), None, "{end:?}");
        client.ends_with("57P01");
        assert!(proxy.end().success());
        assert_eq!(
            proxy
                .place("acme")
                .direct()
                .login()
                .value("select count(*) from t"),
            "2"
        );
    }
}
