//! Rates: transactions, bytes and logins in a second, of a tenant and of a key.

use crate::harness::{
    Client, Fields, Key, Mode, Postgres, Proxy, Request, Tenant,
    books::Books,
    eventually, eventually_some,
    frames::{error, firsts},
    http::Http,
};
use std::{thread, time::Instant};

fn acme(change: impl FnOnce(Tenant) -> Tenant) -> Proxy {
    let tenant = Tenant::new("acme", &Postgres::shared().place());
    Proxy::of([change(tenant)]).admin().start()
}

fn assert_says(error: &Fields, severity: &str, says: &[&str]) {
    assert_eq!(
        (error.severity(), error.code()),
        (severity, "53400"),
        "{error:?}"
    );
    for text in says {
        assert!(error.text().contains(text), "{error:?} does not say {text}");
    }
}

/// Has all of them ask at the same time; the errors of those that were refused.
fn ask_all(clients: &mut [Client]) -> Vec<Fields> {
    for client in &mut *clients {
        client.send(&Request::new().query("select 1"));
    }
    let answers = clients.iter_mut().map(Client::until_ready);
    answers.filter_map(|frames| error(&frames)).collect()
}

#[test]
fn transactions_beyond_the_rate_wait_a_little_and_more_are_refused() {
    let proxy = acme(|tenant| tenant.set("transactions_per_second", 10));
    let mut clients: Vec<_> = (0..60).map(|_| proxy.connect("acme").login()).collect();
    let start = Instant::now();
    let refused = ask_all(&mut clients);
    let seconds = start.elapsed().as_secs_f64();
    let served = u32::try_from(clients.len() - refused.len()).unwrap();
    // A second's worth at once, and one that waits, at least; and never more than the rate.
    assert!(served >= 20, "{served} were served");
    let most = 10.0 * (2.0 + seconds) + 1.0;
    assert!(f64::from(served) <= most, "{served} in {seconds} s");
    for error in &refused {
        let says = [
            "transactions_per_second of the tenant, 10,",
            "Try again in ",
        ];
        assert_says(error, "ERROR", &says);
    }
    let text = Http::new(proxy.admin_port()).get("/metrics").body;
    for result in ["waited", "refused"] {
        let line = format!(
            "pgusher_limited_total{{limit=\"transactions_per_second\",result=\"{result}\"}}"
        );
        assert!(text.contains(&line), "{text}");
    }
    eventually("a second later they are served", || {
        clients[0]
            .query("select 1")
            .iter()
            .any(|frame| frame.kind() == 'D')
    });
}

#[test]
fn who_keeps_to_the_rate_is_refused_nothing() {
    let proxy = acme(|tenant| tenant.set("transactions_per_second", 20));
    let mut client = proxy.connect("acme").login();
    let start = Instant::now();
    for _ in 0..60 {
        client.exec("select 1");
    }
    // The first second's worth is free.
    assert!(start.elapsed().as_secs_f64() > 1.9, "{:?}", start.elapsed());
}

#[test]
fn a_transaction_counts_once_and_those_of_a_pipeline_each() {
    let proxy = acme(|tenant| tenant.set("transactions_per_second", 5));
    let mut client = proxy.connect("acme").login();
    client.exec("begin");
    for _ in 0..50 {
        client.exec("select 1");
    }
    client.exec("commit");
    let start = Instant::now();
    let refused = pipelined(&mut client, 20, |request| request.query("select 1"));
    assert_kept(&refused, (5, 20), start);
}

/// Sends so many at once; the errors of those that were refused.
fn pipelined(client: &mut Client, count: usize, add: impl Fn(Request) -> Request) -> Vec<Fields> {
    let pipeline = (0..count).fold(Request::new(), |request, _| add(request));
    client.send(&pipeline);
    let answers = (0..count).map(|_| client.until_ready());
    answers.filter_map(|frames| error(&frames)).collect()
}

/// Whether of so many no more were served than the tenant's rate allows.
fn assert_kept(refused: &[Fields], (rate, count): (u32, usize), start: Instant) {
    let served = u32::try_from(count - refused.len()).unwrap();
    let most = f64::from(rate) * (2.0 + start.elapsed().as_secs_f64()) + 1.0;
    assert!(f64::from(served) <= most, "{served} of {count} were served");
    let says = format!("transactions_per_second of the tenant, {rate},");
    for error in refused {
        assert_says(error, "ERROR", &[&says]);
    }
}

