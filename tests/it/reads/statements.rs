//! Which statements a replica answers, one by one.

use super::{Stage, shared};
use crate::harness::{
    Key, Mode, Request, eventually,
    fleet::{PRIMARY, mark},
    frames::{self, firsts},
    place::ROLE_PASSWORD,
};

/// Statements and the first column of their rows.
const READS: [(&str, &[&str]); 18] = [
    ("select 1", &["1"]),
    (
        "SELECT name FROM items ORDER BY id",
        &["one", "two", "three"],
    ),
    ("table items order by id", &["1", "2", "3"]),
    ("values (7), (8)", &["7", "8"]),
    (
        "with a as (select max(id) m from items) select m from a",
        &["3"],
    ),
    (
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 3) select * from n",
        &["1", "2", "3"],
    ),
    ("select upper(name) from items where id = 2", &["TWO"]),
    ("select count(*) over () from items limit 1", &["3"]),
    (
        "select a.id from items a join items b using (id) where b.name like 't%' order by 1",
        &["2", "3"],
    ),
    ("select now() is not null", &["t"]),
    ("select random() < 2", &["t"]),
    ("select pg_sleep(0)", &[""]),
    ("select * from generate_series(1, 3)", &["1", "2", "3"]),
    ("select exists (select from items where id = 9)", &["f"]),
    (
        "select (select name from items where id = 1) || 'x'",
        &["onex"],
    ),
    ("/* a comment */ select -- another\n 4", &["4"]),
    ("select 1; select 2", &["1", "2"]),
    (
        "select 'insert into items values (1)'",
        &["insert into items values (1)"],
    ),
];

#[test]
fn reads_run_on_replicas() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    for (sql, values) in READS {
        assert_eq!(stage.on_replica(&mut client, sql), values, "{sql}");
    }
    // Again, as fast as it goes: but for a moment when replicas are behind, as other tests write as well,
    // none of them needs the primary.
    eventually("all of them run on replicas alone", || {
        let since = stage.fleet.now();
        let mark = mark();
        for (sql, values) in READS {
            assert_eq!(client.values(&format!("{sql} {mark}")), values, "{sql}");
        }
        let seen = stage.fleet.seen(&since, &mark);
        seen.len() == READS.len() && !seen.contains(&PRIMARY)
    });
    let read = stage.figure("pgusher_routed_total", "target=\"replica\"");
    assert!(read >= 36.0, "{read}");
}

/// Statements that only the primary runs, in this order, and the tag of what they did last.
const WRITES: [(&str, &str); 42] = [
    ("insert into items values (10, 'ten')", "INSERT 0 1"),
    ("update items set name = 'TEN' where id = 10", "UPDATE 1"),
    ("delete from items where id = 10", "DELETE 1"),
    (
        "merge into items i using (values (1)) v(id) on i.id = v.id when matched then update set name = 'one'",
        "MERGE 1",
    ),
    (
        "with new as (insert into items values (11, 'eleven') returning id) select id from new",
        "SELECT 1",
    ),
    (
        "with gone as (delete from items where id = 11 returning id) select count(*) from gone",
        "SELECT 1",
    ),
    ("select id from items for update", "SELECT 3"),
    (
        "select id from items where id = 1 for no key update",
        "SELECT 1",
    ),
    ("select id from items for share", "SELECT 3"),
    (
        "select * from (select id from items for key share) x",
        "SELECT 3",
    ),
    ("select id into copied from items", "SELECT 3"),
    ("create table as_well as select * from items", "SELECT 3"),
    ("select nextval('seq')", "SELECT 1"),
    ("select setval('seq', 5)", "SELECT 1"),
    ("select last_value from seq", "SELECT 1"),
    ("select writes(20)", "SELECT 1"),
    (
        "select coalesce(nullif(writes(21), 0), 1) from items limit 1",
        "SELECT 1",
    ),
    (
        "select id from items where id = 1 and writes(22 + id) > 0",
        "SELECT 1",
    ),
    (
        "explain analyze insert into items values (12, 'twelve')",
        "EXPLAIN",
    ),
    (
        "explain (analyze, costs off) delete from items where id > 9",
        "EXPLAIN",
    ),
    (
        "do $$ begin insert into items values (30, 'thirty'); end $$",
        "DO",
    ),
    ("call proc(31)", "CALL"),
    ("copy items to stdout", "COPY 5"),
    ("copy (select 1) to stdout", "COPY 1"),
    ("show server_version", "SHOW"),
    ("select pg_try_advisory_xact_lock(42)", "SELECT 1"),
    ("select pg_current_xact_id() is not null", "SELECT 1"),
    ("select txid_current() is not null", "SELECT 1"),
    ("select pg_is_in_recovery()", "SELECT 1"),
    ("select pg_current_wal_lsn() is not null", "SELECT 1"),
    ("select set_config('work_mem', '5MB', true)", "SELECT 1"),
    ("notify nobody", "NOTIFY"),
    ("select pg_notify('nobody', 'hears')", "SELECT 1"),
    ("create view seen as select nextval('seq') n", "CREATE VIEW"),
    ("select n from seen", "SELECT 1"),
    ("create unlogged table fleeting as select 1 i", "SELECT 1"),
    ("select i from fleeting", "SELECT 1"),
    ("analyze items", "ANALYZE"),
    ("vacuum items", "VACUUM"),
    ("truncate copied", "TRUNCATE TABLE"),
    (
        "select 1; insert into items values (40, 'forty')",
        "INSERT 0 1",
    ),
    (
        "insert into items values (41, 'fortyone'); select 1",
        "SELECT 1",
    ),
];

