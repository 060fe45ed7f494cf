//! What tenants use is counted, and is in the registry once.

use crate::harness::{
    Client, Connect, Postgres, Proxy, Request, books::Books, eventually, eventually_some,
    http::Http, programs, proxy::PROGRAM, proxy_file::KEY,
};
use serde_json::{Value, json};
use std::process::Command;

/// Often enough for tests to see it.
const SOON: &str = "100ms";

/// So seldom that only an end writes.
const NEVER_HERE: &str = "10m";

/// A registry with `acme` in it, and a proxy that writes so often.
fn acme(interval: &str) -> (Books, Proxy) {
    let postgres = Postgres::shared();
    let books = Books::new(postgres);
    let proxy = books
        .proxy()
        .admin()
        .set_usage("flush_interval", interval)
        .start();
    books.add_cluster(postgres.endpoint());
    books.add("acme", &postgres.place());
    (books, proxy)
}

fn connect(proxy: &Proxy) -> Connect {
    Connect::to(proxy.address()).user("acme").password(KEY)
}

fn found(proxy: &Proxy) -> Client {
    let connect = connect(proxy);
    eventually_some("the tenant logs in", || connect.try_login().ok())
}

/// A sum of `acme`'s in the registry.
fn kept(books: &Books, what: &str) -> i64 {
    let sql = format!(
        "select coalesce(sum({what}), 0)::bigint from pgusher.usage_hourly where tenant = 'acme'"
    );
    books.admin().value(&sql).parse().unwrap()
}

fn peak(books: &Books) -> i64 {
    let sql = "select coalesce(max(connections_peak), 0) from pgusher.usage_hourly";
    books.admin().value(sql).parse().unwrap()
}

fn end(proxy: &mut Proxy) {
    proxy.signal("TERM");
    assert!(proxy.end().success());
}

fn query(client: &mut Client, times: usize) {
    for _ in 0..times {
        client.exec("select 1");
    }
}

fn run(proxy: &Proxy, arguments: &[&str]) -> programs::Run {
    let mut command = Command::new(PROGRAM);
    programs::run(command.args(arguments).current_dir(proxy.folder()))
}

fn json_of(proxy: &Proxy, arguments: &[&str]) -> Value {
    let out = run(proxy, &[arguments, &["--json"]].concat());
    serde_json::from_str(&out.succeeded().out).unwrap()
}

/// The admin API with a key of `acme`'s.
fn http(proxy: &Proxy) -> Http {
    let made = json_of(proxy, &["key", "create", "acme"]);
    Http::new(proxy.admin_port()).token(made["key"].as_str().unwrap())
}

/// Ten statements in eight transactions, 39 rows, one error.
fn work(client: &mut Client) {
    client.exec("create table t (i int, s text)");
    client.exec("insert into t select g, 'x' from generate_series(1, 10) g");
    client.exec("begin");
    client.exec("update t set s = 'y' where i <= 4");
    client.exec("commit");
    client.exec("select 1; select 2");
    client.fails("select nonsense");
    let request = Request::new().run("select generate_series(1, $1::int)", &["7"]);
    assert_eq!(client.ask(&request.sync()).len(), 11);
    client.send(&Request::new().query("copy t from stdin"));
    client.until('G');
    let rows = Request::new().copy_data(b"1\ta\n2\tb\n3\tc\n");
    client.ask(&rows.copy_done());
    client.exec("copy t to stdout");
}

fn has_all_the_work(books: &Books) {
    let counts = "array[sum(queries), sum(transactions), sum(rows), sum(replica_transactions), \
                  max(connections_peak)]";
    let sql = format!("select {counts} from pgusher.usage_hourly where tenant = 'acme'");
    assert_eq!(books.admin().value(&sql), "{10,8,39,0,1}");
    // A session that is open at the end is told so.
    let errors = "select sqlstate || ' ' || sum(count) from pgusher.usage_error \
                  where sqlstate <> '57P01' group by sqlstate";
    assert_eq!(books.admin().values(errors), ["42703 1"]);
}

#[test]
fn a_session_is_counted_to_the_last_row_while_it_is_open_and_once() {
    let (books, mut proxy) = acme(SOON);
    let mut client = found(&proxy);
    work(&mut client);
    eventually("it is written while it is open", || {
        kept(&books, "queries") == 10 && kept(&books, "rows") == 39
    });
    has_all_the_work(&books);
    assert!(kept(&books, "client_bytes") > 300);
    assert!(kept(&books, "server_bytes") > 300);
    let time = kept(&books, "server_time_us");
    assert!((1..60_000_000).contains(&time), "{time}");
    drop(client);
    end(&mut proxy);
    has_all_the_work(&books);
}

