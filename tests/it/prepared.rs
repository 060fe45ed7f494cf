//! Named statements of the extended protocol while servers change hands: the client sees its own
//! names, and only these.

use crate::harness::{
    Client, Mode, Proxy, Request,
    frames::{code, error, firsts},
    proxy::pooled,
    tags,
};

/// What a prepared statement returns.
fn run(client: &mut Client, statement: &str, parameters: &[&str]) -> Vec<String> {
    let frames = client.ask(&Request::new().run_prepared(statement, parameters).sync());
    assert_eq!(error(&frames), None, "{statement}");
    firsts(&frames)
}

fn parse(client: &mut Client, name: &str, sql: &str) {
    let frames = client.ask(&Request::new().parse(name, sql).sync());
    assert_eq!(tags(&frames), "1Z", "{frames:?}");
}

/// Runs a test with one server, which all clients share, and with two.
fn with_pools(test: impl Fn(&Proxy)) {
    for servers in [1, 2] {
        test(&pooled(Mode::Transaction, servers));
    }
}

#[test]
fn the_same_name_means_what_each_client_said() {
    with_pools(|proxy| {
        let mut one = proxy.connect("acme").login();
        let mut two = proxy.connect("acme").login();
        parse(&mut one, "s", "select 'one ' || $1");
        parse(&mut two, "s", "select 'two ' || $1");
        for round in ["a", "b", "c"] {
            assert_eq!(run(&mut one, "s", &[round]), [format!("one {round}")]);
            assert_eq!(run(&mut two, "s", &[round]), [format!("two {round}")]);
        }
    });
}

#[test]
fn the_same_text_under_different_names_is_used_by_both() {
    with_pools(|proxy| {
        let mut one = proxy.connect("acme").login();
        let mut two = proxy.connect("acme").login();
        parse(&mut one, "mine", "select $1::int * 2");
        parse(&mut two, "yours", "select $1::int * 2");
        assert_eq!(run(&mut one, "mine", &["4"]), ["8"]);
        assert_eq!(run(&mut two, "yours", &["5"]), ["10"]);
        one.ask(&Request::new().close_statement("mine").sync());
        assert_eq!(run(&mut two, "yours", &["6"]), ["12"]);
        drop(one);
        assert_eq!(run(&mut two, "yours", &["7"]), ["14"]);
    });
}

#[test]
fn the_same_text_with_different_types_is_two_statements() {
    with_pools(|proxy| {
        let mut one = proxy.connect("acme").login();
        let mut two = proxy.connect("acme").login();
        let typed = |oid| {
            Request::new()
                .parse_typed("t", "select pg_typeof($1)::text", &[oid])
                .sync()
        };
        one.ask(&typed(23));
        two.ask(&typed(25));
        assert_eq!(run(&mut one, "t", &["1"]), ["integer"]);
        assert_eq!(run(&mut two, "t", &["1"]), ["text"]);
        assert_eq!(run(&mut one, "t", &["1"]), ["integer"]);
    });
}

#[test]
fn a_statement_follows_its_client_to_another_server() {
    let proxy = pooled(Mode::Transaction, 2);
    let mut client = proxy.connect("acme").login();
    parse(&mut client, "pid", "select pg_backend_pid(), $1::int");
    let first = run(&mut client, "pid", &["1"]);
    // Someone holds the server that knows the statement; the other one has to learn it.
    let mut holder = proxy.connect("acme").login();
    holder.exec("begin");
    let held = holder.server_pid();
    let mut second = run(&mut client, "pid", &["2"]);
    if held != first[0] {
        let mut other = proxy.connect("acme").login();
        other.exec("begin");
        holder.exec("commit");
        second = run(&mut client, "pid", &["2"]);
    }
    assert_ne!(first, second, "the statement ran on both servers");
}

#[test]
fn a_statement_is_described_wherever_it_is_known() {
    with_pools(|proxy| {
        let mut client = proxy.connect("acme").login();
        let mut other = proxy.connect("acme").login();
        parse(
            &mut client,
            "d",
            "select $1::int as number, $2::text as word",
        );
        let describe = Request::new().describe_statement("d").sync();
        let expected = client.ask(&describe);
        assert_eq!(tags(&expected), "tTZ");
        other.exec("select 1");
        assert_eq!(client.ask(&describe), expected);
        let portal = Request::new()
            .bind("", "d", &["1", "a"])
            .describe_portal("")
            .execute("")
            .sync();
        assert_eq!(tags(&client.ask(&portal)), "2TDCZ");
    });
}