#[test]
fn whatever_may_write_runs_on_the_primary() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    client.exec(
        "create sequence seq;
         create function writes(i int) returns int language plpgsql as \
            $$ begin insert into items values (i, 'by function'); return i; end $$;
         create procedure proc(i int) language sql as $$ insert into items values (i, 'by procedure') $$",
    );
    for (sql, tag) in WRITES {
        // The replicas could be asked.
        stage.settled(&mut client);
        let (frames, seen) = stage.ask(&mut client, sql);
        assert_eq!(frames::error(&frames), None, "{sql}");
        // What was made a moment ago may be known as such only by a replica that has no such thing.
        let is_new = ["select n from seen", "select i from fleeting"].contains(&sql);
        let is_right = if is_new {
            seen[0] == PRIMARY
        } else {
            seen == [PRIMARY]
        };
        assert!(is_right, "{sql}: {seen:?}");
        let done = frames.iter().rfind(|frame| frame.tag == b'C').unwrap();
        assert_eq!(done.strings()[0], tag, "{sql}");
    }
    let ids = client.value("select string_agg(id::text, ' ' order by id) from items");
    assert_eq!(ids, "1 2 3 30 31 40 41");
}

#[test]
fn copy_in_runs_on_the_primary() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    stage.settled(&mut client);
    let mark = mark();
    let since = stage.fleet.now();
    client.send(&Request::new().query(&format!("copy items from stdin {mark}")));
    client.until('G');
    let data = Request::new().copy_data(b"50\tfifty\n").copy_done();
    assert_eq!(frames::error(&client.ask(&data)), None);
    assert_eq!(stage.fleet.seen(&since, &mark), [PRIMARY]);
    for _ in 0..20 {
        assert_eq!(client.value("select count(*) from items"), "4");
    }
}

#[test]
fn errors_are_the_primarys_or_the_replicas_and_come_once() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    stage.settled(&mut client);
    for (sql, code) in [
        ("select 1 / 0", "22012"),
        ("select * from nowhere", "42P01"),
        ("select nothing from items", "42703"),
        ("select unheard_of(1)", "42883"),
        ("selec 1", "42601"),
        ("insert into items values (1, 'again')", "23505"),
        ("select 1; select 1 / 0; select 2", "22012"),
        ("select 1 / (3 - id) from items order by id", "22012"),
    ] {
        for _ in 0..5 {
            let frames = client.query(sql);
            let errors = frames.iter().filter(|frame| frame.tag == b'E').count();
            assert_eq!((frames::code(&frames).as_str(), errors), (code, 1), "{sql}");
            client.is_in_step();
        }
    }
}

