//! How many servers may be pinned, what the operator sees of it, and how a pin ends with its client.

use crate::harness::{
    Client, DEADLINE, Fields, Frame, Place, Postgres, Proxy, Request, Tenant, eventually,
    frames::error,
    proxy::{is_left_out, one_tenant},
};
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// What pins, its reason, and a question that only another's state answers with "t".
const PINS: [(&str, &str, &str); 7] = [
    (
        "create temp table mine (i int)",
        "temp",
        "select to_regclass('mine') is not null",
    ),
    (
        "create table pg_temp.mine (i int)",
        "temp",
        "select exists (select from pg_class where relnamespace = pg_my_temp_schema() and relname = 'mine')",
    ),
    (
        "declare c cursor with hold for select 1",
        "cursor",
        "select exists (select from pg_cursors where name = 'c')",
    ),
    (
        "select pg_advisory_lock(hashtext(current_user))",
        "advisory",
        "select not pg_try_advisory_xact_lock(hashtext(current_user))",
    ),
    (
        "prepare p as select 1",
        "prepare",
        "select exists (select from pg_prepared_statements where name = 'p')",
    ),
    (
        "select makes()",
        "temp",
        "select to_regclass('mine') is not null",
    ),
    (
        "do $$ begin execute 'declare c cursor with hold for select 1'; end $$",
        "cursor",
        "select exists (select from pg_cursors where name = 'c')",
    ),
];

/// A function whose name says nothing of what it does.
const MAKES: &str = "create or replace function makes() returns void language plpgsql as \
                     $$ begin create temp table mine (i int); end $$";

/// The error that a statement gets: with its own answer, or with the next at the latest when what
/// it leaves was found only afterwards.
fn refusal(client: &mut Client, sql: &str) -> Fields {
    let mut seen: Vec<Frame> = Vec::new();
    for sql in [sql, "select 'next'"] {
        if client
            .try_send_bytes(Request::new().query(sql).bytes())
            .is_err()
        {
            break;
        }
        while let Some(frame) = client.next_or_end() {
            let is_last = frame.tag == b'Z';
            seen.push(frame);
            if is_last {
                break;
            }
        }
        if error(&seen).is_some() {
            break;
        }
    }
    error(&seen).unwrap_or_else(|| panic!("{sql} was not refused: {seen:?}"))
}

fn finds_nothing(client: &mut Client, question: &str) {
    eventually("nothing of it is left", || client.value(question) == "f");
}

fn limited(name: &str, limit: impl Into<toml::Value>) -> Proxy {
    let proxy = one_tenant(|tenant| tenant.pool_size(4).set(name, limit));
    proxy.connect("acme").login().exec(MAKES);
    proxy
}

#[test]
fn the_one_pin_too_many_is_refused_and_leaves_nothing() {
    if is_left_out() {
        return;
    }
    for (make, reason, question) in PINS {
        let proxy = limited("max_pinned_servers", 1);
        let mut first = proxy.connect("acme").login();
        first.exec("create temp table the_first (i int)");
        assert_eq!(first.value("show pgusher.pin"), "temp");
        let mut second = proxy.connect("acme").login();
        let refusal = refusal(&mut second, make);
        assert_eq!(refusal.code(), "53400", "{make}: {refusal:?}");
        assert!(refusal.text().contains("max_pinned_servers"), "{refusal:?}");
        assert!(refusal.text().contains(reason), "{refusal:?}");
        let mut others: Vec<_> = (0..3).map(|_| proxy.connect("acme").login()).collect();
        for other in &mut others {
            finds_nothing(other, question);
        }
        first.exec("insert into the_first values (1); drop table the_first");
        assert_eq!(first.value("show pgusher.pin"), "");
        others[0].exec(make);
        assert_eq!(
            others[0].value("show pgusher.pin"),
            reason,
            "the room is free again"
        );
    }
}

#[test]
fn a_tenant_that_refuses_pins_says_so_and_leaves_nothing() {
    if is_left_out() {
        return;
    }
    for (make, reason, question) in PINS {
        let proxy = limited("pin", "refuse");
        let mut client = proxy.connect("acme").login();
        let refusal = refusal(&mut client, make);
        assert_eq!(refusal.code(), "0A000", "{make}: {refusal:?}");
        assert!(refusal.text().contains(reason), "{refusal:?}");
        let mut others: Vec<_> = (0..4).map(|_| proxy.connect("acme").login()).collect();
        for other in &mut others {
            finds_nothing(other, question);
        }
        others[0].exec("set work_mem = '7MB'");
        assert_eq!(
            others[0].value("show work_mem"),
            "7MB",
            "settings are no pins"
        );
        others[0].exec("begin; create temp table mine (i int) on commit drop; commit");
        others[0].is_in_step();
    }
}

#[test]
fn a_pool_of_one_may_be_pinned_and_others_wait() {
    let proxy = one_tenant(|tenant| tenant.pool_size(1).set("query_wait_timeout", "3s"));
    let mut client = proxy.connect("acme").login();
    let mut other = proxy.connect("acme").login();
    client.exec("create temp table mine (i int)");
    if !is_left_out() {
        assert_eq!(refusal(&mut other, "select 1").code(), "53300");
    }
    client.exec("drop table mine");
    proxy.connect("acme").login().is_in_step();
}

