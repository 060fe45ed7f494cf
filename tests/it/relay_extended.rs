//! The extended query protocol: Parse, Bind, Describe, Execute, Close, Flush, Sync.

use crate::harness::{
    Request,
    differential::{same_everywhere, same_without_neighbour},
};

#[test]
fn the_unnamed_statement_runs_in_one_round_trip() {
    same_everywhere(|client| {
        let describe = Request::new()
            .parse("", "select $1::int + 1 as sum, $2::text")
            .describe_statement("")
            .bind("", "", &["41", "text"])
            .describe_portal("")
            .execute("")
            .sync();
        let plain = Request::new().run("select $1::text", &["again"]).sync();
        [
            client.ask(&describe),
            client.ask(&plain),
            client.ask(&plain),
        ]
        .concat()
    });
}

#[test]
fn a_named_statement_is_used_in_later_round_trips() {
    same_everywhere(|client| {
        let prepare = Request::new()
            .parse("sum", "select $1::int + $2::int")
            .sync();
        let run = Request::new().run_prepared("sum", &["1", "2"]).sync();
        let describe = Request::new().describe_statement("sum").sync();
        let both = Request::new()
            .run_prepared("sum", &["3", "4"])
            .run_prepared("sum", &["5", "6"])
            .sync();
        let requests = [&prepare, &run, &describe, &both, &run];
        requests
            .iter()
            .flat_map(|request| client.ask(request))
            .collect()
    });
}

#[test]
fn parameter_types_and_formats_pass_unchanged() {
    same_everywhere(|client| {
        let seven = 7_i32.to_be_bytes();
        let binary = Request::new()
            .parse_typed("", "select $1, $2, $3", &[23, 25, 17])
            .describe_statement("")
            .bind_formats(
                "",
                "",
                (
                    &[1, 0, 1],
                    &[Some(&seven), None, Some(&[0, 255])],
                    &[1, 0, 1],
                ),
            )
            .describe_portal("")
            .execute("")
            .sync();
        let one_format = Request::new()
            .parse_typed("", "select $1::int8, $2::int8", &[20, 20])
            .bind_formats("", "", (&[1], &[Some(&[0; 8]), Some(&[255; 8])], &[1]))
            .execute("")
            .sync();
        let wrong = Request::new()
            .parse("", "select $1::int")
            .bind_formats("", "", (&[1], &[Some(&[1, 2])], &[]))
            .execute("")
            .sync();
        [
            client.ask(&binary),
            client.ask(&one_format),
            client.ask(&wrong),
        ]
        .concat()
    });
}

#[test]
fn a_portal_is_suspended_and_continued() {
    same_everywhere(|client| {
        let start = Request::new()
            .parse("", "select generate_series(1, 5)")
            .bind("p", "", &[])
            .execute_some("p", 2)
            .flush();
        client.send(&start);
        let mut frames = client.until('s');
        client.send(
            &Request::new()
                .execute_some("p", 2)
                .execute("p")
                .execute("p")
                .sync(),
        );
        frames.extend(client.until_ready());
        // The portal went with its transaction.
        frames.extend(client.ask(&Request::new().execute("p").sync()));
        frames.extend(client.query("begin"));
        let open = Request::new()
            .parse("", "select generate_series(1, 5)")
            .bind("q", "", &[]);
        frames.extend(client.ask(&open.execute_some("q", 3).sync()));
        frames.extend(client.query("select 'between'"));
        frames.extend(client.ask(&Request::new().describe_portal("q").execute("q").sync()));
        frames.extend(client.query("fetch all from q"));
        frames.extend(client.ask(&Request::new().close_portal("q").execute("q").sync()));
        frames.extend(client.query("rollback"));
        frames
    });
}

#[test]
fn what_returns_no_rows_is_described_as_such() {
    same_everywhere(|client| {
        let mut frames = client.query("create table t (i int)");
        let insert = Request::new()
            .parse("ins", "insert into t values ($1)")
            .describe_statement("ins")
            .bind("", "ins", &["1"])
            .describe_portal("")
            .execute("")
            .sync();
        let empty = Request::new()
            .parse("", "")
            .describe_statement("")
            .bind("", "", &[]);
        frames.extend(client.ask(&insert));
        frames.extend(client.ask(&empty.describe_portal("").execute("").sync()));
        frames.extend(client.ask(&Request::new().run("begin", &[]).sync()));
        frames.extend(client.ask(&Request::new().run("select * from t", &[]).sync()));
        frames.extend(client.ask(&Request::new().run("commit", &[]).sync()));
        frames
    });
}

