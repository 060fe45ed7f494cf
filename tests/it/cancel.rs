//! Cancel requests: they reach what the client runs, and nothing else.

use crate::harness::{
    Client, DEADLINE, Mode, Place, Postgres, Proxy, Request, Tenant,
    connect::V3_2,
    eventually,
    frames::{code, error, firsts},
    proxy::{one_tenant, pooled},
};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

fn start_sleep(client: &mut Client, seconds: u32) {
    client.send(&Request::new().query(&format!("select pg_sleep({seconds})")));
}

fn wait_until_sleeping(place: &Place, count: u32) {
    let role = place.role();
    let mut admin = place.admin();
    let sql = format!(
        "select count(*) from pg_stat_activity where usename = '{role}' and wait_event = 'PgSleep'"
    );
    eventually("the query runs", || admin.value(&sql) == count.to_string());
}

#[test]
fn a_running_query_is_cancelled() {
    for mode in [Mode::Session, Mode::Transaction] {
        for version in [crate::harness::connect::V3_0, V3_2] {
            let proxy = pooled(mode, 1);
            let connect = proxy.connect("acme").version(version);
            let mut client = connect.login();
            start_sleep(&mut client, 30);
            wait_until_sleeping(&proxy.place("acme"), 1);
            connect.cancel(&client);
            assert_eq!(code(&client.until_ready()), "57014");
            client.is_in_step();
        }
    }
}

#[test]
fn a_query_in_a_transaction_is_cancelled_and_the_transaction_fails() {
    let proxy = pooled(Mode::Transaction, 1);
    let mut client = proxy.connect("acme").login();
    client.exec("begin");
    client.send(&Request::new().run("select pg_sleep($1)", &["30"]).sync());
    wait_until_sleeping(&proxy.place("acme"), 1);
    proxy.connect("acme").cancel(&client);
    assert_eq!(code(&client.until_ready()), "57014");
    assert_eq!(client.status, 'E');
    client.exec("rollback");
    client.is_in_step();
}

#[test]
fn a_cancel_request_may_come_over_tls() {
    let place = Postgres::shared().place();
    let proxy = Proxy::of([Tenant::new("acme", &place)]).tls().start();
    for (login, cancel) in [(true, true), (true, false), (false, true)] {
        let plain = proxy.connect("acme");
        let tls = plain.clone().tls(proxy.tls());
        let mut client = if login { tls.login() } else { plain.login() };
        start_sleep(&mut client, 30);
        wait_until_sleeping(&place, 1);
        if cancel { &tls } else { &plain }.cancel(&client);
        assert_eq!(code(&client.until_ready()), "57014");
    }
}

#[test]
fn a_wrong_key_cancels_nothing() {
    let proxy = pooled(Mode::Transaction, 2);
    let connect = proxy.connect("acme");
    let mut client = connect.login();
    start_sleep(&mut client, 1);
    wait_until_sleeping(&proxy.place("acme"), 1);
    let mut wrong = client.secret.clone();
    *wrong.last_mut().unwrap() ^= 1;
    connect.cancel_key(client.pid, &wrong);
    connect.cancel_malformed(client.pid, &client.secret[..3]);
    connect.cancel_malformed(client.pid, &[]);
    connect.cancel_key(client.pid, &[client.secret.clone(), vec![0]].concat());
    connect.cancel_key(client.pid.wrapping_add(1), &client.secret);
    connect.cancel_key(0, &client.secret);
    assert_eq!(error(&client.until_ready()), None);
}

#[test]
fn a_cancel_of_an_idle_client_hits_nobody() {
    let proxy = pooled(Mode::Transaction, 1);
    let connect = proxy.connect("acme");
    let mut idle = connect.login();
    idle.exec("select 1");
    let mut busy = connect.login();
    start_sleep(&mut busy, 1);
    wait_until_sleeping(&proxy.place("acme"), 1);
    for _ in 0..5 {
        connect.cancel(&idle);
    }
    assert_eq!(error(&busy.until_ready()), None);
    idle.is_in_step();
}

#[test]
fn the_key_of_a_client_that_left_cancels_nothing() {
    let proxy = pooled(Mode::Session, 1);
    let connect = proxy.connect("acme");
    let mut gone = connect.login();
    gone.exec("select 1");
    let (pid, secret) = (gone.pid, gone.secret.clone());
    gone.send(&Request::new().terminate());
    gone.rest();
    let mut next = connect.login();
    start_sleep(&mut next, 1);
    wait_until_sleeping(&proxy.place("acme"), 1);
    connect.cancel_key(pid, &secret);
    assert_eq!(error(&next.until_ready()), None);
}

