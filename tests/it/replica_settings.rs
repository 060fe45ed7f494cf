//! Replicas in the registry: which, how they are used, as whom they are watched, by which tenants.

use crate::harness::{
    DEADLINE, Postgres,
    estate::{Estate, ground},
    office::Office,
};
use pgusher::{
    config::Config,
    registry::{Registry, RegistryDirectory},
    tenant::{
        Address, Cluster, ClusterName, Consistency, Directory as _, Reads, RunningLimit, Standbys,
    },
};
use serde_json::{Value, json};
use std::{fs, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

const ONE: &str = "postgres://127.0.0.1:5998";
const OTHER: &str = "postgres://127.0.0.1:5999?weight=2&region=eu";

fn at(port: u16) -> Address {
    let host = "127.0.0.1".into();
    Address::Tcp { host, port }
}

/// An estate whose cluster has both replicas, which nobody starts.
fn estate() -> Estate {
    let estate = Estate::new();
    for url in [ONE, OTHER] {
        let add = ["cluster", "add-replica", "main", url];
        estate.office.json(&add);
    }
    estate
}

/// The kinds of the clusters' events with what they changed, in order.
fn told_of_clusters(estate: &Estate, from: usize) -> Vec<(String, Value)> {
    let sql = "select json_agg(json_build_array(kind, changes) order by seq)::text \
               from pgusher.event where tenant is null";
    let events: Vec<(String, Value)> = serde_json::from_str(&estate.registry().value(sql)).unwrap();
    events.into_iter().skip(from).collect()
}

async fn directory(office: &Office, end: &CancellationToken) -> RegistryDirectory {
    let config = Config::load(&office.path().join("proxy.toml")).unwrap();
    let keyring = Arc::new(config.master_key.as_ref().unwrap().load().unwrap());
    let registry = config.registry.as_ref().unwrap();
    let opened = Registry::new(registry, keyring).unwrap();
    RegistryDirectory::start(registry, opened, end)
        .await
        .unwrap()
}

fn cluster(directory: &RegistryDirectory) -> Arc<Cluster> {
    let name = ClusterName::new("main").unwrap();
    directory.cluster(&name).unwrap()
}

async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.expect(what);
}

#[test]
fn a_replicas_weight_and_region_are_in_its_url_and_can_be_changed() {
    let estate = estate();
    let add = |url| ["cluster", "add-replica", "main", url];
    let shown = estate.office.json(&["cluster", "show", "main"]);
    assert_eq!(shown["replica_urls"], json!([ONE, OTHER]));
    let list = estate.office.run(&["cluster", "list"]).succeeded().out;
    assert!(list.contains(OTHER), "{list}");

    let again = "postgres://127.0.0.1:5999?region=eu&weight=2";
    let primary = ground().endpoint().url();
    for url in [OTHER, again, &primary] {
        let told = estate.fails(&add(url));
        assert!(
            told.contains("is a server of cluster \"main\" already"),
            "{told}"
        );
    }
    let heavier = "postgres://127.0.0.1:5999?weight=3";
    let changed = estate.office.json(&add(heavier));
    assert_eq!(changed["replica_urls"], json!([ONE, heavier]));
    let told = told_of_clusters(&estate, 1);
    let kinds: Vec<&str> = told.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(
        kinds,
        ["ReadReplicaAdded", "ReadReplicaAdded", "ReadReplicaChanged"]
    );

    for (url, says) in [
        (
            "postgres://r?weight=0",
            "replica_url: the weight \"0\" is not allowed; use 1 to 1000",
        ),
        (
            "postgres://r?region=",
            "replica_url: the region \"\" is no name",
        ),
        (
            "postgres://r?lag=1",
            "replica_url: the URL has the parameter \"lag\"",
        ),
    ] {
        let told = estate.fails(&add(url));
        assert!(told.contains(says), "{told}");
    }
    let primary = ["cluster", "add", "x", "--primary", "postgres://p?weight=2"];
    let told = estate.fails(&primary);
    assert!(
        told.contains("primary_url: the URL has the parameter \"weight\", which only"),
        "{told}"
    );
    let remove = [
        "cluster",
        "remove-replica",
        "main",
        "postgres://127.0.0.1:5999",
    ];
    let left = estate.office.json(&remove);
    assert_eq!(left["replica_urls"], json!([ONE]));
}

