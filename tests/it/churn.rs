//! Limits while clients come in crowds and die at any moment: exact at the boundary, and nothing stays taken.

use crate::{
    harness::{
        Client, Postgres, Proxy, Request, Tenant, eventually,
        frames::{code, error},
    },
    pin_limits::{metrics, sum},
};
use std::{
    sync::{Arc, Barrier},
    thread,
};

/// Clients that live and die in the long test; `PGUSHER_CHURN` says another number.
const LIVES: usize = 1_200;

/// Threads they come from.
const THREADS: usize = 8;

/// All at once; who was let in, and how many were not because of this limit.
fn crowd(proxy: &Proxy, count: usize, limit: &str) -> (Vec<Client>, usize) {
    let barrier = Arc::new(Barrier::new(count));
    let logins: Vec<_> = (0..count)
        .map(|_| {
            let (connect, barrier) = (proxy.connect("acme"), Arc::clone(&barrier));
            thread::spawn(move || {
                barrier.wait();
                connect.try_login()
            })
        })
        .collect();
    let (mut clients, mut refused) = (Vec::new(), 0);
    for login in logins {
        match login.join().unwrap() {
            Ok(client) => clients.push(client),
            Err(frames) => {
                let fields = error(&frames).unwrap();
                assert_eq!(fields.code(), "53300", "{fields:?}");
                assert!(fields.text().contains(limit), "{fields:?}");
                refused += 1;
            }
        }
    }
    (clients, refused)
}

fn metric(proxy: &Proxy, name: &str, label: &str) -> f64 {
    sum(&metrics(proxy), name, label)
}

#[test]
fn of_two_hundred_logins_at_once_as_many_are_let_in_as_may() {
    let tenant = Tenant::new("acme", &Postgres::shared().place());
    let proxy = Proxy::of([tenant.set("max_client_connections", 50)])
        .admin()
        .start();
    for round in 0..3 {
        let (mut clients, refused) = crowd(&proxy, 200, "max_client_connections");
        assert_eq!((clients.len(), refused), (50, 150), "round {round}");
        clients.iter_mut().for_each(Client::is_in_step);
        // Half say nothing when they go.
        for (number, mut client) in clients.into_iter().enumerate() {
            if number % 2 == 0 {
                client.reset();
            } else {
                client.send(&Request::new().terminate());
            }
        }
        eventually("all have gone", || {
            metric(&proxy, "pgusher_client_connections", "") < 0.5
        });
    }
}

/// A client's life, by its number: it ends with a reset, wherever it stands.
fn live(proxy: &Proxy, number: usize) {
    let connect = proxy.connect("acme");
    if number.is_multiple_of(7) {
        // Within the login.
        let mut client = connect.bare().unwrap();
        let packet = connect.startup_packet();
        let until = [3, packet.len()][number % 2].min(packet.len());
        client.try_send_bytes(&packet[..until]).ok();
        return client.reset();
    }
    // Too many at once is no fault.
    let Ok(mut client) = connect.try_login() else {
        return;
    };
    let request = Request::new();
    let request = match number % 11 {
        0 => request.query("begin; select 1"),
        1 => request.query("select 1/0"),
        2 => request.query("select pg_sleep(600)"),
        3 => request.run("select pg_sleep(600)", &[]).sync(),
        4 => request.query("select repeat('x', 1000) from generate_series(1, 100000)"),
        5 => request.parse("s", "select 1").flush(),
        6 => request.query("create temp table t (n int)"),
        7 => request.query("listen here"),
        8 => request.query("copy (select 1) to stdout"),
        9 => request.query("begin; lock table only_one"),
        _ => request.query("select pg_advisory_lock(1)"),
    };
    // It may be refused meanwhile.
    client.try_send_bytes(request.bytes()).ok();
    if number.is_multiple_of(3) && [0, 1, 4, 8].contains(&(number % 11)) {
        client.byte();
    }
    client.reset();
}

#[test]
fn clients_that_die_at_any_moment_leave_nothing_taken() {
    let lives = std::env::var("PGUSHER_CHURN").map_or(LIVES, |text| text.parse().unwrap());
    let tenant = Tenant::new("acme", &Postgres::shared().place())
        .pool_size(6)
        .set("max_client_connections", 30)
        .set("max_concurrent_queries", 4)
        .set("max_pinned_servers", 2);
    let proxy = Proxy::of([tenant])
        .cluster("max_server_connections", 5)
        .admin()
        .start();
    proxy
        .connect("acme")
        .login()
        .exec("create table only_one (n int)");
    thread::scope(|scope| {
        for first in 0..THREADS {
            let proxy = &proxy;
            scope.spawn(move || {
                for number in (first..lives).step_by(THREADS) {
                    live(proxy, number);
                }
            });
        }
    });
    eventually("nothing is taken", || {
        let text = metrics(&proxy);
        let [clients, waiting, places, pinned] = [
            "pgusher_client_connections",
            "pgusher_clients_waiting",
            "pgusher_budget_waiting",
            "pgusher_pinned_servers",
        ]
        .map(|name| sum(&text, name, ""));
        let active = sum(&text, "pgusher_server_connections", "state=\"active\"");
        clients + waiting + places + pinned + active < 0.5
    });
    // All of it can be had again, and no more.
    let (mut clients, refused) = crowd(&proxy, 40, "max_client_connections");
    assert_eq!((clients.len(), refused), (30, 10));
    let (running, waiting) = clients.split_at_mut(4);
    for client in &mut *running {
        client.exec("begin");
    }
    let waited = || metric(&proxy, "pgusher_limited_total", "result=\"waited\"");
    let before = waited();
    waiting[0].send(&Request::new().query("select 1"));
    eventually("the next one waits", || waited() > before + 0.5);
    running[0].exec("commit");
    assert_eq!(code(&waiting[0].until_ready()), "");
}
