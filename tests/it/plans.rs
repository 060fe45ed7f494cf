//! Plans, monthly quotas and trials: exact at the boundary, kept over restarts, told to the tenant.

use crate::{
    api_desk::Desk,
    harness::{
        Client, Connect, Fields, Postgres, Proxy, Request, Tenant,
        books::Books,
        eventually, eventually_some,
        frames::{error, firsts, tags},
        http::Http,
        programs,
        proxy::PROGRAM,
        proxy_file::KEY,
    },
};
use serde_json::{Value, json};
use std::{process::Command, thread};

/// Often enough for tests to see it.
const SOON: &str = "100ms";

fn acme(change: impl FnOnce(Tenant) -> Tenant) -> Proxy {
    let tenant = Tenant::new("acme", &Postgres::shared().place());
    Proxy::of([change(tenant)]).admin().start()
}

/// A registry with `acme` in it, and a proxy.
fn registered() -> (Books, Proxy) {
    let postgres = Postgres::shared();
    let books = Books::new(postgres);
    let proxy = another(&books);
    books.add_cluster(postgres.endpoint());
    books.add("acme", &postgres.place());
    (books, proxy)
}

fn another(books: &Books) -> Proxy {
    let proxy = books.proxy().admin();
    proxy.set_usage("flush_interval", SOON).start()
}

fn connect(proxy: &Proxy) -> Connect {
    Connect::to(proxy.address()).user("acme").password(KEY)
}

fn found(proxy: &Proxy) -> Client {
    let connect = connect(proxy);
    eventually_some("the tenant logs in", || connect.try_login().ok())
}

fn set(books: &Books, columns: &str) {
    let sql = format!("update pgusher.tenant set {columns} where id = 'acme'");
    books.admin().exec(&sql);
}

fn kept(books: &Books) -> i64 {
    let sql = "select coalesce(sum(transactions), 0)::bigint from pgusher.usage_hourly \
               where tenant = 'acme'";
    books.admin().value(sql).parse().unwrap()
}

fn is_full(error: &Fields, quota: &str, max: u32) {
    assert_eq!((error.severity(), error.code()), ("ERROR", "53400"));
    let says = format!("{quota} of the tenant, {max}, is reached");
    assert!(error.text().contains(&says), "{error:?}");
    assert!(error.text().contains("it resets on 20"), "{error:?}");
    assert!(error.text().contains("-01 00:00 UTC"), "{error:?}");
}

/// How many run before one is refused.
fn run_out(client: &mut Client, most: usize) -> usize {
    for count in 0..most {
        if let Some(error) = error(&client.query("select 1")) {
            assert_eq!(error.code(), "53400", "{error:?}");
            return count;
        }
    }
    most
}

fn run(proxy: &Proxy, arguments: &[&str]) -> programs::Run {
    let mut command = Command::new(PROGRAM);
    programs::run(command.args(arguments).current_dir(proxy.folder()))
}

fn json_of(proxy: &Proxy, arguments: &[&str]) -> Value {
    let out = run(proxy, &[arguments, &["--json"]].concat());
    serde_json::from_str(&out.succeeded().out).unwrap()
}

fn row(told: &str, quota: &str) -> Value {
    let rows: Value = serde_json::from_str(told).unwrap();
    let mut rows = rows.as_array().unwrap().iter();
    rows.find(|row| row["quota"] == quota).unwrap().clone()
}

