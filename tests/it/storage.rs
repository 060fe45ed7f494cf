//! A tenant whose storage is full may read and free space, and nothing else; one that comes near that is told.
//!
//! What was measured is written here by hand; that it is measured: `storage_measured`.

use crate::harness::{
    Client, Connect, Fields, Frame, Postgres, Proxy, Request, books::Books, eventually,
    eventually_some, frames::error, programs, proxy::PROGRAM, proxy_file::KEY,
};
use std::process::Command;

/// A registry with `acme` in it, and a proxy that measures nothing by itself.
fn acme() -> (Books, Proxy) {
    let postgres = Postgres::shared();
    let books = Books::new(postgres);
    let proxy = books.proxy().set_usage("storage_interval", "0s").start();
    books.add_cluster(postgres.endpoint());
    books.add("acme", &postgres.place());
    (books, proxy)
}

fn connect(proxy: &Proxy, tenant: &str) -> Connect {
    Connect::to(proxy.address()).user(tenant).password(KEY)
}

fn found(proxy: &Proxy, tenant: &str) -> Client {
    let connect = connect(proxy, tenant);
    eventually_some("the tenant logs in", || connect.try_login().ok())
}

/// Has a tenant use so many bytes of so many.
fn measured(books: &Books, tenant: &str, (used, limit): (u64, u64)) {
    books.admin().exec(&format!(
        "begin; insert into pgusher.storage (tenant, bytes, measured_at) \
             values ('{tenant}', {used}, now()) on conflict (tenant) do update set bytes = {used}; \
         update pgusher.tenant set max_storage_bytes = {limit} where id = '{tenant}'; commit"
    ));
}

const NOTHING: &str = "insert into t select 0 where false";

fn can_add(client: &mut Client) -> bool {
    error(&client.query(NOTHING)).is_none()
}

/// Has `acme` be full, as its sessions see it.
fn fill(books: &Books, client: &mut Client) {
    measured(books, "acme", (1000, 1000));
    eventually("it is full", || !can_add(client));
}

fn is_full(error: &Fields) {
    assert_eq!(
        (error.severity(), error.code()),
        ("ERROR", "25006"),
        "{error:?}"
    );
    let says = ["max_storage_bytes, 1000,", "(1000 used)", "DELETE"];
    for text in says {
        assert!(error.text().contains(text), "{error:?} does not say {text}");
    }
}

fn refuses(client: &mut Client, sql: &str) {
    is_full(&client.fails(sql));
}

/// The error of an answer in either protocol.
fn refused(frames: &[Frame]) {
    is_full(&error(frames).expect("it is refused"));
}

/// A session of each pool mode, with a table of a hundred rows.
fn sessions(proxy: &Proxy) -> [Client; 2] {
    let mut first = found(proxy, "acme");
    first.exec("create table t (i int); insert into t select generate_series(1, 100)");
    let session = connect(proxy, "acme").options("-c pgusher.pool_mode=session");
    [first, session.login()]
}

/// Messages that are no notices.
fn kinds(frames: &[Frame]) -> String {
    let kinds = frames.iter().map(Frame::kind);
    kinds.filter(|kind| !"NS".contains(*kind)).collect()
}

#[test]
fn what_adds_is_refused_and_what_reads_or_frees_goes_on() {
    let (books, proxy) = acme();
    for mut client in sessions_made(&books, &proxy) {
        for sql in [
            "insert into t values (1)",
            "/* x */ INSERT INTO t VALUES (1)",
            "update t set i = 1",
            "with x as (insert into t values (1) returning i) select * from x",
            "with x as (delete from t returning i) insert into t select * from x",
            "select i into u from t",
            "create table u (i int)",
            "create temp table u (i int)",
            "create table u as select 1",
            "create index on t (i)",
            "copy t from stdin",
            "do $$ begin insert into t values (1); end $$",
            "explain analyze insert into t values (1)",
            "alter table t add column j int",
            "delete from t where i = 1; insert into t values (1)",
        ] {
            refuses(&mut client, sql);
        }
        assert_eq!(client.value("select count(*) from t"), "100");
        client.exec("select 1; select 2");
        client.exec("copy t to stdout");
        client.exec("delete from t where i = 1");
        client.exec("with x as (delete from t where i = 2 returning i) select * from x");
        client.exec("select * from t where i = 3 for update");
        client.exec("explain analyze delete from t where i = 4");
        client.exec("vacuum full t");
        client.exec("reindex table t");
        client.exec("analyze t");
        client.exec("set application_name = 'x'");
        client.exec("declare c cursor with hold for select 1; close c");
        assert_eq!(client.value("select count(*) from t"), "97");
        client.exec("truncate t");
        client.exec("drop table t");
        // What PostgreSQL refuses anyway, in its own words.
        assert_eq!(client.fails("selec 1").code(), "42601");
        assert_eq!(client.fails("delete from nothing").code(), "42P01");
        client.is_in_step();
    }
}

