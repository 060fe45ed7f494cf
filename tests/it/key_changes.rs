//! API keys of the registry changed after they were made, while their clients run.

use crate::{
    api_desk::Desk,
    harness::{
        Client, Connect, Postgres, Proxy,
        books::Books,
        estate::Estate,
        eventually, eventually_some,
        frames::{code, error},
        programs,
        proxy::PROGRAM,
        proxy_file::KEY,
    },
};
use pgusher::{control::key_record, registry};
use serde_json::{Map, Value, json};
use std::{
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
};

/// A proxy that serves `acme` of a registry, whose key is `acme`, too.
fn registered() -> (Books, Proxy) {
    let postgres = Postgres::shared();
    let books = Books::new(postgres);
    let proxy = books.proxy().start();
    books.add_cluster(postgres.endpoint());
    books.add("acme", &postgres.place());
    (books, proxy)
}

fn run(proxy: &Proxy, arguments: &[&str]) {
    let mut command = Command::new(PROGRAM);
    let command = command.args(arguments).current_dir(proxy.folder());
    programs::run(command).succeeded();
}

/// Changes the key `acme`.
fn set(proxy: &Proxy, options: &[&str]) {
    run(proxy, &[&["key", "set", "acme", "acme"], options].concat());
}

fn found(connect: &Connect) -> Client {
    eventually_some("it logs in", || connect.try_login().ok())
}

/// It is over when this is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn limits_go_up_and_down_while_clients_run_and_no_transaction_is_lost() {
    let (_books, proxy) = registered();
    let connect = Connect::to(proxy.address()).user("acme").password(KEY);
    found(&connect).exec("create table t (n int)");
    let (is_over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = connect.login();
                while !is_over.load(Relaxed) {
                    client.exec("begin");
                    client.exec("insert into t values (1)");
                    client.exec("commit");
                    done.fetch_add(1, Relaxed);
                }
            });
        }
        let goes_on = || {
            let before = done.load(Relaxed);
            eventually("it goes on", || done.load(Relaxed) > before + 20);
        };
        // Whatever fails, the others come to an end.
        let over = Over(&is_over);
        for options in [
            &["--max-concurrent-queries", "1"][..],
            &[
                "--max-concurrent-queries",
                "3",
                "--transactions-per-second",
                "100000",
            ],
            &["--max-concurrent-queries", "none"],
            &[
                "--transactions-per-hour",
                "1000000",
                "--transactions-per-second",
                "none",
            ],
            &[
                "--max-concurrent-queries",
                "2",
                "--bytes-per-second",
                "1000000000",
            ],
        ] {
            set(&proxy, options);
            goes_on();
        }
        drop(over);
    });
    let kept = connect.login().value("select count(*) from t");
    assert_eq!(kept, done.into_inner().to_string());
}

#[test]
fn sessions_that_are_open_follow_a_keys_new_limits() {
    let (_books, proxy) = registered();
    let connect = Connect::to(proxy.address()).user("acme").password(KEY);
    let (mut holder, mut other) = (found(&connect), connect.login());
    run(
        &proxy,
        &["tenant", "set", "acme", "query_wait_timeout=500ms"],
    );
    set(&proxy, &["--max-concurrent-queries", "1"]);
    let mut is_refused = |says: &str| {
        holder.exec("begin");
        let error = error(&other.query("select 1"));
        holder.exec("commit");
        error.is_some_and(|error| error.text().contains(says))
    };
    eventually("it is lower", || {
        is_refused("max_concurrent_queries of the API key, 1,")
    });
    set(&proxy, &["--max-concurrent-queries", "2"]);
    eventually("it is higher", || !is_refused("max_concurrent_queries"));
    set(&proxy, &["--transactions-per-hour", "5"]);
    eventually("the hour is used up", || {
        let error = error(&other.query("select 1"));
        error.is_some_and(|error| error.text().contains("per_hour of the API key, 5,"))
    });
    set(&proxy, &["--transactions-per-hour", "1000"]);
    eventually("more are let in", || {
        error(&other.query("select 1")).is_none()
    });
    set(&proxy, &["--transactions-per-hour", "none"]);
    eventually("nothing is limited any more", || {
        (0..9).all(|_| error(&other.query("select 1")).is_none())
    });
}

