//! SQL that speaks of statements by the names that the client gave them by Parse, and the names that
//! are left after it: the same as without a proxy.

use crate::harness::{Frame, Request, differential::same_everywhere};

/// The answers to requests, each sent when the one before is answered.
fn answers(requests: impl Fn() -> Vec<Request> + Sync) {
    same_everywhere(|client| {
        let all = requests();
        all.iter().flat_map(|request| client.ask(request)).collect()
    });
}

fn new() -> Request {
    Request::new()
}

/// Which of these names are known, one batch each.
fn known(names: &[&str]) -> Vec<Request> {
    let describe = |name: &&str| new().describe_statement(name).sync();
    names.iter().map(describe).collect()
}

fn with(mut requests: Vec<Request>, more: Vec<Request>) -> Vec<Request> {
    requests.extend(more);
    requests
}

#[test]
fn a_name_is_deallocated_wherever_its_command_stands() {
    for text in [
        "deallocate a",
        "DEALLOCATE PREPARE a;",
        "begin; deallocate a; rollback",
        "deallocate a; select 1/0",
        "select 1/0; deallocate a",
        "/* ; */ select ';'; deallocate \"B \"\"1\"; deallocate a",
        "deallocate a; selec",
        "deallocate a; deallocate a",
        "do $$ begin null; end $$; deallocate a",
        "deallocate all; select 1",
        "begin; deallocate all; rollback",
    ] {
        answers(|| {
            let parsed = new()
                .parse("a", "select 1")
                .parse("B \"1", "select 'b'")
                .parse("c", "select 1")
                .sync();
            with(vec![parsed, new().query(text)], known(&["a", "B \"1", "c"]))
        });
        answers(|| {
            let parsed = new().parse("a", "select 1").parse("c", "select 3").sync();
            with(
                vec![parsed, new().run(text, &[]).run_prepared("a", &[]).sync()],
                known(&["a", "c"]),
            )
        });
    }
}

#[test]
fn a_deallocation_in_a_pipeline_is_known_to_what_follows() {
    same_everywhere(|client| {
        let mut frames = client.ask(&new().parse("a", "select 1").sync());
        let pipeline = new()
            .query("begin; deallocate a")
            .run_prepared("a", &[])
            .sync()
            .query("rollback")
            .parse("a", "select 'new'")
            .sync()
            .run("deallocate a", &[])
            .parse("a", "select 'newer'")
            .run_prepared("a", &[])
            .sync()
            .query("deallocate prepare a")
            .describe_statement("a")
            .sync();
        client.send(&pipeline);
        for _ in 0..7 {
            frames.extend(client.until_ready());
        }
        frames
    });
}

#[test]
fn what_an_execute_forgets_is_forgotten_in_the_same_batch() {
    for forget in ["deallocate all", "discard all"] {
        answers(|| {
            let discard = new().run(forget, &[]).describe_statement("a").sync();
            with(
                vec![new().parse("a", "select 1").sync(), discard],
                known(&["a"]),
            )
        });
    }
    answers(|| {
        let anew = new()
            .run("deallocate all", &[])
            .parse("c", "select 1")
            .run_prepared("c", &[])
            .sync();
        let requests = vec![new().parse("a", "select 1").sync(), anew];
        with(requests, known(&["a", "c"]))
    });
    answers(|| {
        let batch = new()
            .parse("a", "deallocate all")
            .run_prepared("a", &[])
            .describe_statement("b")
            .close_statement("a")
            .sync();
        with(vec![batch], known(&["a"]))
    });
}

#[test]
fn a_portal_that_deallocates_may_wait() {
    answers(|| {
        let parse = new().parse("a", "select 1").sync();
        let bind = new()
            .parse("", "deallocate a")
            .bind("p", "", &[])
            .describe_statement("a")
            .sync();
        let run = new().execute("p").describe_statement("a").sync();
        let requests = vec![
            parse,
            new().query("begin"),
            bind,
            run,
            new().query("rollback"),
        ];
        with(requests, known(&["a"]))
    });
}