/// The sessions one after the other, each with its table and a full tenant.
fn sessions_made<'a>(books: &'a Books, proxy: &'a Proxy) -> impl Iterator<Item = Client> + 'a {
    ["transaction", "session"].into_iter().map(|mode| {
        measured(books, "acme", (0, 1000));
        let mut maker = found(proxy, "acme");
        eventually("it has room", || {
            error(&maker.query("create table if not exists t (i int)")).is_none()
        });
        maker.exec("insert into t select generate_series(1, 100)");
        let options = format!("-c pgusher.pool_mode={mode}");
        let mut client = connect(proxy, "acme").options(&options).login();
        fill(books, &mut client);
        client
    })
}

#[test]
fn a_statement_that_was_prepared_before_is_refused_when_it_would_add() {
    let (books, proxy) = acme();
    for mut client in sessions(&proxy) {
        measured(&books, "acme", (0, 1000));
        eventually("it has room", || can_add(&mut client));
        let prepare = Request::new()
            .parse("add", "insert into t values ($1::int)")
            .parse("free", "delete from t where i = $1::int")
            .parse("read", "select count(*) from t")
            .parse("", "insert into t values (7)");
        client.ask(&prepare.sync());
        client.exec("prepare added as insert into t values (8)");
        fill(&books, &mut client);
        let run = |name: &str, values: &[&str]| Request::new().run_prepared(name, values).sync();
        refused(&client.ask(&run("add", &["1"])));
        assert_eq!(kinds(&client.ask(&run("free", &["1"]))), "2CZ");
        assert_eq!(kinds(&client.ask(&run("read", &[]))), "2DCZ");
        refuses(&mut client, "execute added");
        let parse = Request::new().parse("again", "insert into t values (9)");
        assert_eq!(kinds(&client.ask(&parse.sync())), "1Z", "it is not run");
        refused(&client.ask(&run("again", &[])));
        refused(&client.ask(&Request::new().run("insert into t values (3)", &[]).sync()));
        let freed = Request::new().run("delete from t where i = $1::int", &["2"]);
        assert_eq!(kinds(&client.ask(&freed.sync())), "12CZ");
        client.is_in_step();
        client.exec("deallocate added");
    }
}

#[test]
fn within_a_transaction_what_was_read_may_be_deleted_and_an_insert_aborts_it() {
    let (books, proxy) = acme();
    for mut client in sessions(&proxy) {
        fill(&books, &mut client);
        client.exec("begin");
        assert_eq!(client.value("select i from t where i = 5"), "5");
        client.exec("delete from t where i = 5");
        client.exec("commit");
        client.exec("begin");
        client.exec("delete from t");
        refuses(&mut client, "insert into t values (1)");
        assert_eq!(client.fails("select 1").code(), "25P02");
        client.exec("rollback");
        assert_eq!(client.value("select count(*) from t"), "99");
        measured(&books, "acme", (0, 1000));
        eventually("it has room", || can_add(&mut client));
        client.exec("insert into t values (5)");
    }
}

#[test]
fn a_function_that_adds_is_refused_by_postgresql_outside_of_a_block() {
    let (books, proxy) = acme();
    let [mut client, _] = sessions(&proxy);
    client.exec(
        "create function add() returns int language sql as \
         'insert into t values (1) returning 1'",
    );
    fill(&books, &mut client);
    let error = client.fails("select add()");
    is_full(&error);
    assert!(error.text().contains("cannot execute INSERT"), "{error:?}");
    refused(&client.ask(&Request::new().run("select add()", &[]).sync()));
    assert_eq!(client.value("show default_transaction_read_only"), "on");
    client.exec("delete from t where i = 1");
    measured(&books, "acme", (0, 1000));
    eventually("it has room", || can_add(&mut client));
    assert_eq!(client.value("show default_transaction_read_only"), "off");
    assert_eq!(client.value("select add()"), "1");
}

#[test]
fn a_function_that_is_called_by_its_number_may_free_but_not_add() {
    let (books, proxy) = acme();
    for mut client in sessions(&proxy) {
        measured(&books, "acme", (0, 1000));
        eventually("it has room", || can_add(&mut client));
        let object = client.value("select lo_creat(-1)");
        fill(&books, &mut client);
        let call = |number: u32, value: &str| Request::new().function_call(number, &[value]);
        refused(&client.ask(&call(957, "131072")));
        // lo_unlink
        assert_eq!(kinds(&client.ask(&call(964, &object))), "VZ");
        client.is_in_step();
    }
}