#[test]
fn a_client_that_keeps_its_pipeline_full_is_judged_all_the_same() {
    for mode in [Mode::Transaction, Mode::Session] {
        let proxy = acme(|tenant| tenant.mode(mode).set("transactions_per_second", 20));
        let mut client = proxy.connect("acme").login();
        let start = Instant::now();
        let refused = pipelined(&mut client, 60, |request| request.query("select 1"));
        assert_kept(&refused, (20, 60), start);
        let start = Instant::now();
        let refused = pipelined(&mut client, 60, |request| {
            request.run("select 1", &[]).sync()
        });
        assert_kept(&refused, (20, 60), start);
    }
}

#[test]
fn what_is_copied_in_behind_a_pipeline_is_judged_and_does_not_hang() {
    let proxy = acme(|tenant| tenant.set("transactions_per_second", 1_000_000));
    let mut client = proxy.connect("acme").login();
    client.exec("create table t (n int)");
    let request = Request::new()
        .query("select 1")
        .query("copy t from stdin")
        .copy_data(b"1\n")
        .copy_done()
        .query("select count(*) from t");
    client.send(&request);
    for _ in 0..2 {
        client.until_ready();
    }
    assert_eq!(firsts(&client.until_ready()), ["1"]);
    // What PostgreSQL takes for broken data reaches it.
    client.send(&Request::new().query("copy t from stdin").query("select 1"));
    assert_eq!(error(&client.until('E')).unwrap().code(), "08P01");
}

#[test]
fn bytes_are_charged_behind_their_transaction_and_a_raised_rate_pays_them_faster() {
    let mut proxy = acme(|tenant| tenant.set("bytes_per_second", 10_000));
    let mut clients = [proxy.connect("acme").login(), proxy.connect("acme").login()];
    clients[0].exec("select repeat('x', 1000000)");
    for client in &mut clients {
        let says = ["bytes_per_second of the tenant, 10000,", "Try again in "];
        assert_says(&client.fails("select 1"), "ERROR", &says);
    }
    proxy.reload(|file| file.set_tenant("acme", "bytes_per_second", 10_000_000));
    eventually("all is paid", || {
        clients[1]
            .query("select 1")
            .iter()
            .any(|frame| frame.kind() == 'D')
    });
    // What the client sends counts, too.
    proxy.reload(|file| file.set_tenant("acme", "bytes_per_second", 10_001));
    let text = "x".repeat(1_000_000);
    eventually("it is too much", || {
        let frames = clients[0].query(&format!("select length('{text}')"));
        error(&frames).is_some_and(|error| error.text().contains("10001"))
    });
    proxy.reload(|file| file.set_tenant("acme", "bytes_per_second", 0));
    eventually("nothing is limited any more", || {
        clients[1]
            .query("select 1")
            .iter()
            .any(|frame| frame.kind() == 'D')
    });
}

#[test]
fn logins_beyond_the_rate_wait_a_little_and_more_are_refused() {
    let proxy = acme(|tenant| tenant.set("logins_per_second", 2));
    let connect = proxy.connect("acme");
    let all: Vec<_> = thread::scope(|scope| {
        let logins: Vec<_> = (0..12)
            .map(|_| scope.spawn(|| connect.try_login()))
            .collect();
        logins
            .into_iter()
            .map(|login| login.join().unwrap())
            .collect()
    });
    let (served, refused): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
    assert!(served.len() >= 4, "{} were let in", served.len());
    assert!(!refused.is_empty());
    for frames in refused {
        let Err(frames) = frames else { unreachable!() };
        let says = ["logins_per_second of the tenant, 2,", "Try again in "];
        assert_says(&error(&frames).unwrap(), "FATAL", &says);
    }
    for client in served {
        client.ok().unwrap().is_in_step();
    }
    let again = eventually_some("later one more is let in", || connect.try_login().ok());
    drop(again);
    assert_eq!(
        connect.password("wrong").refused().code(),
        "28P01",
        "who has no key is told nothing of it"
    );
}

#[test]
fn a_key_has_a_rate_of_its_own() {
    let proxy = acme(|tenant| {
        tenant
            .key(Key::new("slow").set("transactions_per_second", 1))
            .key(Key::new("fast"))
    });
    let mut slow: Vec<_> = (0..6)
        .map(|_| proxy.connect("acme").password("slow").login())
        .collect();
    let mut fast = proxy.connect("acme").password("fast").login();
    let refused = ask_all(&mut slow);
    assert!(!refused.is_empty());
    for error in &refused {
        assert_says(
            error,
            "ERROR",
            &["transactions_per_second of the API key, 1,"],
        );
    }
    for _ in 0..20 {
        fast.exec("select 1");
    }
}

