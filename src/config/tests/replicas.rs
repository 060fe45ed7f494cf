//! Replicas: which, how they are used, as whom they are watched, and by which tenants.

use super::*;
use crate::tenant::{Cluster, Consistency, Login, Reads, Replica, Standbys, Watch};

const REPLICAS: &str =
    "replicas = [\"postgres://db:5433\", \"postgres://db:5434?weight=2&region=eu\"]\n";

fn at(port: u16) -> Address {
    let host = "db".into();
    Address::Tcp { host, port }
}

fn cluster(lines: &str) -> Arc<Cluster> {
    Arc::clone(&parse(&format!("{CLUSTER}{lines}\n")).unwrap().clusters[0])
}

/// As whom the cluster is watched: role, whether with a password, and database.
fn watch_of(cluster: &Cluster) -> Option<(&str, bool, &str)> {
    let watch = cluster.watch.as_ref()?;
    let has_password = watch.login.password.is_some();
    Some((&watch.login.role, has_password, &watch.database))
}

#[test]
fn replicas_have_a_weight_a_region_and_the_defaults_for_the_rest() {
    let of_default = cluster(REPLICAS);
    let other = Replica {
        address: at(5434),
        weight: 2,
        region: Some("eu".into()),
    };
    assert_eq!(of_default.replicas, [Replica::at(at(5433)), other]);
    assert_eq!(of_default.standbys, Standbys::default());
    assert_eq!(of_default.watch, None);

    let region = "[proxy]\nregion = \"eu\"\n";
    let lines = "primary_weight = 1000\nreplica_lag_max = \"0s\"\nreplica_lag_bytes_max = 16777216\nreplica_fallback = false\nreplica_slow_start = \"0s\"\nwatch_interval = \"10ms\"\nwatch_timeout = \"1m\"";
    let config = parse(&format!("{region}{CLUSTER}{lines}")).unwrap();
    let standbys = Standbys {
        primary_weight: 1000,
        lag_bytes_max: Some(16_777_216),
        lag_max: None,
        fallback: false,
        watch_interval: Duration::from_millis(10),
        watch_timeout: Duration::from_mins(1),
        slow_start: Duration::ZERO,
        region: Some("eu".into()),
    };
    assert_eq!(config.clusters[0].standbys, standbys);
}

#[test]
fn a_cluster_is_paused_where_it_is_said_and_is_watched_as_before() {
    let [open, said, paused] = ["", "paused = false", "paused = true"].map(cluster);
    assert_eq!(open, said);
    assert!(!open.is_paused && paused.is_paused);
    assert_ne!(open, paused, "who has a pool there is told");
    assert!(open.is_watched_like(&paused));
}

#[test]
fn a_tenant_says_how_its_reads_are_spread() {
    let config = |defaults: &str, lines: &str| {
        let text = format!("{CLUSTER}{REPLICAS}[defaults]\n{defaults}\n{TENANT}{lines}");
        parse(&text).unwrap().tenants[0].reads.clone()
    };
    assert_eq!(config("", ""), Reads::default());
    let defaults = "consistency = \"session\"\nfailover_hold = \"1m\"\nread_splitting = false";
    let lines = "consistency = \"eventual\"\nread_replicas = [\"postgres://db:5434\"]";
    let reads = Reads {
        split: false,
        consistency: Consistency::Eventual,
        replicas: Some(vec![at(5434)]),
        failover_hold: Duration::from_mins(1),
    };
    assert_eq!(config(defaults, lines), reads);
    let hold = config("", "failover_hold = \"0s\"").failover_hold;
    assert_eq!(hold, Duration::ZERO);
    // As it stands in the cluster's list.
    let lines = "read_replicas = [\"postgres://db:5434?weight=2&region=eu\"]";
    assert_eq!(config("", lines).replicas, Some(vec![at(5434)]));
}