#[test]
fn an_unknown_name_is_26000_and_a_used_name_42p05() {
    with_pools(|proxy| {
        let mut owner = proxy.connect("acme").login();
        parse(&mut owner, "s", "select 1");
        let mut stranger = proxy.connect("acme").login();
        let unknown = error(&stranger.ask(&Request::new().run_prepared("s", &[]).sync())).unwrap();
        assert_eq!(unknown.code(), "26000");
        assert_eq!(unknown.message(), "prepared statement \"s\" does not exist");
        let describe = stranger.ask(&Request::new().describe_statement("s").sync());
        assert_eq!(code(&describe), "26000");
        let again = error(&owner.ask(&Request::new().parse("s", "select 2").sync())).unwrap();
        assert_eq!(again.code(), "42P05");
        assert_eq!(again.message(), "prepared statement \"s\" already exists");
        assert_eq!(run(&mut owner, "s", &[]), ["1"]);
    });
}

#[test]
fn a_used_name_in_a_transaction_fails_the_transaction() {
    with_pools(|proxy| {
        let mut client = proxy.connect("acme").login();
        parse(&mut client, "s", "select 1");
        client.exec("begin");
        let frames = client.ask(&Request::new().parse("s", "select 2").sync());
        assert_eq!((code(&frames).as_str(), client.status), ("42P05", 'E'));
        assert_eq!(client.fails("select 1").code(), "25P02");
        client.exec("rollback");
        client.exec("begin");
        let frames = client.ask(&Request::new().run_prepared("unknown", &[]).sync());
        assert_eq!((code(&frames).as_str(), client.status), ("26000", 'E'));
        client.exec("rollback");
        client.is_in_step();
    });
}

#[test]
fn a_failed_parse_is_not_remembered() {
    with_pools(|proxy| {
        let mut client = proxy.connect("acme").login();
        let mut other = proxy.connect("acme").login();
        let prepare = Request::new()
            .parse("s", "select count(*) from later")
            .sync();
        assert_eq!(code(&client.ask(&prepare)), "42P01");
        assert_eq!(
            code(&client.ask(&Request::new().run_prepared("s", &[]).sync())),
            "26000"
        );
        other.exec("create table later (i int)");
        assert_eq!(tags(&client.ask(&prepare)), "1Z");
        assert_eq!(run(&mut client, "s", &[]), ["0"]);
    });
}

#[test]
fn a_parse_skipped_after_an_error_is_not_remembered() {
    with_pools(|proxy| {
        let mut client = proxy.connect("acme").login();
        let request = Request::new()
            .run("select 1/0", &[])
            .parse("s", "select 'skipped'")
            .sync();
        assert_eq!(code(&client.ask(&request)), "22012");
        assert_eq!(
            code(&client.ask(&Request::new().run_prepared("s", &[]).sync())),
            "26000"
        );
        parse(&mut client, "s", "select 'now'");
        assert_eq!(run(&mut client, "s", &[]), ["now"]);
        // The same for a Close that is skipped: the statement stays.
        let request = Request::new()
            .run("select 1/0", &[])
            .close_statement("s")
            .sync();
        assert_eq!(code(&client.ask(&request)), "22012");
        assert_eq!(run(&mut client, "s", &[]), ["now"]);
    });
}

#[test]
fn a_statement_prepared_in_a_transaction_survives_its_rollback() {
    with_pools(|proxy| {
        let mut client = proxy.connect("acme").login();
        client.exec("begin");
        parse(&mut client, "s", "select 'kept'");
        client.exec("rollback");
        assert_eq!(run(&mut client, "s", &[]), ["kept"]);
    });
}

#[test]
fn a_prepare_that_dies_with_its_client_harms_nobody() {
    with_pools(|proxy| {
        for sync in [false, true] {
            let mut client = proxy.connect("acme").login();
            let request = Request::new().parse("s", "select 'unfinished'");
            client.send(&if sync { request.sync() } else { request });
            client.reset();
            let mut next = proxy.connect("acme").login();
            parse(&mut next, "s", "select 'unfinished'");
            assert_eq!(run(&mut next, "s", &[]), ["unfinished"]);
        }
    });
}

