//! A statement that was prepared once runs wherever its server is.

use super::{Stage, plain_tags, shared};
use crate::harness::{
    Client, Request, eventually,
    fleet::{PRIMARY, mark},
    frames::{self, firsts},
};

/// Runs a prepared read until a replica answers it; every answer must be this one.
fn on_replica(stage: &Stage<'_>, client: &mut Client, request: &Request, mark: &str, value: &str) {
    eventually("a replica runs it", || {
        let (frames, seen) = stage.trace(client, request, mark);
        assert_eq!(firsts(&frames), [value], "{frames:?}");
        assert!(matches!(seen[..], [_] | [PRIMARY, _]), "{seen:?}");
        seen[0] != PRIMARY
    });
}

#[test]
fn a_named_statement_runs_on_the_primary_and_on_replicas() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    let mark = mark();
    let sql = format!("select name from items where id = $1 {mark}");
    let parse = Request::new()
        .parse("s", &sql)
        .describe_statement("s")
        .sync();
    assert_eq!(plain_tags(&client.ask(&parse)), "1tTZ");
    let run = Request::new().run_prepared("s", &["2"]).sync();
    on_replica(&stage, &mut client, &run, &mark, "two");
    for round in 0..10 {
        client.exec("begin");
        let (frames, seen) = stage.trace(&mut client, &run, &mark);
        assert_eq!((firsts(&frames), seen), (vec!["two".into()], vec![PRIMARY]));
        client.exec("commit");
        let (frames, seen) = stage.trace(&mut client, &run, &mark);
        assert_eq!(firsts(&frames), ["two"]);
        assert!(
            matches!(seen[..], [_] | [PRIMARY, _]),
            "round {round}: {seen:?}"
        );
    }
    on_replica(&stage, &mut client, &run, &mark, "two");
    // Described and bound anew, by name and by portal.
    let described = Request::new()
        .describe_statement("s")
        .bind("", "s", &["3"])
        .describe_portal("")
        .execute("")
        .sync();
    for _ in 0..20 {
        let frames = client.ask(&described);
        assert_eq!(plain_tags(&frames), "tT2TDCZ");
        assert_eq!(firsts(&frames), ["three"]);
    }
    let closed = client.ask(&Request::new().close_statement("s").sync());
    assert_eq!(plain_tags(&closed), "3Z");
    for _ in 0..5 {
        assert_eq!(frames::code(&client.ask(&run)), "26000");
    }
    client.is_in_step();
}

#[test]
fn a_statement_that_is_gone_is_gone_everywhere() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    for forget in ["deallocate s", "deallocate all", "discard all"] {
        let mark = mark();
        let parse = |sql: &str| Request::new().parse("s", &format!("{sql} {mark}")).sync();
        client.ask(&parse("select count(*) from items"));
        let run = Request::new().run_prepared("s", &[]).sync();
        on_replica(&stage, &mut client, &run, &mark, "3");
        client.exec(forget);
        for _ in 0..5 {
            assert_eq!(frames::code(&client.ask(&run)), "26000", "{forget}");
        }
        // The name is free for another statement, which is never taken for the first.
        assert_eq!(
            plain_tags(&client.ask(&parse("select max(id) from items"))),
            "1Z"
        );
        let run = Request::new().bind("", "s", &[]).execute("").sync();
        let value = "3";
        on_replica(&stage, &mut client, &run, &mark, value);
        let again = client.ask(&parse("select 1"));
        assert_eq!(frames::code(&again), "42P05", "{forget}");
        client.ask(&Request::new().close_statement("s").sync());
    }
}

