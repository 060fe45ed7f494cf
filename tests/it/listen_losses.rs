//! Listeners that are lost, and clients that are too slow, die or can't be listened for.

use crate::{
    harness::{Postgres, Proxy, Request, eventually, eventually_some},
    listen::{hears, notify, payloads, pooled},
};
use std::time::Duration;

/// What the shared listener calls itself at PostgreSQL.
const LISTENER: &str = "pgusher listener";

/// The pids of the shared listener's connections.
fn listener_pids(proxy: &Proxy) -> Vec<String> {
    let place = proxy.place("acme");
    let role = place.role();
    place.admin().values(&format!(
        "select pid from pg_stat_activity where usename = '{role}' \
         and application_name = '{LISTENER}'"
    ))
}

#[test]
fn a_lost_listener_is_told_and_replaced() {
    let proxy = pooled(1);
    let mut client = proxy.connect("acme").login();
    client.exec("listen news");
    for round in 0..3 {
        notify(&proxy, "news", &["before"]);
        hears(&mut client, "before");
        let pid = eventually_some("the tenant has a listener", || listener_pids(&proxy).pop());
        let mut admin = proxy.place("acme").admin();
        admin.exec(&format!("select pg_terminate_backend({pid})"));
        let notice = client.next();
        assert_eq!(notice.kind(), 'N', "round {round}: {notice:?}");
        assert_eq!(notice.fields().severity(), "WARNING", "{notice:?}");
        notify(&proxy, "news", &["behind"]);
        hears(&mut client, "behind");
        client.is_in_step();
    }
}

#[test]
fn a_client_that_does_not_read_is_ended_and_others_hear_everything() {
    let proxy = pooled(1);
    let mut lazy = proxy.connect("acme").login();
    let mut diligent = proxy.connect("acme").login();
    lazy.exec("listen news");
    diligent.exec("listen news");
    let mut notifier = proxy.place("acme").direct().login();
    let has_lagged = || proxy.log().contains("does not take its notifications");
    for round in 0..500 {
        let sql = "select pg_notify('news', repeat('x', 7900) || i) from generate_series(1, 20) i";
        notifier.exec(sql);
        let heard = payloads(&diligent.take(20));
        let numbers: Vec<_> = heard.iter().map(|payload| &payload[7900..]).collect();
        let expected: Vec<_> = (1..=20).map(|number| number.to_string()).collect();
        assert_eq!(numbers, expected, "round {round}");
        if has_lagged() {
            break;
        }
    }
    let frames = lazy.rest();
    let last = frames.last().expect("an error before the end").fields();
    assert_eq!(last.severity(), "FATAL", "{last:?}");
    diligent.is_in_step();
}

#[test]
fn a_client_that_lags_inside_a_transaction_is_ended_and_its_server_is_free() {
    let proxy = pooled(1);
    let mut lazy = proxy.connect("acme").login();
    lazy.exec("listen news");
    lazy.exec("begin; create table unfinished (i int)");
    let mut notifier = proxy.place("acme").direct().login();
    for _ in 0..10 {
        notifier.exec(
            "select pg_notify('news', repeat('x', 7900) || i) from generate_series(1, 100) i",
        );
    }
    let frames = lazy.rest();
    let last = frames.last().expect("an error before the end").fields();
    assert_eq!(last.severity(), "FATAL", "{last:?}");
    let mut other = proxy.connect("acme").login();
    let table = other.value("select to_regclass('unfinished') is null");
    assert_eq!(table, "t");
}

#[test]
fn the_listeners_connection_goes_when_the_tenant_does() {
    let mut proxy = pooled(1);
    let mut client = proxy.connect("acme").login();
    client.exec("listen news");
    eventually("the tenant has a listener", || {
        listener_pids(&proxy).len() == 1
    });
    proxy.reload(|file| file.set_tenant("acme", "status", "suspended"));
    client.rest();
    eventually("the listener's connection is closed", || {
        listener_pids(&proxy).is_empty()
    });
}

