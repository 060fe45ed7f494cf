//! Uses of API keys: when the last one was, how many in an hour, what for.

use crate::harness::{
    Client, Connect, Key, Place, Postgres, Proxy, Tenant, books::Books, eventually,
    eventually_some, http::Http, programs, proxy::PROGRAM, proxy_file::KEY,
};
use serde_json::{Value, json};
use std::{process::Command, thread};

/// A registry with `acme` in it, and a proxy with an admin listener.
fn acme() -> (Books, Proxy, Place) {
    let postgres = Postgres::shared();
    let books = Books::new(postgres);
    let proxy = books.proxy().admin().start();
    books.add_cluster(postgres.endpoint());
    let place = postgres.place();
    books.add("acme", &place);
    (books, proxy, place)
}

fn run(proxy: &Proxy, arguments: &[&str]) -> programs::Run {
    programs::run(
        Command::new(PROGRAM)
            .args(arguments)
            .current_dir(proxy.folder()),
    )
}

fn json(proxy: &Proxy, arguments: &[&str]) -> Value {
    let out = run(proxy, &[arguments, &["--json"]].concat())
        .succeeded()
        .out;
    serde_json::from_str(&out).unwrap()
}

/// A new key of `acme`: its id and itself.
fn new_key(proxy: &Proxy, options: &[&str]) -> (String, String) {
    let made = json(proxy, &[&["key", "create", "acme"], options].concat());
    let text = |field: &str| made[field].as_str().unwrap().to_owned();
    (text("id"), text("key"))
}

fn connect(proxy: &Proxy, key: &str) -> Connect {
    Connect::to(proxy.address()).user("acme").password(key)
}

fn found(connect: &Connect) -> Client {
    eventually_some("the tenant logs in", || connect.try_login().ok())
}

fn with_key(proxy: &Proxy, key: &str) -> Http {
    Http::new(proxy.admin_port()).token(key)
}

/// Has every write of a last use counted.
fn count_writes(books: &Books) {
    books.admin().exec(
        "create table writes (id text); \
         create function count_write() returns trigger language plpgsql as \
             $$ begin insert into public.writes values (new.id); return null; end $$; \
         create trigger count_write after update on pgusher.api_key \
             for each row execute function count_write()",
    );
}

fn last_use(books: &Books, key: &str) -> Option<String> {
    let sql = format!(
        "select last_used_at from pgusher.api_key where id = '{key}' and last_used_at is not null"
    );
    books.admin().values(&sql).pop()
}

#[test]
fn a_login_is_seen_in_the_list_of_keys_and_so_is_a_request() {
    let (_books, proxy, _) = acme();
    let (first, secret) = new_key(&proxy, &[]);
    let (second, token) = new_key(&proxy, &[]);
    found(&connect(&proxy, &secret)).is_in_step();
    assert_eq!(
        with_key(&proxy, &token).get("/api/tenants/acme").status,
        200
    );
    let used = || -> Vec<String> {
        let list = json(&proxy, &["key", "list", "acme"]);
        let keys = list.as_array().unwrap().iter();
        let used = keys.filter(|key| key["last_used_at"].is_string());
        used.map(|key| key["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut both = [first, second];
    both.sort();
    eventually("both keys were used, and no other", || {
        let mut used = used();
        used.sort();
        used == both
    });
}

#[test]
fn a_storm_of_logins_is_written_once_and_its_last_at_the_end() {
    let (books, mut proxy, _) = acme();
    count_writes(&books);
    found(&connect(&proxy, KEY)).is_in_step();
    let first = eventually_some("it is written", || last_use(&books, "acme"));
    let connect = connect(&proxy, KEY);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| connect.login().is_in_step()));
        }
    });
    let generation = "select generation from pgusher.tenant where id = 'acme'";
    let before = books.admin().value(generation);
    proxy.signal("TERM");
    assert!(proxy.end().success());
    let last = last_use(&books, "acme").unwrap();
    assert!(last > first, "{last} is not after {first}");
    let writes = books.admin().values("select id from writes");
    assert_eq!(writes, ["acme", "acme"], "one at first, one at the end");
    assert_eq!(books.admin().value(generation), before, "nobody is told");
}

#[test]
fn a_use_while_the_registry_is_down_is_written_when_it_is_back() {
    let mut postgres = Postgres::start();
    let books = Books::new(&postgres);
    let proxy = books.proxy().start();
    books.add_cluster(Postgres::shared().endpoint());
    books.add("acme", &Postgres::shared().place());
    books.add_key("acme", "second", "another key");
    books.are_heard_by(&proxy);
    found(&connect(&proxy, KEY)).is_in_step();
    postgres.stop();
    eventually("the proxy has noticed", || {
        proxy.log().contains("the registry does not answer")
    });
    connect(&proxy, "another key").login().is_in_step();
    postgres.run();
    eventually_some("it is written", || last_use(&books, "second"));
}

