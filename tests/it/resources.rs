//! Descriptors, permits and memory: what is taken is given back, and running out is survived.

use crate::harness::{
    Client, Mode, Place, Postgres, Proxy, Request, Tenant, connect::Connect, eventually,
    eventually_some, frames::code, proxy::pooled,
};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

fn place() -> Place {
    Postgres::shared().place()
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let tenant = Tenant::new("acme", &place()).pool_size(2);
    let mut proxy = Proxy::of([tenant]).descriptors(64).start();
    let mut client = proxy.connect("acme").login();
    client.exec("select 1");
    let connect = proxy.connect("acme");
    // Beyond its descriptors the process can't accept: connections wait in the kernel's queue.
    let crowd: Vec<_> = (0..100).map(|_| connect.bare().unwrap()).collect();
    client.is_in_step();
    client.exec("begin; select 1; commit");
    drop(crowd);
    eventually("newcomers are served again", || connect.try_login().is_ok());
    client.is_in_step();
    assert!(proxy.is_alive());
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
    assert!(
        proxy.log().lines().count() < 1000,
        "the log is flooded: {} lines",
        proxy.log().lines().count()
    );
}

#[test]
fn refused_logins_keep_no_permit() {
    let tenant = Tenant::new("acme", &place()).set("max_client_connections", 2);
    let proxy = Proxy::of([tenant])
        .set("max_client_connections", 4)
        .set("reserved_client_connections", 0)
        .set("auth_failures_per_minute", 10_000)
        .start();
    let connect = proxy.connect("acme");
    let refused: [Connect; 6] = [
        connect.clone().password("wrong"),
        connect.clone().user("nobody"),
        connect.clone().database("elsewhere"),
        connect.clone().parameter("replication", "1"),
        connect.clone().options("-c work_mem=banana"),
        connect.clone().parameter("no_such_setting", "1"),
    ];
    for _ in 0..5 {
        for attempt in &refused {
            assert!(attempt.try_login().is_err());
        }
        let mut broken = connect.open();
        broken.send_bytes(&connect.startup_packet());
        broken.next();
        broken.reset();
    }
    let mut clients: Vec<_> = (0..2)
        .map(|_| eventually_some("a place is free", || connect.try_login().ok()))
        .collect();
    clients.iter_mut().for_each(Client::is_in_step);
    assert_eq!(connect.refused().code(), "53300");
}

#[test]
fn a_storm_of_logins_leaves_those_who_work_alone() {
    let proxy = pooled(Mode::Transaction, 4);
    let mut worker = proxy.connect("acme").login();
    worker.exec("select 1");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let storms: Vec<_> = (0..8)
            .map(|_| {
                let (connect, is_over) = (proxy.connect("acme"), &is_over);
                scope.spawn(move || storm_until(is_over, &connect))
            })
            .collect();
        // The storm lasts until the worker is done: it never is if newcomers hold it up for good.
        for _ in 0..50 {
            worker.is_in_step();
        }
        is_over.store(true, Ordering::Relaxed);
        for storm in storms {
            assert!(storm.join().expect("every login succeeds") > 0);
        }
    });
}

/// Logs in and asks, again and again, until it is over; how often.
fn storm_until(is_over: &AtomicBool, connect: &Connect) -> usize {
    let mut logins = 0;
    // Bounded, should the worker have failed.
    while logins < 10_000 && (logins == 0 || !is_over.load(Ordering::Relaxed)) {
        connect.login().exec("select 1");
        logins += 1;
    }
    logins
}

#[test]
fn servers_killed_under_load_are_made_anew() {
    let proxy = pooled(Mode::Transaction, 3);
    let place = proxy.place("acme");
    thread::scope(|scope| {
        let load: Vec<_> = (0..6)
            .map(|_| {
                let connect = proxy.connect("acme");
                scope.spawn(move || work_through_losses(&connect))
            })
            .collect();
        let mut admin = place.admin();
        while load.iter().any(|client| !client.is_finished()) {
            for pid in place.server_pids(&mut admin) {
                admin.exec(&format!("select pg_terminate_backend({pid})"));
            }
            admin.exec("select pg_sleep(0.1)");
        }
        let lost: usize = load
            .into_iter()
            .map(|client| client.join().expect("in step"))
            .sum();
        assert!(
            lost > 0,
            "no server was lost in use: the test shows nothing"
        );
    });
    proxy.connect("acme").login().is_in_step();
}

/// Asks two hundred questions, through whatever is lost; how often a server was lost.
fn work_through_losses(connect: &Connect) -> usize {
    let mut lost = 0;
    let mut client = None;
    for number in 0..200 {
        let Some(mut current) = client.take().or_else(|| connect.try_login().ok()) else {
            lost += 1;
            continue;
        };
        let sql = format!("select '{number}', pg_sleep(0.002)");
        if current
            .try_send_bytes(Request::new().query(&sql).bytes())
            .is_err()
        {
            continue;
        }
        let mut frames = Vec::new();
        while let Some(frame) = current.next_or_end() {
            frames.push(frame);
            if frames.last().is_some_and(|frame| frame.tag == b'Z') {
                break;
            }
        }
        match code(&frames).as_str() {
            "" => assert_eq!(
                crate::harness::frames::firsts(&frames),
                [number.to_string()]
            ),
            code => {
                assert!(
                    code.starts_with("57P0") || code.starts_with("08"),
                    "{frames:?}"
                );
                lost += 1;
            }
        }
        if frames.last().is_some_and(|frame| frame.tag == b'Z') {
            client = Some(current);
        }
    }
    lost
}

#[test]
fn idle_clients_need_little_memory() {
    const COUNT: u64 = 400;
    let tenant = Tenant::new("acme", &place()).pool_size(4);
    let proxy = Proxy::of([tenant]).start();
    let connect = proxy.connect("acme");
    let mut warm: Vec<_> = (0..20).map(|_| connect.login()).collect();
    for client in &mut warm {
        client.exec("select repeat('x', 100000)");
    }
    let before = proxy.resident_bytes();
    let mut clients: Vec<_> = (0..COUNT).map(|_| connect.login()).collect();
    for client in &mut clients {
        client.exec("select repeat('x', 20000)");
    }
    let each = proxy.resident_bytes().saturating_sub(before) / COUNT;
    // The budget of a release build is 4 KB; this guards against buffers that stay.
    assert!(each < 24 * 1024, "{each} bytes for each idle client");
}
