use super::*;
use crate::tenant::{Address, Directory as _, PoolMode, Scope, Status, Tier};
use std::{collections::HashMap, fmt::Write as _, fs, time::Instant};

mod replicas;

const REFERENCE: &str = include_str!("../../proxy.toml");
const VERIFIER: &str = "SCRAM-SHA-256$4096:+ol1z4TqkTlAoT7JK8OGeg==$v0QdiS3y5qLZqtUvmFkZHR90DoxFNGBcTYv+yQ3SVy0=:YtR8nVcIDmwhqP6v1wz2nB8BGJrkVnYYxxw+zE7OAPA=";
const OTHER_SALT: &str = "SCRAM-SHA-256$4096:AAAAz4TqkTlAoT7JK8OGeg==$v0QdiS3y5qLZqtUvmFkZHR90DoxFNGBcTYv+yQ3SVy0=:YtR8nVcIDmwhqP6v1wz2nB8BGJrkVnYYxxw+zE7OAPA=";
const CLUSTER: &str = "[[clusters]]\nname = \"main\"\nprimary = \"postgres://db\"\n";
const TENANT: &str = "[[tenants]]\nid = \"acme\"\ncluster = \"main\"\ntier = \"database\"\ndatabase = \"acme\"\nrole = \"acme\"\n";

/// A valid file with these lines added to its (last) tenant.
fn with_tenant(lines: &str) -> String {
    format!("{CLUSTER}{TENANT}{lines}\n")
}