#[test]
fn session_mode_never_splits() {
    let stage = Stage::over(shared(), |tenant| tenant.mode(Mode::Session));
    let mut client = stage.furnished();
    // Another tenant of another proxy shows that the replicas could be asked.
    let other = Stage::over(shared(), |tenant| tenant);
    other.settled(&mut other.client());
    for _ in 0..20 {
        stage.on_primary(&mut client, "select count(*) from items");
    }
    client.exec("begin read only");
    assert_eq!(client.value("select pg_is_in_recovery()"), "f");
    client.exec("commit");
}

#[test]
fn statement_mode_splits() {
    let stage = Stage::over(shared(), |tenant| tenant.mode(Mode::Statement));
    let mut client = stage.furnished();
    let sql = "select count(*) from items";
    assert_eq!(stage.on_replica(&mut client, sql), ["3"]);
    stage.on_primary(&mut client, "delete from items where id = 3");
    assert_eq!(client.value(sql), "2");
}

#[test]
fn without_splitting_all_reads_stay() {
    let stage = Stage::over(shared(), |tenant| tenant.set("read_splitting", false));
    let mut client = stage.furnished();
    let other = Stage::over(shared(), |tenant| tenant);
    other.settled(&mut other.client());
    for _ in 0..20 {
        stage.on_primary(&mut client, "select count(*) from items");
    }
}

#[test]
fn a_read_only_key_is_served_by_replicas() {
    let fleet = shared();
    let place = fleet.place();
    let reader = place.add_reader();
    let log = format!("alter role {reader} set log_statement = 'all'");
    place.admin().exec(&log);
    let role = place.role();
    let grant = format!("grant usage on schema {role} to {reader}");
    place.admin().exec(&grant);
    fleet.catch_up();
    let stage = Stage::over(fleet, |_| {
        crate::harness::Tenant::new("acme", &place)
            .set("read_only_role", reader.as_str())
            .set("read_only_password", ROLE_PASSWORD)
            .key(Key::new("writer"))
            .key(Key::new("reader").set("scope", "read_only"))
    });
    let mut writer = stage.connect().password("writer").login();
    writer.exec("create table items (id int); insert into items values (1)");
    let mut client = stage.connect().password("reader").login();
    let sql = format!("select count(*) from {role}.items");
    assert_eq!(stage.on_replica(&mut client, &sql), ["1"]);
    let insert = format!("insert into {role}.items values (2)");
    let refusal = client.fails(&insert);
    assert!(["42501", "25006"].contains(&refusal.code()), "{refusal:?}");
    for round in 2..50 {
        writer.exec(&format!("insert into items values ({round})"));
        assert_eq!(client.value(&sql), round.to_string());
    }
}

#[test]
fn long_and_deep_statements_get_their_answers() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    stage.settled(&mut client);
    let sums = format!("select 0{}", " + 1".repeat(3000));
    let minus = format!("select {}1", "- ".repeat(6000));
    let nots = format!("select {}true", "not ".repeat(3000));
    let parentheses = format!("select {}1{}", "(".repeat(6000), ")".repeat(6000));
    let cases = format!(
        "select {}1{}",
        "case when true then ".repeat(600),
        " end".repeat(600)
    );
    let arrays = format!("select {}1{}", "array[".repeat(6), "]".repeat(6));
    let mut direct = stage.proxy.place("acme").direct().login();
    for sql in [sums, minus, nots, parentheses, cases, arrays] {
        let expected = direct.query(&sql);
        let frames = client.query(&sql);
        let start = &sql[..40];
        assert_eq!(firsts(&frames), firsts(&expected), "{start}");
        assert_eq!(frames::code(&frames), frames::code(&expected), "{start}");
        client.is_in_step();
    }
    let ten_megabytes = "x".repeat(10_000_000);
    let read = format!("select length('{ten_megabytes}')");
    assert_eq!(client.value(&read), "10000000");
    let request = Request::new().run(&read, &[]).sync();
    assert_eq!(firsts(&client.ask(&request)), ["10000000"]);
    client.exec(&format!("insert into items values (99, '{ten_megabytes}')"));
    let length = "select length(name) from items where id = 99";
    assert_eq!(client.value(length), "10000000");
}