#[test]
fn an_error_at_any_step_skips_to_sync() {
    same_everywhere(|client| {
        let new = Request::new;
        let tail = |request: Request| request.run("select 'skipped'", &[]).sync();
        let requests = [
            tail(new().parse("", "selec")),
            tail(new().parse("", "select $1::int").bind("", "", &[])),
            tail(new().parse("", "select $1::int").bind("", "", &["x"])),
            tail(
                new()
                    .parse("", "select 1/$1::int")
                    .bind("", "", &["0"])
                    .execute(""),
            ),
            tail(new().bind("", "nowhere", &[])),
            tail(new().describe_statement("nowhere")),
            tail(new().describe_portal("nowhere")),
            tail(new().execute("nowhere")),
            tail(new().run("select 1; select 2", &[])),
            tail(new().run("select 'first'", &[]).run("select 1/0", &[])),
            new().run("select 'alive'", &[]).sync(),
        ];
        requests
            .iter()
            .flat_map(|request| client.ask(request))
            .collect()
    });
}

#[test]
fn close_forgets_and_closing_nothing_succeeds() {
    same_everywhere(|client| {
        let new = Request::new;
        let requests = [
            new().parse("s", "select 1").sync(),
            new().close_statement("s").sync(),
            new().run_prepared("s", &[]).sync(),
            new().parse("s", "select 2").run_prepared("s", &[]).sync(),
            new()
                .close_statement("s")
                .parse("s", "select 3")
                .run_prepared("s", &[])
                .sync(),
            new()
                .close_statement("never")
                .close_portal("never")
                .close_statement("")
                .close_portal("")
                .sync(),
            new().parse("", "select 4").sync(),
            new().close_statement("").sync(),
            new().run_prepared("", &[]).sync(),
        ];
        requests
            .iter()
            .flat_map(|request| client.ask(request))
            .collect()
    });
}

#[test]
fn a_statement_name_is_not_taken_twice() {
    same_everywhere(|client| {
        let new = Request::new;
        let requests = [
            new().parse("s", "select 1").sync(),
            new().parse("s", "select 1").sync(),
            new().parse("s", "select 2").sync(),
            new().run_prepared("s", &[]).sync(),
            new()
                .parse("", "select 3")
                .parse("", "select 4")
                .bind("", "", &[])
                .execute("")
                .sync(),
            new().parse("bad", "selec").sync(),
            new()
                .parse("bad", "select 5")
                .run_prepared("bad", &[])
                .sync(),
        ];
        requests
            .iter()
            .flat_map(|request| client.ask(request))
            .collect()
    });
}

#[test]
fn a_simple_query_between_parse_and_bind_takes_the_unnamed_statement_away() {
    same_everywhere(|client| {
        let mut frames = client.ask(&Request::new().parse("", "select 1").sync());
        frames.extend(client.query("select 2"));
        frames.extend(client.ask(&Request::new().run_prepared("", &[]).sync()));
        frames
    });
}

#[test]
fn the_unnamed_statement_lives_across_syncs() {
    same_everywhere(|client| {
        let mut frames = client.ask(&Request::new().parse("", "select $1::text").sync());
        frames.extend(client.ask(&Request::new().describe_statement("").sync()));
        frames.extend(client.ask(&Request::new().run_prepared("", &["a"]).sync()));
        frames.extend(client.ask(&Request::new().run_prepared("", &["b"]).sync()));
        frames
    });
}

#[test]
fn settings_and_transactions_work_by_the_extended_protocol() {
    same_everywhere(|client| {
        let mut frames = Vec::new();
        for sql in [
            "set timezone = 'Asia/Tokyo'",
            "show timezone",
            "begin",
            "set local datestyle = 'German'",
            "select '2020-01-02'::date",
            "savepoint a",
            "select 1/0",
            "rollback to a",
            "commit",
            "select '2020-01-02'::date",
        ] {
            frames.extend(client.ask(&Request::new().run(sql, &[]).sync()));
        }
        frames
    });
}

#[test]
fn a_statement_whose_result_changed_says_so() {
    same_without_neighbour(|client| {
        let mut frames = client.query("create table t (a int); insert into t values (1)");
        frames.extend(client.ask(&Request::new().parse("all", "select * from t").sync()));
        frames.extend(client.ask(&Request::new().run_prepared("all", &[]).sync()));
        frames.extend(client.query("alter table t add b int default 2"));
        frames.extend(client.ask(&Request::new().run_prepared("all", &[]).sync()));
        frames.extend(
            client.ask(
                &Request::new()
                    .close_statement("all")
                    .parse("all", "select * from t")
                    .sync(),
            ),
        );
        frames.extend(client.ask(&Request::new().run_prepared("all", &[]).sync()));
        frames
    });
}

#[test]
fn a_failed_parse_takes_the_unnamed_statement_away() {
    same_everywhere(|client| {
        let new = Request::new;
        let requests = [
            new().parse("", "select 'first'").sync(),
            new().parse("", "selec").sync(),
            new().run_prepared("", &[]).sync(),
            new().parse("", "select 'second'").sync(),
            new().run("select 1/0", &[]).sync(),
            new().run_prepared("", &[]).sync(),
        ];
        requests
            .iter()
            .flat_map(|request| client.ask(request))
            .collect()
    });
}

