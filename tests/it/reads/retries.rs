//! A read that turns out to write: the primary runs it, and the client never learns.
//!
//! A view is changed past the proxy, which still takes it for one that only reads.

use super::{Stage, plain_tags, shared};
use crate::harness::{
    Client, Request, eventually,
    fleet::{PRIMARY, mark},
    frames::{self, firsts},
};

/// A client whose tenant has the views `…_v0` to `…_v3`, known to be reads, that write from now on; and what
/// their names begin with. (A name without a schema is taken for any of that name.)
pub(super) fn deceived<'a>() -> (Stage<'a>, Client, String) {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    client.exec("create sequence seq");
    let role = stage.proxy.place("acme").role().to_owned();
    for n in 0..4 {
        client.exec(&format!(
            "create view {role}_v{n} as select 1 as n, 'x'::text as t"
        ));
    }
    for n in 0..4 {
        stage.on_replica(&mut client, &format!("select n from {role}_v{n}"));
    }
    let mut admin = stage.proxy.place("acme").admin();
    for n in 0..4 {
        admin.exec(&format!(
            "create or replace view {role}.{role}_v{n} as select nextval('{role}.seq')::int as n, 'y'::text as t"
        ));
    }
    stage.fleet.catch_up();
    (stage, client, role)
}

fn retried(stage: &Stage<'_>) -> f64 {
    stage.figure("pgusher_reads_retried_total", "reason=\"read_only\"")
}

#[test]
fn a_query_that_writes_after_all_is_run_on_the_primary() {
    let (stage, mut client, role) = deceived();
    let mark = mark();
    let since = stage.fleet.now();
    for n in 0..4 {
        let frames = client.query(&format!("select t from {role}_v{n} {mark}"));
        assert_eq!(plain_tags(&frames), "TDCZ", "{frames:?}");
        assert_eq!(firsts(&frames), ["y"]);
        // It ran once.
        assert_eq!(
            client.value(&format!("select n from {role}_v{n}")),
            (2 * n + 2).to_string()
        );
    }
    let seen = stage.fleet.seen(&since, &mark);
    let on_primary = seen.iter().filter(|at| **at == PRIMARY).count();
    assert_eq!(on_primary, 4, "{seen:?}");
    if seen.len() > 4 {
        assert!(retried(&stage) >= 1.0);
    }
    client.is_in_step();
}

#[test]
fn a_batch_that_writes_after_all_is_run_on_the_primary() {
    let (_stage, mut client, role) = deceived();
    client.ask(
        &Request::new()
            .parse("s", &format!("select t, n from {role}_v1 where n > $1"))
            .sync(),
    );
    let mut last = 0;
    let mut next = |frames: &[frames::Frame], tags: &str| {
        assert_eq!(plain_tags(frames), tags, "{frames:?}");
        assert_eq!(firsts(frames), ["y"]);
        let n: u32 = frames::rows(frames)[0][1]
            .as_ref()
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(n, last + 1, "each runs once");
        last = n;
    };
    let unnamed = Request::new()
        .parse("", &format!("select t, n from {role}_v0 where n > $1"))
        .describe_statement("")
        .bind("", "", &["0"])
        .describe_portal("")
        .execute("")
        .sync();
    next(&client.ask(&unnamed), "1tT2TDCZ");
    let named = Request::new()
        .bind("", "s", &["0"])
        .describe_portal("")
        .execute("")
        .sync();
    next(&client.ask(&named), "2TDCZ");
    let named = Request::new()
        .parse("t", &format!("select t, n from {role}_v2"))
        .bind("", "t", &[])
        .execute("")
        .sync();
    next(&client.ask(&named), "12DCZ");
    let again = Request::new().run_prepared("t", &[]).sync();
    next(&client.ask(&again), "2DCZ");
    client.is_in_step();
}

#[test]
fn in_a_pipeline_only_what_failed_is_run_again() {
    let (stage, mut client, role) = deceived();
    let mut pipeline = Request::new();
    for n in 0..4 {
        pipeline = pipeline
            .run("select $1::int", &[&n.to_string()])
            .sync()
            .query(&format!("select n from {role}_v{n}"))
            .run("select 'between'", &[])
            .sync();
    }
    client.send(&pipeline);
    for n in 0..4 {
        assert_eq!(firsts(&client.until_ready()), [n.to_string()]);
        assert_eq!(firsts(&client.until_ready()), [(n + 1).to_string()]);
        assert_eq!(firsts(&client.until_ready()), ["between"]);
    }
    client.is_in_step();
    assert_eq!(
        stage.proxy.place("acme").admin().value(&format!(
            "select last_value from {}.seq",
            stage.proxy.place("acme").role()
        )),
        "4"
    );
}

#[test]
fn of_a_message_of_several_reads_no_answer_comes_twice() {
    let (_stage, mut client, role) = deceived();
    let sql = format!("select 1; select t from {role}_v0; select 2");
    let frames = client.query(&sql);
    // The first answer may have been sent by the time the second one fails.
    match frames::code(&frames).as_str() {
        "" => assert_eq!(firsts(&frames), ["1", "y", "2"]),
        code => assert_eq!((code, firsts(&frames)), ("25006", vec!["1".into()])),
    }
    client.is_in_step();
    eventually("it is known that it writes", || {
        let frames = client.query(&sql);
        frames::code(&frames).is_empty() && firsts(&frames) == ["1", "y", "2"]
    });
}

#[test]
fn rows_that_were_sent_are_never_sent_again() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    client.exec("create sequence seq");
    let place = stage.proxy.place("acme");
    let role = place.role();
    client.exec(&format!("create view {role}_v as select i::text as n, repeat('x', 1000) as t from generate_series(1, 10000) i"));
    stage.on_replica(&mut client, &format!("select n from {role}_v limit 1"));
    place.admin().exec(&format!(
        "create or replace view {role}.{role}_v as select case when i = 9999 then nextval('{role}.seq')::text else i::text end as n, \
         repeat('x', 1000) as t from generate_series(1, 10000) i"
    ));
    stage.fleet.catch_up();
    let frames = client.query(&format!("select n, t from {role}_v"));
    let rows = firsts(&frames);
    match frames::code(&frames).as_str() {
        "" => assert_eq!(rows.len(), 10000),
        code => {
            assert_eq!(code, "25006");
            assert!(rows.len() < 10000, "{} rows and an error", rows.len());
        }
    }
    for (at, row) in rows.iter().enumerate().filter(|(at, _)| *at != 9998) {
        assert_eq!(*row, (at + 1).to_string());
    }
    client.is_in_step();
}
