//! Values of many megabytes: streamed, not gathered.

use crate::harness::{
    Client, Mode, Proxy, Request, eventually,
    frames::{code, error, firsts},
    proxy::pooled,
};

const SIZE: usize = 20_000_000;

fn grown_bytes(proxy: &Proxy, before: u64) -> u64 {
    proxy.resident_bytes().saturating_sub(before)
}

/// A client that has done some work, so that what is allocated once is allocated.
fn warm(proxy: &Proxy) -> Client {
    let mut client = proxy.connect("acme").login();
    client.exec("select repeat('x', 100000)");
    client
}

#[test]
fn a_big_value_goes_both_ways() {
    for mode in [Mode::Session, Mode::Transaction] {
        let proxy = pooled(mode, 1);
        let mut client = warm(&proxy);
        let before = proxy.resident_bytes();
        let value = "v".repeat(SIZE);
        let by_bind = Request::new()
            .run("select $1::text, length($1)", &[&value])
            .sync();
        let by_query = Request::new().query(&format!("select '{value}'"));
        for request in [by_bind, by_query] {
            let writer = client.send_aside(&request);
            let frames = client.until_ready();
            writer.join().unwrap();
            assert_eq!(error(&frames), None);
            assert!(
                firsts(&frames) == [value.as_str()],
                "the value came back changed"
            );
        }
        let grown = grown_bytes(&proxy, before);
        assert!(
            grown < 8 << 20,
            "{mode:?}: {grown} bytes for values of {SIZE}"
        );
        client.is_in_step();
    }
}

#[test]
fn a_big_value_by_a_named_statement_is_streamed_too() {
    for mode in [Mode::Session, Mode::Transaction] {
        let proxy = pooled(mode, 2);
        let mut client = warm(&proxy);
        let mut other = warm(&proxy);
        client.ask(
            &Request::new()
                .parse("len", "select length($1::text)")
                .sync(),
        );
        let value = "v".repeat(SIZE);
        let before = proxy.resident_bytes();
        for _ in 0..3 {
            other.exec("select 1");
            let writer = client.send_aside(&Request::new().run_prepared("len", &[&value]).sync());
            assert_eq!(firsts(&client.until_ready()), [SIZE.to_string()]);
            writer.join().unwrap();
        }
        let grown = grown_bytes(&proxy, before);
        assert!(
            grown < 8 << 20,
            "{mode:?}: {grown} bytes for values of {SIZE}"
        );
    }
}

#[test]
fn a_reader_that_stalls_costs_no_memory() {
    for mode in [Mode::Session, Mode::Transaction] {
        let proxy = pooled(mode, 1);
        let mut client = warm(&proxy);
        let before = proxy.resident_bytes();
        client.send(&Request::new().query("select repeat('x', 100000000)"));
        let place = proxy.place("acme");
        let mut admin = place.admin();
        let sql = format!(
            "select count(*) from pg_stat_activity where usename = '{}' and wait_event = 'ClientWrite'",
            place.role()
        );
        eventually("PostgreSQL waits for the reader", || {
            admin.value(&sql) == "1"
        });
        let grown = grown_bytes(&proxy, before);
        assert!(
            grown < 4 << 20,
            "{mode:?}: {grown} bytes held for a reader that stalls"
        );
        let frames = client.until_ready();
        assert_eq!(firsts(&frames)[0].len(), 100_000_000);
        let grown = grown_bytes(&proxy, before);
        assert!(
            grown < 8 << 20,
            "{mode:?}: {grown} bytes for a value of 100 MB"
        );
    }
}

#[test]
fn a_long_result_is_streamed() {
    let proxy = pooled(Mode::Transaction, 1);
    let mut client = warm(&proxy);
    let before = proxy.resident_bytes();
    client.send(
        &Request::new().query("select g, repeat('x', 100) from generate_series(1, 200000) g"),
    );
    let mut rows = 0;
    loop {
        let frame = client.next();
        match frame.tag {
            b'D' => rows += 1,
            b'Z' => break,
            _ => assert!(matches!(frame.tag, b'T' | b'C'), "{frame:?}"),
        }
    }
    assert_eq!(rows, 200_000);
    assert!(grown_bytes(&proxy, before) < 8 << 20);
}

#[test]
fn a_statement_too_big_to_keep_is_refused_or_works() {
    let proxy = pooled(Mode::Transaction, 1);
    let mut client = warm(&proxy);
    let before = proxy.resident_bytes();
    let sql = format!("select length('{}')", "z".repeat(SIZE));
    let writer = client.send_aside(
        &Request::new()
            .parse("huge", &sql)
            .run_prepared("huge", &[])
            .sync(),
    );
    let frames = client.until_ready();
    writer.join().unwrap();
    match code(&frames).as_str() {
        "" => assert_eq!(firsts(&frames), [SIZE.to_string()]),
        code => assert_eq!(code, "54000", "program limit exceeded"),
    }
    client.is_in_step();
    let grown = grown_bytes(&proxy, before);
    assert!(grown < 64 << 20, "{grown} bytes for a statement of {SIZE}");
}

#[test]
fn an_unnamed_statement_of_any_size_runs() {
    for mode in [Mode::Session, Mode::Transaction] {
        let proxy = pooled(mode, 1);
        let mut client = warm(&proxy);
        let sql = format!("select length('{}')", "z".repeat(3_000_000));
        let writer = client.send_aside(&Request::new().run(&sql, &[]).sync());
        let frames = client.until_ready();
        writer.join().unwrap();
        assert_eq!(error(&frames), None);
        assert_eq!(firsts(&frames), ["3000000"]);
    }
}

#[test]
fn big_values_of_several_clients_do_not_mix() {
    let proxy = pooled(Mode::Transaction, 2);
    std::thread::scope(|scope| {
        for letter in ["a", "b", "c", "d"] {
            let connect = proxy.connect("acme");
            scope.spawn(move || {
                let mut client = connect.login();
                for _ in 0..3 {
                    let value = client.value(&format!("select repeat('{letter}', 3000000)"));
                    assert!(
                        value.len() == 3_000_000
                            && value.bytes().all(|byte| byte == letter.as_bytes()[0])
                    );
                }
            });
        }
    });
}