#[test]
fn the_unnamed_statement_is_the_clients_own_across_transactions() {
    with_pools(|proxy| {
        let mut one = proxy.connect("acme").login();
        let mut two = proxy.connect("acme").login();
        parse(&mut one, "", "select 'one ' || $1");
        parse(&mut two, "", "select 'two ' || $1");
        for round in ["a", "b"] {
            assert_eq!(run(&mut one, "", &[round]), [format!("one {round}")]);
            assert_eq!(run(&mut two, "", &[round]), [format!("two {round}")]);
        }
        let mut stranger = proxy.connect("acme").login();
        let frames = stranger.ask(&Request::new().run_prepared("", &["x"]).sync());
        assert_eq!(code(&frames), "26000", "nobody else's unnamed statement");
    });
}

#[test]
fn injected_messages_are_invisible_in_every_batch() {
    let proxy = pooled(Mode::Transaction, 2);
    let mut client = proxy.connect("acme").login();
    let mut holder = proxy.connect("acme").login();
    parse(&mut client, "a", "select 'a'::text");
    // Not folded while planning: the error is Execute's, not Bind's.
    parse(
        &mut client,
        "b",
        "select 1/($1::int * ceil(random() + 0.1)::int)",
    );
    // The statements are known on one server at most: each batch meets the other one too.
    for round in 0..6 {
        if round % 2 == 0 {
            holder.exec("begin");
        } else {
            holder.exec("commit");
        }
        let new = Request::new;
        let batches = [
            (
                new()
                    .run_prepared("a", &[])
                    .run_prepared("b", &["1"])
                    .sync(),
                "2DC2DCZ",
            ),
            (
                new()
                    .run_prepared("b", &["0"])
                    .run_prepared("a", &[])
                    .sync(),
                "2EZ",
            ),
            (
                new().describe_statement("b").describe_statement("a").sync(),
                "tTtTZ",
            ),
            (
                new()
                    .parse("c", "select 3")
                    .run_prepared("a", &[])
                    .close_statement("c")
                    .sync(),
                "12DC3Z",
            ),
            (
                new()
                    .bind("", "a", &[])
                    .describe_portal("")
                    .execute("")
                    .close_portal("")
                    .sync(),
                "2TDC3Z",
            ),
        ];
        for (batch, expected) in &batches {
            let frames = client.ask(batch);
            assert_eq!(tags(&frames), *expected, "round {round}: {frames:?}");
        }
    }
}

#[test]
fn flush_works_where_a_statement_has_to_be_injected() {
    with_pools(|proxy| {
        let mut client = proxy.connect("acme").login();
        let mut other = proxy.connect("acme").login();
        parse(&mut client, "s", "select $1::int");
        other.exec("deallocate all");
        client.send(&Request::new().run_prepared("s", &["1"]).flush());
        assert_eq!(tags(&client.take(3)), "2DC");
        client.send(&Request::new().describe_statement("s").flush());
        assert_eq!(tags(&client.take(2)), "tT");
        client.send(&Request::new().sync());
        assert_eq!(tags(&client.until_ready()), "Z");
    });
}

#[test]
fn statements_of_a_client_in_session_mode_are_its_own() {
    let proxy = pooled(Mode::Session, 1);
    let mut client = proxy.connect("acme").login();
    parse(&mut client, "s", "select 'first'");
    assert_eq!(run(&mut client, "s", &[]), ["first"]);
    client.send(&Request::new().terminate());
    client.rest();
    let mut next = proxy.connect("acme").login();
    assert_eq!(
        code(&next.ask(&Request::new().run_prepared("s", &[]).sync())),
        "26000"
    );
    parse(&mut next, "s", "select 'second'");
    assert_eq!(run(&mut next, "s", &[]), ["second"]);
}

#[test]
fn a_big_statement_is_prepared_and_moves_too() {
    with_pools(|proxy| {
        let mut client = proxy.connect("acme").login();
        let mut other = proxy.connect("acme").login();
        let sql = format!("select length('{}') + $1::int", "z".repeat(200_000));
        parse(&mut client, "big", &sql);
        for _ in 0..3 {
            assert_eq!(run(&mut client, "big", &["1"]), ["200001"]);
            other.exec("select 1");
        }
    });
}

#[test]
fn what_an_error_skipped_is_not_believed_by_the_next_batch_of_the_same_write() {
    with_pools(|proxy| {
        let mut client = proxy.connect("acme").login();
        parse(&mut client, "a", "select 'first'");
        let request = Request::new()
            .bind("", "no such", &[])
            .close_statement("a")
            .parse("a", "select 'second'")
            .sync()
            .run_prepared("a", &[])
            .sync();
        client.send(&request);
        assert_eq!(code(&client.until_ready()), "26000");
        assert_eq!(firsts(&client.until_ready()), ["first"]);
    });
}