#[test]
fn who_listens_is_told_when_the_tenants_server_is_found_elsewhere() {
    let mut proxy = pooled(1);
    let mut client = proxy.connect("acme").login();
    client.exec("listen news");
    let pid = eventually_some("the tenant has a listener", || listener_pids(&proxy).pop());
    let elsewhere = format!(
        "postgres://localhost:{}",
        Postgres::shared().endpoint().port()
    );
    proxy.reload(|file| file.set_cluster("primary", elsewhere));
    let notice = client.next();
    assert_eq!(notice.kind(), 'N', "{notice:?}");
    assert_eq!(notice.fields().severity(), "WARNING", "{notice:?}");
    eventually("the old listener is gone", || {
        !listener_pids(&proxy).contains(&pid)
    });
    notify(&proxy, "news", &["heard"]);
    hears(&mut client, "heard");
    let frames = client.exec("begin; listen more; notify more, 'mine'; commit");
    assert_eq!(payloads(&frames), ["mine"]);
    client.is_in_step();
}

#[test]
fn a_client_that_dies_while_its_listen_is_in_flight_leaves_nothing() {
    let proxy = pooled(1);
    for round in 0..10 {
        let mut client = proxy.connect("acme").login();
        let sql = format!("listen c{round}; listen common");
        client.send(&Request::new().query(&sql));
        if round % 2 == 0 {
            client.reset();
        } else {
            drop(client);
        }
    }
    let mut next = proxy.connect("acme").login();
    let none = next.value("select count(*) from pg_listening_channels()");
    assert_eq!(none, "0");
    notify(&proxy, "common", &["for nobody"]);
    next.is_in_step();
    next.exec("listen common");
    notify(&proxy, "common", &["heard"]);
    hears(&mut next, "heard");
}

#[test]
fn a_client_that_reads_slowly_gets_everything_that_its_queue_holds() {
    let proxy = pooled(1);
    let mut client = proxy.connect("acme").login();
    client.exec("listen news");
    let mut notifier = proxy.place("acme").direct().login();
    let sql = "select pg_notify('news', repeat('x', 7000) || i) from generate_series(1, 100) i";
    notifier.exec(sql);
    let heard = payloads(&client.take(100));
    let numbers: Vec<_> = heard.iter().map(|payload| &payload[7000..]).collect();
    let expected: Vec<_> = (1..=100).map(|number| number.to_string()).collect();
    assert_eq!(numbers, expected);
    client.is_in_step();
}

#[test]
fn a_client_that_waits_for_a_server_and_lags_is_ended() {
    let proxy = pooled(1);
    let mut lazy = proxy.connect("acme").login();
    lazy.exec("listen news");
    let mut holder = proxy.connect("acme").login();
    holder.exec("begin");
    lazy.send(&Request::new().query("select 1"));
    let mut notifier = proxy.place("acme").direct().login();
    // Some of it is told before the session waits, and fills the sockets.
    let has_lagged = || proxy.log().contains("does not take its notifications");
    eventually("the session lags", || {
        notifier
            .exec("select pg_notify('news', repeat('x', 7900) || i) from generate_series(1, 50) i");
        has_lagged()
    });
    let frames = lazy.rest();
    let last = frames.last().expect("an error before the end").fields();
    assert_eq!(
        (last.severity(), last.code()),
        ("FATAL", "53400"),
        "{last:?}"
    );
    holder.exec("commit");
    holder.is_in_step();
}

/// The role's last connection is the session's own: a listener can't be had beside it.
#[test]
fn a_session_whose_channels_nobody_can_listen_to_keeps_its_server() {
    let proxy = pooled(1);
    let place = proxy.place("acme");
    let limit = |count: i32| {
        let role = place.role();
        let sql = format!("alter role {role} connection limit {count}");
        place.admin().exec(&sql);
    };
    limit(1);
    // The listener is tried for ten seconds first.
    let client = proxy.connect("acme").login();
    let mut client = client.patience(Duration::from_secs(30));
    client.exec("listen news");
    let mut admin = place.admin();
    for number in 0..3 {
        admin.exec(&format!("notify news, '{number}'"));
        hears(&mut client, &number.to_string());
        let frames = client.exec("notify news, 'mine'");
        assert_eq!(payloads(&frames), ["mine"]);
    }
    assert_eq!(client.value("show pgusher.pin"), "listen");
    client.exec("unlisten news");
    assert_eq!(client.value("show pgusher.pin"), "");
    limit(-1);
}