fn parse_at(directory: &Path, text: &str) -> Result<Config, Vec<String>> {
    let environment = |name: &str| match name {
        "SECRET" => Some("from the environment".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    match check::parse(text, directory, &environment) {
        Ok((config, _)) => Ok(config),
        Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
    }
}

fn parse(text: &str) -> Result<Config, Vec<String>> {
    parse_at(Path::new("/nonexistent"), text)
}

fn tenant(lines: &str) -> Arc<Tenant> {
    Arc::clone(&parse(&with_tenant(lines)).unwrap().tenants[0])
}

/// The one problem of the text.
fn problem(text: &str) -> String {
    let mut problems = parse(text).expect_err(text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

/// The reference with every `# key = value` line made real, and the names of these keys.
fn uncommented(keep: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    for line in REFERENCE.lines() {
        let inner = line.trim_start().strip_prefix("# ").unwrap_or(line);
        let key = inner.split_once(" = ").map(|(key, _)| key);
        let is_key =
            key.is_some_and(|key| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        let is_entry = inner.starts_with("{ id");
        let real = is_entry || key.is_some_and(|key| is_key && keep(key));
        writeln!(text, "{}", if real { inner } else { line }).unwrap();
    }
    text
}

#[test]
fn the_reference_parses_as_it_is() {
    let config = parse(REFERENCE).unwrap();
    assert_eq!(config.proxy.listen[0].address.to_string(), "127.0.0.1:6432");
    assert_eq!(config.tenants[0].keys.len(), 1);
}

#[test]
fn every_key_of_the_reference_exists_when_uncommented() {
    let text = uncommented(|_| true);
    let file: raw::File = toml::from_str(&text).unwrap();
    let written = serde_json::to_value(&file).unwrap();
    let missing = |table: &serde_json::Value, but: &[&str]| -> Vec<String> {
        let keys = table.as_object().unwrap().iter();
        let missing = keys.filter(|(key, value)| value.is_null() && !but.contains(&key.as_str()));
        missing.map(|(key, _)| key.clone()).collect()
    };
    let none: [String; 0] = [];
    assert_eq!(missing(&written["proxy"], &[]), none);
    let tables = [
        "admin",
        "registry",
        "usage",
        "prices",
        "secrets",
        "templates",
    ];
    for table in tables {
        assert_eq!(missing(&written[table], &[]), none, "{table}");
    }
    assert_eq!(missing(&written["clusters"][0], &[]), none);
    // Named in a comment behind their neighbour.
    let others = ["read_only_password_env", "read_only_password_file"];
    assert_eq!(missing(&written["tenants"][0], &others), none);
    assert_eq!(file.tenants[0].keys.len(), 2);
}

#[test]
fn every_default_of_the_reference_is_the_default() {
    // Examples rather than defaults: they need a file, a variable or a decision.
    let examples = [
        "url",
        "url_env",
        "url_file",
        "max_connections",
        "stale_max",
        "snapshot",
        "sweep_interval",
        "lock_watch_interval",
        "lock_watch_penalty",
        "master_key_file",
        "master_key_env",
        "master_key_command",
        "directory",
        "proxy_protocol_listen",
        "workers",
        "tls_mode",
        "tls_cert",
        "tls_key",
        "tls_client_ca",
        "tls_ca",
        "auth_seed_file",
        "region",
        "replicas",
        "read_replicas",
        "trial_ends_at",
        "monitor_role",
        "monitor_password",
        "monitor_password_env",
        "monitor_password_file",
        "monitor_database",
        "schema",
        "password",
        "password_env",
        "password_file",
        "read_only_role",
        "read_only_password",
        "time_zone",
        "tenant_setting",
        "settings",
        "forced",
        "max_running_statements",
        "currency",
        "per_million_queries",
        "per_million_transactions",
        "per_gb_in",
        "per_gb_out",
        "per_server_hour",
        "per_gb_month",
        "plan",
        "clusters",
        "free",
    ];
    let text = uncommented(|key| !examples.contains(&key));
    // The admin listener is off; its commented key is an example.
    let text = text.replacen("listen = \"127.0.0.1:6433\"", "", 1);
    let text = text.replacen("  { id = \"ci\"", "# { id = \"ci\"", 1);
    let text = text.replacen("{ id = \"ci\"", "# { id = \"ci\"", 1);
    assert!(text.contains("\nreplica_lag_bytes_max") && text.contains("\nconsistency"));
    assert!(text.contains("\nserver_idle_timeout") && text.contains("\nshutdown_timeout"));
    assert_eq!(parse(&text).unwrap(), parse(REFERENCE).unwrap());
}

#[test]
fn an_empty_file_is_the_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.proxy.listen[0].address.to_string(), "127.0.0.1:6432");
    assert_eq!(config.proxy.tls.mode, TlsMode::Disable);
    assert_eq!(config.admin.listen, None);
    assert!(config.tenants.is_empty());
}

#[test]
fn a_tenant_has_what_it_says_and_the_defaults_for_the_rest() {
    let text = format!(
        "{CLUSTER}[defaults]\npool_size = 7\nquery_timeout = \"3s\"\n{TENANT}pool_mode = \"session\"\nserver_lifetime = \"0s\"\nstatus = \"suspended\"\n"
    );
    let config = parse(&text).unwrap();
    let tenant = &config.tenants[0];
    assert_eq!(tenant.limits.pool_size, 7);
    assert_eq!(tenant.timeouts.query, Some(Duration::from_secs(3)));
    assert_eq!(tenant.timeouts.server_lifetime, None);
    assert_eq!(tenant.timeouts.query_wait, Some(Duration::from_mins(2)));
    assert_eq!(tenant.pool_mode, PoolMode::Session);
    assert_eq!(tenant.status, Status::Suspended);
    assert_eq!(tenant.placement.login.password, None);
    assert_eq!(
        config.clusters[0].primary,
        Address::Tcp {
            host: "db".into(),
            port: 5432
        }
    );
    assert_eq!(config.clusters[0].tls, UpstreamTls::Disable);
}

#[test]
fn settings_come_in_order_and_forced_names_in_lower_case() {
    let text = with_tenant(
        "time_zone = \"UTC\"\ntenant_setting = \"app.tenant_id\"\nforced = [\"Search_Path\"]\nsettings = { work_mem = \"4MB\", DateStyle = \"ISO\" }\nschema = \"a\\\"b\"",
    )
    .replace("tier = \"database\"", "tier = \"standard\"");
    let tenant = Arc::clone(&parse(&text).unwrap().tenants[0]);
    assert_eq!(tenant.placement.tier, Tier::Schema);
    let settings: Vec<_> = tenant.settings.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(
        settings,
        [
            ("search_path", "\"a\"\"b\""),
            ("TimeZone", "UTC"),
            ("app.tenant_id", "acme"),
            ("DateStyle", "ISO"),
            ("work_mem", "4MB"),
        ]
    );
    assert_eq!(tenant.forced, [Box::from("search_path")]);
}

#[test]
fn the_schema_is_the_role_unless_given() {
    let text = with_tenant("").replace("tier = \"database\"", "tier = \"schema\"");
    let config = parse(&text).unwrap();
    assert_eq!(config.tenants[0].placement.schema.as_deref(), Some("acme"));
}

#[test]
fn a_password_comes_from_one_of_three_places() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("secret"), "from a file\n").unwrap();
    for (line, password) in [
        ("password = \"inline\"", "inline"),
        ("password_env = \"SECRET\"", "from the environment"),
        ("password_file = \"secret\"", "from a file"),
    ] {
        let config = parse_at(directory.path(), &with_tenant(line)).unwrap();
        let login = &config.tenants[0].placement.login;
        assert_eq!(login.password.as_ref().unwrap().expose(), password);
    }
}

#[test]
fn a_password_file_for_everyone_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, "x").unwrap();
    let text = with_tenant("password_file = \"secret\"");
    for (mode, count) in [(0o644, 1), (0o640, 0), (0o600, 0)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let (_, warnings) = check::parse(&text, directory.path(), &|_| None).unwrap();
        assert_eq!(warnings.len(), count, "{mode:o}");
        for warning in warnings {
            let warning = warning.to_string();
            assert!(
                warning.contains("chmod 600") && warning.starts_with("line 10: "),
                "{warning}"
            );
        }
    }
}

