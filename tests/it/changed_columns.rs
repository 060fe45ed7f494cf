//! Statements whose columns change after their client was told them: PostgreSQL refuses to run them
//! (0A000), and so it must be on every server.

use crate::harness::{
    Client, Connect, Mode, Postgres, Proxy, Request, Tenant,
    frames::{code, error, firsts},
    proxy::pooled,
    tags,
};

fn prepare(client: &mut Client, name: &str) {
    let request = Request::new().parse(name, "select x from t order by x");
    let frames = client.ask(&request.describe_statement(name).sync());
    assert_eq!(tags(&frames), "1tTZ", "{frames:?}");
}

fn run(client: &mut Client, name: &str) -> (String, Vec<String>) {
    let frames = client.ask(&Request::new().run_prepared(name, &[]).sync());
    (code(&frames), firsts(&frames))
}

/// What a client meets whose table is changed by these commands, and who then prepares again.
fn meets(connect: &Connect, holder: Option<&Connect>, changes: &str) -> Vec<(String, Vec<String>)> {
    let mut admin = connect.login();
    admin.exec("drop table if exists t; create table t(x int); insert into t values (1)");
    let mut client = connect.login();
    prepare(&mut client, "s");
    let mut met = vec![run(&mut client, "s")];
    admin.exec(changes);
    let mut holder = holder.map(Connect::login);
    if let Some(holder) = &mut holder {
        // The server that has the statement is somebody else's now.
        holder.exec("begin");
    }
    met.extend([run(&mut client, "s"), run(&mut client, "s")]);
    if let Some(mut holder) = holder {
        holder.exec("rollback");
    }
    met.push(run(&mut client, "s"));
    prepare(&mut client, "again");
    met.push(run(&mut client, "again"));
    client.ask(&Request::new().close_statement("s").sync());
    prepare(&mut client, "s");
    met.push(run(&mut client, "s"));
    client.is_in_step();
    met
}

const CHANGES: [&str; 6] = [
    "alter table t alter x type text using 'v' || x",
    "drop table t; create table t(x text); insert into t values ('other')",
    "begin; drop table t; create table t(x int[]); insert into t values ('{1,null}'); commit",
    "do $$ begin execute 'alter table t alter x type text'; end $$",
    // The columns stay what they are.
    "drop table t; create table t(y int, x int); insert into t values (1, 2)",
    "alter table t add y int; create table if not exists unrelated()",
];

fn is_as_direct(proxy: &Proxy, holds: bool) {
    for changes in CHANGES {
        let direct = meets(&proxy.place("acme").direct(), None, changes);
        let connect = proxy.connect("acme");
        let holder = holds.then_some(&connect);
        assert_eq!(meets(&connect, holder, changes), direct, "{changes}");
    }
}

#[test]
fn changed_columns_are_refused_on_the_server_that_has_the_statement() {
    is_as_direct(&pooled(Mode::Transaction, 1), false);
}

#[test]
fn changed_columns_are_refused_on_a_server_that_lacks_the_statement() {
    is_as_direct(&pooled(Mode::Transaction, 2), true);
}

#[test]
fn a_batch_with_changed_columns_fails_as_a_whole() {
    let proxy = pooled(Mode::Transaction, 2);
    let mut admin = proxy.connect("acme").login();
    admin.exec("create table t(x int); create table log(x int)");
    let mut client = proxy.connect("acme").login();
    prepare(&mut client, "s");
    admin.exec("alter table t alter x type text");
    let mut holder = proxy.connect("acme").login();
    holder.exec("begin");
    let batch = Request::new()
        .run("insert into log values (1)", &[])
        .run_prepared("s", &[])
        .run("insert into log values (2)", &[])
        .sync();
    let frames = client.ask(&batch);
    let refusal = error(&frames).unwrap();
    assert_eq!(refusal.code(), "0A000", "{refusal:?}");
    assert_eq!(refusal.message(), "cached plan must not change result type");
    assert_eq!(client.value("select count(*) from log"), "0");
    // A table that is gone is PostgreSQL's to complain of.
    admin.exec("drop table t");
    assert_eq!(run(&mut client, "s").0, "42P01");
    client.is_in_step();
    holder.exec("rollback");
}

#[test]
fn a_text_that_is_prepared_again_under_another_path_finds_other_tables() {
    let place = Postgres::shared().database();
    let proxy = Proxy::of([Tenant::new("acme", &place).pool_size(1)]).start();
    let connect = proxy.connect("acme");
    let mut admin = place.admin();
    for schema in ["one", "two"] {
        let role = place.role();
        admin.exec(&format!("create schema {schema} authorization {role}"));
    }
    let mut owner = connect.login();
    owner.exec("create table one.t(x int); insert into one.t values (1)");
    owner.exec("create table two.t(x text); insert into two.t values ('2')");
    let ways = [
        |path: &str| Request::new().query(&format!("set search_path to {path}")),
        |path: &str| Request::new().query(&format!("set local schema '{path}'")),
        |path: &str| {
            let sql = "select set_config('search_path', $1, true)";
            Request::new().run(sql, &[path]).sync()
        },
        |path: &str| {
            let sql = "select SET_CONFIG('search_path', $1, true)";
            Request::new().run(sql, &[path]).sync()
        },
        |path: &str| {
            let sql = "select set_config($1, $2, true)";
            Request::new().run(sql, &["search_path", path]).sync()
        },
    ];
    for sets in ways {
        let mut client = connect.login();
        client.exec("begin");
        for (path, name) in [("one", "a"), ("two", "b"), ("one", "c")] {
            client.ask(&sets(path));
            prepare(&mut client, name);
            let expected = if path == "one" { "1" } else { "2" };
            assert_eq!(
                run(&mut client, name),
                (String::new(), vec![expected.to_owned()])
            );
        }
        client.exec("commit");
    }
}
