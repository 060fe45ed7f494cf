//! Metrics by tenant: those that use most, and the others together; every line as Prometheus reads it.
#![allow(clippy::float_cmp, reason = "what is compared are counts")]

use crate::harness::{
    Client, Mode, Postgres, Proxy, ProxyFile, Request, Tenant, eventually_some, http::Http,
};
use std::collections::{BTreeMap, BTreeSet};

/// Servers' time that nobody has who does not sleep.
const LONG: &str = "select pg_sleep(1)";
const LONGER: &str = "select pg_sleep(2)";

/// The metrics by tenant that are counters or gauges.
const PLAIN: [&str; 11] = [
    "queries_total",
    "transactions_total",
    "rows_total",
    "client_bytes_total",
    "server_bytes_total",
    "server_seconds_total",
    "wait_seconds_total",
    "errors_total",
    "client_connections",
    "server_connections",
    "clients_waiting",
];

/// Every sample by its name and labels.
struct Scrape(BTreeMap<String, f64>);

fn is_name(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.is_empty() && text.chars().all(is_word) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// Names and values of a sample's labels.
fn labels(text: &str) -> Vec<(String, String)> {
    let mut rest = text;
    let mut labels = Vec::new();
    while !rest.is_empty() {
        let (name, behind) = rest.split_once("=\"").expect(text);
        let (value, behind) = behind.split_once('"').expect(text);
        assert!(is_name(name) && !value.contains('\\'), "{text}");
        labels.push((name.to_owned(), value.to_owned()));
        rest = behind.strip_prefix(',').unwrap_or(behind);
        assert!(rest.len() < behind.len() || rest.is_empty(), "{text}");
    }
    labels
}

impl Scrape {
    /// Holds the text to its form: each family is declared once, and its samples follow it.
    fn read(text: &str) -> Self {
        let mut samples = BTreeMap::new();
        let (mut helped, mut typed) = (BTreeSet::new(), BTreeSet::new());
        let (mut family, mut kind) = ("", "");
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect(line);
                assert!(is_name(name) && !help.is_empty(), "{line}");
                assert!(
                    helped.insert(name) && !typed.contains(name),
                    "twice: {line}"
                );
            } else if let Some(declared) = line.strip_prefix("# TYPE ") {
                (family, kind) = declared.split_once(' ').expect(line);
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(typed.insert(family), "twice: {line}");
            } else {
                let (series, value) = line.rsplit_once(' ').expect(line);
                let (name, inner) = series.split_once('{').unwrap_or((series, "}"));
                let labels = labels(inner.strip_suffix('}').expect(line));
                let is_bucket = labels.iter().any(|(name, _)| name == "le");
                let suffix = name.strip_prefix(family).expect(line);
                match kind {
                    "histogram" if is_bucket => assert_eq!(suffix, "_bucket", "{line}"),
                    "histogram" => assert!(["_sum", "_count"].contains(&suffix), "{line}"),
                    _ => assert_eq!(suffix, "", "{line}"),
                }
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                let value: f64 = value.parse().expect(line);
                assert!(value >= 0.0, "{line}");
                assert_eq!(samples.insert(series.to_owned(), value), None, "{line}");
            }
        }
        Self(samples)
    }

    fn value(&self, series: &str) -> Option<f64> {
        self.0.get(series).copied()
    }

    /// Of this tenant.
    fn of(&self, what: &str, tenant: &str) -> Option<f64> {
        self.value(&format!("pgusher_tenant_{what}{{tenant=\"{tenant}\"}}"))
    }

    fn sum(&self, name: &str) -> f64 {
        let is_it = |series: &&String| series.split('{').next() == Some(name);
        self.0
            .keys()
            .filter(is_it)
            .map(|series| self.0[series])
            .sum()
    }

    /// Whose metrics there are.
    fn tenants(&self) -> BTreeSet<String> {
        let tenants = self.0.keys().filter_map(|series| {
            let (_, behind) = series.split_once("tenant=\"")?;
            Some(behind.split('"').next()?.to_owned())
        });
        tenants.collect()
    }

    /// Holds a histogram to what one is, and returns its count.
    fn histogram(&self, name: &str, label: &str) -> f64 {
        let (mut bounds, mut last) = (Vec::new(), 0.0);
        let begins = format!("{name}_bucket{{{label}");
        for (series, count) in self
            .0
            .iter()
            .filter(|(series, _)| series.starts_with(&begins))
        {
            let bound = series
                .split("le=\"")
                .nth(1)
                .unwrap()
                .split('"')
                .next()
                .unwrap();
            bounds.push((bound.parse::<f64>().unwrap(), *count));
        }
        bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert_eq!(bounds.len(), 15, "{name} {label}");
        assert!(bounds[14].0.is_infinite());
        for (bound, count) in bounds {
            assert!(count >= last, "{name} {label} {bound}");
            last = count;
        }
        let own = label.trim_end_matches(',');
        let own = if own.is_empty() {
            String::new()
        } else {
            format!("{{{own}}}")
        };
        let count = self.value(&format!("{name}_count{own}")).unwrap();
        assert_eq!(count, last, "{name} {label}");
        assert!(self.value(&format!("{name}_sum{own}")).is_some());
        count
    }
}