#[test]
fn keys_have_a_place_a_scope_and_a_time() {
    let tenant = tenant(&format!(
        "read_only_role = \"acme_ro\"\nkeys = [\n{{ verifier = \"{VERIFIER}\" }},\n{{ id = \"ci\", verifier = \"{VERIFIER}\", scope = \"read_only\", allow = [\"10.0.0.0/8\", \"::1\"], expires = \"2027-01-31T00:00:00Z\", max_client_connections = 10 }},\n]"
    ));
    let [first, second] = tenant.keys.as_slice() else {
        panic!("two keys")
    };
    assert_eq!(first.id.as_str(), "1");
    assert_eq!(first.scope, Scope::ReadWrite);
    assert_eq!(second.id.as_str(), "ci");
    assert_eq!(second.scope, Scope::ReadOnly);
    assert_eq!(second.allow[1].to_string(), "::1/128");
    assert!(second.expires.is_some());
    assert_eq!(second.max_client_connections, Some(10));
}

/// Lines of a tenant, and what the error says.
const WRONG_TENANTS: &[(&str, &str)] = &[
    (
        "pool_size = 0",
        "line 10: tenants \"acme\": pool_size: 0 is not allowed; use 1 to 10000",
    ),
    ("pool_size = 4294967297", "4294967297 is not allowed"),
    (
        "max_concurrent_queries = 1000001",
        "max_concurrent_queries: 1000001 is not allowed; use 0 to 1000000",
    ),
    (
        "max_waiting = 1000001",
        "max_waiting: 1000001 is not allowed",
    ),
    (
        "bytes_per_second = 1000000000001",
        "bytes_per_second: 1000000000001 is not allowed; use 0 to 1000000000000",
    ),
    (
        "logins_per_second = -1",
        "logins_per_second: invalid value: integer `-1`",
    ),
    (
        "min_pool_size = 21",
        "min_pool_size: 21 is too large; pool_size is 20",
    ),
    (
        "guaranteed_servers = 91",
        "guaranteed_servers: 91 is too large; 0 are guaranteed to tenants above, and the cluster has 90 \
         (max_server_connections less reserved_servers); use at most 90 or raise max_server_connections",
    ),
    ("weight = 0", "weight: 0 is not allowed; use 1 to 1000"),
    (
        "weight = 1001",
        "weight: 1001 is not allowed; use 1 to 1000",
    ),
    ("max_client_connections = 0", "use 1 to 1000000"),
    (
        "pool_mode = \"tx\"",
        "line 10: tenants \"acme\": pool_mode: unknown variant `tx`",
    ),
    (
        "poolsize = 1",
        "line 10: tenants \"acme\": poolsize: unknown field `poolsize`",
    ),
    ("pool_size = -1", "pool_size: invalid value: integer `-1`"),
    (
        "schema = \"x\"",
        "schema: it needs tier = \"schema\" as well",
    ),
    (
        "password_env = \"NO\"",
        "environment variable \"NO\" is not set",
    ),
    ("password_env = \"EMPTY\"", "the password is empty"),
    (
        "password_file = \"no\"",
        "can't read /nonexistent/no: No such file",
    ),
    (
        "password = \"hunter2\"\npassword_env = \"SECRET\"",
        "line 11: tenants \"acme\": password_env: it can't stand together with password",
    ),
    (
        "read_only_password = \"hunter2\"",
        "read_only_role: it is missing",
    ),
    ("tenant_setting = \"tenant\"", "has a dot"),
    (
        "settings = { replication = \"true\" }",
        "settings.replication: \"replication\" can't be a setting",
    ),
    ("settings = { \"a b\" = \"1\" }", "can't be a setting"),
    (
        "time_zone = \"UTC\"\nsettings = { timezone = \"UTC\" }",
        "line 11: tenants \"acme\": settings.timezone: \"timezone\" can't be a setting; another key",
    ),
    ("keys = [{ id = \"x\" }]", "keys[0].verifier: it is missing"),
    (
        "keys = [{ verifier = \"hunter2\" }]",
        "keys[0].verifier: the value is no verifier",
    ),
    (
        "password = 482913",
        "line 10: tenants \"acme\": password: the value must be a text in quotes",
    ),
];

