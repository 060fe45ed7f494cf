//! PREPARE, EXECUTE and DEALLOCATE, alone and mixed with the statements of the protocol: one
//! space of names, the client's.

use crate::harness::{Client, Frame, Request, Trial};

/// Asks all of this, in turn.
fn ask_all(client: &mut Client, requests: &[Request]) -> Vec<Frame> {
    requests
        .iter()
        .flat_map(|request| client.ask(request))
        .collect()
}

fn parse(name: &str, sql: &str) -> Request {
    Request::new().parse(name, sql).sync()
}

fn run(name: &str) -> Request {
    Request::new().run_prepared(name, &[]).sync()
}

fn query(sql: &str) -> Request {
    Request::new().query(sql)
}

#[test]
fn statements_prepared_in_sql_last_until_they_are_deallocated() {
    Trial::pinned().scripts(
            r#"
            prepare p as select 1 | execute p | execute p | deallocate p | execute p
            prepare p (int, text) as select $1 + 1, $2 | execute p (1, 'x') | execute p ('y', 'x')
                | execute p (1) | deallocate prepare p | deallocate p
            prepare "P p" as select 1 | execute "P p" | execute p | prepare "P p" as select 2
                | deallocate all | execute "P p"
            prepare p as select 1 | discard all | execute p | prepare p as select 2 | discard plans
                | execute p | reset all | execute p
            begin | prepare p as select 1 | rollback | execute p | begin | deallocate p | rollback
                | execute p
            prepare p as select 1; execute p; select 2 | execute p | deallocate p; execute p; select 3
                | select 4
            prepare p as select 1 | select 1/0 | execute p | prepare q as selct | prepare q as select 1/0
                | execute q | execute p
            prepare p as select generate_series(1, 3) | explain (costs off) execute p | explain execute q
                | create temp table made as execute p | table made
            create table if not exists t (i int) | prepare p as insert into t values ($1) returning i
                | execute p (5) | begin | execute p (6) | rollback | drop table t | execute p (7)
            prepare p as select 1
                | select name, statement, parameter_types, from_sql from pg_prepared_statements where from_sql order by name
                | deallocate p
            do $$ begin execute 'prepare p as select 7'; end $$ | execute p
                | do $$ begin execute 'deallocate p'; end $$ | execute p
            prepare p as select current_setting('work_mem') | set work_mem = '7MB' | execute p
                | reset work_mem | execute p | set search_path = pg_catalog | execute p
            /* a */ prepare -- b⏎ p as select 1 | EXECUTE p; | Deallocate /* all */ p | execute p
            prepare p as select 1 | declare c cursor with hold for select 2 | execute p | deallocate p
                | fetch 1 from c | close c | execute p
            "#,
        );
}

#[test]
fn execute_finds_what_the_protocol_prepared() {
    Trial::pinned().run(|client| {
        let again = [query("execute s"), query("execute s (1)"), run("s")];
        let mut frames = ask_all(client, &[parse("s", "select 'by the protocol'")]);
        frames.extend(ask_all(client, &again));
        let with_parameter = [
            parse("n", "select $1::int + 1"),
            query("execute n (41)"),
            query("explain (costs off) execute n (41)"),
            Request::new().run("execute n (42)", &[]).sync(),
            query("begin; execute n (43); commit"),
            query("do $$ begin execute 'execute n (44)'; end $$"),
            query("prepare n as select 1"),
            query("deallocate n"),
            query("execute n (45)"),
            Request::new().run_prepared("n", &["46"]).sync(),
        ];
        frames.extend(ask_all(client, &with_parameter));
        frames.extend(ask_all(client, &again));
        frames
    });
}

#[test]
fn bind_and_describe_find_what_sql_prepared() {
    Trial::pinned().run(|client| {
        let requests = [
            query("prepare s (int) as select $1 + 1"),
            Request::new().run_prepared("s", &["1"]).sync(),
            Request::new().describe_statement("s").sync(),
            Request::new()
                .bind("", "s", &["2"])
                .describe_portal("")
                .execute("")
                .sync(),
            parse("s", "select 'taken'"),
            Request::new()
                .run("select 1", &[])
                .run_prepared("s", &["3"])
                .run("select 2", &[])
                .sync(),
            query("begin"),
            Request::new().run_prepared("s", &["4"]).sync(),
            query("commit"),
            Request::new().close_statement("s").sync(),
            Request::new().run_prepared("s", &["5"]).sync(),
            query("execute s (6)"),
            parse("s", "select 'free'"),
            run("s"),
            query("execute s"),
        ];
        ask_all(client, &requests)
    });
}

