//! Transactions in an hour: exact at the boundary, of a tenant and its keys, changed live.

use crate::harness::{
    Client, Fields, Key, Mode, Postgres, Proxy, ProxyFile, Request, Tenant,
    estate::Estate,
    eventually, eventually_some,
    frames::{error, firsts},
    http::Http,
    proxy::PROGRAM,
};
use serde_json::{Value, json};
use std::{process::Command, thread, time::Instant};

const NAME: &str = "transactions_per_hour";

fn acme(change: impl FnOnce(Tenant) -> Tenant) -> Proxy {
    let tenant = Tenant::new("acme", &Postgres::shared().place());
    Proxy::of([change(tenant)]).admin().start()
}

fn assert_says(error: &Fields, whose: &str, limit: u32) {
    assert_eq!((error.severity(), error.code()), ("ERROR", "53400"));
    let says = format!("{NAME} of {whose}, {limit}, is reached");
    assert!(error.text().contains(&says), "{error:?}");
    assert!(error.text().contains("Try again in "), "{error:?}");
}

/// How many of so many run, one after the other; the last error.
fn run(client: &mut Client, count: usize) -> (usize, Option<Fields>) {
    let errors = (0..count).map(|_| error(&client.query("select 1")));
    let refused: Vec<_> = errors.flatten().collect();
    (count - refused.len(), refused.into_iter().last())
}

#[test]
fn of_two_hundred_clients_at_once_exactly_as_many_run_as_the_hour_has() {
    let proxy = acme(|tenant| tenant.set(NAME, 150));
    let connect = proxy.connect("acme");
    let login = || (0..50).map(|_| connect.login()).collect::<Vec<_>>();
    let mut clients: Vec<_> = thread::scope(|scope| {
        let logins: Vec<_> = (0..4).map(|_| scope.spawn(login)).collect();
        let clients = logins.into_iter();
        clients.flat_map(|it| it.join().unwrap()).collect()
    });
    let start = Instant::now();
    for client in &mut clients {
        client.send(&Request::new().query("select 1"));
    }
    let answers: Vec<_> = clients.iter_mut().map(Client::until_ready).collect();
    let refused: Vec<_> = answers.iter().filter_map(|frames| error(frames)).collect();
    // One comes back each 24 s, and may be waited for for a second: none, but on a machine that stood still.
    let back = (start.elapsed().as_secs() + 1) / 24;
    let served = (answers.len() - refused.len()) as u64;
    assert!((150..=150 + back).contains(&served), "{served}");
    for error in &refused {
        assert_says(error, "the tenant", 150);
    }
    let metrics = Http::new(proxy.admin_port()).get("/metrics").body;
    let line = format!("pgusher_limited_total{{limit=\"{NAME}\",result=\"refused\"}}");
    assert!(metrics.contains(&line), "{metrics}");
    // Where it stands, it is told all the same.
    let told = clients[0].query("show pgusher.quota");
    let told: Value = serde_json::from_str(&firsts(&told)[0]).unwrap();
    let rows = told.as_array().unwrap();
    let row = rows.iter().find(|row| row["quota"] == NAME).unwrap();
    assert_eq!((&row["max"], &row["state"]), (&json!(150), &json!("hard")));
}

#[test]
fn a_keys_hour_holds_beside_its_tenants_which_all_keys_share() {
    let proxy = acme(|tenant| {
        let tenant = tenant.set(NAME, 12);
        let tenant = tenant.key(Key::new("small").set(NAME, 5));
        tenant.key(Key::new("other")).key(Key::new("third"))
    });
    let with = |key: &str| proxy.connect("acme").password(key).login();
    let (served, refused) = run(&mut with("small"), 9);
    assert_eq!(served, 5);
    assert_says(&refused.unwrap(), "the API key", 5);
    assert_eq!(run(&mut with("other"), 4), (4, None));
    // What its key refused, the tenant was not charged.
    let (served, refused) = run(&mut with("third"), 9);
    assert_eq!(served, 3);
    assert_says(&refused.unwrap(), "the tenant", 12);
    // Logins of before are forgotten, what they used is not.
    assert_eq!(run(&mut with("other"), 3).0, 0);
}

#[test]
fn a_transaction_counts_once_and_those_of_a_pipeline_each() {
    for mode in [Mode::Transaction, Mode::Session] {
        let proxy = acme(|tenant| tenant.mode(mode).set(NAME, 9));
        let mut client = proxy.connect("acme").login();
        client.exec("begin");
        for _ in 0..20 {
            client.exec("select 1");
        }
        client.exec("commit");
        let simple = (0..6).fold(Request::new(), |it, _| it.query("select 1"));
        let all = (0..6).fold(simple, |it, _| it.run("select 1", &[]).sync());
        client.send(&all);
        let answers = (0..12).map(|_| client.until_ready());
        let refused = answers.filter_map(|frames| error(&frames));
        assert_eq!(refused.count(), 4, "{}", mode.name());
        assert_says(&client.fails("select 1"), "the tenant", 9);
    }
}