#[test]
fn a_wrong_value_is_told_with_its_line_its_key_and_the_way_out() {
    let unlike =
        format!("keys = [{{ verifier = \"{VERIFIER}\" }}, {{ verifier = \"{OTHER_SALT}\" }}]");
    let read_only = format!("keys = [{{ verifier = \"{VERIFIER}\", scope = \"read_only\" }}]");
    let twice = format!(
        "keys = [{{ id = \"2\", verifier = \"{VERIFIER}\" }}, {{ verifier = \"{VERIFIER}\" }}]"
    );
    let never = format!(
        "keys = [{{ verifier = \"{VERIFIER}\", not_before = \"2027-01-31T00:00:00Z\", expires = \"2027-01-31T00:00:00Z\" }}]"
    );
    let keys = [
        (
            unlike.as_str(),
            "keys[1].verifier: its salt and iterations differ",
        ),
        (
            read_only.as_str(),
            "keys[0].scope: \"read_only\" needs the tenant's read_only_role",
        ),
        (twice.as_str(), "keys[1].id: \"2\" is used twice"),
        (
            never.as_str(),
            "keys[0].expires: it is not after not_before",
        ),
    ];
    for (lines, says) in WRONG_TENANTS.iter().copied().chain(keys) {
        let problem = problem(&with_tenant(lines));
        assert!(problem.contains(says), "{lines}: {problem}");
        for secret in ["hunter2", "482913", "v0Qd"] {
            assert!(!problem.contains(secret), "{problem}");
        }
    }
}