#[test]
fn deallocate_in_the_middle_of_more_statements_is_exact() {
    Trial::pinned().run(|client| {
        let prepare = [parse("a", "select 'a'"), parse("b", "select 'b'")];
        let mut frames = Vec::new();
        for batch in [
            query("select 1; deallocate a; select 2"),
            query("deallocate a; select 1/0"),
            query("select 1/0; deallocate a"),
            query("begin; deallocate a; rollback"),
            query("deallocate a; deallocate a; deallocate b"),
            query("begin; select 1; deallocate all; commit; select 2"),
            query("deallocate nothing; deallocate a"),
            query("deallocate \"a\"; prepare a as select 'new'"),
        ] {
            frames.extend(ask_all(client, &[query("deallocate all")]));
            frames.extend(ask_all(client, &prepare));
            frames.extend(ask_all(
                client,
                &[batch, run("a"), run("b"), query("execute a")],
            ));
        }
        frames
    });
}

#[test]
fn deallocate_in_an_extended_batch_is_exact() {
    let new = Request::new;
    Trial::pinned().run(move |client| {
        let prepare = [parse("a", "select 'a'"), parse("b", "select 'b'")];
        let mut frames = Vec::new();
        for batch in [
            new()
                .run_prepared("a", &[])
                .run("deallocate a", &[])
                .run_prepared("a", &[])
                .run_prepared("b", &[])
                .sync(),
            new()
                .run("deallocate a", &[])
                .parse("a", "select 'again'")
                .run_prepared("a", &[])
                .sync(),
            new().run("select 1/0", &[]).run("deallocate a", &[]).sync(),
            new().run("deallocate a", &[]).run("select 1/0", &[]).sync(),
            new()
                .run("deallocate all", &[])
                .run_prepared("b", &[])
                .sync(),
            new()
                .parse("d", "deallocate a")
                .run_prepared("d", &[])
                .run_prepared("d", &[])
                .sync(),
            new()
                .run("prepare c as select 'c'", &[])
                .run_prepared("c", &[])
                .run("execute c", &[])
                .run("deallocate c", &[])
                .run_prepared("c", &[])
                .sync(),
            new()
                .run("deallocate a", &[])
                .describe_statement("a")
                .sync(),
            new()
                .bind("p", "a", &[])
                .run("deallocate a", &[])
                .execute("p")
                .sync(),
            new()
                .run("deallocate a", &[])
                .close_statement("a")
                .run_prepared("b", &[])
                .sync(),
        ] {
            frames.extend(ask_all(client, &[query("deallocate all")]));
            frames.extend(ask_all(client, &prepare));
            frames.extend(ask_all(client, &[batch, run("a"), run("b")]));
        }
        frames
    });
}

#[test]
fn errors_name_statements_as_their_client_does() {
    let new = Request::new;
    Trial::pinned()
        .setup(&["create table changes (i int)"])
        .run(move |client| {
            let long = "n".repeat(200);
            let requests = [
                parse("s", "select 1"),
                parse("s", "select 2"),
                run("unknown"),
                new().describe_statement("unknown").sync(),
                new().run_prepared("s", &["one", "too many"]).sync(),
                query("deallocate unknown"),
                query("execute unknown"),
                new().run("execute unknown", &[]).sync(),
                parse("\u{fc} \"q\" 's'", "select $1::int"),
                new().run_prepared("\u{fc} \"q\" 's'", &[]).sync(),
                new().run_prepared("\u{fc} \"q\" 's'", &["x"]).sync(),
                parse(&long, "select 'long'"),
                parse(&long, "select 'long'"),
                query(&format!("execute {long}")),
                run(&long),
                run(&long[..63]),
                query("begin"),
                parse("s", "select 3"),
                query("rollback"),
                run("s"),
                parse("wrong", "select wrong from nowhere"),
                run("wrong"),
                new().run_prepared("", &[]).sync(),
                new().parse("", "select $1").run_prepared("", &[]).sync(),
                query("select 1"),
                new().run_prepared("", &[]).sync(),
            ];
            ask_all(client, &requests)
        });
}

#[test]
fn names_of_the_statements_that_are_listed_are_the_clients() {
    Trial::carried().run(|client| {
        let requests = [
            query("select count(*) from pg_prepared_statements where from_sql"),
            parse("mine", "select 'mine'"),
            query("deallocate prepare \"mine\""),
            run("mine"),
            parse("MIXED", "select 'mixed'"),
            query("deallocate mixed"),
            query("deallocate \"MIXED\""),
            run("MIXED"),
        ];
        ask_all(client, &requests)
    });
}