#[test]
fn sessions_stay_when_networks_and_scope_change_and_end_when_the_key_does() {
    let estate = Estate::new();
    let made = estate.create("acme", "row");
    let id = made["key"]["id"].as_str().unwrap();
    let set = |options: &[&str]| {
        let command = [&["key", "set", "acme", id], options].concat();
        estate.office.json(&command)
    };
    let proxy = estate.office.serve();
    let connect = proxy.connect("acme");
    let connect = connect.password(made["key"]["key"].as_str().unwrap());
    let scope = |client: &mut Client| client.value("show pgusher.scope");
    let mut open = found(&connect);
    let changed = set(&["--allow", "192.0.2.7", "--allow", "10.0.0.0/8"]);
    assert_eq!(changed["allow"], json!(["192.0.2.7/32", "10.0.0.0/8"]));
    eventually("nobody comes from here", || connect.try_login().is_err());
    open.is_in_step();
    set(&["--allow", "none"]);
    found(&connect);
    assert_eq!(set(&["--scope", "read_only"])["scope"], "read_only");
    eventually("it only reads", || {
        scope(&mut connect.login()) == "read_only"
    });
    assert_eq!(scope(&mut open), "read_write");
    set(&["--scope", "read_write", "--not-before", "1h"]);
    eventually("it is too early", || connect.try_login().is_err());
    set(&["--not-before", "none", "--max-client-connections", "1"]);
    let mut one = eventually_some("it has begun", || connect.try_login().ok());
    eventually("one is the most", || match connect.try_login() {
        Ok(_) => false,
        Err(frames) => code(&frames) == "53300",
    });
    set(&["--max-client-connections", "none", "--expires", "10s"]);
    open.ends_with("57P01");
    one.ends_with("57P01");
    let told = estate.fails(&["key", "set", "acme", id, "--expires", "none"]);
    assert!(told.contains("is revoked or has expired"), "{told}");
    estate.office.run(&["audit", "verify"]).succeeded();
}

#[test]
fn what_is_not_named_stays_and_each_change_is_told() {
    let estate = Estate::new();
    let made = estate.create("acme", "row");
    let id = made["key"]["id"].as_str().unwrap();
    let set = |options: &[&str]| {
        let command = [&["key", "set", "acme", id], options].concat();
        estate.office.json(&command)
    };
    set(&[
        "--name",
        "orders",
        "--transactions-per-second",
        "50",
        "--rate-limit-per-hour",
        "7",
        "--expires",
        "2097-01-31T00:00:00Z",
    ]);
    let changed = set(&[
        "--transactions-per-second",
        "none",
        "--bytes-per-second",
        "9",
    ]);
    for (field, value) in [
        ("name", json!("orders")),
        ("scope", json!("read_write")),
        ("transactions_per_second", Value::Null),
        ("bytes_per_second", json!(9)),
        ("rate_limit_per_hour", json!(7)),
        ("expires_at", json!("2097-01-31T00:00:00Z")),
    ] {
        assert_eq!(changed[field], value, "{field}: {changed}");
    }
    // What changes nothing is nothing that happened.
    set(&["--bytes-per-second", "9"]);
    let history = estate.office.json(&["tenant", "history", "acme"]);
    let events = history.as_array().unwrap().iter();
    let told: Vec<_> = events.filter(|it| it["kind"] == "AccessChanged").collect();
    assert_eq!(told.len(), 2, "{history}");
    let change = &told[1]["changes"][format!("key:{id}")];
    assert_eq!(change["before"]["transactions_per_second"], 50);
    assert_eq!(change["after"]["transactions_per_second"], Value::Null);
    assert_eq!(change["after"]["bytes_per_second"], 9);
    assert!(told[1]["actor"].as_str().unwrap().starts_with("operator:"));
    estate.office.run(&["audit", "verify"]).succeeded();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (control, actor) = estate.control().await;
        let mut db = control.registry.pool.acquire().await.unwrap();
        let keys = registry::keys(&mut db, "acme").await.unwrap();
        let record: Map<_, _> = keys.iter().flat_map(key_record).collect();
        let mut rebuilt = control.rebuilt(&actor, "acme").await.unwrap();
        rebuilt.retain(|field, _| field.starts_with("key:"));
        assert_eq!(rebuilt, record);
    });
}