#[test]
fn a_wrong_proxy_or_cluster_is_told_the_same_way() {
    for (text, says) in [
        (
            "[proxy]\nworkers = 0",
            "line 2: proxy.workers: 0 is not allowed; use 1 to 1024",
        ),
        (
            "[proxy]\nlisten = \"localhost\"",
            "proxy.listen[0]: \"localhost\" is no address",
        ),
        ("[proxy]\nlisten = []", "proxy.listen: it is missing"),
        (
            "[proxy]\nlisten = [\"[::]:1\", \"[::]:1\"]",
            "proxy.listen[1]: \"[::]:1\" is used twice",
        ),
        ("[proxy]\nlogin_timeout = \"0s\"", "can't be switched off"),
        (
            "[proxy]\nmax_client_connections = 5\nreserved_client_connections = 5",
            "line 3: proxy.reserved_client_connections: 5 is too large",
        ),
        (
            "[proxy]\noperator_addresses = [\"::1\", \"x\"]",
            "operator_addresses[1]: \"x\" is no network",
        ),
        (
            "[proxy]\ntls_mode = \"require\"",
            "tls_mode: it needs tls_cert and tls_key",
        ),
        ("[proxy]\ntls_cert = \"c\"", "tls_cert: it needs tls_key"),
        (
            "[proxy]\ntls_client_cert_required = true",
            "it needs tls_client_ca",
        ),
        (
            "[proxy]\nauth_seed_file = \"seed\"",
            "can't read /nonexistent/seed",
        ),
        (
            "[admin]\nlisten = \"unix:/x\"",
            "admin.listen: \"unix:/x\" is no address",
        ),
        ("[proxy]\nlisten = 5", "line 2: proxy.listen: invalid type"),
        ("[proxy", "line 1: "),
        (
            "[[clusters]]\nname = \"Main\"\nprimary = \"postgres://db\"",
            "clusters \"Main\": name: \"Main\" is no name",
        ),
        (
            "[[clusters]]\nname = \"main\"",
            "line 1: clusters \"main\": primary: it is missing",
        ),
        (
            "[[clusters]]\nname = \"main\"\nprimary = \"postgres://app:hunter2@db\"",
            "line 3: clusters \"main\": primary: the URL names a user; that belongs into the tenant's role",
        ),
        (
            "[[clusters]]\nname = \"main\"\nprimary = \"postgres://db\"\nreplicas = [\"db\"]",
            "replicas[0]: the value does not start with",
        ),
    ] {
        let problem = problem(text);
        assert!(problem.contains(says), "{text}: {problem}");
        assert!(!problem.contains("hunter2"), "{problem}");
    }
}

#[test]
fn a_tls_key_without_effect_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["c", "k", "ca"] {
        fs::write(directory.path().join(name), "x").unwrap();
    }
    let proxy = "[proxy]\ntls_cert = \"c\"\ntls_key = \"k\"\ntls_client_ca = \"ca\"\n";
    let config = parse_at(directory.path(), proxy).unwrap();
    assert_eq!(config.proxy.tls.mode, TlsMode::Allow);
    assert_eq!(
        config.proxy.tls.client_ca,
        Some(directory.path().join("ca"))
    );
    let cluster = |lines: &str| format!("{CLUSTER}{lines}");
    for (text, says) in [
        (
            format!("{proxy}tls_client_cert_required = true"),
            "it needs tls_mode = \"require\"",
        ),
        (
            cluster("tls_ca = \"ca\""),
            "tls_ca: it needs tls = \"verify-ca\"",
        ),
        (
            cluster("tls_cert = \"c\"\ntls_key = \"k\""),
            "tls_cert: it needs tls = \"require\"",
        ),
    ] {
        let problems = parse_at(directory.path(), &text).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(says), "{problems:?}");
    }
    let text = cluster("tls = \"verify-full\"\ntls_ca = \"ca\"\ntls_cert = \"c\"\ntls_key = \"k\"");
    let config = parse_at(directory.path(), &text).unwrap();
    let files = ["c", "ca", "k"].map(|name| directory.path().join(name));
    assert_eq!(config.tls_files(), files);
    let ca = directory.path().join("ca");
    assert_eq!(config.clusters[0].tls, UpstreamTls::VerifyFull(Some(ca)));
}

