//! How much storage tenants take is measured in every tier, and holds.

use crate::harness::{
    Client, Connect, Postgres, Proxy, books::Books, estate::Estate, estate::ground, eventually,
    eventually_some, frames::error, http::Http, postgres::ADMIN, proxy_file::KEY,
};
use pgusher::{
    provisioning::{Admin, row_sizes},
    tenant::{Address, UpstreamTls},
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::runtime::Builder;

fn connect(proxy: &Proxy, tenant: &str, key: &str) -> Client {
    let connect = Connect::to(proxy.address()).user(tenant).password(key);
    eventually_some("the tenant logs in", || connect.try_login().ok())
}

fn adds(client: &mut Client, sql: &str) -> bool {
    error(&client.query(sql)).is_none()
}

#[test]
fn a_tenant_that_frees_space_is_writable_again_without_a_new_connection() {
    let postgres = Postgres::shared();
    let books = Books::new(postgres);
    let start = || books.proxy().set_usage("storage_interval", "1s").start();
    // Two, so that what both measure is told once.
    let (proxy, _other) = (start(), start());
    books.add_cluster(postgres.endpoint());
    let place = postgres.database();
    books.add("acme", &place);
    let mut client = connect(&proxy, "acme", KEY);
    client.exec("create table t (s text)");
    let size = "select pg_database_size(current_database()) + 2000000";
    let limit = client.value(size);
    books.admin().exec(&format!(
        "update pgusher.tenant set max_storage_bytes = {limit} where id = 'acme'"
    ));
    client.exec("insert into t select repeat(md5(i::text), 30) from generate_series(1, 8000) i");
    eventually("it is full", || {
        !adds(&mut client, "insert into t values ('x')")
    });
    client.exec("delete from t");
    client.exec("vacuum full t");
    eventually("there is room again", || {
        adds(&mut client, "insert into t values ('x')")
    });
    let kinds = "select kind from pgusher.event where tenant = 'acme' and kind like 'storage.%' \
                 order by seq";
    let kinds = books.admin().values(kinds);
    let hard: Vec<_> = kinds
        .iter()
        .filter(|kind| *kind != "storage.soft")
        .collect();
    assert_eq!(hard, ["storage.hard", "storage.freed"], "{kinds:?}");
}

/// What a command measures of a tenant.
fn measured(estate: &Estate, id: &str) -> i64 {
    let told = eventually_some("it is measured", || {
        let run = estate
            .office
            .run(&["tenant", "usage", id, "--measure", "--json"]);
        let told: Option<Value> = serde_json::from_str(&run.out).ok();
        told.filter(|_| run.is_success)
    });
    told["total"]["storage_bytes"].as_i64().unwrap()
}

#[test]
fn rows_of_tenants_that_share_tables_add_up_to_the_tables() {
    let estate = Estate::new();
    for id in ["big", "mid", "low"] {
        estate.create(id, "row");
    }
    let database = estate.field("big", "database_name");
    let tokens = ["big", "mid", "low"].map(|id| estate.field(id, "token"));
    let mut inside = ground().endpoint().admin_of(&database);
    let table = format!("data.things_{}", tokens[0]);
    inside.exec(&format!(
        "create table {table} (tenant_id text not null, id int, body text, primary key (tenant_id, id)); \
         insert into {table} select '{}', i, repeat('x', 100) from generate_series(1, 3000) i; \
         insert into {table} select '{}', i, repeat('x', 100) from generate_series(1, 1000) i",
        tokens[0], tokens[1]
    ));
    let total = inside.value(&format!("select pg_total_relation_size('{table}')"));
    let total: i64 = total.parse().unwrap();
    let [big, mid, low] = ["big", "mid", "low"].map(|id| measured(&estate, id));
    assert_eq!(big + mid + low, total);
    assert!((big - mid * 3).abs() < total / 50, "{big}, {mid}");
    assert_eq!(low, 0);
    let rows = "select string_agg(rows::text, ' ' order by tenant) from pgusher.storage";
    assert_eq!(estate.registry().value(rows), "3000 0 1000");
    inside.exec(&format!("drop table {table}"));
    assert_eq!(measured(&estate, "big"), 0);
}

#[test]
fn of_a_large_table_a_part_is_read_and_told_as_the_whole() {
    let estate = Estate::new();
    for id in ["big", "mid"] {
        estate.create(id, "row");
    }
    let database = estate.field("big", "database_name");
    let tokens = ["big", "mid"].map(|id| estate.field(id, "token"));
    let endpoint = ground().endpoint();
    let mut inside = endpoint.admin_of(&database);
    let table = format!("data.large_{}", tokens[0]);
    inside.exec(&format!(
        "create table {table} (tenant_id text not null, id int, body text); \
         insert into {table} select case when i % 2 = 0 then '{}' else '{}' end, i, repeat('x', 100) \
             from generate_series(1, 20000) i",
        tokens[0], tokens[1]
    ));
    let total = inside.value(&format!("select pg_total_relation_size('{table}')"));
    let total: u64 = total.parse().unwrap();
    let admin = Admin {
        address: Address::Tcp {
            host: "127.0.0.1".into(),
            port: endpoint.port(),
        },
        tls: UpstreamTls::Disable,
        role: ADMIN.into(),
        password: None,
        connect_timeout: Duration::from_secs(10),
    };
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let shares = eventually_some("it is measured", || {
        runtime
            .block_on(row_sizes(&admin, &database, total / 8))
            .ok()
    });
    let [big, mid] = [0, 1].map(|at| shares[&tokens[at]]);
    assert_eq!(big.bytes + mid.bytes, total);
    assert!(big.bytes > total / 4 && mid.bytes > total / 4);
    assert!(
        (5_000..80_000).contains(&(big.rows + mid.rows)),
        "{big:?}, {mid:?}"
    );
    inside.exec(&format!("drop table {table}"));
}

/// Makes a tenant of the tier row.
fn create(estate: &Estate, id: &str, variant: &str) -> Value {
    let command = ["tenant", "create", id, "--tier", "row"];
    let command = [&command[..], &["--variant", variant, "--json"]].concat();
    // Registries of other tests look after the same server, and may take who is slow on it for one that is in
    // the way.
    eventually_some("the tenant is made", || {
        let made = estate.office.run(&command);
        made.is_success
            .then(|| serde_json::from_str(&made.out).unwrap())
    })
}

fn a_full_tenant_beside_another(variant: &str) {
    let estate = Estate::new();
    let proxy = estate.office.serve();
    let [full, other] = ["full", "other"].map(|id| create(&estate, id, variant));
    let key = |made: &Value, which: &str| made[which]["key"].as_str().unwrap().to_owned();
    let mut client = connect(&proxy, "full", &key(&full, "key"));
    let mut reader = connect(&proxy, "full", &key(&full, "read_only_key"));
    let mut neighbour = connect(&proxy, "other", &key(&other, "key"));
    // A view that every tenant of the tier has.
    let add = "insert into ctl.canary (id, secret) values (7, 'x')";
    client.exec(add);
    estate.registry().exec(
        "begin; insert into pgusher.storage (tenant, bytes, measured_at) values ('full', 5, now()) \
             on conflict (tenant) do update set bytes = 5; \
         update pgusher.tenant set max_storage_bytes = 5 where id = 'full'; commit",
    );
    let again = "insert into ctl.canary (id, secret) select 8, 'x' where false";
    eventually("it is full", || !adds(&mut client, again));
    assert_eq!(client.fails(add).code(), "25006");
    neighbour.exec(add);
    for _ in 0..5 {
        assert_eq!(client.value("select count(*) from ctl.canary"), "1");
        assert_eq!(client.value("show default_transaction_read_only"), "on");
        neighbour.exec("update ctl.canary set secret = secret || 'y'");
        assert_eq!(neighbour.value("show default_transaction_read_only"), "off");
    }
    // Who only reads is told what it always was, and nothing else.
    let error = reader.fails(add);
    assert!(!error.text().contains("max_storage_bytes"), "{error:?}");
    let frames = reader.exec("select 1");
    assert!(frames.iter().all(|frame| frame.kind() != 'N'), "{frames:?}");
}

#[test]
fn a_full_tenant_of_shared_tables_keeps_its_neighbours_from_nothing() {
    a_full_tenant_beside_another("own");
}

#[test]
fn a_full_tenant_that_shares_its_logins_keeps_them_from_nothing_either() {
    a_full_tenant_beside_another("shared");
}

#[test]
fn the_quota_tells_that_storage_is_held_to_its_limit() {
    let postgres = Postgres::shared();
    let books = Books::new(postgres);
    let proxy = books
        .proxy()
        .admin()
        .set_usage("storage_interval", "0s")
        .start();
    books.add_cluster(postgres.endpoint());
    books.add("acme", &postgres.place());
    drop(connect(&proxy, "acme", KEY));
    books.admin().exec(
        "update pgusher.tenant set max_storage_bytes = 1000 where id = 'acme'; \
         insert into pgusher.usage_storage (tenant, hour, bytes, measured_at) \
             values ('acme', date_trunc('hour', now(), 'UTC'), 250, now())",
    );
    let made = {
        let mut command = std::process::Command::new(crate::harness::proxy::PROGRAM);
        let command = command.args(["key", "create", "acme", "--json"]);
        crate::harness::programs::run(command.current_dir(proxy.folder()))
    };
    let made: Value = serde_json::from_str(&made.succeeded().out).unwrap();
    let http = Http::new(proxy.admin_port()).token(made["key"].as_str().unwrap());
    let quotas = http.get("/api/tenants/acme/quota").ok(200);
    let mut quotas = quotas["quotas"].as_array().unwrap().iter();
    let storage = quotas
        .find(|quota| quota["name"] == "storage_bytes")
        .unwrap();
    assert_eq!(
        (
            &storage["max"],
            &storage["current"],
            &storage["percentage"],
            &storage["enforced"]
        ),
        (&json!(1000), &json!(250), &json!(25.0), &json!(true))
    );
}