#[test]
fn a_row_that_somebody_holds_holds_up_no_other() {
    let (books, proxy, _) = acme();
    books.add_key("acme", "second", "another key");
    let mut holder = books.admin();
    holder.exec("begin; select from pgusher.api_key where id = 'acme' for update");
    found(&connect(&proxy, KEY)).is_in_step();
    found(&connect(&proxy, "another key")).is_in_step();
    eventually_some("the other is written", || last_use(&books, "second"));
    assert_eq!(last_use(&books, "acme"), None);
    holder.exec("commit");
    eventually_some("so is this one", || last_use(&books, "acme"));
}

#[test]
fn beyond_its_limit_in_an_hour_a_key_is_told_when_to_come_back() {
    let (_books, proxy, _) = acme();
    let limit = ["--rate-limit-per-hour", "3"];
    let ((_, limited), (_, other)) = (new_key(&proxy, &limit), new_key(&proxy, &limit));
    // Connections and requests count together.
    found(&connect(&proxy, &limited)).is_in_step();
    let http = with_key(&proxy, &limited);
    for _ in 0..2 {
        assert_eq!(http.get("/api/tenants/acme").status, 200);
    }
    let refused = connect(&proxy, &limited).refused();
    assert_eq!(refused.code(), "53400");
    assert!(
        refused
            .text()
            .contains("rate_limit_per_hour of the API key"),
        "{refused:?}"
    );
    assert!(
        refused.text().contains("The limit is 3. Try again in "),
        "{refused:?}"
    );
    let answer = http.get("/api/tenants/acme");
    let detail = answer.problem(429);
    assert!(
        detail.contains("rate_limit_per_hour of the API key, 3"),
        "{detail}"
    );
    let seconds: u32 = answer.header("retry-after").parse().unwrap();
    assert!(
        (600..=1201).contains(&seconds),
        "a third of an hour: {seconds}"
    );
    connect(&proxy, &other).login().is_in_step();
    connect(&proxy, KEY).login().is_in_step();
}

#[test]
fn a_key_of_the_file_has_its_hour_too() {
    let place = Postgres::shared().place();
    let key = Key::new("limited").set("rate_limit_per_hour", 2);
    let proxy = Proxy::of([Tenant::new("acme", &place).key(key).key(Key::new(KEY))]).start();
    for _ in 0..2 {
        connect(&proxy, "limited").login().is_in_step();
    }
    assert_eq!(connect(&proxy, "limited").refused().code(), "53400");
    connect(&proxy, KEY).login().is_in_step();
}

#[test]
fn a_permission_to_read_makes_a_key_that_reads() {
    let (_books, proxy, _) = acme();
    let made = json(&proxy, &["key", "create", "acme", "--permission", "read"]);
    assert_eq!(made["scope"], "read_only");
    let options = ["--permission", "write", "--permission", "orders.list"];
    let made = json(&proxy, &[&["key", "create", "acme"][..], &options].concat());
    assert_eq!(made["scope"], "read_write");
    assert_eq!(made["permissions"], json!(["write", "orders.list"]));
    let told = run(
        &proxy,
        &["key", "create", "acme", "--permission", "orders.list"],
    );
    let told = told.succeeded().err;
    assert!(
        told.contains("pgusher makes nothing of \"orders.list\""),
        "{told}"
    );
    for (scope, permission) in [("read_write", "read"), ("read_only", "write")] {
        let wrong = ["--scope", scope, "--permission", permission];
        let wrong = run(&proxy, &[&["key", "create", "acme"][..], &wrong].concat());
        assert!(
            !wrong.is_success && wrong.err.contains("permissions: "),
            "{}",
            wrong.err
        );
    }
}

#[test]
fn a_recorded_permission_to_read_holds_whatever_its_scope_says() {
    let (books, proxy, place) = acme();
    let reader = format!("{}_reader", place.role());
    let database = place.database_name();
    place.admin().exec(&format!(
        "create role {reader} login in role by_trust; grant connect on database {database} to {reader}"
    ));
    let read = format!("update pgusher.tenant set read_only_role = '{reader}' where id = 'acme'");
    books.admin().exec(&read);
    books.add_key("acme", "reads", "a reading key");
    let mut client = found(&connect(&proxy, "a reading key"));
    assert_eq!(client.value("select current_user"), place.role());
    books
        .admin()
        .exec("update pgusher.api_key set permissions = '{read,orders.list}' where id = 'reads'");
    eventually("new sessions only read", || {
        let login = connect(&proxy, "a reading key").try_login();
        login.is_ok_and(|mut client| client.value("select current_user") == reader)
    });
}