#[test]
fn a_change_that_cannot_be_is_refused_as_it_is_of_a_new_key() {
    let estate = Estate::new();
    let made = estate.create("acme", "row");
    estate.create("other", "row");
    let id = made["key"]["id"].as_str().unwrap();
    let revoked = made["read_only_key"]["id"].as_str().unwrap();
    let office = &estate.office;
    office.run(&["key", "revoke", "acme", revoked]).succeeded();
    let reader = ["key", "create", "acme", "--permission", "read"];
    let reader = office.json(&reader);
    let reader = reader["id"].as_str().unwrap();
    let fails = |exit: i32, arguments: &[&str], says: &str| {
        let mut command = Command::new(PROGRAM);
        let command = command.args(["key", "set"]).args(arguments);
        let output = command.current_dir(office.path()).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(says), "{arguments:?}: {told}");
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {told}");
    };
    for (options, says) in [
        (&["--scope", "write"][..], "\"read_write\" or"),
        (&["--allow", "10.0.0.0/99"], "is no network"),
        (&["--rate-limit-per-hour", "0"], "at least 1"),
        (&["--transactions-per-second", "0"], "be 1 to 1000000\n"),
        (&["--transactions-per-hour", "0"], "be 1 to 1000000000"),
        (&["--expires", "2020-01-01T00:00:00Z"], "it is in the past"),
        (
            &["--not-before", "2h", "--expires", "1h"],
            "not after not_before",
        ),
        (&["--max-concurrent-queries", "few"], "or \"none\""),
        (&["--expires", "soon"], "write \"90d\""),
        (&[], "nothing is to be changed"),
    ] {
        fails(2, &[&["acme", id], options].concat(), says);
    }
    let wider = ["acme", reader, "--scope", "read_write"];
    fails(2, &wider, "\"read\" without \"write\"");
    for (tenant, key, says) in [
        ("acme", "nokey", "there is no key \"nokey\""),
        ("other", id, "there is no key"),
        ("nobody", id, "there is no tenant \"nobody\""),
        ("acme", revoked, "is revoked or has expired"),
    ] {
        fails(1, &[tenant, key, "--name", "a"], says);
    }
    assert!(!estate.events("acme").contains(&"AccessChanged".to_owned()));
}

#[test]
fn the_api_changes_keys_for_operators_alone() {
    let desk = Desk::with_cluster();
    desk.tenant("acme");
    desk.tenant("initech");
    let who = desk.operator();
    let made = who.post(
        "/api/tenants/acme/api-keys",
        &json!({"transactions_per_hour": 9}),
    );
    let id = made.ok(201)["id"].as_str().unwrap().to_owned();
    let path = format!("/api/tenants/acme/api-keys/{id}");
    let send = |path: &str, body: Value| who.send("PATCH", path, Some(&body.to_string()));
    let body = json!({"transactions_per_second": 5, "not_before": "2026-01-01T00:00:00Z"});
    let changed = send(&path, body).ok(200);
    assert_eq!(changed["transactions_per_second"], 5);
    assert_eq!(changed["transactions_per_hour"], 9);
    assert_eq!(changed["not_before"], "2026-01-01T00:00:00Z");
    let body = json!({"transactions_per_hour": null, "not_before": null, "allow": ["192.0.2.7"]});
    let changed = send(&path, body).ok(200);
    assert_eq!(changed["transactions_per_hour"], Value::Null);
    assert_eq!(changed["not_before"], Value::Null);
    assert_eq!(changed["allow"], json!(["192.0.2.7/32"]));
    let changed = send(&path, json!({"allow": null})).ok(200);
    assert_eq!(changed["allow"], json!([]), "from everywhere");
    let listed = who.get("/api/tenants/acme/api-keys").ok(200);
    assert_eq!(listed["items"][0], changed);
    for (body, says) in [
        (
            json!({"bytes_per_second": 0}),
            "bytes_per_second: it must be 1 to",
        ),
        (json!({"allow": ["x"]}), "is no network"),
        (json!({"name": null}), "invalid type: null"),
        (json!({"scope": null}), "invalid type: null"),
        (json!({"verifier": "x"}), "verifier"),
        (json!({"sha256": "x"}), "sha256"),
        (json!({"permissions": ["write"]}), "permissions"),
        (json!({"status": "active"}), "status"),
        (json!({"not_before": "soon"}), "could not be parsed"),
    ] {
        let told = send(&path, body).problem(422);
        assert!(told.contains(says), "{told}");
    }
    send("/api/tenants/acme/api-keys/nokey", json!({})).problem(404);
    send(&format!("/api/tenants/initech/api-keys/{id}"), json!({})).problem(404);
    let change = Some("{\"transactions_per_second\":1000}");
    for (role, tenant) in [("viewer", None), ("user", None), ("admin", Some("acme"))] {
        let other = desk.with_role(role, tenant);
        other.send("PATCH", &path, change).problem(403);
    }
    let manager = desk.with_role("manager", None);
    manager.send("PATCH", &path, change).ok(200);
    let actors = "select string_agg(split_part(actor, ':', 1), ' ' order by seq) \
                  from pgusher.event where kind = 'AccessChanged'";
    assert_eq!(desk.value(actors), "token token token token");
    who.delete(&path).ok(200);
    let told = send(&path, json!({"name": "again"})).problem(409);
    assert!(told.contains("is revoked"), "{told}");
}