#[test]
fn servers_are_watched_as_the_monitor_or_as_the_first_tenant_of_the_cluster() {
    let other = CLUSTER.replace("main", "other");
    let second = TENANT.replace("acme", "second");
    let elsewhere = TENANT
        .replace("acme", "first")
        .replace("\"main\"", "\"other\"");
    let tenants =
        format!("{other}{elsewhere}{TENANT}password_env = \"SECRET\"\ndatabase = \"db\"\n{second}")
            .replace("database = \"acme\"\n", "");
    for (lines, watch) in [
        ("", None),
        (REPLICAS, Some(("acme", true, "db"))),
        (
            "monitor_role = \"monitor\"\n",
            Some(("monitor", false, "postgres")),
        ),
        (
            &format!(
                "{REPLICAS}monitor_role = \"monitor\"\nmonitor_password_env = \"SECRET\"\nmonitor_database = \"m\"\n"
            ),
            Some(("monitor", true, "m")),
        ),
    ] {
        let config = parse(&format!("{CLUSTER}{lines}{tenants}")).unwrap();
        assert_eq!(watch_of(&config.clusters[0]), watch, "{lines}");
        assert_eq!(watch_of(&config.clusters[1]), None, "{lines}");
    }
}

#[test]
fn replicas_that_nobody_watches_are_a_warning() {
    let warnings = |text: &str| {
        let (_, warnings) = check::parse(text, Path::new(""), &|_| None).unwrap();
        let warnings = warnings.iter().map(ToString::to_string);
        warnings.collect::<Vec<_>>()
    };
    let told = warnings(&format!("{CLUSTER}{REPLICAS}"));
    let says = "line 4: clusters \"main\": replicas: they are not used: ";
    assert!(told.len() == 1 && told[0].starts_with(says), "{told:?}");
    for text in [
        CLUSTER.to_owned(),
        format!("{CLUSTER}{REPLICAS}{TENANT}"),
        format!("{CLUSTER}{REPLICAS}monitor_role = \"m\"\n"),
    ] {
        assert_eq!(warnings(&text), [""; 0], "{text}");
    }
}

#[test]
fn the_monitors_password_is_never_shown() {
    let text =
        format!("{CLUSTER}{REPLICAS}monitor_role = \"monitor\"\nmonitor_password = \"hunter2\"\n");
    let config = parse(&text).unwrap();
    let secret = Some(Secret::new("hunter2".to_owned()));
    let login = Login {
        role: "monitor".into(),
        password: secret,
    };
    let database = "postgres".into();
    assert_eq!(config.clusters[0].watch, Some(Watch { login, database }));
    for printed in [
        config.to_toml(),
        config.to_json().to_string(),
        format!("{config:?}"),
    ] {
        assert!(!printed.contains("hunter2"), "{printed}");
        assert!(printed.contains("[redacted]"));
    }
}

#[test]
fn what_is_effective_reads_back_as_the_same() {
    for (region, lines, of_tenant) in [
        ("", "", ""),
        (
            "[proxy]\nregion = \"eu-1\"\n",
            "paused = true\nreplica_lag_max = \"0s\"\nreplica_lag_bytes_max = 1\nreplica_fallback = false\nprimary_weight = 3\nwatch_interval = \"1s\"\nwatch_timeout = \"2s\"\nreplica_slow_start = \"0s\"\nmonitor_role = \"m\"\nmonitor_database = \"d\"\nmax_running_statements = 9\nadaptive_running_statements = true\nmin_running_statements = 5\n",
            "read_splitting = false\nconsistency = \"session\"\nfailover_hold = \"0s\"\nread_replicas = [\"postgres://db:5434\"]\n",
        ),
    ] {
        let text = format!("{region}{CLUSTER}{REPLICAS}{lines}{TENANT}{of_tenant}");
        let config = parse(&text).unwrap();
        let printed = config.to_toml();
        assert!(
            printed.contains("\"postgres://db:5434?weight=2&region=eu\""),
            "{printed}"
        );
        assert_eq!(parse(&printed).unwrap(), config, "{printed}");
    }
}