#[test]
fn how_replicas_are_used_is_set_shown_and_told() {
    let estate = Estate::new();
    let set = |options: &[&'static str]| [&["cluster", "set", "main"], options].concat();
    let changed = estate.office.json(&set(&[
        "--primary-weight",
        "3",
        "--replica-lag-max",
        "5s",
        "--replica-lag-bytes-max",
        "8589934592",
        "--replica-fallback",
        "false",
        "--replica-slow-start",
        "0",
        "--watch-interval",
        "50ms",
        "--watch-timeout",
        "2s",
        "--max-running-statements",
        "4",
        "--adaptive-running-statements",
        "true",
        "--min-running-statements",
        "3",
    ]));
    let expected = json!({
        "primary_weight": 3, "replica_lag_max": 5000, "replica_lag_bytes_max": 8_589_934_592_i64,
        "replica_fallback": false, "replica_slow_start": 0, "watch_interval": 50,
        "watch_timeout": 2000, "max_running_statements": 4,
        "adaptive_running_statements": true, "min_running_statements": 3,
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(changed[field], *value, "{field}");
    }
    let shown = estate.office.json(&["cluster", "show", "main"]);
    assert_eq!(shown["watch_interval"], 50);
    // What is as it was is no event; the default comes back.
    estate.office.json(&set(&["--primary-weight", "3"]));
    let reset = estate.office.json(&set(&[
        "--replica-lag-max",
        "default",
        "--profile",
        "strict",
    ]));
    assert_eq!(reset["replica_lag_max"], Value::Null);
    assert_eq!(reset["primary_weight"], 3);
    let told = told_of_clusters(&estate, 1);
    assert_eq!(told[0].0, "ConfigUpdated");
    assert_eq!(told[0].1.as_object().unwrap().len(), 10, "{told:?}");
    assert_eq!(told[1].0, "ConfigUpdated");
    assert_eq!(
        told[1].1,
        json!({"replica_lag_max": {"before": 5000, "after": null}}),
        "{told:?}"
    );
}

#[test]
fn a_use_of_replicas_that_cannot_be_is_refused() {
    let estate = Estate::new();
    let set = |options: &[&'static str]| [&["cluster", "set", "main"], options].concat();
    for (options, says) in [
        (
            &["--primary-weight", "1001"][..],
            "primary_weight: 1001: it must be 0 to 1000",
        ),
        (
            &["--watch-interval", "9ms"],
            "watch_interval: 9: it must be 10 to 60000",
        ),
        (
            &["--max-running-statements", "100001"],
            "max_running_statements: 100001: it must be 0 to 100000",
        ),
        (
            &["--min-running-statements", "0"],
            "min_running_statements: 0: it must be 1 to 100000",
        ),
        (
            &["--watch-timeout", "0"],
            "watch_timeout: 0: it must be 10 to 60000",
        ),
        (
            &["--replica-lag-max", "5"],
            "--replica-lag-max 5\": write a time such as",
        ),
        (
            &["--replica-fallback", "maybe"],
            "write \"true\" or \"false\"",
        ),
        (
            &["--replica-lag-bytes-max=-1"],
            "replica_lag_bytes_max: -1: it must be 0 to",
        ),
        (&[], "required"),
    ] {
        let told = estate.fails(&set(options));
        assert!(told.contains(says), "{told}");
    }
}

#[test]
fn a_tenants_reads_are_set_shown_and_told() {
    let estate = estate();
    let created = estate.office.json(&[
        "tenant",
        "create",
        "acme",
        "--tier",
        "row",
        "--set",
        "consistency=eventual",
        "--set",
        "read_replicas=postgres://127.0.0.1:5999",
    ]);
    let tenant = &created["tenant"];
    assert_eq!(tenant["consistency"], "eventual");
    assert_eq!(
        tenant["read_replicas"],
        json!(["postgres://127.0.0.1:5999"])
    );
    assert_eq!(tenant["failover_hold"], Value::Null);
    let before = estate.events("acme").len();

    let set = |pairs: &[&'static str]| [&["tenant", "set", "acme"], pairs].concat();
    estate.office.json(&set(&[
        "consistency=session",
        "read_splitting=false",
        "failover_hold=0",
        "read_replicas=default",
    ]));
    let shown = estate.office.json(&["tenant", "show", "acme"]);
    assert_eq!(shown["consistency"], "session");
    assert_eq!(shown["read_splitting"], false);
    assert_eq!(shown["failover_hold"], 0);
    assert_eq!(shown["read_replicas"], Value::Null);
    assert_eq!(estate.events("acme")[before..], ["ConfigUpdated"]);
    // Its history gives the same.
    let folded = estate
        .office
        .json(&["tenant", "show", "acme", "--at", "0s"]);
    assert_eq!(folded["consistency"], "session");
    assert_eq!(folded["failover_hold"], 0);

    for (pair, says) in [
        ("consistency=strong", "consistency: it must be one of"),
        ("failover_hold=soon", "write a time such as"),
        ("read_splitting=1", "write \"true\" or \"false\""),
        (
            "read_replicas=",
            "read_replicas: name some of the cluster's",
        ),
        (
            "read_replicas=postgres://127.0.0.1:5997",
            "is no replica of cluster \"main\": it has postgres://127.0.0.1:5998, ",
        ),
        (
            "read_replicas=postgres://127.0.0.1:5998,postgres://127.0.0.1:5998",
            "127.0.0.1:5998 is given twice",
        ),
        (
            "read_replicas=nowhere",
            "read_replicas: the value does not start with",
        ),
    ] {
        let told = estate.fails(&set(&[pair]));
        assert!(told.contains(says), "{pair}: {told}");
    }
    let create = ["tenant", "create", "globex", "--tier", "row", "--set"];
    let told = estate.fails(&[&create[..], &["read_replicas=postgres://r"]].concat());
    assert!(told.contains("is no replica of cluster \"main\""), "{told}");
    assert_eq!(estate.field("globex", "id"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_the_registry_is_watched_as_its_admin() {
    let estate = Estate::new();
    let role = format!("watcher_{}", std::process::id());
    ground().admin().exec(&format!(
        "create role {role} login superuser password 'open sesame'"
    ));
    fs::write(estate.office.path().join("pw"), "open sesame\n").unwrap();
    estate.registry().exec("delete from pgusher.cluster");
    let url = ground().endpoint().url();
    let add = [
        "cluster",
        "add",
        "main",
        "--primary",
        &url,
        "--admin-role",
        &role,
    ];
    let replicas = [
        "--replica",
        ONE,
        "--replica",
        OTHER,
        "--admin-password-file",
        "pw",
    ];
    estate.office.json(&[&add[..], &replicas].concat());
    estate.create("acme", "row");

    let end = CancellationToken::new();
    let directory = directory(&estate.office, &end).await;
    let first = cluster(&directory);
    assert_eq!(first.standbys, Standbys::default());
    let replicas: Vec<_> = first.replicas.iter().collect();
    assert_eq!(replicas[0].address, at(5998));
    assert_eq!(
        (replicas[1].weight, replicas[1].region.as_deref()),
        (2, Some("eu"))
    );
    let watch = first.watch.as_ref().unwrap();
    assert_eq!(
        (&*watch.login.role, &*watch.database),
        (role.as_str(), "postgres")
    );
    let password = watch.login.password.as_ref().unwrap();
    assert_eq!(password.expose(), "open sesame");
    assert!(!format!("{first:?}").contains("sesame"));
    end.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_plane_learns_of_changes_at_once() {
    let estate = estate();
    estate.create("acme", "row");
    let end = CancellationToken::new();
    let directory = directory(&estate.office, &end).await;
    let tenant = directory.tenant("acme").await.unwrap().unwrap();
    assert_eq!(tenant.reads, Reads::default());
    let mut changes = directory.changes();
    changes.mark_unchanged();
    directory.take_region(Some("eu"));
    assert!(changes.has_changed().unwrap());
    assert_eq!(cluster(&directory).standbys.region.as_deref(), Some("eu"));
    changes.mark_unchanged();
    directory.take_region(Some("eu"));
    assert!(!changes.has_changed().unwrap());

    let set = [
        "cluster",
        "set",
        "main",
        "--replica-lag-max",
        "0",
        "--primary-weight",
        "7",
        "--max-running-statements",
        "9",
        "--adaptive-running-statements",
        "true",
        "--min-running-statements",
        "5",
    ];
    estate.office.json(&set);
    estate.office.json(&[
        "tenant",
        "set",
        "acme",
        "consistency=session",
        "read_splitting=false",
        "failover_hold=3s",
        "read_replicas=postgres://127.0.0.1:5999",
    ]);
    let expected = Standbys {
        primary_weight: 7,
        lag_max: None,
        region: Some("eu".into()),
        ..Standbys::default()
    };
    eventually("the cluster's change is learned", async || {
        let cluster = cluster(&directory);
        let found = RunningLimit::Found {
            floor: 5,
            ceiling: 9,
        };
        cluster.standbys == expected && cluster.running_limit() == found
    })
    .await;
    let expected = Reads {
        split: false,
        consistency: Consistency::Session,
        replicas: Some(vec![at(5999)]),
        failover_hold: Duration::from_secs(3),
    };
    eventually("the tenant's change is learned", async || {
        let tenant = directory.tenant("acme").await.unwrap().unwrap();
        tenant.reads == expected
    })
    .await;
    end.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_the_registry_knows_it_too() {
    let estate = estate();
    estate.create("acme", "row");
    estate
        .office
        .json(&["tenant", "set", "acme", "consistency=eventual"]);
    estate
        .office
        .json(&["cluster", "set", "main", "--replica-fallback", "false"]);
    let path = estate.office.path().join("proxy.toml");
    let toml = fs::read_to_string(&path).unwrap();
    let toml = toml.replacen("[secrets]", "snapshot = \"snapshot\"\n[secrets]", 1);
    fs::write(&path, &toml).unwrap();
    let end = CancellationToken::new();
    let directory_of_registry = directory(&estate.office, &end).await;
    directory_of_registry.tenant("acme").await.unwrap().unwrap();
    let snapshot = estate.office.path().join("snapshot");
    eventually("the snapshot is written", async || snapshot.exists()).await;
    end.cancel();

    let port = Postgres::shared().endpoint().port();
    fs::write(&path, toml.replace(&format!(":{port}/"), ":1/")).unwrap();
    let end = CancellationToken::new();
    let directory = directory(&estate.office, &end).await;
    assert!(!directory.is_up());
    let tenant = directory.tenant("acme").await.unwrap().unwrap();
    assert_eq!(tenant.reads.consistency, Consistency::Eventual);
    let cluster = cluster(&directory);
    assert!(!cluster.standbys.fallback && cluster.watch.is_some());
    assert_eq!(cluster.replicas[1].weight, 2);
    end.cancel();
}

#[test]
fn a_registry_made_before_is_brought_up_to_date_with_all_that_is_in_it() {
    let estate = estate();
    estate.create("acme", "row");
    let mut registry = estate.registry();
    registry.exec(
        "alter table pgusher.cluster drop primary_weight, drop replica_lag_max, \
             drop replica_lag_bytes_max, drop replica_fallback, drop replica_slow_start, \
             drop watch_interval, drop watch_timeout, drop paused_until, \
             drop max_running_statements, drop adaptive_running_statements, \
             drop min_running_statements; \
         alter table pgusher.tenant drop read_splitting, drop consistency, drop failover_hold, \
             drop read_replicas, drop guaranteed_servers, drop weight, \
             drop max_concurrent_queries, drop max_waiting, drop transactions_per_second, \
             drop bytes_per_second, drop logins_per_second, drop max_storage_bytes, \
             drop queries_per_month, drop transactions_per_month, drop trial_ends_at, \
             drop transactions_per_hour, drop client_write_timeout; \
         alter table pgusher.api_key drop max_concurrent_queries, drop transactions_per_second, \
             drop bytes_per_second, drop logins_per_second, drop transactions_per_hour; \
         drop table pgusher.usage_hourly, pgusher.usage_error, pgusher.usage_batch, \
             pgusher.usage_storage, pgusher.usage_monthly, pgusher.storage, pgusher.plan, \
             pgusher.quota_reached; \
         drop function pgusher.tell_plan; \
         delete from pgusher._sqlx_migrations where version >= 5",
    );
    estate.office.run(&["migrate"]).succeeded();
    let applied = registry.value("select max(version) from pgusher._sqlx_migrations");
    assert_eq!(applied, "17");
    let shown = estate.office.json(&["cluster", "show", "main"]);
    assert_eq!(shown["replica_urls"], json!([ONE, OTHER]));
    assert_eq!(shown["primary_weight"], Value::Null);
    let shown = estate.office.json(&["tenant", "show", "acme"]);
    assert_eq!(shown["consistency"], Value::Null);
    estate
        .office
        .json(&["tenant", "set", "acme", "consistency=session"]);
    assert_eq!(estate.field("acme", "consistency"), "session");
    estate.office.run(&["audit", "verify"]).succeeded();
}
