//! The simple query protocol.

use crate::harness::{
    Client, Frame, Mode, Request, differential::same_everywhere,
    differential::same_in_session_mode, proxy::pooled, tags,
};

fn answers<'a>(sql: &'a [&'a str]) -> impl Fn(&mut Client) -> Vec<Frame> + 'a {
    move |client| sql.iter().flat_map(|sql| client.query(sql)).collect()
}

#[test]
fn values_come_as_postgresql_sends_them() {
    same_everywhere(answers(&[
        "select 1",
        "select 1 as a, 'text' as b, null as c, true, 1.5::numeric, now() is null",
        "select * from generate_series(1, 1000) g",
        "select repeat('x', 100000)",
        "select 'naïve ☃ 𝄞'",
        "select '{1,2,NULL}'::int[], '\\x00ff'::bytea, '{\"a\": 1}'::jsonb, row(1, 'a')",
        "select",
        "values (1, 'a'), (2, 'b')",
    ]));
}

#[test]
fn an_empty_query_is_answered_as_such() {
    same_everywhere(answers(&["", ";", "  -- nothing", "/* nothing */;;"]));
}

#[test]
fn several_statements_in_one_query_are_answered_one_after_the_other() {
    same_everywhere(answers(&[
        "select 1; select 2; select 3",
        "create table t (i int); insert into t values (1), (2); select * from t; drop table t",
        "select 1;; ;select 2;",
        "begin; select 1; commit; select 2",
        "begin; create table kept (i int); commit; begin; create table lost (i int)",
        "rollback",
        "select to_regclass('kept'), to_regclass('lost')",
    ]));
}

#[test]
fn an_error_ends_a_query_and_undoes_its_implicit_transaction() {
    same_everywhere(answers(&[
        "create table t (i int)",
        "insert into t values (1); select 1/0; insert into t values (2)",
        "select * from t",
        "select 1; begin; insert into t values (3); select nonsense; commit",
        "select * from t",
        "rollback",
        "insert into t values (4); commit; select 1/0",
        "select * from t",
    ]));
}

#[test]
fn errors_carry_every_field() {
    same_everywhere(answers(&[
        "selec 1",
        "select nothing from nowhere",
        "select 1/0",
        "create table t (i int primary key, c int check (c > 0))",
        "insert into t values (1, 1)",
        "insert into t values (1, 1)",
        "insert into t values (2, -1)",
        "do $$ begin perform 1/0; end $$",
        "do $$ begin raise exception 'my %', 'own' using errcode = 'ZZ123', detail = 'd', hint = 'h'; end $$",
        "select 'unterminated",
        "select '\u{feff}' from",
    ]));
}

#[test]
fn a_failed_transaction_refuses_statements_until_it_ends() {
    same_everywhere(answers(&[
        "begin",
        "select 1/0",
        "select 1",
        "commit",
        "begin; select 1/0; select 2",
        "rollback",
        "begin",
        "savepoint s",
        "select 1/0",
        "rollback to s",
        "select 1",
        "commit and chain",
        "select 2",
        "rollback",
        "commit",
        "rollback",
        "start transaction isolation level serializable read only; show transaction_isolation",
        "create table no (i int)",
        "end",
    ]));
}

#[test]
fn notices_come_where_postgresql_puts_them() {
    same_everywhere(answers(&[
        "do $$ begin raise notice 'one'; raise warning 'two'; raise info 'three'; end $$",
        "select 1; do $$ begin raise notice 'between'; end $$; select 2",
        "drop table if exists nothing_here",
        "do $$ begin for i in 1..200 loop raise notice '%', repeat('n', 1000); end loop; end $$",
        "begin; begin; rollback",
    ]));
}

#[test]
fn settings_that_are_reported_are_reported_at_once() {
    same_everywhere(answers(&[
        "set datestyle to 'German'; select '2020-01-02'::date",
        "set timezone to 'Asia/Tokyo'",
        "begin; set local timezone to 'Europe/Rome'; select 1",
        "rollback",
        "set client_encoding to 'LATIN1'; select 'ü'",
        "set client_encoding to 'UTF8'",
        "set application_name to 'tester'",
        "set intervalstyle to 'iso_8601'; select '1 day'::interval",
        "reset all",
    ]));
}

#[test]
fn notifications_reach_a_session_that_listens() {
    let proxy = pooled(Mode::Session, 2);
    let mut listener = proxy.connect("acme").login();
    let mut sender = proxy.connect("acme").login();
    listener.exec("listen news");
    sender.exec("notify news, 'unasked'");
    // Nothing was asked: the message comes by itself.
    let unasked = listener.next();
    assert_eq!(unasked.kind(), 'A');
    assert!(unasked.body.ends_with(b"news\0unasked\0"), "{unasked:?}");
    let own = listener.query("notify news, 'own'");
    assert!(
        tags(&own).contains('A') && tags(&own).ends_with('Z'),
        "{own:?}"
    );
    listener.is_in_step();
}

#[test]
fn bytes_that_arrive_one_by_one_make_the_same_query() {
    same_everywhere(|client| {
        let request = Request::new()
            .query("select 'slowly'")
            .run("select $1::int", &["7"])
            .sync();
        for byte in request.bytes() {
            client.send_bytes(&[*byte]);
        }
        [client.until_ready(), client.until_ready()].concat()
    });
}

#[test]
fn queries_sent_ahead_are_answered_in_order() {
    same_everywhere(|client| {
        let mut request = Request::new();
        for number in 0..100 {
            let sql = match number % 5 {
                0 => format!("select {number}"),
                1 => "select 1/0".to_owned(),
                2 => "begin".to_owned(),
                3 => format!("select {number}; select 2"),
                _ => "commit".to_owned(),
            };
            request = request.query(&sql);
        }
        client.send(&request);
        (0..100).flat_map(|_| client.until_ready()).collect()
    });
}

#[test]
fn sessions_state_stays_with_the_session() {
    same_in_session_mode(answers(&[
        "create temp table t (i int); insert into t values (1)",
        "select * from t",
        "prepare p as select $1::int + 1",
        "execute p(41)",
        "set work_mem = '12MB'",
        "show work_mem",
        "select pg_advisory_lock(1), pg_try_advisory_lock(2)",
        "select pg_advisory_unlock(1), pg_advisory_unlock(2)",
        "begin; declare c cursor with hold for select generate_series(1, 5); commit",
        "fetch 2 from c",
        "close c",
        "create sequence s; select nextval('s')",
        "select currval('s'), lastval()",
        "discard all",
        "execute p(1)",
        "show work_mem",
    ]));
}