#[test]
fn an_hour_is_raised_lowered_and_taken_away_while_a_transaction_runs() {
    let mut proxy = acme(|tenant| tenant.set(NAME, 4));
    let set = |proxy: &mut Proxy, limit: u32| {
        proxy.reload(|file: &mut ProxyFile| file.set_tenant("acme", NAME, limit));
    };
    let (mut holder, mut other) = (proxy.connect("acme").login(), proxy.connect("acme").login());
    holder.exec("begin");
    assert_eq!(run(&mut other, 9).0, 3);
    let served = |client: &mut Client, what: &str| {
        eventually(what, || error(&client.query("select 1")).is_none());
    };
    set(&mut proxy, 6);
    served(&mut other, "two more are let in at once");
    assert_eq!(run(&mut other, 9).0, 1);
    set(&mut proxy, 1);
    let refused = eventually_some("a lower one holds", || {
        let refused = error(&other.query("select 1"))?;
        refused.text().contains("the tenant, 1,").then_some(refused)
    });
    // However much was used: an hour.
    let is_an_hour = ["in 1h", "in 59m"].map(|text| refused.text().contains(text));
    assert!(is_an_hour.contains(&true), "{refused:?}");
    holder.exec("select 1");
    holder.exec("commit");
    assert_says(&holder.fails("select 1"), "the tenant", 1);
    set(&mut proxy, 0);
    served(&mut holder, "without a limit nothing is refused");
    assert_eq!(run(&mut other, 20).0, 20);
}

#[test]
fn who_gets_no_server_has_used_nothing() {
    let proxy = acme(|tenant| {
        let tenant = tenant.set(NAME, 3).pool_size(1);
        tenant.set("query_wait_timeout", "100ms")
    });
    let mut holder = proxy.connect("acme").login();
    let mut other = proxy.connect("acme").login();
    holder.exec("begin");
    for _ in 0..5 {
        let refused = error(&other.query("select 1")).unwrap();
        assert_eq!(refused.code(), "53300", "{refused:?}");
    }
    holder.exec("commit");
    let (served, refused) = run(&mut other, 5);
    assert_eq!(served, 2);
    assert_says(&refused.unwrap(), "the tenant", 3);
}

#[test]
fn it_is_set_in_the_registry_and_holds_there_for_tenant_key_and_plan() {
    let estate = Estate::new();
    let office = &estate.office;
    estate.create("acme", "row");
    let key = office.json(&["key", "create", "acme", "--transactions-per-hour"]);
    assert_eq!(key[NAME], 1000, "{key}");
    let key = office.json(&["key", "create", "acme", "--transactions-per-hour", "7"]);
    assert_eq!(key[NAME], 7);
    let rotated = ["key", "rotate", "acme", key["id"].as_str().unwrap()];
    let key = office.json(&rotated);
    assert_eq!(key[NAME], 7);
    for wrong in ["0", "1000000001"] {
        let told = estate.fails(&["key", "create", "acme", "--transactions-per-hour", wrong]);
        assert!(told.contains("it must be 1 to 1000000000"), "{told}");
    }
    let set = |value: &str| office.json(&["tenant", "set", "acme", &format!("{NAME}={value}")]);
    let told = estate.fails(&["tenant", "set", "acme", &format!("{NAME}=-1")]);
    assert!(told.contains("it must be 0 to 1000000000"), "{told}");
    assert_eq!(set("4")[NAME], 4);
    let kinds = estate.events("acme");
    assert_eq!(kinds.last().unwrap(), "ScaledDown");

    let proxy = office.serve();
    let connect = proxy.connect("acme").password(key["key"].as_str().unwrap());
    let mut client = eventually_some("it is known", || connect.try_login().ok());
    assert_eq!(run(&mut client, 9).0, 4);
    set("default");
    eventually("the tenant's limit is gone", || {
        error(&client.query("select 1")).is_none()
    });
    let (served, refused) = run(&mut client, 9);
    assert_eq!(served, 2);
    assert_says(&refused.unwrap(), "the API key", 7);

    let plan = office.json(&["plan", "set", "team", &format!("{NAME}=3")]);
    assert_eq!(plan[NAME], 3);
    office.json(&["tenant", "set", "acme", "plan=team"]);
    let quota = office.json(&["tenant", "quota", "acme"]);
    let mut quotas = quota["quotas"].as_array().unwrap().iter();
    assert_eq!(quotas.find(|it| it["name"] == NAME).unwrap()["max"], 3);
    let key = office.json(&["key", "create", "acme"]);
    let connect = proxy.connect("acme").password(key["key"].as_str().unwrap());
    let mut client = eventually_some("it is known", || connect.try_login().ok());
    assert_eq!(run(&mut client, 9).0, 3);
    office.run(&["audit", "verify"]).succeeded();
}

#[test]
fn check_shows_it_and_refuses_what_is_too_much() {
    let proxy = acme(|tenant| tenant.set(NAME, 5).key(Key::new("k").set(NAME, 77)));
    let check = || {
        let mut command = Command::new(PROGRAM);
        let file = proxy.folder().join("proxy.toml");
        command.args(["check", "--config"]).arg(file);
        let output = command.output().unwrap();
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap())
    };
    let [shown, _] = check();
    for line in ["transactions_per_hour = 5", "transactions_per_hour = 77"] {
        assert!(shown.contains(line), "no {line} in {shown}");
    }
    let file = proxy.folder().join("proxy.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let more = text.replace("per_hour = 5", "per_hour = 1000000001");
    std::fs::write(&file, more).unwrap();
    let [_, told] = check();
    assert!(told.contains("transactions_per_hour"), "{told}");
    assert!(told.contains("1000000000"), "{told}");
}