#[test]
fn a_failed_transaction_lets_only_its_end_through() {
    same_everywhere(|client| {
        let new = Request::new;
        let requests = [
            new()
                .parse("back", "rollback")
                .parse("one", "select 1")
                .parse("s", "savepoint s")
                .sync(),
            new().run("begin", &[]).sync(),
            new().run("select 1/0", &[]).sync(),
            new().run_prepared("one", &[]).sync(),
            new().parse("two", "select 2").sync(),
            new().run_prepared("two", &[]).sync(),
            new().describe_statement("one").sync(),
            new().describe_statement("back").sync(),
            new().run_prepared("back", &[]).sync(),
            new().run_prepared("one", &[]).sync(),
            new().run_prepared("two", &[]).sync(),
            new()
                .run("begin", &[])
                .run_prepared("s", &[])
                .run("select 1/0", &[])
                .sync(),
            new().run("rollback to s", &[]).sync(),
            new().run_prepared("one", &[]).run("commit", &[]).sync(),
        ];
        requests
            .iter()
            .flat_map(|request| client.ask(request))
            .collect()
    });
}

#[test]
fn portals_have_names_of_their_own() {
    same_everywhere(|client| {
        let new = Request::new;
        let requests = [
            new()
                .run("begin", &[])
                .parse("s", "select generate_series(1, 4)")
                .sync(),
            new()
                .bind("p", "s", &[])
                .bind("q", "s", &[])
                .execute_some("p", 1)
                .execute_some("q", 2)
                .sync(),
            new().execute_some("p", 1).execute("q").execute("p").sync(),
            new().bind("r", "s", &[]).bind("r", "s", &[]).sync(),
            new().run("rollback", &[]).sync(),
            new()
                .bind("p", "s", &[])
                .execute_some("p", 1)
                .close_portal("p")
                .execute("p")
                .sync(),
            new()
                .run("begin", &[])
                .bind("s", "s", &[])
                .describe_portal("s")
                .sync(),
            new().query("declare c cursor for select generate_series(1, 4)"),
            new().execute_some("c", 2).describe_portal("c").sync(),
            new().query("fetch 1 from s; close c; commit"),
            new().execute("s").sync(),
        ];
        requests
            .iter()
            .flat_map(|request| client.ask(request))
            .collect()
    });
}

#[test]
fn settings_follow_savepoints() {
    same_everywhere(|client| {
        let mut frames = Vec::new();
        for sql in [
            "begin; set timezone = 'Asia/Tokyo'; savepoint a; set timezone = 'Europe/Rome'",
            "show timezone",
            "rollback to a; commit",
            "show timezone",
            "begin; savepoint a; set datestyle = 'German'; release a; commit",
            "show datestyle",
            "begin; set datestyle = 'ISO, YMD'; select 1/0",
            "rollback",
            "show datestyle",
            "set timezone = 'Europe/Paris'; select 1/0",
            "show timezone",
            "begin; set timezone = 'Europe/Oslo'; commit; begin; set timezone = 'Europe/Bern'",
            "rollback",
            "show timezone",
            "select set_config('timezone', 'Asia/Tokyo', true)",
            "show timezone",
            "select set_config('timezone', 'Asia/Seoul', false)",
            "show timezone",
            "set session characteristics as transaction isolation level serializable",
            "reset all",
            "show timezone",
        ] {
            frames.extend(client.query(sql));
        }
        frames
    });
}

#[test]
fn a_stream_of_requests_may_be_cut_anywhere() {
    same_everywhere(|client| {
        let mut frames = client.query("create table t (i int, s text)");
        let mut request = Request::new().parse("s", "select $1::int, repeat('r', 300)");
        for number in 0..40 {
            let number = number.to_string();
            request = request
                .run_prepared("s", &[&number])
                .describe_statement("s")
                .run(
                    "insert into t values ($1, $2)",
                    &[&number, &"v".repeat(200)],
                )
                .sync()
                .query(&format!("select {number}; select 2"))
                .run("select 1/0", &[])
                .sync();
        }
        let (mut rest, mut size) = (request.bytes(), 1_usize);
        while !rest.is_empty() {
            size = size * 31 % 97 + 1;
            let (chunk, left) = rest.split_at(size.min(rest.len()));
            client.send_bytes(chunk);
            rest = left;
        }
        for _ in 0..120 {
            frames.extend(client.until_ready());
        }
        frames.extend(client.query("select count(*), sum(length(s)) from t"));
        frames
    });
}

#[test]
fn of_several_errors_of_a_parse_the_same_is_told() {
    same_everywhere(|client| {
        let new = Request::new;
        let requests = [
            new().parse("s", "select 1").sync(),
            new().parse("s", "selec").sync(),
            new().parse("s", "select * from nowhere").sync(),
            new().run("begin", &[]).sync(),
            new().run("select 1/0", &[]).sync(),
            new().parse("s", "select 2").sync(),
            new().parse("s", "selec").sync(),
            new().parse("s", "select * from nowhere").sync(),
            new().run_prepared("unknown", &[]).sync(),
            new().run("rollback", &[]).sync(),
            new().run_prepared("s", &[]).sync(),
        ];
        requests
            .iter()
            .flat_map(|request| client.ask(request))
            .collect()
    });
}