#[test]
fn all_errors_are_told_at_once() {
    let text = format!(
        "[proxy]\nworkers = 0\n[admin]\nlisten = \"x\"\n{CLUSTER}[defaults]\npool_size = 0\n{TENANT}{}",
        TENANT.replace("\"main\"", "\"other\"")
    );
    let problems = parse(&text).unwrap_err();
    let expected = [
        "line 2: proxy.workers: ",
        "line 4: admin.listen: ",
        "line 9: defaults.pool_size: 0 is not allowed",
        "line 17: tenants \"acme\": id: \"acme\" is used twice",
        "line 18: tenants \"acme\": cluster: there is no cluster \"other\"; add it under [[clusters]] or use one of [\"main\"]",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problem}");
    }
}

#[test]
fn an_error_names_the_file_and_prints_no_more_than_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.toml");
    let tenants: String = (0..80)
        .map(|i| TENANT.replace("acme", &format!("T{i}")))
        .collect();
    fs::write(&path, format!("{CLUSTER}{tenants}")).unwrap();
    let text = Config::load(&path).unwrap_err().to_string();
    assert!(
        text.contains("proxy.toml has 80 errors\n  line 5: "),
        "{text}"
    );
    assert!(text.ends_with("\n  and 30 more"), "{text}");
    let missing = Config::load(&directory.path().join("no")).unwrap_err();
    assert!(missing.to_string().starts_with("can't read "));
    assert!(std::error::Error::source(&missing).is_some());
}

#[test]
fn the_effective_configuration_reads_back_as_the_same() {
    let text = with_tenant(&format!(
        "schema = \"s\"\nquery_timeout = \"90s\"\ntime_zone = \"UTC\"\nsettings = {{ work_mem = \"4MB\" }}\nkeys = [{{ verifier = \"{VERIFIER}\", expires = \"2027-01-31T00:00:00Z\" }}]"
    ))
    .replace("tier = \"database\"", "tier = \"schema\"")
    .replace("postgres://db", "postgres:///?host=/run/pg&port=5433");
    let config = parse(&text).unwrap();
    let printed = config.to_toml();
    assert!(!printed.contains("SCRAM"), "{printed}");
    let again = printed.replace("[redacted]", VERIFIER);
    assert_eq!(parse(&again).unwrap(), config, "{printed}");
    let json = config.to_json();
    assert_eq!(json["tenants"][0]["query_timeout"], "1m 30s");
    assert!(!json.to_string().contains("null"), "{json}");
    assert_eq!(json["tenants"][0]["keys"][0]["verifier"], "[redacted]");
}

