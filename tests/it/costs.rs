//! What a month costs whom, by the prices of `proxy.toml`.

use crate::{
    api_desk::{Desk, postgres},
    harness::{eventually, office::Office},
};
use serde_json::{Value, json};
use std::fs;

const PRICES: &str = "
[prices]
currency = \"EUR\"
per_million_queries = 0.2
per_million_transactions = 1
per_gb_in = 0.01
per_gb_out = 0.09
per_server_hour = 0.05
per_gb_month = 0.25
plan = { starter = 0.0, professional = 49.0 }
clusters = { main = 300.0, spare = 20 }
free = { queries = 1000000 }
";

fn add(office: &Office, text: &str) {
    let path = office.path().join("proxy.toml");
    fs::write(&path, fs::read_to_string(&path).unwrap() + text).unwrap();
}

/// A record of a tenant; there is nothing of it in the cluster.
fn record(id: &str, plan: &str, status: &str, cluster: &str, made: &str) -> String {
    let word: String = id.chars().cycle().take(20).collect();
    format!(
        "insert into pgusher.tenant (id, name, tier, status, cluster, database_name, token, role, \
         scram_salt, plan, created_at) values ('{id}', '{id}', 'database', '{status}', '{cluster}', \
         'd', '{word}', 'r', '\\x00', '{plan}', '{made}');"
    )
}

/// November of 2026: queries in millions, transactions, gigabytes in and out, hours of servers.
fn used(tenant: &str, numbers: [u32; 5]) -> String {
    let [queries, transactions, gb_in, gb_out, hours] = numbers;
    format!(
        "insert into pgusher.usage_hourly (tenant, hour, queries, transactions, client_bytes, \
         server_bytes, server_time_us) values \
         ('{tenant}', '2026-10-31 23:00+00', 7000000, 7, 7, 7, 7), \
         ('{tenant}', '2026-11-01 00:00+00', {queries}000000, 0, {gb_in}000000000, 0, 0), \
         ('{tenant}', '2026-11-30 23:00+00', 0, {transactions}, 0, {gb_out}000000000, \
          {hours}::bigint * 3600000000), \
         ('{tenant}', '2026-12-01 00:00+00', 7000000, 7, 7, 7, 7);"
    )
}

/// Two tenants on the cluster `main`, one that is gone, one that used nothing; nobody is on `spare`.
const STORAGE: &str = "insert into pgusher.usage_storage (tenant, hour, bytes, measured_at) values \
    ('a', '2026-11-01 00:00+00', 10000000000, now()), \
    ('a', '2026-11-01 12:00+00', 20000000000, now()), \
    ('a', '2026-11-10 00:00+00', 60000000000, now()), \
    ('gone', '2026-10-31 20:00+00', 720000000000, now()), \
    ('gone', '2026-11-01 01:00+00', 1440000000000, now());";

fn fill(admin: &mut crate::harness::Client) {
    let url = postgres().endpoint().url();
    let cluster = |name: &str| {
        format!(
            "insert into pgusher.cluster (name, primary_url, admin_role) values ('{name}', '{url}', 'admin');"
        )
    };
    let made = "2026-01-01";
    let all = [
        "begin;".to_owned(),
        cluster("main"),
        cluster("spare"),
        record("a", "professional", "active", "main", made),
        record("b", "starter", "suspended", "main", made),
        record("c", "odd, \"own\"", "active", "main", made),
        record("ended", "professional", "terminated", "main", made),
        record("later", "professional", "active", "main", "2026-12-02"),
        used("a", [3, 500_000, 1, 2, 2]),
        used("b", [1, 1, 0, 0, 1]),
        used("gone", [2, 0, 0, 0, 5]),
        STORAGE.to_owned(),
        "commit".to_owned(),
    ];
    admin.exec(&all.concat());
}

