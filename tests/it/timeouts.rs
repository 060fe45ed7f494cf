//! What ends when it takes too long, and with which words.

use crate::harness::{
    DEADLINE, Mode, Postgres, Proxy, Request, Tenant, code_of_end, eventually,
    frames::{code, error},
    proxy::one_tenant,
    request::ssl_request,
};
use std::time::{Duration, Instant};

const MODES: [Mode; 2] = [Mode::Session, Mode::Transaction];

#[test]
fn a_login_has_its_time() {
    let place = Postgres::shared().place();
    let proxy = Proxy::of([Tenant::new("acme", &place)])
        .tls()
        .set("login_timeout", "2s")
        .start();
    let connect = proxy.connect("acme");
    let start = Instant::now();
    let mut silent = connect.open();
    let mut half = connect.open();
    half.send_bytes(&connect.startup_packet()[..9]);
    let mut mute = connect.open();
    mute.send_bytes(&connect.startup_packet());
    mute.next();
    let mut in_tls = connect.open();
    in_tls.send_bytes(&ssl_request());
    assert_eq!(in_tls.byte(), Some('S'));
    for client in [&mut silent, &mut half, &mut mute] {
        let code = code_of_end(client);
        assert!(
            ["", "08006", "57014", "57P01", "08P01", "28000"].contains(&code.as_str()),
            "{code}"
        );
    }
    assert_eq!(
        in_tls.raw_rest().first().filter(|byte| **byte == b'R'),
        None
    );
    assert!(
        start.elapsed() > Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
    assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
    connect.login().is_in_step();
}

#[test]
fn a_query_has_its_time() {
    for mode in MODES {
        let proxy = one_tenant(|tenant| {
            tenant
                .mode(mode)
                .pool_size(1)
                .set("query_timeout", "1500ms")
        });
        let mut client = proxy.connect("acme").login();
        client.exec("select pg_sleep(0.1)");
        let start = Instant::now();
        assert_eq!(client.fails("select pg_sleep(30)").code(), "57014");
        assert!(start.elapsed() < DEADLINE);
        client.is_in_step();
        let frames = client.ask(&Request::new().run("select pg_sleep(30)", &[]).sync());
        assert_eq!(code(&frames), "57014");
        // Time between statements is no query's time.
        client.exec("begin");
        std::thread::park_timeout(Duration::from_millis(1700));
        client.exec("select 1; commit");
    }
}

#[test]
fn a_transaction_has_its_time() {
    for mode in MODES {
        let proxy = one_tenant(|tenant| {
            tenant
                .mode(mode)
                .pool_size(1)
                .set("transaction_timeout", "1500ms")
        });
        let mut client = proxy.connect("acme").login();
        client.exec("create table t (i int)");
        client.exec("begin; insert into t values (1)");
        let end = Instant::now() + DEADLINE;
        let ended = loop {
            assert!(Instant::now() < end, "the transaction goes on in {mode:?}");
            client.send(&Request::new().query("select pg_sleep(0.05)"));
            let frames =
                std::iter::from_fn(|| client.next_or_end().filter(|frame| frame.tag != b'Z'));
            let frames: Vec<_> = frames.collect();
            if let Some(error) = error(&frames) {
                break error;
            }
            assert!(!frames.is_empty(), "the connection ended without a word");
        };
        assert_eq!(ended.code(), "25P04", "{ended:?}");
        let mut next = proxy.connect("acme").login();
        assert_eq!(next.value("select count(*) from t"), "0");
    }
}

#[test]
fn an_idle_transaction_has_its_time() {
    for mode in MODES {
        let proxy = one_tenant(|tenant| {
            tenant
                .mode(mode)
                .pool_size(1)
                .set("idle_transaction_timeout", "1500ms")
        });
        let mut client = proxy.connect("acme").login();
        client.exec("create table t (i int)");
        client.exec("begin; insert into t values (1)");
        assert_eq!(code(&client.until('E')), "25P03");
        let mut next = proxy.connect("acme").login();
        assert_eq!(next.value("select count(*) from t"), "0");
        // Outside a transaction nothing is idle in one; and work is not idleness.
        next.exec("begin; select pg_sleep(1.7)");
        next.exec("commit");
    }
}

#[test]
fn an_idle_client_has_its_time() {
    for mode in MODES {
        let proxy = one_tenant(|tenant| {
            tenant
                .mode(mode)
                .pool_size(1)
                .set("client_idle_timeout", "1500ms")
        });
        let mut client = proxy.connect("acme").login();
        client.exec("select 1");
        let start = Instant::now();
        client.ends_with("57P05");
        assert!(start.elapsed() > Duration::from_millis(300));
        let mut busy = proxy.connect("acme").login();
        busy.exec("select pg_sleep(1.7)");
        busy.exec("begin");
        std::thread::park_timeout(Duration::from_millis(1700));
        busy.exec("commit");
    }
}

#[test]
fn a_timeout_of_zero_is_none() {
    let names = [
        "query_timeout",
        "transaction_timeout",
        "idle_transaction_timeout",
        "client_idle_timeout",
        "client_write_timeout",
    ];
    let proxy = one_tenant(|tenant| {
        names
            .iter()
            .fold(tenant, |tenant, name| tenant.set(name, "0s"))
    });
    let mut client = proxy.connect("acme").login();
    client.exec("begin; select pg_sleep(0.3)");
    client.exec("commit");
    client.is_in_step();
}

#[test]
fn a_postgresql_that_does_not_answer_is_given_up() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Postgres::shared().place();
    let proxy = Proxy::of([Tenant::new("acme", &place).set("query_wait_timeout", "3s")])
        .cluster(
            "primary",
            format!("postgres://{}", silent.local_addr().unwrap()),
        )
        .cluster("connect_timeout", "500ms")
        .start();
    let start = Instant::now();
    let refusal = match proxy.connect("acme").try_login() {
        Err(frames) => error(&frames),
        Ok(mut client) => {
            client.send(&Request::new().query("select 1"));
            error(&client.until('E'))
        }
    };
    let refusal = refusal.expect("an error");
    assert!(
        ["08006", "08001", "57P03", "53300", "58000"].contains(&refusal.code()),
        "{refusal:?}"
    );
    assert!(start.elapsed() < DEADLINE);
}

#[test]
fn a_timed_out_query_costs_no_server() {
    let proxy = one_tenant(|tenant| tenant.pool_size(1).set("query_timeout", "2s"));
    let place = proxy.place("acme");
    let mut client = proxy.connect("acme").login();
    for _ in 0..3 {
        assert_eq!(client.fails("select pg_sleep(30)").code(), "57014");
        assert_eq!(client.value("select 1"), "1");
    }
    let mut admin = place.admin();
    eventually("no query of it runs on", || {
        let sql = format!(
            "select count(*) from pg_stat_activity where usename = '{}' and state = 'active'",
            place.role()
        );
        admin.value(&sql) == "0"
    });
}