#[test]
fn the_last_batch_is_written_before_the_process_ends() {
    let (books, mut proxy) = acme(NEVER_HERE);
    let mut client = found(&proxy);
    work(&mut client);
    assert_eq!(kept(&books, "queries"), 0);
    end(&mut proxy);
    has_all_the_work(&books);
}

#[test]
fn several_proxies_add_up() {
    let (books, mut first) = acme(SOON);
    let other = books.proxy().set_usage("flush_interval", SOON);
    let mut second = other.start();
    query(&mut found(&first), 7);
    query(&mut found(&second), 5);
    eventually("both are written", || kept(&books, "queries") == 12);
    query(&mut found(&second), 1);
    end(&mut first);
    end(&mut second);
    assert_eq!(kept(&books, "queries"), 13);
    assert_eq!(kept(&books, "transactions"), 13);
    let processes = "select count(*) from pgusher.usage_batch";
    assert_eq!(books.admin().value(processes), "2");
}

#[test]
fn a_killed_proxy_loses_what_it_had_not_written_and_nothing_is_there_twice() {
    let (books, mut proxy) = acme(SOON);
    let mut client = found(&proxy);
    query(&mut client, 20);
    eventually("it is written", || kept(&books, "queries") == 20);
    query(&mut client, 30);
    proxy.signal("KILL");
    assert!(!proxy.end().success());
    let left = kept(&books, "queries");
    assert!((20..=50).contains(&left), "{left}");
    proxy.start_again();
    query(&mut found(&proxy), 5);
    eventually("it goes on", || kept(&books, "queries") >= left + 5);
    end(&mut proxy);
    assert_eq!(kept(&books, "queries"), left + 5);
}

#[test]
fn a_batch_whose_commit_nobody_heard_of_is_not_added_twice() {
    let (books, mut proxy) = acme(SOON);
    let mut client = found(&proxy);
    query(&mut client, 1);
    eventually("the first is written", || kept(&books, "queries") == 1);
    // Longer than the proxy waits for it.
    books.admin().exec(
        "create table public.slow (sequence bigint); \
         create function public.slowly() returns trigger language plpgsql as $$ begin \
             if not exists (select from public.slow) then \
                 insert into public.slow values (new.sequence); perform pg_sleep(7); \
             end if; return null; end $$; \
         create constraint trigger slowly after update on pgusher.usage_batch \
             deferrable initially deferred for each row execute function public.slowly()",
    );
    query(&mut client, 3);
    eventually("it could not be written in time", || {
        proxy
            .log()
            .contains("what tenants use can't be written now")
    });
    query(&mut client, 4);
    eventually("it was written all the same", || {
        kept(&books, "queries") == 8
    });
    let slow = books.admin().values("select sequence from public.slow");
    assert_eq!(slow.len(), 1, "the commit of a batch was late, and came");
    end(&mut proxy);
    assert_eq!(kept(&books, "queries"), 8);
    assert_eq!(kept(&books, "rows"), 8);
}

#[test]
fn while_the_registry_is_down_it_is_counted_and_written_when_it_is_back() {
    let mut postgres = Postgres::start();
    let books = Books::new(&postgres);
    let mut proxy = books.proxy().set_usage("flush_interval", SOON).start();
    books.add_cluster(Postgres::shared().endpoint());
    books.add("acme", &Postgres::shared().place());
    books.are_heard_by(&proxy);
    let mut client = found(&proxy);
    query(&mut client, 3);
    eventually("it is written", || kept(&books, "queries") == 3);
    postgres.stop();
    query(&mut client, 4);
    eventually("it can't be written", || {
        proxy
            .log()
            .contains("what tenants use can't be written now")
    });
    query(&mut connect(&proxy).login(), 5);
    postgres.run();
    eventually("all of it is written", || kept(&books, "queries") == 12);
    end(&mut proxy);
    assert_eq!(kept(&books, "queries"), 12);
    let told = proxy
        .log()
        .matches("what tenants use can't be written")
        .count();
    assert_eq!(told, 1, "{}", proxy.log());
}

#[test]
fn the_most_clients_at_the_same_time_are_the_peak() {
    let (books, proxy) = acme(SOON);
    let three = [found(&proxy), found(&proxy), found(&proxy)];
    eventually("three are seen", || peak(&books) == 3);
    drop(three);
    let have_left = |count: usize| {
        eventually("they have left", || {
            proxy.log().matches("client disconnected").count() == count
        });
    };
    have_left(3);
    for count in 4..9 {
        query(&mut found(&proxy), 1);
        have_left(count);
    }
    eventually("others come and go", || kept(&books, "queries") == 5);
    assert_eq!(peak(&books), 3);
}