fn line<'a>(report: &'a Value, tenant: &str) -> &'a Value {
    let mut lines = report["lines"].as_array().unwrap().iter();
    lines
        .find(|line| line["tenant"] == tenant)
        .unwrap_or_else(|| panic!("{tenant}: {report}"))
}

fn amounts(line: &Value) -> Vec<&str> {
    let names = [
        "queries",
        "transactions",
        "bytes_in",
        "bytes_out",
        "server_time",
        "storage",
        "plan",
        "cluster",
    ];
    names
        .map(|name| line["amounts"][name].as_str().unwrap())
        .into()
}

/// Millionths.
fn exact(amount: &Value) -> u64 {
    let (whole, decimals) = amount.as_str().unwrap().split_once('.').unwrap();
    format!("{whole}{decimals:0<6}").parse().unwrap()
}

fn is_as_it_should_be(report: &Value) {
    let names: Vec<_> = report["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| &line["tenant"])
        .collect();
    assert_eq!(names, ["a", "b", "c", "ended", "gone", "(unused)"]);
    let a = line(report, "a");
    // 12 hours of 10 GB, a day of 20 GB as nobody measured behind it, an hour of 60 GB.
    assert_eq!(a["quantities"]["byte_hours"], 660_000_000_000_u64);
    assert_eq!(a["quantities"]["gb_months"], "0.916667");
    assert_eq!(
        amounts(a),
        [
            "0.40", "0.50", "0.01", "0.18", "0.10", "0.229167", "49.00", "200.00"
        ]
    );
    assert_eq!(a["total"], "250.419167");
    assert_eq!(
        amounts(line(report, "b")),
        [
            "0.00", "0.000001", "0.00", "0.00", "0.05", "0.00", "0.00", "100.00"
        ]
    );
    // Neither its plan nor its cluster is known: what it used is.
    let gone = line(report, "gone");
    assert_eq!(
        (&gone["plan"], &gone["cluster"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        amounts(gone),
        [
            "0.20", "0.00", "0.00", "0.00", "0.25", "0.75", "0.00", "0.00"
        ]
    );
    assert_eq!(line(report, "ended")["total"], "0.00");
    let unused = line(report, "(unused)");
    assert_eq!(
        (&unused["cluster"], &unused["total"]),
        (&json!("spare"), &json!("20.00"))
    );
    let lines = report["lines"].as_array().unwrap();
    let sum: u64 = lines.iter().map(|line| exact(&line["total"])).sum();
    assert_eq!(exact(&report["total"]["total"]), sum);
    let used: u64 = lines
        .iter()
        .map(|line| line["quantities"]["queries"].as_u64().unwrap())
        .sum();
    assert_eq!(report["total"]["quantities"]["queries"], used);
    assert_eq!(
        (&report["month"], &report["currency"]),
        (&json!("2026-11"), &json!("EUR"))
    );
}

#[test]
fn a_month_is_reported_by_tenant_and_adds_up() {
    let office = Office::new(postgres().endpoint());
    office.run(&["migrate"]).succeeded();
    let command = ["cost", "report", "--month", "2026-11"];
    let none = office.run(&command);
    assert!(
        !none.is_success && none.err.contains("[prices]"),
        "{}",
        none.err
    );
    add(&office, PRICES);
    fill(&mut office.admin());
    let report = office.json(&command);
    is_as_it_should_be(&report);
    let csv = office
        .run(&[&command[..], &["--format", "csv"]].concat())
        .succeeded()
        .out;
    let lines: Vec<_> = csv.split("\r\n").collect();
    assert_eq!(lines.len(), 9, "{csv}");
    assert!(lines[0].starts_with("month,currency,tenant,"), "{csv}");
    assert!(
        lines[1].starts_with("2026-11,EUR,a,professional,main,3000000,500000,"),
        "{csv}"
    );
    assert!(lines[1].ends_with(",49.00,200.00,250.419167"), "{csv}");
    assert!(
        lines[3].starts_with("2026-11,EUR,c,\"odd, \"\"own\"\"\",main,0,"),
        "{csv}"
    );
    let total = report["total"]["total"].as_str().unwrap();
    assert!(
        lines[7].starts_with("2026-11,EUR,(total),,,") && lines[7].ends_with(total),
        "{csv}"
    );
    assert_eq!(lines[8], "");
    let table = office.run(&command).succeeded().out;
    assert!(
        table.contains("total EUR") && table.contains("250.419167"),
        "{table}"
    );
    // One tenant alone has the same line, whether it is there or gone.
    for tenant in ["a", "b", "gone"] {
        let own = office.json(&[&command[..], &["--tenant", tenant]].concat());
        assert_eq!(own["lines"].as_array().unwrap().len(), 1);
        assert_eq!(own["lines"][0], *line(&report, tenant));
        assert_eq!(own["total"]["total"], own["lines"][0]["total"]);
    }
    for wrong in [
        &["cost", "report", "--month", "2026-11", "--tenant", "nobody"][..],
        &["cost", "report", "--month", "2026-13"],
    ] {
        assert!(!office.run(wrong).is_success);
    }
}

#[test]
fn a_tenant_that_was_ended_pays_its_plan_up_to_that_month() {
    let office = Office::new(postgres().endpoint());
    office.run(&["migrate"]).succeeded();
    add(&office, PRICES);
    let mut admin = office.admin();
    fill(&mut admin);
    // On the 15th of November.
    admin.exec(
        "insert into pgusher.event (seq, id, at_us, tenant, kind, actor, address, previous, hash) \
         values (0, gen_random_uuid(), 1794700800000000, 'ended', 'Terminated', 'x', '', '', '')",
    );
    for (month, plan) in [
        ("2026-10", "49.00"),
        ("2026-11", "49.00"),
        ("2026-12", "0.00"),
    ] {
        let report = office.json(&["cost", "report", "--month", month, "--tenant", "ended"]);
        assert_eq!(report["total"]["amounts"]["plan"], plan, "{month}");
    }
}

#[test]
fn the_api_tells_operators_all_and_a_tenant_its_own_and_prices_change_live() {
    let desk = Desk::new();
    let mut admin = desk.office.admin();
    fill(&mut admin);
    let all = "/api/costs?month=2026-11";
    let without = desk.operator().get(all).problem(422);
    assert!(without.contains("[prices]"), "{without}");
    add(&desk.office, PRICES);
    eventually("the prices are known", || {
        desk.operator().get(all).status == 200
    });
    let report = desk.operator().get(all).ok(200);
    is_as_it_should_be(&report);
    let csv = desk.operator().get(&format!("{all}&format=csv"));
    assert!(
        csv.header("content-type").starts_with("text/csv"),
        "{csv:?}"
    );
    let accepted = desk.operator().header("Accept", "text/csv").get(all);
    assert_eq!((accepted.status, &accepted.body), (200, &csv.body));
    let own = desk.with_role("viewer", Some("a"));
    own.get(all).problem(403);
    own.get("/api/tenants/b/costs?month=2026-11").problem(404);
    let told = own.get("/api/tenants/a/costs?month=2026-11").ok(200);
    assert_eq!(told["lines"], json!([line(&report, "a")]));
    own.get("/api/tenants/a/costs").ok(200);
    // What stands under its name from before it was made is not its own.
    let later = desk.with_role("viewer", Some("later"));
    admin.exec(&used("later", [5, 0, 0, 0, 0]));
    let told = later.get("/api/tenants/later/costs?month=2026-12").ok(200);
    assert_eq!(told["total"]["quantities"]["queries"], 0);
    for wrong in ["month=2026-13", "month=x", "format=xml", "of=a"] {
        desk.operator()
            .get(&format!("/api/costs?{wrong}"))
            .problem(422);
    }
    desk.nobody().get(all).problem(401);
}