#[test]
fn limits_of_the_registry_hold_and_change_while_sessions_run() {
    let postgres = Postgres::shared();
    let books = Books::new(postgres);
    let proxy = books.proxy().start();
    books.add_cluster(postgres.endpoint());
    books.add("acme", &postgres.place());
    let login = || eventually_some("it logs in", || proxy.connect("acme").try_login().ok());
    let (mut holder, mut other) = (login(), login());
    holder.exec("begin");
    other.is_in_step();
    let set = |table: &str, what: &str| {
        let id = "id = 'acme'";
        books
            .admin()
            .exec(&format!("update pgusher.{table} set {what} where {id}"));
    };
    set(
        "tenant",
        "query_wait_timeout = 2000, max_concurrent_queries = 1, max_waiting = 7",
    );
    holder.exec("commit");
    let mut is_refused = |says: &str| {
        eventually("the limit holds", || {
            holder.exec("begin");
            let error = error(&other.query("select 1"));
            holder.exec("commit");
            error.is_some_and(|error| error.text().contains(says))
        });
    };
    is_refused("max_concurrent_queries of the tenant, 1,");
    set("tenant", "max_concurrent_queries = 0");
    set("api_key", "max_concurrent_queries = 1");
    is_refused("max_concurrent_queries of the API key, 1,");
    set("api_key", "max_concurrent_queries = null");
    eventually("nothing is limited any more", || {
        holder.exec("begin");
        let error = error(&other.query("select 1"));
        holder.exec("commit");
        error.is_none()
    });
}

#[test]
fn limits_are_set_and_shown_by_the_command_line() {
    let estate = crate::harness::estate::Estate::new();
    estate.create("acme", "row");
    let set = [
        "tenant",
        "set",
        "acme",
        "max_concurrent_queries=5",
        "max_waiting=0",
        "transactions_per_second=100",
        "bytes_per_second=5000000000",
        "logins_per_second=3",
    ];
    let tenant = estate.office.json(&set);
    for (field, value) in [
        ("max_concurrent_queries", 5_i64),
        ("max_waiting", 0),
        ("transactions_per_second", 100),
        ("bytes_per_second", 5_000_000_000),
        ("logins_per_second", 3),
    ] {
        assert_eq!(tenant[field], value, "{field}: {tenant}");
    }
    let resized = estate.office.json(&[
        "tenant",
        "resize",
        "acme",
        "--max-concurrent-queries",
        "7",
        "--max-waiting",
        "default",
    ]);
    assert_eq!(resized["max_concurrent_queries"], 7);
    assert!(resized["max_waiting"].is_null());
    assert!(estate.events("acme").contains(&"ScaledDown".to_owned()));
    let error = estate.fails(&["tenant", "set", "acme", "logins_per_second=-1"]);
    assert!(error.contains("logins_per_second: -1"), "{error}");
    let key = [
        "key",
        "create",
        "acme",
        "--max-concurrent-queries",
        "2",
        "--transactions-per-second",
        "10",
        "--bytes-per-second",
        "1000000",
        "--logins-per-second",
        "1",
    ];
    let key = estate.office.json(&key);
    let keys = estate.office.json(&["key", "list", "acme"]);
    let made = keys.as_array().unwrap().iter();
    let made = made.filter(|other| other["max_concurrent_queries"] == 2);
    let made: Vec<_> = made.collect();
    assert_eq!(made.len(), 1, "{key} in {keys}");
    assert_eq!(made[0]["bytes_per_second"], 1_000_000);
    assert_eq!(made[0]["transactions_per_second"], 10);
    assert_eq!(made[0]["logins_per_second"], 1);
}

#[test]
fn the_file_says_them_and_check_shows_them() {
    let proxy = acme(|tenant| {
        let tenant = tenant.set("max_concurrent_queries", 5);
        tenant.key(Key::new("k").set("bytes_per_second", 77))
    });
    let check = std::process::Command::new(crate::harness::proxy::PROGRAM)
        .args(["check", "--config"])
        .arg(proxy.folder().join("proxy.toml"))
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&check.stdout).into_owned();
    for line in [
        "max_concurrent_queries = 5",
        "logins_per_second = 0",
        "bytes_per_second = 77",
    ] {
        assert!(shown.contains(line), "no {line} in {shown}");
    }
}