#[test]
fn waiting_for_a_server_is_counted_and_so_is_the_time_that_one_is_lent() {
    let (books, proxy) = acme(SOON);
    books
        .admin()
        .exec("update pgusher.tenant set pool_size = 1 where id = 'acme'");
    let mut holder = found(&proxy);
    let mut waiter = found(&proxy);
    holder.exec("begin");
    waiter.send(&Request::new().query("select 1"));
    let is_lent = || kept(&books, "server_time_us") > 300_000;
    eventually("an open transaction's server is counted", is_lent);
    holder.exec("commit");
    waiter.until_ready();
    eventually("so is the wait", || kept(&books, "wait_time_us") > 200_000);
    let (lent, wait) = (kept(&books, "server_time_us"), kept(&books, "wait_time_us"));
    assert!(wait < lent + 2_000_000, "waited {wait}, lent {lent}");
}

#[test]
fn the_command_tells_it_by_days_and_hours_and_the_api_by_the_month() {
    let (books, proxy) = acme(SOON);
    work(&mut found(&proxy));
    eventually("it is written", || kept(&books, "rows") == 39);
    // The same hour of the day before, and one of another year.
    books.admin().exec(
        "insert into pgusher.usage_hourly (tenant, hour, queries, connections_peak) \
         select 'acme', date_trunc('hour', now(), 'UTC') - t, 100, 9 \
         from unnest('{24h,25h,10000h}'::interval[]) t",
    );
    let usage = |options: &[&str]| {
        let command = ["tenant", "usage", "acme"];
        json_of(&proxy, &[&command, options].concat())
    };
    let days = usage(&["--from", "2d"]);
    let total = &days["total"];
    assert_eq!(
        (&total["queries"], &total["transactions"], &total["rows"]),
        (&json!(210), &json!(8), &json!(39)),
        "{days}"
    );
    assert_eq!(total["errors"], json!({"42703": 1}));
    assert_eq!(total["connections_peak"], 9);
    assert!(days["parts"].as_array().unwrap().len() >= 2);
    let hours = usage(&["--by", "hour", "--from", "1h"]);
    assert_eq!(hours["total"]["queries"], 10, "{hours}");
    let before = usage(&["--from", "2020-01-01", "--to", "2d"]);
    assert_eq!(before["total"]["queries"], 100, "{before}");
    let csv = run(
        &proxy,
        &[
            "tenant", "usage", "acme", "--by", "hour", "--from", "1h", "--csv",
        ],
    );
    let csv = csv.succeeded().out;
    let lines: Vec<_> = csv.lines().collect();
    assert!(lines[0].starts_with("start,queries,transactions,"), "{csv}");
    let mut lines = lines.into_iter();
    assert!(
        lines.any(|line| line.contains("Z,10,8,0,39,") && line.ends_with(",42703:1")),
        "{csv}"
    );
    let table = run(&proxy, &["tenant", "usage", "acme", "--by", "hour"]);
    assert!(table.succeeded().out.contains("42703:1"));
    let nobody = run(&proxy, &["tenant", "usage", "nobody"]);
    assert!(
        !nobody.is_success && nobody.err.contains("nobody"),
        "{}",
        nobody.err
    );
    the_api_tells_the_month(&proxy);
}

fn the_api_tells_the_month(proxy: &Proxy) {
    let http = http(proxy);
    // What stands under its name from before it was made is not its own.
    let month = 10;
    let quotas = http.get("/api/tenants/acme/quota").ok(200);
    let quotas = quotas["quotas"].as_array().unwrap().iter();
    let current = |name: &str| {
        let mut quotas = quotas.clone();
        quotas.find(|quota| quota["name"] == name).unwrap()["current"].clone()
    };
    assert_eq!(current("api_calls"), month);
    assert_eq!(current("transactions"), 8);
    let parts = http.get("/api/tenants/acme/usage?by=hour").ok(200)["parts"].clone();
    let mut parts = parts.as_array().unwrap().iter();
    let work = (&json!(10), &json!({"42703": 1}));
    assert!(parts.any(|part| (&part["queries"], &part["errors"]) == work));
    let old = "by=day&from=2020-01-01T00:00:00Z&to=2026-01-01T00:00:00Z";
    http.get(&format!("/api/tenants/acme/usage?{old}")).ok(200);
    http.get("/api/tenants/acme/usage?by=year").problem(422);
    for path in ["usage", "analytics"] {
        let told = http.get(&format!("/api/tenants/acme/{path}")).ok(200);
        assert_eq!(
            (&told["api_calls"], &told["transactions"]),
            (&json!(month), &json!(8))
        );
    }
}

#[test]
fn where_nothing_is_written_nothing_is_claimed() {
    let (books, mut proxy) = acme("0s");
    let mut client = found(&proxy);
    query(&mut client, 3);
    let told: Value = serde_json::from_str(&client.value("show pgusher.usage")).unwrap();
    assert!(told["queries"].as_i64().unwrap() >= 3, "{told}");
    let http = http(&proxy);
    let usage = http.get("/api/tenants/acme/usage").ok(200);
    assert_eq!(usage["api_calls"], Value::Null);
    end(&mut proxy);
    assert_eq!(kept(&books, "queries"), 0);
}