#[test]
fn pipelined_statements_are_judged_one_by_one() {
    let (books, proxy) = acme();
    for mut client in sessions(&proxy) {
        fill(&books, &mut client);
        let all = Request::new()
            .query("select 1")
            .query("insert into t values (1)")
            .query("delete from t where i = 1")
            .query("select 2");
        client.send(&all);
        let answers: Vec<_> = (0..4).map(|_| kinds(&client.until_ready())).collect();
        assert_eq!(answers, ["TDCZ", "EZ", "CZ", "TDCZ"]);
        let all = Request::new()
            .run("select 1", &[])
            .sync()
            .run("insert into t values (1)", &[])
            .run("select 3", &[])
            .sync()
            .run("delete from t where i = 2", &[])
            .sync();
        client.send(&all);
        let answers: Vec<_> = (0..3).map(|_| kinds(&client.until_ready())).collect();
        assert_eq!(answers, ["12DCZ", "1EZ", "12CZ"]);
        client.is_in_step();
        assert_eq!(
            client.value("select count(*) from t where i in (1, 2)"),
            "0"
        );
        client.exec("truncate t");
        measured(&books, "acme", (0, 1000));
        eventually("it has room", || can_add(&mut client));
        client.exec("insert into t values (1), (2)");
    }
}

#[test]
fn a_long_text_is_judged_too() {
    let (books, proxy) = acme();
    for mut client in sessions(&proxy) {
        fill(&books, &mut client);
        let long = "x".repeat(200_000);
        refuses(
            &mut client,
            &format!("insert into t select length('{long}')"),
        );
        let add = format!("insert into t select length('{long}')");
        refused(&client.ask(&Request::new().run(&add, &[]).sync()));
        assert_eq!(client.value(&format!("select length('{long}')")), "200000");
        client.exec(&format!("delete from t where i = length('{long}')"));
        client.is_in_step();
    }
}

#[test]
fn who_comes_near_the_limit_is_told_once_a_session() {
    let (books, proxy) = acme();
    let [mut first, mut second] = sessions(&proxy);
    measured(&books, "acme", (800, 1000));
    for client in [&mut first, &mut second] {
        let told = eventually_some("it is told", || {
            let frames = client.query("select 1");
            frames.into_iter().find(|frame| frame.kind() == 'N')
        });
        let told = told.fields();
        assert_eq!(told.severity(), "NOTICE");
        assert!(told.message().contains("80 %"), "{told:?}");
        assert!(
            told.message().contains("max_storage_bytes, 1000"),
            "{told:?}"
        );
        client.exec("insert into t values (1)");
        let again = client.query("select 1");
        assert!(again.iter().all(|frame| frame.kind() != 'N'), "{again:?}");
    }
}

#[test]
fn others_are_not_concerned_and_neither_is_who_only_reads() {
    let (books, proxy) = acme();
    books.add("other", &Postgres::shared().place());
    let [mut client, _] = sessions(&proxy);
    let mut other = found(&proxy, "other");
    other.exec("create table t (i int)");
    fill(&books, &mut client);
    other.exec("insert into t values (1)");
    assert_eq!(other.value("show default_transaction_read_only"), "off");
    assert!(error(&other.query("select 1")).is_none());
}

#[test]
fn the_limit_is_changed_live_and_each_crossing_is_an_event() {
    let (books, proxy) = acme();
    let [mut client, _] = sessions(&proxy);
    measured(&books, "acme", (1000, 0));
    let set = |value: &str| {
        let mut command = Command::new(PROGRAM);
        let change = format!("max_storage_bytes={value}");
        let arguments = ["tenant", "set", "acme", change.as_str()];
        programs::run(command.args(arguments).current_dir(proxy.folder()))
    };
    for (limit, is_full) in [
        ("1250", false),
        ("1000", true),
        ("1100", false),
        ("1000", true),
        ("0", false),
    ] {
        set(limit).succeeded();
        eventually("it holds", || can_add(&mut client) != is_full);
    }
    assert!(!set("-1").is_success);
    let kinds = "select kind from pgusher.event where tenant = 'acme' and kind like 'storage.%' order by seq";
    let kinds = books.admin().values(kinds);
    let expected = [
        "storage.soft",
        "storage.hard",
        "storage.freed",
        "storage.hard",
        "storage.freed",
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn while_the_registry_is_down_a_full_tenant_stays_full() {
    let mut postgres = Postgres::start();
    let books = Books::new(&postgres);
    let proxy = books.proxy().set_usage("storage_interval", "0s").start();
    books.add_cluster(Postgres::shared().endpoint());
    books.add("acme", &Postgres::shared().place());
    let [mut client, _] = sessions(&proxy);
    fill(&books, &mut client);
    books.are_heard_by(&proxy);
    postgres.stop();
    refuses(&mut client, "insert into t values (1)");
    let mut newcomer = connect(&proxy, "acme").login();
    refuses(&mut newcomer, "insert into t values (1)");
    newcomer.exec("delete from t");
}