#[test]
fn whoever_leaves_while_pinned_leaves_a_clean_server() {
    let goodbye = |mut client: Client| {
        client.send(&Request::new().terminate());
        client.rest();
    };
    let ways: [&dyn Fn(Client); 3] = [&goodbye, &Client::reset, &drop];
    for (make, _, question) in PINS {
        for leave in ways {
            let proxy = one_tenant(|tenant| tenant.pool_size(1));
            let mut client = proxy.connect("acme").login();
            client.exec(MAKES);
            client.exec(make);
            client.exec("set work_mem = '7MB'");
            leave(client);
            let mut next = proxy.connect("acme").login();
            finds_nothing(&mut next, question);
            assert_ne!(next.value("show work_mem"), "7MB");
        }
    }
}

#[test]
fn whoever_is_lost_in_a_statement_while_pinned_frees_its_lock() {
    let proxy = one_tenant(|tenant| tenant.pool_size(2));
    let mut client = proxy.connect("acme").login();
    client.exec("select pg_advisory_lock(37001)");
    client
        .send(&Request::new().query("begin; create temp table mine (i int); select pg_sleep(20)"));
    let mut admin = proxy.place("acme").admin();
    let role = proxy.place("acme").role().to_owned();
    let sleeps = format!(
        "select count(*) from pg_stat_activity where usename = '{role}' and wait_event = 'PgSleep'"
    );
    eventually("it sleeps", || admin.value(&sleeps) == "1");
    client.reset();
    if is_left_out() {
        admin.exec(&format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'"
        ));
    }
    let locks = "select count(*) from pg_locks where locktype = 'advisory' and objid = 37001";
    eventually("the lock is free", || admin.value(locks) == "0");
    let mut next = proxy.connect("acme").login();
    assert_eq!(next.value("select to_regclass('mine') is null"), "t");
}

#[test]
fn a_pinned_client_whose_server_dies_is_told_and_frees_its_place() {
    let proxy = one_tenant(|tenant| tenant.pool_size(1));
    let mut client = proxy.connect("acme").login();
    client.exec("create temp table mine (i int)");
    let pid = client.server_pid();
    let mut admin = proxy.place("acme").admin();
    admin.exec(&format!("select pg_terminate_backend({pid})"));
    eventually("the server is gone", || {
        admin.value(&format!(
            "select count(*) from pg_stat_activity where pid = {pid}"
        )) == "0"
    });
    // The state is lost: a new server would pretend that it never was.
    // PostgreSQL's own words, or ours when we were just asking it what is left.
    let told = refusal(&mut client, "table mine");
    assert!(["57P01", "08006"].contains(&told.code()), "{told:?}");
    assert!(client.next_or_end().is_none(), "its connection ends");
    proxy.connect("acme").login().is_in_step();
}

pub(crate) fn metrics(proxy: &Proxy) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", proxy.admin_port())).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    text
}

/// The sum of the samples of this name that carry this label.
pub(crate) fn sum(text: &str, name: &str, label: &str) -> f64 {
    let is_named = |line: &&str| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(['{', ' ']))
    };
    let samples = text
        .lines()
        .filter(is_named)
        .filter(|line| line.contains(label));
    samples
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

fn watched(place: &Place) -> Proxy {
    Proxy::of([Tenant::new("acme", place)]).admin().start()
}

#[test]
fn pins_are_counted_by_reason_and_shown_while_they_last() {
    if is_left_out() {
        return;
    }
    let proxy = watched(&Postgres::shared().place());
    proxy.connect("acme").login().exec(MAKES);
    for (make, reason, _) in PINS {
        let label = format!("reason=\"{reason}\"");
        let before = sum(&metrics(&proxy), "pgusher_pins_total", &label);
        let mut client = proxy.connect("acme").login();
        client.exec(make);
        assert_eq!(client.value("show pgusher.pin"), reason);
        client.exec("select 'still the same pin'");
        eventually("the pin is counted once", || {
            let count = sum(&metrics(&proxy), "pgusher_pins_total", &label) - before;
            (count - 1.0).abs() < 0.1
        });
        eventually("one server is pinned", || {
            (sum(&metrics(&proxy), "pgusher_pinned_servers", "") - 1.0).abs() < 0.1
        });
        client.send(&Request::new().terminate());
        client.rest();
        eventually("no server is pinned", || {
            sum(&metrics(&proxy), "pgusher_pinned_servers", "") < 0.1
        });
    }
}

#[test]
fn the_first_pin_of_a_tenant_is_logged_with_its_reason() {
    if is_left_out() {
        return;
    }
    let proxy = one_tenant(|tenant| tenant.pool_size(4));
    let mut client = proxy.connect("acme").login();
    client.exec("select pg_advisory_lock(38001)");
    assert_eq!(client.value("show pgusher.pin"), "advisory");
    let has_line = || {
        let log = proxy.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("acme")).collect();
        lines.iter().any(|line| line.contains("advisory"))
    };
    eventually("a line says it", has_line);
}