#[test]
fn keys_of_clients_differ() {
    let proxy = pooled(Mode::Transaction, 1);
    let clients: Vec<_> = (0..20).map(|_| proxy.connect("acme").login()).collect();
    let mut keys: Vec<_> = clients
        .iter()
        .map(|client| (client.pid, client.secret.clone()))
        .collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), clients.len());
    assert!(
        keys.iter()
            .all(|(_, secret)| secret.len() >= 4 && secret.iter().any(|byte| *byte != 0))
    );
}

#[test]
fn a_waiting_client_is_taken_out_of_the_queue() {
    let proxy = pooled(Mode::Transaction, 1);
    let connect = proxy.connect("acme");
    let mut holder = connect.login();
    holder.exec("begin");
    let mut waiter = connect.login();
    waiter.send(&Request::new().query("select 'never run'"));
    let mut next = connect.login();
    next.send(&Request::new().query("select 'run'"));
    // The request may overtake the query; then it is too early, and has to be made again.
    let start = Instant::now();
    let mut waiter = waiter.patience(Duration::from_secs(9));
    let canceller = std::thread::spawn({
        let (connect, pid, secret) = (connect.clone(), waiter.pid, waiter.secret.clone());
        move || {
            for _ in 0..5 {
                connect.cancel_key(pid, &secret);
                std::thread::park_timeout(Duration::from_millis(100));
            }
        }
    });
    let frames = waiter.until('E');
    assert_eq!(code(&frames), "57014", "{frames:?}");
    assert!(start.elapsed() < DEADLINE);
    canceller.join().unwrap();
    holder.exec("commit");
    assert_eq!(firsts(&next.until_ready()), ["run"]);
    // Whether the waiter stays connected or not, nothing of it runs later.
    if waiter.next_or_end().is_some_and(|frame| frame.tag == b'Z') {
        waiter.is_in_step();
    }
}

#[test]
fn a_cancel_works_when_all_pools_are_full() {
    let place = Postgres::shared().place();
    let tenant = Tenant::new("acme", &place).pool_size(2);
    let proxy = Proxy::of([tenant])
        .cluster("max_server_connections", 2)
        .start();
    let connect = proxy.connect("acme");
    let mut clients = [connect.login(), connect.login()];
    for client in &mut clients {
        start_sleep(client, 30);
    }
    wait_until_sleeping(&place, 2);
    let mut waiter = connect.login();
    waiter.send(&Request::new().query("select 'at last'"));
    connect.cancel(&clients[0]);
    assert_eq!(code(&clients[0].until_ready()), "57014");
    assert_eq!(firsts(&waiter.until_ready()), ["at last"]);
    connect.cancel(&clients[1]);
    assert_eq!(code(&clients[1].until_ready()), "57014");
}

#[test]
fn a_storm_of_cancels_never_hits_another_client() {
    let proxy = one_tenant(|tenant| tenant.pool_size(1));
    let connect = proxy.connect("acme");
    let mut target = connect.login();
    let mut bystander = connect.login();
    let is_over = AtomicBool::new(false);
    let end = Instant::now() + 3 * DEADLINE;
    let goes_on = &|| !is_over.load(Ordering::Relaxed) && Instant::now() < end;
    std::thread::scope(|scope| {
        let (pid, secret) = (target.pid, target.secret.clone());
        let canceller = connect.clone();
        scope.spawn(move || {
            while goes_on() {
                canceller.cancel_key(pid, &secret);
            }
        });
        scope.spawn(move || {
            while goes_on() {
                let frames = bystander.query("select 'mine', pg_sleep(0.002)");
                assert_eq!(error(&frames), None, "a cancel hit a bystander");
                assert_eq!(firsts(&frames), ["mine"]);
            }
        });
        let mut hits = 0;
        let mut asked = 0;
        while asked < 1000 && (asked < 200 || hits < 5) {
            asked += 1;
            let frames = target.query("select 'yours', pg_sleep(0.002)");
            match error(&frames) {
                Some(error) => {
                    assert_eq!(error.code(), "57014");
                    hits += 1;
                }
                None => assert_eq!(firsts(&frames), ["yours"]),
            }
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(hits > 0, "no cancel arrived at all");
    });
    target.is_in_step();
}

#[test]
fn psql_cancels_on_an_interrupt() {
    use std::process::Stdio;
    let proxy = pooled(Mode::Transaction, 1);
    let mut command = crate::harness::programs::program("psql", proxy.port(), "acme");
    let child = command
        .args(["-X", "-c", "select pg_sleep(30)"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql starts");
    wait_until_sleeping(&proxy.place("acme"), 1);
    crate::harness::postgres::signal("INT", &child.id().to_string());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("canceling statement due to user request"),
        "{said}"
    );
}