#[test]
fn sql_runs_what_the_protocol_has_prepared() {
    for text in [
        "execute a(20)",
        "select 1; execute \"a\"(1); execute a(2)",
        "begin; execute a(1); deallocate a; commit",
        "explain (costs off) execute a(1)",
        "create table made as execute a(5); select * from made; drop table made",
        "execute a(1); execute b",
        "begin isolation level serializable; execute a(1); commit",
        "execute a('x')",
        "execute a; select 1",
    ] {
        answers(|| {
            let parsed = new().parse("a", "select $1::int + 1 as next").sync();
            with(
                vec![parsed, new().query(text), new().query("rollback")],
                known(&["a", "b"]),
            )
        });
    }
    answers(|| {
        let parsed = new()
            .parse("a", "select $1::int + 1 as next")
            .parse("runs", "execute a(7)")
            .sync();
        let run = new()
            .describe_statement("runs")
            .bind("", "runs", &[])
            .describe_portal("")
            .execute("")
            .sync();
        let unnamed = new()
            .parse("", "execute a(8)")
            .describe_statement("")
            .bind("", "", &[])
            .execute("")
            .sync();
        vec![parsed, run, unnamed]
    });
}

#[test]
fn the_same_execute_means_what_each_clients_name_means() {
    same_everywhere(|client| {
        let mut frames: Vec<Frame> = Vec::new();
        for text in ["select 1 as one", "select 'two' as two"] {
            let parsed = new()
                .close_statement("a")
                .close_statement("runs")
                .parse("a", text)
                .parse("runs", "execute a")
                .describe_statement("runs")
                .run_prepared("runs", &[])
                .sync();
            frames.extend(client.ask(&parsed));
        }
        frames
    });
}

#[test]
fn a_name_in_use_by_the_protocol_is_in_use_for_sql_and_the_other_way_round() {
    answers(|| {
        let parsed = new().parse("a", "select 'protocol'").sync();
        let prepare = |sql: &str| new().query(sql);
        vec![
            parsed,
            prepare("prepare a as select 'sql'"),
            new().run_prepared("a", &[]).sync(),
            prepare("deallocate a; prepare a as select 'sql'"),
            prepare("execute a"),
            new().run_prepared("a", &[]).sync(),
            new().parse("a", "select 'again'").sync(),
            new().describe_statement("a").sync(),
            new().close_statement("a").sync(),
            prepare("execute a"),
            new().parse("a", "select 'again'").sync(),
            new().run_prepared("a", &[]).sync(),
        ]
    });
}

#[test]
fn errors_name_the_statement_that_the_failing_request_named() {
    same_everywhere(|client| {
        let parsed = new()
            .parse("a", "select 1")
            .parse("b", "select 1")
            .parse("c", "select 1")
            .sync();
        let mut frames = client.ask(&parsed);
        let pipeline = new()
            .bind("", "a", &["1"])
            .close_statement("a")
            .sync()
            .bind("", "c", &["1"])
            .sync()
            .bind("", "b", &["1"])
            .sync()
            .parse("c", "select 2")
            .sync();
        client.send(&pipeline);
        for _ in 0..4 {
            frames.extend(client.until_ready());
        }
        frames
    });
}

#[test]
fn the_unnamed_statement_survives_what_is_skipped() {
    let failing = || new().execute("nowhere");
    for (first, second) in [
        (
            new().parse("", "select 'first'"),
            failing().parse("", "select 'skipped'"),
        ),
        (
            new().parse("", "select 'first'"),
            failing().close_statement(""),
        ),
        (new().parse("", "select 'first'").parse("a", "selec"), new()),
        (
            new().parse("", "select 'first'"),
            new()
                .parse("", "select 'second'")
                .execute("nowhere")
                .parse("", "select 'third'"),
        ),
        (new().parse("", "select 'first'"), new().parse("", "selec")),
        (
            new().parse("", "select 'first'"),
            new().close_statement("").execute("nowhere"),
        ),
    ] {
        answers(|| {
            let run = new()
                .describe_statement("")
                .bind("", "", &[])
                .execute("")
                .sync();
            vec![first.clone().sync(), second.clone().sync(), run]
        });
        same_everywhere(|client| {
            let run = new()
                .describe_statement("")
                .bind("", "", &[])
                .execute("")
                .sync();
            let all = first.clone().sync().then(&second.clone().sync()).then(&run);
            client.send(&all);
            (0..3).flat_map(|_| client.until_ready()).collect()
        });
    }
}