fn scrape(proxy: &Proxy) -> Scrape {
    let answer = Http::new(proxy.admin_port()).get("/metrics");
    assert_eq!(answer.status, 200);
    Scrape::read(&answer.body)
}

/// A proxy that tells so many tenants apart.
fn proxy(series: i64, tenants: Vec<Tenant>) -> Proxy {
    let mut file = ProxyFile::new(Postgres::shared().endpoint(), tenants);
    file.admin.insert("tenant_series".into(), series.into());
    Proxy::with(file).admin().start()
}

fn tenant(id: &str) -> Tenant {
    Tenant::new(id, &Postgres::shared().place())
}

fn query(client: &mut Client, times: usize) {
    for _ in 0..times {
        client.exec("select 1");
    }
}

/// Once all that was counted is told.
fn told(proxy: &Proxy, what: &str, is_so: impl Fn(&Scrape) -> bool) -> Scrape {
    eventually_some(what, || Some(scrape(proxy)).filter(|scrape| is_so(scrape)))
}

fn adds_up(scrape: &Scrape) {
    for (by_tenant, all) in [
        ("queries_total", "pgusher_queries_total"),
        ("transactions_total", "pgusher_transactions_total"),
        ("client_connections", "pgusher_client_connections"),
        ("server_connections", "pgusher_server_connections"),
        ("clients_waiting", "pgusher_clients_waiting"),
    ] {
        let sum = scrape.sum(&format!("pgusher_tenant_{by_tenant}"));
        assert_eq!(sum, scrape.sum(all), "{by_tenant}");
    }
    let client = scrape.sum("pgusher_tenant_client_bytes_total");
    let server = scrape.sum("pgusher_tenant_server_bytes_total");
    assert_eq!(client + server, scrape.sum("pgusher_relay_bytes_total"));
    let mut sum = 0.0;
    for tenant in scrape.tenants() {
        let label = format!("tenant=\"{tenant}\",");
        let count = scrape.histogram("pgusher_tenant_transaction_seconds", &label);
        assert_eq!(
            Some(count),
            scrape.of("transactions_total", &tenant),
            "{tenant}"
        );
        scrape.histogram("pgusher_tenant_checkout_wait_seconds", &label);
        for what in PLAIN {
            assert!(scrape.of(what, &tenant).is_some(), "{what} of {tenant}");
        }
        sum += count;
    }
    assert_eq!(scrape.histogram("pgusher_transaction_seconds", ""), sum);
}

/// All transactions are measured: a client has its answer before its server is back.
fn is_at_rest(scrape: &Scrape) -> bool {
    let count = scrape.value("pgusher_transaction_seconds_count");
    count == Some(scrape.sum("pgusher_transactions_total"))
}