#[test]
fn no_secret_is_in_the_effective_configuration_or_in_debug_output() {
    let text = with_tenant(
        "password = \"hunter2\"\nread_only_role = \"ro\"\nread_only_password = \"hunter2\"",
    );
    let config = parse(&text).unwrap();
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
fn what_needs_a_restart_is_named() {
    let old = parse("").unwrap();
    assert_eq!(old.diff_restart(&old), [""; 0]);
    let new = parse("[proxy]\nproxy_protocol_listen = \"127.0.0.1:1\"\nlog_level = \"debug\"\nlogin_timeout = \"1s\"\n[admin]\nlisten = \"127.0.0.1:2\"").unwrap();
    assert_eq!(
        new.diff_restart(&old),
        [
            "proxy.proxy_protocol_listen",
            "proxy.log_level",
            "admin.listen"
        ]
    );
}

#[test]
fn metrics_tell_a_bounded_number_of_tenants_apart() {
    let series = |text: &str| parse(text).map(|config| config.admin.tenant_series);
    assert_eq!(series("").unwrap(), 20);
    for count in [0, 1, 1000] {
        let text = format!("[admin]\ntenant_series = {count}\n");
        assert_eq!(series(&text).unwrap(), count);
    }
    let many = series("[admin]\ntenant_series = 1001\n").unwrap_err();
    assert!(format!("{many:?}").contains("tenant_series"), "{many:?}");
}

/// The text of a file with so many tenants, two keys each.
fn many(count: usize) -> String {
    let mut text = CLUSTER.to_owned();
    for index in 0..count {
        let tenant = TENANT.replace("acme", &format!("tenant-{index}"));
        writeln!(
            text,
            "{tenant}password = \"secret-{index}\"\npool_size = 5\nsettings = {{ statement_timeout = \"30s\" }}\nkeys = [{{ verifier = \"{VERIFIER}\" }}, {{ id = \"b\", verifier = \"{VERIFIER}\" }}]"
        )
        .unwrap();
    }
    text
}

/// Whether ten times as many tenants take about ten times as long; quadratic work takes a hundred
/// times. A busy machine may spoil a measurement, not five.
fn is_proportional(time: impl Fn(usize) -> Duration) -> bool {
    (0..5).any(|_| time(10_000) < time(1_000) * 40)
}

#[tokio::test]
async fn ten_thousand_tenants_are_read_in_proportion() {
    assert!(is_proportional(|count| {
        let text = many(count);
        let start = Instant::now();
        assert_eq!(parse(&text).unwrap().tenants.len(), count);
        start.elapsed()
    }));
    let directory = StaticDirectory::new(&parse(&many(10_000)).unwrap());
    let tenant = directory.tenant("tenant-9999").await.unwrap().unwrap();
    assert_eq!(tenant.keys.len(), 2);
}

#[test]
fn ten_thousand_errors_are_found_in_proportion() {
    assert!(is_proportional(|count| {
        let text = many(count).replace("pool_size = 5", "pool_size = 0");
        let start = Instant::now();
        assert_eq!(parse(&text).unwrap_err().len(), count);
        start.elapsed()
    }));
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(\\[proxy\\]|\\[\\[tenants\\]\\]|[a-z_]{1,8} = |\"|\n|[0-9]|\\PC){0,30}") {
            drop(parse(&text));
        }

        #[test]
        fn any_edit_of_the_reference_gives_a_config_or_problems(
            cut in 0..REFERENCE.len(), length in 0..20_usize, put in "\\PC{0,5}"
        ) {
            let mut bytes = REFERENCE.as_bytes().to_vec();
            let end = (cut + length).min(bytes.len());
            bytes.splice(cut..end, put.bytes());
            let text = String::from_utf8_lossy(&bytes);
            if let Err(problems) = parse(&text) {
                prop_assert!(!problems.is_empty());
            }
        }

        #[test]
        fn a_tenants_numbers_and_times_survive(
            numbers in prop::collection::hash_map("pool_size|max_client_connections|max_prepared_statements", 1..10_000_u32, 0..3),
            milliseconds in 0..100_000_000_u64,
        ) {
            let mut lines = format!("query_timeout = \"{milliseconds}ms\"\n");
            for (key, value) in &numbers {
                writeln!(lines, "{key} = {value}").unwrap();
            }
            let tenant = tenant(&lines);
            let limits: HashMap<&str, u32> = HashMap::from([
                ("pool_size", tenant.limits.pool_size),
                ("max_client_connections", tenant.limits.max_client_connections),
                ("max_prepared_statements", tenant.limits.max_prepared_statements),
            ]);
            for (key, value) in &numbers {
                prop_assert_eq!(limits[key.as_str()], *value);
            }
            let time = tenant.timeouts.query.unwrap_or_default();
            prop_assert_eq!(time, Duration::from_millis(milliseconds));
        }
    }
}

#[test]
fn a_registry_needs_a_master_key_from_one_place() {
    let errors = |text: &str| parse(text).unwrap_err().join("\n");
    let url = "[registry]\nurl = \"postgres://u:hunter2@h/d\"\n";
    assert!(errors(url).contains("secrets.master_key_file: it is missing"));
    let two = format!("{url}[secrets]\nmaster_key_env = \"K\"\nmaster_key_command = \"cat k\"\n");
    assert!(errors(&two).contains("secrets.master_key_command"));
    let wrong = "[registry]\nurl = \"hunter2\"\n";
    assert!(errors(wrong).contains("registry.url") && !errors(wrong).contains("hunter2"));
    assert!(errors("[registry]\nsnapshot = \"s\"\n").contains("registry.snapshot"));
    let missing = "[templates]\ndirectory = \"no/such/dir\"\n";
    assert!(errors(missing).contains("no/such/dir"));
}