#[test]
fn names_are_told_apart_by_their_first_63_bytes() {
    let long = "n".repeat(64);
    let longer = format!("{}-and-more", "n".repeat(63));
    answers(|| {
        let parsed = new().parse(&long, "select 'long'").sync();
        with(
            vec![parsed, new().parse(&longer, "select 'longer'").sync()],
            known(&[&longer, &"n".repeat(63), &"n".repeat(62)]),
        )
    });
}

#[test]
fn in_a_failed_transaction_every_parse_is_refused() {
    answers(|| {
        vec![
            new().parse("a", "select 1").sync(),
            new().query("begin"),
            new().query("select 1/0"),
            new().parse("b", "select 1").sync(),
            new().parse("a", "select 1").sync(),
            new().parse("a", "selec").sync(),
            new().parse("r", "rollback").sync(),
            new().run_prepared("r", &[]).sync(),
            new().describe_statement("b").sync(),
            new().run_prepared("a", &[]).sync(),
        ]
    });
}

#[test]
fn a_text_that_fails_says_so_before_its_name_is_found_taken() {
    let takes = [
        new().parse("n1", "select 1").sync(),
        new().query("prepare n1 as select 1"),
    ];
    for take in &takes {
        for text in ["select * from missing", "selec", "select 2"] {
            answers(|| {
                vec![
                    take.clone(),
                    new().parse("n1", text).sync(),
                    new().query("begin"),
                    new().query("select 1/0"),
                    new().parse("n1", text).sync(),
                    new().query("rollback"),
                    new().run_prepared("n1", &[]).sync(),
                ]
            });
        }
    }
}

#[test]
fn a_statement_that_can_no_more_be_parsed_says_why_when_it_is_executed() {
    for execute in ["execute n0", "explain (costs off) execute n0"] {
        answers(|| {
            let lost = vec![
                new().query("begin"),
                new().query("create temp table gone (mark text)"),
                new().parse("n0", "select mark from gone").sync(),
                new().query("rollback"),
            ];
            let executed = vec![
                new().query(execute),
                new().query("select 1"),
                new().query("begin"),
                new().query(execute),
                new().query("rollback"),
            ];
            with(with(lost, executed), known(&["n1"]))
        });
        // In a batch it says so already at Parse.
        same_everywhere(|client| {
            client.exec("begin");
            client.exec("create temp table gone (mark text)");
            client.ask(&new().parse("n0", "select mark from gone").sync());
            client.exec("rollback");
            let mut frames = client.ask(&new().run(execute, &[]).sync());
            frames.retain(|frame| !matches!(frame.tag, b'1' | b'2'));
            frames
        });
    }
}

#[test]
fn a_name_that_a_server_has_for_anothers_statement_is_unknown_to_sql() {
    for text in ["execute pgu_1", "deallocate pgu_1", "explain execute pgu_1"] {
        answers(|| {
            vec![
                new().parse("a", "select 1").sync(),
                new().query(text),
                new().run(text, &[]).sync(),
                new().run_prepared("a", &[]).sync(),
                new().query("begin"),
                new().query(text),
                new().query("rollback"),
                new().run_prepared("a", &[]).sync(),
            ]
        });
    }
}

#[test]
fn a_client_finds_its_statements_in_the_order_in_which_it_prepared_them() {
    let look = "select name from pg_prepared_statements where name <> '' order by prepare_time";
    answers(|| {
        let prepared = ["d", "a", "c", "b", "f", "e"].map(|name| {
            let text = format!("select '{name}'");
            new().parse(name, &text).sync()
        });
        prepared.into_iter().chain([new().query(look)]).collect()
    });
}

/// What a client sees of its own statements, and of those that others have made by the protocol.
#[test]
fn a_client_finds_its_own_statements_and_no_one_elses() {
    let look = "select name, statement, parameter_types, from_sql from pg_prepared_statements \
                where name <> 'looks' and statement !~ 'pg_prepared' order by name";
    answers(|| {
        vec![
            new().query(look),
            new()
                .parse("a", "select 1")
                .parse("B \"1", "select $1::int")
                .sync(),
            new().query(look),
            new().query("begin"),
            new().query(look),
            new().run(look, &[]).sync(),
            new().query("commit"),
            new().run_prepared("a", &[]).sync(),
            new().query("deallocate a"),
            new().query(look),
            new().run_prepared("B \"1", &["7"]).sync(),
        ]
    });
}