#[test]
fn unnamed_statements_follow_their_client() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    let mark = mark();
    let whole = Request::new()
        .parse("", &format!("select name from items where id = $1 {mark}"))
        .describe_statement("")
        .bind("", "", &["1"])
        .describe_portal("")
        .execute("")
        .sync();
    on_replica(&stage, &mut client, &whole, &mark, "one");
    // Parsed in one batch, run in others, with reads and writes in between.
    let parse = Request::new()
        .parse("", "select count(*) from items where id > $1")
        .sync();
    client.ask(&parse);
    let run = Request::new().run_prepared("", &["0"]).sync();
    for id in 4..30 {
        assert_eq!(firsts(&client.ask(&run)), [(id - 1).to_string()]);
        let insert = Request::new()
            .parse("w", "insert into items values ($1, 'new')")
            .bind("", "w", &[&id.to_string()])
            .execute("")
            .close_statement("w")
            .sync();
        assert_eq!(plain_tags(&client.ask(&insert)), "12C3Z");
    }
}

#[test]
fn many_statements_of_many_clients_are_never_mixed_up() {
    let stage = Stage::over(shared(), |tenant| {
        tenant.pool_size(2).set("max_prepared_statements", 8)
    });
    stage.furnished();
    stage.settled(&mut stage.client());
    std::thread::scope(|scope| {
        for own in 0..5 {
            let stage = &stage;
            scope.spawn(move || {
                let mut client = stage.client();
                for n in 0..20 {
                    let sql = format!("select $1::int + {} from items where id = 1", own * 100 + n);
                    client.ask(&Request::new().parse(&format!("s{n}"), &sql).sync());
                }
                for round in 0..8 {
                    for n in 0..20 {
                        let run = Request::new()
                            .run_prepared(&format!("s{n}"), &[&round.to_string()])
                            .sync();
                        let expected = (round + own * 100 + n).to_string();
                        assert_eq!(firsts(&client.ask(&run)), [expected]);
                        if n == 7 {
                            client.exec("begin; select 1");
                            assert_eq!(
                                firsts(&client.ask(&run)),
                                [(round + own * 100 + n).to_string()]
                            );
                            client.exec("commit");
                        }
                    }
                }
            });
        }
    });
}

#[test]
fn sql_level_prepared_statements_work() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    client.exec("prepare p as select count(*) from items where id > $1");
    for _ in 0..20 {
        assert_eq!(client.value("execute p(0)"), "3");
        assert_eq!(client.value("select count(*) from items"), "3");
    }
    client.exec("deallocate p");
    assert_eq!(client.fails("execute p(0)").code(), "26000");
}

#[test]
fn a_statement_outlives_a_change_of_its_table() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    let mark = mark();
    client.ask(
        &Request::new()
            .parse("s", &format!("select name from items where id = 1 {mark}"))
            .sync(),
    );
    let run = Request::new().run_prepared("s", &[]).sync();
    on_replica(&stage, &mut client, &run, &mark, "one");
    client.exec("alter table items add more int default 7");
    for _ in 0..20 {
        assert_eq!(firsts(&client.ask(&run)), ["one"]);
    }
    on_replica(&stage, &mut client, &run, &mark, "one");
    client.exec("alter table items drop more; create index on items (name)");
    on_replica(&stage, &mut client, &run, &mark, "one");
}

#[test]
fn portals_are_fetched_in_parts() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    stage.settled(&mut client);
    for _ in 0..10 {
        let parts = Request::new()
            .parse("", "select id from items order by id")
            .bind("p", "", &[])
            .execute_some("p", 2)
            .execute_some("p", 2)
            .sync();
        let frames = client.ask(&parts);
        assert_eq!(plain_tags(&frames), "12DDsDCZ");
        let begin = Request::new().run("begin read only", &[]).sync();
        client.ask(&begin);
        let part = Request::new()
            .parse("", "select id from items order by id")
            .bind("p", "", &[])
            .execute_some("p", 1)
            .sync();
        assert_eq!(plain_tags(&client.ask(&part)), "12DsZ");
        let rest = Request::new().execute("p").sync();
        assert_eq!(firsts(&client.ask(&rest)), ["2", "3"]);
        client.exec("commit");
    }
}