#[test]
fn usage_is_kept_as_it_says() {
    let usage = |text: &str| parse(&format!("[usage]\n{text}\n")).map(|config| config.usage);
    let day = Duration::from_hours(24);
    let default = usage("").unwrap();
    assert_eq!(default.flush_interval, Some(Duration::from_secs(10)));
    assert_eq!(default.retention, Some(400 * day));
    assert_eq!(default.storage_interval, Some(Duration::from_hours(1)));
    let off = "flush_interval = \"0s\"\nstorage_interval = \"0s\"\nretention_days = 0";
    let off = usage(off).unwrap();
    assert_eq!(off.storage_interval, None);
    assert_eq!((off.flush_interval, off.retention), (None, None));
    for (wrong, told) in [
        (
            "flush_interval = \"10ms\"",
            "usage.flush_interval: \"10ms\" is not allowed; use \"100ms\" to \"10m\"",
        ),
        (
            "flush_interval = \"1h\"",
            "usage.flush_interval: \"1h\" is not allowed",
        ),
        (
            "retention_days = 7",
            "usage.retention_days: 7 is not allowed; use 32 to 36500",
        ),
    ] {
        let errors = usage(wrong).unwrap_err().join("\n");
        assert!(errors.contains(told), "{errors}");
    }
}

#[test]
fn prices_are_read_exactly_and_printed_so_that_they_can_be_read_again() {
    assert_eq!(parse("").unwrap().prices, None);
    assert_eq!(parse("[prices]\n").unwrap().prices, None);
    let text = "[prices]\ncurrency = \"EUR\"\nper_million_queries = 0.1\nper_gb_month = \"0.25\"\n\
        plan = { starter = 0.0, professional = 49 }\nclusters = { main = 300.5 }\n\
        [prices.free]\nqueries = 1000\ngb_out = 1.5\n";
    let config = parse(text).unwrap();
    let prices = config.prices.as_ref().unwrap();
    assert_eq!(prices.per_million_queries.get(), 100_000);
    assert_eq!(prices.per_gb_in.get(), 0);
    assert_eq!(prices.plans["professional"].get(), 49_000_000);
    assert_eq!(prices.free.gb_out.get(), 1_500_000);
    let again = parse(&config.to_toml()).unwrap();
    assert_eq!(again.prices, config.prices);
    for (wrong, told) in [
        ("per_gb_in = 1", "prices.currency: it is missing"),
        ("currency = \"euro\"", "\"euro\" is no currency"),
        ("currency = \"EUR\"\nper_gb_in = -1", "-1 is not allowed"),
        ("currency = \"EUR\"\nper_gb = 1", "per_gb"),
        (
            "currency = \"EUR\"\nclusters = { \"A b\" = 1 }",
            "\"A b\" is no name",
        ),
    ] {
        let errors = parse(&format!("[prices]\n{wrong}\n"))
            .unwrap_err()
            .join("\n");
        assert!(errors.contains(told), "{errors}");
    }
}

#[test]
fn sweeping_can_be_off() {
    let secrets = "[secrets]\nmaster_key_command = \"k\"\n";
    let interval = |line: &str| {
        let url = "[registry]\nurl = \"postgres://h/d\"";
        let config = parse(&format!("{url}\n{line}\n{secrets}")).unwrap();
        config.registry.unwrap().sweep_interval
    };
    assert_eq!(interval(""), Some(Duration::from_mins(1)));
    assert_eq!(interval("sweep_interval = \"0s\""), None);
    assert_eq!(
        interval("sweep_interval = \"5m\""),
        Some(Duration::from_mins(5))
    );
}

#[test]
fn the_registry_is_printed_without_its_password() {
    let text = "[registry]\nurl = \"postgres://u:hunter2@h/d\"\n[secrets]\nmaster_key_command = \"echo hunter2\"\n";
    let config = parse(text).unwrap();
    let registry = config.registry.as_ref().unwrap();
    assert_eq!(registry.stale_max, Duration::from_hours(24));
    for printed in [
        config.to_toml(),
        config.to_json().to_string(),
        format!("{config:?}"),
    ] {
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