#[test]
fn a_tenant_sees_its_own_usage_in_psql_and_nobody_elses() {
    let (books, proxy) = acme(SOON);
    books.add("other", &Postgres::shared().place());
    let other = Connect::to(proxy.address()).user("other").password(KEY);
    let mut other = eventually_some("it logs in", || other.try_login().ok());
    query(&mut other, 50);
    let mut client = found(&proxy);
    let mut second = found(&proxy);
    client.fails("select nonsense");
    query(&mut client, 4);
    query(&mut second, 2);
    eventually("both sessions are in it", || {
        let told = client.value("select current_setting('pgusher.usage')");
        let told: Value = serde_json::from_str(&told).unwrap();
        let queries = told["queries"].as_i64().unwrap();
        assert_eq!(told["errors"], json!({"42703": 1}), "{told}");
        assert_eq!(
            (&told["connections"], &told["connections_peak"]),
            (&json!(2), &json!(2))
        );
        assert!(queries < 50, "{told}");
        told["rows"].as_i64().unwrap() >= 6
    });
}

#[test]
fn hours_that_are_too_old_are_removed() {
    let postgres = Postgres::shared();
    let books = Books::new(postgres);
    let builder = books.proxy().set_usage("flush_interval", SOON);
    let mut proxy = builder.set_usage("retention_days", 40).start();
    books.add_cluster(postgres.endpoint());
    end(&mut proxy);
    books.admin().exec(
        "insert into pgusher.usage_hourly (tenant, hour, queries) \
         select 'acme', date_trunc('hour', now()) - t, 1 from unnest('{39d,41d,900d}'::interval[]) t; \
         insert into pgusher.usage_error select 'acme', now() - interval '41d', '42P01', 1; \
         insert into pgusher.usage_batch values (gen_random_uuid(), 1, now() - interval '41d')",
    );
    proxy.start_again();
    eventually("only what is young is left", || {
        kept(&books, "queries") == 1
            && books.admin().value("select count(*) from pgusher.usage_error") == "0"
            && books.admin().value(
                "select count(*) from pgusher.usage_batch where written_at < now() - interval '40d'",
            ) == "0"
    });
}

#[test]
fn storage_is_measured_by_the_database_by_the_schema_and_by_rows() {
    let postgres = crate::api_desk::postgres();
    let office = crate::harness::office::Office::new(postgres.endpoint());
    office.add_cluster("main", postgres.endpoint(), &[]);
    for (id, tier) in [("big", "database"), ("mid", "schema"), ("low", "row")] {
        office
            .run(&["tenant", "create", id, "--tier", tier])
            .succeeded();
    }
    let measured = |id: &str| office.json(&["tenant", "usage", id, "--measure"])["total"].clone();
    let whole = measured("big")["storage_bytes"].as_i64().unwrap();
    let sql = "select pg_database_size(database_name::name) from pgusher.tenant where id = 'big'";
    let told: i64 = office.admin().value(sql).parse().unwrap();
    assert!((told - whole).abs() < 2_000_000, "{told} is not {whole}");
    let before = measured("mid")["storage_bytes"].as_i64().unwrap();
    let mut admin = office.admin();
    let place = "select database_name || ' ' || schema_name from pgusher.tenant where id = 'mid'";
    let place = admin.value(place);
    let (database, schema) = place.split_once(' ').unwrap();
    let mut inside = postgres.endpoint().admin_of(database);
    inside.exec(&format!(
        "create table {schema}.t as select repeat('x', 1000) from generate_series(1, 2000)"
    ));
    let after = measured("mid")["storage_bytes"].as_i64().unwrap();
    assert!(
        (2_000_000..4_000_000).contains(&(after - before)),
        "{before}, {after}"
    );
    // A table that is locked keeps nobody waiting: what was measured before stays.
    inside.exec(&format!("begin; lock {schema}.t"));
    assert_eq!(measured("mid")["storage_bytes"], after);
    inside.exec("commit");
    assert_eq!(measured("low")["storage_bytes"], 0);
    let at = "select measured_at > now() - interval '1 min' from pgusher.usage_storage where tenant = 'mid'";
    assert_eq!(admin.value(at), "t");
}

#[test]
fn a_proxy_measures_storage_by_itself() {
    let (books, mut proxy) = acme(SOON);
    end(&mut proxy);
    let other = books.proxy().set_usage("storage_interval", "1s");
    let _other = other.start();
    eventually("it is measured", || {
        let sql = "select bytes from pgusher.usage_storage where tenant = 'acme'";
        let bytes = books.admin().values(sql).pop();
        bytes.is_some_and(|bytes| bytes.parse::<i64>().unwrap() > 1_000_000)
    });
}
