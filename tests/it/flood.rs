//! Clients that stop reading, never stop sending, or never say anything.

use crate::harness::{
    Bystander, Mode, Request, Tenant,
    estate::Estate,
    eventually, eventually_some,
    proxy::{one_tenant, pooled},
};
use serde_json::Value;

#[test]
fn a_client_that_stops_reading_holds_up_nobody() {
    for mode in [Mode::Session, Mode::Transaction] {
        let mut proxy = pooled(mode, 3);
        let mut bystander = Bystander::of(&proxy);
        let mut stalled = proxy.connect("acme").login();
        stalled.send(
            &Request::new().query("select repeat('x', 1000) from generate_series(1, 500000)"),
        );
        let place = proxy.place("acme");
        let mut admin = place.admin();
        let sql = format!(
            "select count(*) from pg_stat_activity where usename = '{}' and wait_event = 'ClientWrite'",
            place.role()
        );
        eventually("PostgreSQL waits for the reader", || {
            admin.value(&sql) == "1"
        });
        for _ in 0..10 {
            bystander.is_unharmed(&mut proxy);
        }
        stalled.reset();
        let sql = sql.replace("wait_event = 'ClientWrite'", "state <> 'idle'");
        eventually("its query is over", || admin.value(&sql) == "0");
    }
}

/// An answer that no socket buffers take.
const LARGE: &str = "select repeat('x', 1000) from generate_series(1, 100000)";

#[test]
fn who_takes_nothing_of_its_answer_gives_the_server_to_who_waits() {
    for mode in [Mode::Session, Mode::Transaction] {
        let tenant = |tenant: Tenant| {
            let tenant = tenant.mode(mode).pool_size(1);
            tenant.set("client_write_timeout", "500ms")
        };
        let proxy = one_tenant(tenant);
        let mut stalled = proxy.connect("acme").login();
        stalled.send(&Request::new().query(LARGE));
        assert_eq!(stalled.byte(), Some('T'), "it has the server");
        proxy.connect("acme").login().exec("select 1");
        eventually("the log says why", || {
            proxy.log().contains("answer not taken")
        });
        stalled.raw_rest();
    }
}

#[test]
fn a_tenant_of_the_registry_is_given_a_shorter_time_while_its_client_takes_nothing() {
    let estate = Estate::new();
    let made = estate.create("acme", "row");
    let office = &estate.office;
    let set = |change: &str| office.json(&["tenant", "set", "acme", change]);
    assert_eq!(set("pool_size=1")["client_write_timeout"], Value::Null);
    assert_eq!(set("client_write_timeout=0")["client_write_timeout"], 0);
    let told = estate.fails(&["tenant", "set", "acme", "client_write_timeout=-1s"]);
    assert!(told.contains("write a time such as"), "{told}");
    let proxy = office.serve();
    let key = made["key"]["key"].as_str().unwrap();
    let connect = proxy.connect("acme").password(key);
    let mut stalled = eventually_some("it is known", || connect.try_login().ok());
    let (mut holder, mut waiting) = (connect.login(), connect.login());
    stalled.send(&Request::new().query(LARGE));
    assert_eq!(stalled.byte(), Some('T'), "it has the server");
    set("client_write_timeout=300ms");
    // The changed tenant's own server is not the one that is kept.
    holder.exec("begin");
    waiting.send(&Request::new().query("select 1"));
    eventually("the log says why", || {
        proxy.log().contains("answer not taken")
    });
    holder.exec("commit");
    waiting.until_ready();
    stalled.raw_rest();
    let shown = office.json(&["tenant", "show", "acme"]);
    assert_eq!(shown["client_write_timeout"], 300);
    let shown = set("client_write_timeout=default");
    assert_eq!(shown["client_write_timeout"], Value::Null);
    office.run(&["audit", "verify"]).succeeded();
}

#[test]
fn who_takes_nothing_keeps_a_server_that_nobody_waits_for() {
    let proxy = one_tenant(|tenant| tenant.pool_size(2).set("client_write_timeout", "100ms"));
    let mut slow = proxy.connect("acme").login();
    slow.send(&Request::new().query(LARGE));
    assert_eq!(slow.next().kind(), 'T');
    let mut other = proxy.connect("acme").login();
    for _ in 0..10 {
        other.exec("select pg_sleep(0.1)");
    }
    let rows = slow.until_ready();
    assert_eq!(
        rows.iter().filter(|frame| frame.kind() == 'D').count(),
        100_000
    );
    slow.is_in_step();
}

#[test]
fn a_client_that_sends_without_reading_holds_up_nobody() {
    let mut proxy = pooled(Mode::Transaction, 3);
    let mut bystander = Bystander::of(&proxy);
    let before = proxy.resident_bytes();
    let mut flooding = proxy
        .connect("acme")
        .login()
        .patience(std::time::Duration::from_secs(1));
    let mut request = Request::new();
    for _ in 0..1000 {
        request = request.query("select repeat('x', 10000)");
    }
    // Blocks when all buffers are full: then the proxy must have stopped reading.
    let writer = flooding.send_aside_until_blocked(&request, 2000);
    bystander.is_unharmed(&mut proxy);
    assert!(
        writer.join().unwrap(),
        "the proxy took everything without being read"
    );
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(grown < 10 << 20, "{grown} bytes held for one client");
    assert_eq!(flooding.next().kind(), 'T');
    flooding.reset();
    bystander.is_unharmed(&mut proxy);
}

#[test]
fn hundreds_of_silent_connections_harm_nobody() {
    let mut proxy = one_tenant(|tenant| tenant.pool_size(2));
    let mut bystander = Bystander::of(&proxy);
    let before = proxy.resident_bytes();
    let connect = proxy.connect("acme");
    let silent: Vec<_> = (0..300).map(|_| connect.open()).collect();
    bystander.is_unharmed(&mut proxy);
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(
        grown < 300 * 64 * 1024,
        "{grown} bytes for 300 connections that say nothing"
    );
    drop(silent);
    bystander.is_unharmed(&mut proxy);
}