/// Lines of a cluster, and what the error says.
const WRONG_CLUSTERS: &[(&str, &str)] = &[
    (
        "replicas = [\"postgres://r?weight=0\"]",
        "line 4: clusters \"main\": replicas[0]: the weight \"0\" is not allowed; use 1 to 1000",
    ),
    (
        "replicas = [\"postgres://r?region=a%20b\"]",
        "replicas[0]: the region \"a%20b\" is no name; use 1 to 63",
    ),
    (
        "replicas = [\"postgres://r?lag=1\"]",
        "replicas[0]: the URL has the parameter \"lag\"",
    ),
    (
        "replicas = [\"postgres://r\", \"postgres://r:5432?weight=2\"]",
        "replicas[1]: \"r:5432\" is used twice",
    ),
    (
        "replicas = [\"postgres://db\"]",
        "replicas[0]: \"db:5432\" is used twice",
    ),
    (
        "primary_weight = 1001",
        "primary_weight: 1001 is not allowed; use 0 to 1000",
    ),
    (
        "watch_interval = \"9ms\"",
        "line 4: clusters \"main\": watch_interval: \"9ms\" is not allowed; use \"10ms\" to \"1m\"",
    ),
    (
        "watch_timeout = \"0s\"",
        "watch_timeout: \"0s\" is not allowed; use",
    ),
    ("replica_lag_max = 30", "replica_lag_max: invalid type"),
    (
        "replica_lag_bytes_max = \"16MB\"",
        "replica_lag_bytes_max: invalid type",
    ),
    (
        "replica_fallback = \"no\"",
        "replica_fallback: invalid type",
    ),
    ("paused = \"30s\"", "paused: invalid type"),
    (
        "max_running_statements = 4\nmin_running_statements = 5",
        "min_running_statements: 5 is not allowed; use 1 to 4",
    ),
    (
        "adaptive_running_statements = 4",
        "adaptive_running_statements: invalid type",
    ),
    (
        "monitor_password = \"hunter2\"",
        "monitor_role: it is missing; the monitor's password needs its role",
    ),
    (
        "monitor_database = \"m\"",
        "monitor_database: it needs monitor_role as well",
    ),
    (
        "monitor_role = \"m\"\nmonitor_password = \"hunter2\"\nmonitor_password_file = \"f\"",
        "monitor_password_file: it can't stand together with monitor_password",
    ),
    (
        "monitor_role = \"\"",
        "monitor_role: \"\" can't be a name in PostgreSQL",
    ),
];

#[test]
fn what_is_wrong_with_a_cluster_is_told() {
    let urls: Vec<_> = (1..=17)
        .map(|port| format!("\"postgres://db:{port}\""))
        .collect();
    let many = format!("replicas = [{}]", urls.join(", "));
    let says = "replicas: 17 is too large; the most replicas of a cluster is 16";
    for (lines, says) in WRONG_CLUSTERS
        .iter()
        .copied()
        .chain([(many.as_str(), says)])
    {
        let problem = problem(&format!("{CLUSTER}{lines}"));
        assert!(problem.contains(says), "{lines}: {problem}");
        assert!(!problem.contains("hunter2"), "{problem}");
    }
    let weighty = CLUSTER.replace("postgres://db", "postgres://db?weight=2");
    let told = problem(&weighty);
    assert!(
        told.contains("primary: the URL has the parameter \"weight\", which only a replica's has"),
        "{told}"
    );
    let told = problem("[proxy]\nregion = \"a b\"");
    assert!(
        told.contains("line 2: proxy.region: the region \"a b\" is no name"),
        "{told}"
    );
}

#[test]
fn what_is_wrong_with_a_tenants_reads_is_told() {
    for (lines, says) in [
        (
            "consistency = \"strong\"",
            "tenants \"acme\": consistency: unknown variant `strong`, expected one of `tenant`, `session`, `eventual`",
        ),
        (
            "failover_hold = \"soon\"",
            "failover_hold: \"soon\" is not a time",
        ),
        ("read_splitting = 1", "read_splitting: invalid type"),
        (
            "read_replicas = []",
            "read_replicas: it is missing; name some",
        ),
        (
            "read_replicas = [\"postgres://db:5434\", \"postgres://db:9\"]",
            "read_replicas[1]: \"postgres://db:9\" is no replica of cluster \"main\"; use some of [\"postgres://db:5433\", \"postgres://db:5434\"]",
        ),
        (
            "read_replicas = [\"postgres://db:5434\", \"postgres://db:5434\"]",
            "read_replicas[1]: \"db:5434\" is used twice",
        ),
    ] {
        let problem = problem(&format!("{CLUSTER}{REPLICAS}{TENANT}{lines}"));
        assert!(problem.contains(says), "{lines}: {problem}");
    }
    let lone = problem(&with_tenant("read_replicas = [\"postgres://db:5434\"]"));
    assert!(lone.contains("\"main\"; it has none: add it"), "{lone}");
    let defaults = format!("{CLUSTER}{REPLICAS}[defaults]\nread_replicas = []\n");
    let told = problem(&defaults);
    assert!(
        told.contains("defaults.read_replicas: unknown field"),
        "{told}"
    );
}