#[test]
fn those_who_use_most_are_told_apart_and_all_is_told_once() {
    let proxy = proxy(2, vec![tenant("a"), tenant("b"), tenant("c")]);
    let login = |id: &str| proxy.connect(id).login();
    let (mut a, mut b, mut c) = (login("a"), login("b"), login("c"));
    a.exec(LONGER);
    b.exec(LONG);
    query(&mut c, 3);
    let first = told(&proxy, "all is counted", is_at_rest);
    assert_eq!(
        first.tenants(),
        ["(other)", "a", "b"].map(str::to_owned).into()
    );
    // What was before they were told apart is in what is told of the others.
    let queries = |scrape: &Scrape| {
        ["a", "b", "c", "(other)"].map(|tenant| scrape.of("queries_total", tenant))
    };
    assert_eq!(queries(&first), [Some(0.0), Some(0.0), None, Some(5.0)]);
    adds_up(&first);
    query(&mut a, 5);
    query(&mut b, 4);
    query(&mut c, 1);
    c.fails("select nonsense");
    let second = told(&proxy, "all is counted", is_at_rest);
    assert_eq!(queries(&second), [Some(5.0), Some(4.0), None, Some(7.0)]);
    assert_eq!(second.of("rows_total", "a"), Some(5.0));
    assert_eq!(second.of("errors_total", "(other)"), Some(1.0));
    assert_eq!(second.of("errors_total", "a"), Some(0.0));
    assert_eq!(second.of("client_connections", "a"), Some(1.0));
    assert_eq!(second.of("server_connections", "(other)"), Some(1.0));
    adds_up(&second);
    // One that is not in use gives way to one that uses more; what it did is not told again.
    b.send(&Request::new().terminate());
    b.rest();
    told(&proxy, "it is gone", |scrape| {
        scrape.of("client_connections", "b") == Some(0.0)
    });
    c.exec(LONGER);
    let third = told(&proxy, "the other comes", |scrape| {
        scrape.tenants().contains("c") && is_at_rest(scrape)
    });
    assert_eq!(queries(&third), [Some(5.0), None, Some(0.0), Some(8.0)]);
    let mut b = login("b");
    query(&mut b, 2);
    query(&mut c, 3);
    let fourth = told(&proxy, "all is counted", is_at_rest);
    assert_eq!(queries(&fourth), [Some(5.0), None, Some(3.0), Some(10.0)]);
    assert_eq!(fourth.of("client_connections", "(other)"), Some(1.0));
}

#[test]
fn how_many_are_told_apart_can_be_changed_and_none_is_none() {
    let mut proxy = proxy(0, vec![tenant("a"), tenant("b")]);
    let (mut a, mut b) = (proxy.connect("a").login(), proxy.connect("b").login());
    a.exec(LONG);
    query(&mut b, 2);
    let none = told(&proxy, "all is counted", is_at_rest);
    assert!(none.tenants().is_empty());
    assert_eq!(none.histogram("pgusher_transaction_seconds", ""), 3.0);
    proxy.reload(|file| drop(file.admin.insert("tenant_series".into(), 1.into())));
    let one = told(&proxy, "one is told", |scrape| !scrape.tenants().is_empty());
    assert_eq!(one.tenants(), ["(other)", "a"].map(str::to_owned).into());
    assert_eq!(one.of("queries_total", "(other)"), Some(3.0));
    adds_up(&one);
    proxy.reload(|file| drop(file.admin.insert("tenant_series".into(), 0.into())));
    told(&proxy, "none is told", |scrape| scrape.tenants().is_empty());
}

#[test]
fn every_transaction_is_measured_whether_its_server_is_kept_or_not() {
    let keeps = tenant("keeps").mode(Mode::Session);
    let proxy = proxy(
        5,
        vec![
            keeps,
            tenant("pins"),
            tenant("pipes"),
            tenant("waits").pool_size(1),
        ],
    );
    let mut keeps = proxy.connect("keeps").login();
    query(&mut keeps, 3);
    keeps.exec("begin");
    keeps.exec("select 1");
    keeps.exec("commit");
    let mut pins = proxy.connect("pins").login();
    pins.exec("create temp table t (i int)");
    query(&mut pins, 2);
    let mut pipes = proxy.connect("pipes").login();
    let three = Request::new()
        .query("select 1")
        .query("select 2")
        .query("select 3");
    pipes.send(&three);
    (0..3).for_each(|_| drop(pipes.until_ready()));
    let mut holder = proxy.connect("waits").login();
    holder.exec("begin");
    let mut waiter = proxy.connect("waits").login();
    waiter.send(&Request::new().query("select 1"));
    told(&proxy, "it waits", |scrape| {
        scrape.sum("pgusher_tenant_clients_waiting") == 1.0
    });
    holder.exec("commit");
    waiter.until_ready();
    let all = told(&proxy, "all is counted", is_at_rest);
    assert_eq!(all.sum("pgusher_transactions_total"), 12.0);
    assert_eq!(all.histogram("pgusher_transaction_seconds", ""), 12.0);
    assert!(all.sum("pgusher_tenant_checkout_wait_seconds_count") >= 1.0);
    adds_up(&all);
    query(&mut keeps, 1);
    query(&mut pins, 1);
    let more = told(&proxy, "all is counted", is_at_rest);
    for id in ["keeps", "pins"] {
        let label = format!("tenant=\"{id}\",");
        assert_eq!(
            more.histogram("pgusher_tenant_transaction_seconds", &label),
            1.0
        );
    }
    adds_up(&more);
}
