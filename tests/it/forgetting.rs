//! How prepared statements are forgotten: Close, DEALLOCATE, DISCARD, and for want of room.

use crate::harness::{
    Client, Mode, Proxy, Request,
    frames::{code, error, firsts},
    proxy::{one_tenant, pooled},
    tags,
};

fn run(client: &mut Client, statement: &str, parameters: &[&str]) -> Vec<String> {
    let frames = client.ask(&Request::new().run_prepared(statement, parameters).sync());
    assert_eq!(error(&frames), None, "{statement}");
    firsts(&frames)
}

fn parse(client: &mut Client, name: &str, sql: &str) {
    let frames = client.ask(&Request::new().parse(name, sql).sync());
    assert_eq!(tags(&frames), "1Z", "{frames:?}");
}

fn with_pools(test: impl Fn(&Proxy)) {
    for servers in [1, 2] {
        test(&pooled(Mode::Transaction, servers));
    }
}

/// The ways to say a statement: by the simple and by the extended protocol.
fn says(sql: &str) -> [Request; 2] {
    [
        Request::new().query(sql),
        Request::new().run(sql, &[]).sync(),
    ]
}

#[test]
fn deallocate_all_and_discard_all_forget_this_clients_statements() {
    for sql in [
        "deallocate all",
        "DISCARD ALL",
        "deallocate prepare all;",
        "/* all */ Deallocate All",
    ] {
        for request in says(sql) {
            with_pools(|proxy| {
                let mut client = proxy.connect("acme").login();
                let mut other = proxy.connect("acme").login();
                parse(&mut client, "s", "select 'mine'");
                parse(&mut other, "s", "select 'mine'");
                assert_eq!(error(&client.ask(&request)), None);
                let frames = client.ask(&Request::new().run_prepared("s", &[]).sync());
                assert_eq!(code(&frames), "26000", "after {sql}");
                parse(&mut client, "s", "select 'again'");
                assert_eq!(run(&mut client, "s", &[]), ["again"]);
                assert_eq!(run(&mut other, "s", &[]), ["mine"], "after another's {sql}");
            });
        }
    }
}

#[test]
fn deallocate_forgets_one_statement_by_its_client_name() {
    for request in says("deallocate \"S 1\"") {
        with_pools(|proxy| {
            let mut client = proxy.connect("acme").login();
            parse(&mut client, "S 1", "select 1");
            parse(&mut client, "s2", "select 2");
            assert_eq!(error(&client.ask(&request)), None);
            assert_eq!(
                code(&client.ask(&Request::new().run_prepared("S 1", &[]).sync())),
                "26000"
            );
            assert_eq!(run(&mut client, "s2", &[]), ["2"]);
            assert_eq!(error(&client.ask(&request)).unwrap().code(), "26000");
        });
    }
}

#[test]
fn more_statements_than_a_server_keeps_all_work() {
    for limit in [1, 3] {
        let proxy = one_tenant(|tenant| tenant.pool_size(2).set("max_prepared_statements", limit));
        let mut one = proxy.connect("acme").login();
        let mut two = proxy.connect("acme").login();
        for number in 0..20 {
            parse(
                &mut one,
                &format!("s{number}"),
                &format!("select {number} + $1::int"),
            );
            parse(
                &mut two,
                &format!("s{number}"),
                &format!("select {number} - $1::int"),
            );
        }
        for round in 0..3 {
            for number in 0..20 {
                let name = format!("s{}", (number * 7 + round) % 20);
                let number = (number * 7 + round) % 20;
                assert_eq!(run(&mut one, &name, &["1"]), [(number + 1).to_string()]);
                assert_eq!(run(&mut two, &name, &["1"]), [(number - 1).to_string()]);
            }
        }
        let mut admin = proxy.place("acme").admin();
        assert!(proxy.place("acme").server_pids(&mut admin).len() <= 2);
    }
}

#[test]
fn a_pipeline_may_use_more_statements_than_a_server_keeps() {
    let proxy = one_tenant(|tenant| tenant.pool_size(1).set("max_prepared_statements", 2));
    let mut client = proxy.connect("acme").login();
    for number in 0..10 {
        parse(
            &mut client,
            &format!("s{number}"),
            &format!("select {number}"),
        );
    }
    for has_syncs in [false, true] {
        let mut request = Request::new();
        for number in 0..30 {
            request = request.run_prepared(&format!("s{}", number % 10), &[]);
            if has_syncs {
                request = request.sync();
            }
        }
        client.send(&if has_syncs { request } else { request.sync() });
        let mut frames = Vec::new();
        (0..if has_syncs { 30 } else { 1 }).for_each(|_| frames.extend(client.until_ready()));
        assert_eq!(error(&frames), None);
        let expected: Vec<_> = (0..30).map(|number| (number % 10).to_string()).collect();
        assert_eq!(firsts(&frames), expected);
    }
    client.is_in_step();
}

#[test]
fn a_server_keeps_no_more_statements_than_it_may() {
    let proxy = one_tenant(|tenant| tenant.pool_size(1).set("max_prepared_statements", 5));
    let mut client = proxy.connect("acme").login();
    // A text that names the view is shown the client's own.
    client.exec(
        "create function held() returns bigint language sql as \
         'select count(*) from pg_prepared_statements'",
    );
    for number in 0..40 {
        parse(
            &mut client,
            &format!("s{number}"),
            &format!("select {number} + 0"),
        );
        run(&mut client, &format!("s{number}"), &[]);
    }
    let count: u32 = client.value("select held()").parse().unwrap();
    assert!((1..=5).contains(&count), "{count} statements");
    let own = client.value("select count(*) from pg_prepared_statements");
    assert_eq!(own, "40");
}

#[test]
fn a_closed_name_is_unknown_and_free_again() {
    with_pools(|proxy| {
        let mut client = proxy.connect("acme").login();
        parse(&mut client, "s", "select 'old'");
        assert_eq!(
            tags(&client.ask(&Request::new().close_statement("s").sync())),
            "3Z"
        );
        assert_eq!(
            code(&client.ask(&Request::new().run_prepared("s", &[]).sync())),
            "26000"
        );
        parse(&mut client, "s", "select 'new'");
        assert_eq!(run(&mut client, "s", &[]), ["new"]);
    });
}