#[test]
fn of_two_hundred_clients_exactly_as_many_run_as_the_month_has() {
    let proxy = acme(|tenant| tenant.set("transactions_per_month", 150));
    let connect = proxy.connect("acme");
    let login = || (0..50).map(|_| connect.login()).collect::<Vec<_>>();
    let mut clients: Vec<_> = thread::scope(|scope| {
        let logins: Vec<_> = (0..4).map(|_| scope.spawn(login)).collect();
        logins
            .into_iter()
            .flat_map(|it| it.join().unwrap())
            .collect()
    });
    for _ in 0..2 {
        for client in &mut clients {
            client.send(&Request::new().query("select 1"));
        }
    }
    let mut served = 0;
    for _ in 0..2 {
        for client in &mut clients {
            match error(&client.until_ready()) {
                Some(error) => is_full(&error, "transactions_per_month", 150),
                None => served += 1,
            }
        }
    }
    assert_eq!(served, 150);
    let metrics = Http::new(proxy.admin_port()).get("/metrics").body;
    let line = "pgusher_limited_total{limit=\"transactions_per_month\",result=\"refused\"} 250";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn queries_are_counted_at_the_end_and_single_ones_exactly() {
    let proxy = acme(|tenant| tenant.set("queries_per_month", 10));
    let mut client = proxy.connect("acme").login();
    client.exec("begin");
    for _ in 0..4 {
        client.exec("select 1");
    }
    client.exec("commit");
    assert_eq!(run_out(&mut client, 20), 4);
    is_full(&client.fails("select 1"), "queries_per_month", 10);
}

#[test]
fn what_is_pipelined_runs_no_further_than_the_month_goes() {
    let proxy = acme(|tenant| tenant.set("transactions_per_month", 7));
    let mut client = proxy.connect("acme").login();
    let simple = (0..5).fold(Request::new(), |it, _| it.query("select 1"));
    let all = (0..5).fold(simple, |it, _| it.run("select 2", &[]).sync());
    client.send(&all);
    let answers: Vec<_> = (0..10).map(|_| client.until_ready()).collect();
    let errors = answers.iter().filter_map(|frames| error(frames)).count();
    assert_eq!(errors, 3);
    // In session mode a server is kept.
    let session = Tenant::new("acme", &Postgres::shared().place());
    let session = session
        .set("transactions_per_month", 3)
        .set("pool_mode", "session");
    let proxy = Proxy::of([session]).start();
    let mut client = proxy.connect("acme").login();
    client.send(&simple_of(6));
    let answers: Vec<_> = (0..6).map(|_| client.until_ready()).collect();
    assert_eq!(answers.iter().filter_map(|it| error(it)).count(), 3);
}

fn simple_of(count: usize) -> Request {
    (0..count).fold(Request::new(), |it, _| it.query("select 1"))
}

#[test]
fn a_copy_of_a_tenant_with_little_left_goes_through() {
    let proxy = acme(|tenant| tenant.set("transactions_per_month", 20));
    let mut client = proxy.connect("acme").login();
    client.exec("create table t (i int)");
    let copy = Request::new().query("copy t from stdin");
    client.send(
        &copy
            .copy_data(b"1\n2\n")
            .copy_done()
            .query("select count(*) from t"),
    );
    client.until_ready();
    assert_eq!(firsts(&client.until_ready()), ["2"]);
}

#[test]
fn what_is_refused_before_takes_nothing_and_who_runs_stays() {
    let mut proxy = acme(|tenant| tenant.set("transactions_per_month", 4));
    let mut client = proxy.connect("acme").login();
    let mut other = proxy.connect("acme").login();
    client.exec("begin");
    assert_eq!(run_out(&mut other, 9), 3);
    // Within a transaction nothing is refused, whatever becomes of the quota.
    proxy.reload(|file| file.set_tenant("acme", "transactions_per_month", 1));
    eventually("it is lower", || {
        let error = other.fails("select 1");
        error.text().contains("of the tenant, 1,")
    });
    client.exec("select 1");
    client.exec("commit");
    is_full(&client.fails("select 1"), "transactions_per_month", 1);
    proxy.reload(|file| file.set_tenant("acme", "transactions_per_month", 6));
    eventually("there is more", || {
        error(&other.query("select 1")).is_none()
    });
    assert_eq!(run_out(&mut client, 9), 1);
    proxy.reload(|file| file.set_tenant("acme", "transactions_per_month", 0));
    eventually("nothing is limited", || {
        error(&other.query("select 1")).is_none()
    });
    assert_eq!(run_out(&mut client, 20), 20);
}

#[test]
fn each_session_is_told_once_that_little_is_left() {
    let proxy = acme(|tenant| tenant.set("transactions_per_month", 10));
    let mut client = proxy.connect("acme").login();
    let mut other = proxy.connect("acme").login();
    let notices = |frames: &[crate::harness::Frame]| tags(frames).matches('N').count();
    for nth in 1..=7 {
        assert_eq!(notices(&client.query("select 1")), 0, "{nth}");
    }
    let frames = client.query("select 1");
    assert_eq!(tags(&frames), "NTDCZ");
    let text = frames[0].fields().text();
    assert!(
        text.contains("transactions_per_month of the tenant: 8 of 10 are used"),
        "{text}"
    );
    assert_eq!(tags(&client.query("select 1")), "TDCZ");
    let run = Request::new().run("select 1", &[]).sync();
    assert_eq!(notices(&other.ask(&run)), 1);
    is_full(&other.fails("select 1"), "transactions_per_month", 10);
}

#[test]
fn what_is_used_is_known_after_a_restart_and_a_kill() {
    let (books, mut proxy) = registered();
    drop(found(&proxy));
    set(&books, "transactions_per_month = 20");
    let mut client = found(&proxy);
    eventually("it is limited", || {
        row(
            &client.value("show pgusher.quota"),
            "transactions_per_month",
        )["max"]
            == 20
    });
    eventually("it is counted", || kept(&books) > 0);
    let used = eventually_some("all is written", || {
        let before = kept(&books);
        thread::park_timeout(std::time::Duration::from_millis(250));
        (before == kept(&books)).then_some(before)
    });
    proxy.signal("KILL");
    assert!(!proxy.end().success());
    proxy.start_again();
    let mut client = found(&proxy);
    let left = usize::try_from(20 - used).unwrap();
    assert_eq!(run_out(&mut client, 30), left);
    proxy.signal("TERM");
    assert!(proxy.end().success());
    assert_eq!(kept(&books), 20);
    proxy.start_again();
    assert_eq!(run_out(&mut found(&proxy), 30), 0);
}

#[test]
fn two_proxies_add_up_and_tell_of_it_once() {
    let (books, first) = registered();
    let second = another(&books);
    drop((found(&first), found(&second)));
    set(&books, "transactions_per_month = 40");
    let (mut client, mut other) = (found(&first), found(&second));
    let max = |client: &mut Client| {
        row(
            &client.value("show pgusher.quota"),
            "transactions_per_month",
        )["max"]
            == 40
    };
    eventually("it is limited here", || max(&mut client));
    eventually("it is limited there", || max(&mut other));
    let used = |client: &mut Client| {
        let told = client.value("show pgusher.quota");
        row(&told, "transactions_per_month")["current"]
            .as_u64()
            .unwrap()
    };
    eventually("each knows of the other", || {
        let here = used(&mut client);
        used(&mut other) > here
    });
    // One runs out; the other has heard of it within a flush.
    run_out(&mut client, 100);
    eventually("the other is told", || {
        error(&other.query("select 1")).is_some()
    });
    let events = |kind: &str| {
        let sql = format!("select count(*) from pgusher.event where kind = '{kind}'");
        books.admin().value(&sql)
    };
    eventually("both are told of", || {
        events("quota.hard") == "1" && events("quota.soft") == "1"
    });
    let made = json_of(&first, &["key", "create", "acme"]);
    let http = Http::new(first.admin_port()).token(made["key"].as_str().unwrap());
    let activity = http.get("/api/tenants/acme/activity").ok(200);
    let items = activity["items"].as_array().unwrap().clone();
    let soft = items
        .iter()
        .find(|item| item["kind"] == "quota.soft")
        .unwrap();
    assert_eq!(soft["facts"]["quota"], "transactions_per_month");
    assert_eq!(soft["facts"]["max"], 40);
    run(&first, &["audit", "verify"]).succeeded();
    // Off by what both did until they heard of each other.
    eventually("all is written", || kept(&books) >= 40);
}

#[test]
fn while_the_registry_is_down_what_is_known_counts() {
    let mut postgres = Postgres::start();
    let books = Books::new(&postgres);
    let proxy = books.proxy().set_usage("flush_interval", SOON).start();
    books.add_cluster(Postgres::shared().endpoint());
    books.add("acme", &Postgres::shared().place());
    set(&books, "transactions_per_month = 12");
    books.are_heard_by(&proxy);
    let mut client = found(&proxy);
    assert_eq!(run_out(&mut client, 5), 5);
    postgres.stop();
    assert_eq!(run_out(&mut connect(&proxy).login(), 20), 7);
    is_full(&client.fails("select 1"), "transactions_per_month", 12);
    postgres.run();
    eventually("all of it is written", || kept(&books) == 12);
    is_full(&client.fails("select 1"), "transactions_per_month", 12);
}

#[test]
fn a_trial_ends_for_sessions_and_logins_and_goes_on_when_it_is_extended() {
    let (books, proxy) = registered();
    let mut client = found(&proxy);
    let set = |end: &str| {
        let change = format!("trial_ends_at={end}");
        run(&proxy, &["tenant", "set", "acme", &change]).succeeded();
    };
    set("2020-01-31");
    let error = eventually_some("it is over", || error(&client.query("select 1")));
    assert_eq!((error.severity(), error.code()), ("ERROR", "53400"));
    let says = "the trial of tenant acme ended on 2020-01-31 00:00 UTC";
    assert!(error.text().contains(says), "{error:?}");
    let refused = connect(&proxy).refused();
    assert_eq!((refused.severity(), refused.code()), ("FATAL", "53400"));
    assert!(refused.text().contains(says), "{refused:?}");
    let soon =
        "to_char((now() + interval '2 days') at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    set(&books.admin().value(&format!("select {soon}")));
    eventually("it goes on", || {
        crate::harness::frames::error(&client.query("select 1")).is_none()
    });
    assert!(has_notice(&connect(&proxy).login()), "the end is near");
    set("");
    eventually("it is on none", || !has_notice(&connect(&proxy).login()));
    let sub = json_of(&proxy, &["tenant", "show", "acme"]);
    assert_eq!(sub["trial_ends_at"], Value::Null);
}

/// Whether a client was told anything at its login.
fn has_notice(client: &Client) -> bool {
    tags(&client.login_frames).contains('N')
}

#[test]
fn plans_of_the_registry_stand_over_the_files_and_those_over_the_presets() {
    let (books, mut proxy) = registered();
    let mut client = found(&proxy);
    let max = |client: &mut Client| {
        row(
            &client.value("select current_setting('pgusher.quota')"),
            "transactions_per_month",
        )["max"]
            .clone()
    };
    let shows = |client: &mut Client, what: Value| {
        eventually(&format!("{what} is the most"), || max(client) == what);
    };
    assert_eq!(
        max(&mut client),
        Value::Null,
        "who has no plan is limited by none"
    );
    assert_eq!(
        json_of(&proxy, &["tenant", "show", "acme"])["plan"],
        "custom"
    );
    let set_tenant = |proxy: &Proxy, change: &str| run(proxy, &["tenant", "set", "acme", change]);
    set_tenant(&proxy, "plan=starter").succeeded();
    shows(&mut client, json!(1000));
    let plan = |lines: &str| toml::from_str::<toml::Table>(lines).unwrap();
    proxy.reload(|file| {
        let own =
            plan("name = \"starter\"\ntransactions_per_month = 500\nmax_client_connections = 3");
        file.plans = vec![own, plan("name = \"team\"\nqueries_per_month = 7")];
    });
    shows(&mut client, json!(500));
    run(
        &proxy,
        &["plan", "set", "starter", "transactions_per_month=300"],
    )
    .succeeded();
    shows(&mut client, json!(300));
    set_tenant(&proxy, "transactions_per_month=200").succeeded();
    shows(&mut client, json!(200));
    set_tenant(&proxy, "transactions_per_month=default").succeeded();
    shows(&mut client, json!(300));
    run(&proxy, &["plan", "remove", "starter"]).succeeded();
    shows(&mut client, json!(500));
    let told = client.value("show pgusher.quota");
    assert_eq!(row(&told, "client_connections")["max"], 3);
    let unknown = set_tenant(&proxy, "plan=gold");
    assert!(!unknown.is_success);
    for name in ["gold", "starter", "team", "enterprise", "custom"] {
        assert!(unknown.err.contains(name), "{}", unknown.err);
    }
    let gold = run(&proxy, &["plan", "set", "gold", "pool_size=0"]);
    assert!(gold.err.contains("pool_size"), "{}", gold.err);
    run(
        &proxy,
        &["plan", "set", "gold", "transactions_per_month=77"],
    )
    .succeeded();
    set_tenant(&proxy, "plan=gold").succeeded();
    shows(&mut client, json!(77));
    let kept = run(&proxy, &["plan", "remove", "gold"]);
    assert!(
        !kept.is_success && kept.err.contains("acme"),
        "{}",
        kept.err
    );
    let plans = json_of(&proxy, &["plan", "list"]);
    assert_eq!(plans.as_array().unwrap().len(), 5, "{plans}");
    // A name that was in a row before names meant anything.
    set(&books, "plan = 'of old'");
    shows(&mut client, Value::Null);
}

#[test]
fn a_plan_that_there_is_not_is_an_error_of_the_file() {
    let tenant = Tenant::new("acme", &Postgres::shared().place());
    let proxy = Proxy::of([tenant]).start();
    let path = proxy.folder().join("other.toml");
    let write = |lines: &str| {
        let text = std::fs::read_to_string(proxy.folder().join("proxy.toml")).unwrap();
        let text = text.replace("[[tenants]]\n", &format!("[[tenants]]\n{lines}\n"));
        std::fs::write(&path, text).unwrap();
        run(&proxy, &["check", "--config", "other.toml"])
    };
    let checked = write("plan = \"gold\"");
    assert!(!checked.is_success);
    assert!(
        checked.err.contains("there is no plan \"gold\""),
        "{}",
        checked.err
    );
    assert!(checked.err.contains("professional"), "{}", checked.err);
    let checked = write("plan = \"starter\"\ntrial_ends_at = \"2030-01-01T00:00:00Z\"");
    assert!(
        checked
            .succeeded()
            .out
            .contains("transactions_per_month = 1000")
    );
}

#[test]
fn a_tenant_sees_where_it_stands_in_both_protocols_even_when_nothing_is_left() {
    let proxy = acme(|tenant| {
        tenant
            .set("transactions_per_month", 4)
            .set("plan", "starter")
    });
    let mut client = proxy.connect("acme").login();
    let told = client.value("SHOW pgusher.quota");
    let month = row(&told, "transactions_per_month");
    assert_eq!((&month["current"], &month["max"]), (&json!(1), &json!(4)));
    assert_eq!(
        (&month["percent"], &month["state"]),
        (&json!(25), &json!("ok"))
    );
    assert!(
        month["resets_at"]
            .as_str()
            .unwrap()
            .ends_with("-01 00:00 UTC")
    );
    let queries = row(&told, "queries_per_month");
    assert_eq!(queries["max"], 10_000);
    assert_eq!(row(&told, "storage_bytes")["max"], 5_000_000_000_u64);
    let clients = row(&told, "client_connections");
    assert_eq!(
        (&clients["current"], &clients["max"]),
        (&json!(1), &json!(1000))
    );
    let show = Request::new().run("show pgusher.quota", &[]).sync();
    let told = firsts(&client.ask(&show)).concat();
    assert_eq!(row(&told, "transactions_per_month")["current"], 2);
    assert_eq!(run_out(&mut client, 9), 2);
    let hard = |told: &str| assert_eq!(row(told, "transactions_per_month")["state"], "hard");
    hard(&client.value("show pgusher.quota;"));
    let frames = client.ask(&show);
    hard(&firsts(&frames).concat());
    let described = Request::new()
        .parse("", "SHOW pgusher.quota")
        .describe_statement("")
        .bind("", "", &[])
        .describe_portal("")
        .execute("")
        .sync();
    assert_eq!(tags(&client.ask(&described)), "1tT2TDCZ");
    hard(&proxy.connect("acme").login().value("show pgusher.quota"));
    // Nothing else gets through with it.
    let more = Request::new()
        .run("show pgusher.quota", &[])
        .run("select 1", &[])
        .sync();
    is_full(
        &error(&client.ask(&more)).unwrap(),
        "transactions_per_month",
        4,
    );
    is_full(
        &client.fails("show pgusher.quota; select 1"),
        "transactions_per_month",
        4,
    );
    let pipelined = Request::new().query("show pgusher.quota").query("select 1");
    client.send(&pipelined);
    hard(&firsts(&client.until_ready()).concat());
    is_full(
        &error(&client.until_ready()).unwrap(),
        "transactions_per_month",
        4,
    );
}

#[test]
fn the_command_and_the_api_tell_the_same_and_the_plan_is_a_resource() {
    let (books, proxy) = registered();
    books.add("other", &Postgres::shared().place());
    books.are_heard_by(&proxy);
    run(
        &proxy,
        &[
            "tenant",
            "set",
            "acme",
            "plan=starter",
            "trial_ends_at=2999-01-01",
        ],
    )
    .succeeded();
    run_out(&mut found(&proxy), 5);
    eventually("it is written", || kept(&books) == 5);
    let of = |quotas: &Value, name: &str| {
        let mut all = quotas["quotas"].as_array().unwrap().iter();
        all.find(|quota| quota["name"] == name).unwrap().clone()
    };
    let quotas = json_of(&proxy, &["tenant", "quota", "acme"]);
    let month = of(&quotas, "transactions");
    assert_eq!(
        (&month["current"], &month["max"]),
        (&json!(5), &json!(1000))
    );
    assert_eq!(
        (&month["enforced"], &month["state"]),
        (&json!(true), &json!("ok"))
    );
    assert!(
        month["resets_at"]
            .as_str()
            .unwrap()
            .ends_with("-01T00:00:00Z")
    );
    let table = run(&proxy, &["tenant", "quota", "acme"]).succeeded().out;
    assert!(
        table.contains("transactions") && table.contains("1000"),
        "{table}"
    );
    let made = json_of(&proxy, &["key", "create", "acme"]);
    let http = Http::new(proxy.admin_port()).token(made["key"].as_str().unwrap());
    let told = http.get("/api/tenants/acme/quota").ok(200);
    assert_eq!(of(&told, "api_calls")["max"], 10_000);
    let agreed = http.get("/api/tenants/acme/subscription").ok(200);
    assert_eq!(
        (&agreed["cycle"], &agreed["enforced"]),
        (&json!("monthly"), &json!(true))
    );
    assert_eq!(agreed["trial_ends_at"], "2999-01-01T00:00:00Z");
}

#[test]
fn plans_are_kept_through_the_api_by_operators_alone() {
    let desk = Desk::with_cluster();
    desk.tenant("acme");
    let who = desk.operator();
    let listed = who.get("/api/plans").ok(200);
    let names = |listed: &Value| {
        let items = listed["items"].as_array().unwrap().iter();
        items
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&listed), ["enterprise", "professional", "starter"]);
    let gold = json!({"transactions_per_month": 9, "trial_days": 14});
    let made = who.put("/api/plans/gold", &gold).ok(200);
    assert_eq!(
        (&made["origin"], &made["name"]),
        (&json!("registry"), &json!("gold"))
    );
    assert_eq!(who.get("/api/plans/gold").ok(200)["trial_days"], 14);
    who.put("/api/plans/gold", &json!({"pool_size": 0}))
        .problem(422);
    who.put("/api/plans/gold", &json!({"colour": 1}))
        .problem(422);
    who.put("/api/plans/custom", &gold).problem(404);
    let unknown = who.put("/api/tenants/acme", &json!({"plan": "silver"}));
    assert!(unknown.problem(422).contains("gold"));
    let new = json!({"id": "trial", "tier": "row", "plan": "gold"});
    let made = who.post("/api/tenants", &new).ok(201);
    let end = made["tenant"]["trial_ends_at"].as_str().unwrap();
    let days =
        format!("select round(extract(epoch from '{end}'::timestamptz - now()) / 86400)::int");
    assert_eq!(desk.value(&days), "14");
    who.delete("/api/plans/gold").problem(409);
    who.put("/api/tenants/trial", &json!({"plan": "custom"}))
        .ok(200);
    assert_eq!(who.delete("/api/plans/gold").status, 204);
    who.get("/api/plans/gold").problem(404);
    desk.nobody().get("/api/plans").problem(401);
    let kinds =
        "select string_agg(kind, ' ' order by seq) from pgusher.event where kind like 'Plan%'";
    assert_eq!(desk.value(kinds), "PlanSet PlanRemoved");
}
