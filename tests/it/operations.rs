//! What an operator does: listeners, `check`, `key`, logs, exit codes.

use crate::harness::{
    Postgres, Proxy, ProxyFile, Request, Tenant, code_of_end, connect::Address, eventually,
    place::ROLE_PASSWORD, port, programs::pgusher, proxy::one_tenant, proxy_file::KEY, scram,
};
use std::{
    fs,
    io::Write,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// A PROXY protocol header, version 2, for a client at this address.
fn proxy_header(command: u8, source: Ipv4Addr) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, 0x11, 0, 12]);
    header.extend(source.octets());
    header.extend([127, 0, 0, 1]);
    header.extend(40_000_u16.to_be_bytes());
    header.extend(6432_u16.to_be_bytes());
    header
}

fn with_proxy_protocol() -> (Proxy, Address) {
    use crate::harness::Key;
    let port = port::free();
    let tenant = Tenant::new("acme", &Postgres::shared().place())
        .key(Key::new(KEY))
        .key(Key::new("near").set("allow", vec!["192.0.2.0/24"]));
    let proxy = Proxy::of([tenant])
        .set("proxy_protocol_listen", vec![format!("127.0.0.1:{port}")])
        .start();
    (proxy, Address::Tcp(([127, 0, 0, 1], port).into()))
}

#[test]
fn a_proxy_header_says_where_a_client_is() {
    let (proxy, address) = with_proxy_protocol();
    let connect = proxy.connect("acme").address(address).password("near");
    let near = proxy_header(1, [192, 0, 2, 7].into());
    let far = proxy_header(1, [198, 51, 100, 7].into());
    connect.clone().preface(&near).login().is_in_step();
    assert_eq!(connect.clone().preface(&far).refused().code(), "28P01");
    eventually("the log names the client", || {
        proxy.log().contains("192.0.2.7")
    });
    // LOCAL: a health check of the load balancer itself.
    let local = proxy_header(0, [192, 0, 2, 7].into());
    assert_eq!(connect.preface(&local).refused().code(), "28P01");
    // On the other listener the header is nonsense.
    let mut client = proxy.connect("acme").preface(&near).open();
    assert_ne!(code_of_end(&mut client), "00000");
}

#[test]
fn without_its_header_a_client_is_not_served_there() {
    let (proxy, address) = with_proxy_protocol();
    let connect = proxy.connect("acme").address(address);
    let mut client = connect.open();
    client.try_send_bytes(&connect.startup_packet()).ok();
    client.half_close();
    let answer = client.raw_rest();
    assert!(!answer.starts_with(b"R"), "{}", answer.escape_ascii());
    for header in [
        &proxy_header(1, [192, 0, 2, 7].into())[..20],
        &[0x0d; 40],
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    ] {
        let mut client = connect.bare().unwrap();
        client.try_send_bytes(header).ok();
        client.half_close();
        assert!(!client.raw_rest().starts_with(b"R"));
    }
    proxy.connect("acme").login().is_in_step();
}

#[test]
fn a_unix_socket_serves_and_is_made_anew() {
    let place = Postgres::shared().place();
    let builder = Proxy::of([Tenant::new("acme", &place)]);
    let path = builder.folder().join(".s.PGSQL.6432");
    let mut proxy = builder
        .set("listen", format!("unix:{}", path.display()))
        .start();
    let connect = proxy.connect("acme").address(Address::Unix(path.clone()));
    eventually("it listens there", || connect.bare().is_ok());
    let mut client = connect.login();
    client.is_in_step();
    assert_eq!(connect.clone().password("wrong").refused().code(), "28P01");
    client.send(&Request::new().query("select 'cancelled', pg_sleep(30)"));
    let mut admin = place.admin();
    let sql = format!(
        "select count(*) from pg_stat_activity where usename = '{}' and wait_event = 'PgSleep'",
        place.role()
    );
    eventually("it runs", || admin.value(&sql) == "1");
    connect.cancel(&client);
    assert_eq!(crate::harness::frames::code(&client.until_ready()), "57014");
    // A file that a killed process left behind is in nobody's way.
    proxy.signal("KILL");
    proxy.end();
    assert!(path.exists());
    proxy.start_again();
    eventually("it listens there too", || connect.bare().is_ok());
    connect.login().is_in_step();
    proxy.signal("TERM");
    proxy.end();
}

fn written(file: &ProxyFile) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.toml");
    fs::write(&path, file.render()).unwrap();
    (folder, path)
}

fn some_file() -> ProxyFile {
    let postgres = Postgres::shared();
    let tenant = |id: &str| Tenant::new(id, &postgres.place());
    ProxyFile::new(postgres.endpoint(), vec![tenant("acme"), tenant("other")])
}

/// Exit code, standard output, standard error.
fn check(path: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let output = pgusher(&[&["check", "--config", path.to_str().unwrap()], more].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn check_prints_what_holds_without_secrets() {
    let (_folder, path) = written(&some_file());
    for more in [&[][..], &["--json"]] {
        let (code, out, err) = check(&path, more);
        assert_eq!(code, Some(0), "{err}");
        for said in ["acme", "other", "query_wait_timeout", "pool_size"] {
            assert!(out.contains(said), "{said} is not in {out}");
        }
        let verifier = scram::verifier(KEY, &scram::salt("acme"));
        let (_, keys) = verifier.rsplit_once('$').unwrap();
        for secret in [ROLE_PASSWORD, "role's", KEY, keys] {
            assert!(
                !out.contains(secret) && !err.contains(secret),
                "{secret} is in {out}{err}"
            );
        }
    }
    let (_, out, _) = check(&path, &["--json"]);
    let parsed: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(parsed.is_object());
}

#[test]
fn check_names_what_is_wrong_with_its_line() {
    let good = some_file().render();
    let cases = [
        ("pool_size = 4", "pool_size = -4", "pool_size"),
        ("pool_size = 4", "pool_size = \"four\"", "pool_size"),
        ("pool_size = 4", "pool_sice = 4", "pool_sice"),
        (
            "pool_mode = \"transaction\"",
            "pool_mode = \"tx\"",
            "pool_mode",
        ),
        ("tier = \"database\"", "tier = \"planet\"", "tier"),
        ("cluster = \"main\"", "cluster = \"moon\"", "moon"),
        ("id = \"acme\"", "id = \"other\"", "other"),
        ("id = \"acme\"", "id = \"Not An Id\"", "Not An Id"),
        ("primary = \"postgres://", "primary = \"mysql://", "primary"),
        (
            "verifier = \"SCRAM-SHA-256$",
            "verifier = \"secret",
            "verifier",
        ),
    ];
    for (from, to, named) in cases {
        assert!(good.contains(from), "{from} is not in {good}");
        let bad = good.replacen(from, to, 1);
        let line = bad.lines().position(|line| line.contains(to)).unwrap() + 1;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.toml");
        fs::write(&path, &bad).unwrap();
        let (code, out, err) = check(&path, &[]);
        assert_eq!(code, Some(2), "{to}: {out}{err}");
        assert!(err.contains(named), "{to}: {err}");
        // A duplicate is named where it is found: at either of its two places.
        assert!(
            err.contains(&line.to_string()) || to.contains("other"),
            "{to}: line {line} is not in {err}"
        );
        let serve = pgusher(&["serve", "--config", path.to_str().unwrap()]);
        assert_eq!(serve.status.code(), Some(2), "serve with {to}");
    }
}

#[test]
fn keys_of_one_tenant_must_share_their_salt() {
    use crate::harness::Key;
    let mut file = some_file();
    let other = scram::verifier("another", b"another salt    ");
    let changed = file
        .tenant("acme")
        .clone()
        .key(Key::new("one"))
        .key(Key::new("two").set("verifier", other));
    *file.tenant("acme") = changed;
    let (_folder, path) = written(&file);
    let (code, _, err) = check(&path, &[]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("salt"), "{err}");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [
        &["nonsense"][..],
        &["serve", "--nonsense"],
        &["serve", "--config", "/nonexistent.toml"],
        &["check", "--config", "/nonexistent.toml"],
    ] {
        let output = pgusher(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["serve", "--help"],
        &["check", "--help"],
    ] {
        let output = pgusher(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn a_port_in_use_is_exit_code_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut file = some_file();
    file.set("listen", taken.local_addr().unwrap().to_string());
    let (_folder, path) = written(&file);
    let output = pgusher(&["serve", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains(&taken.local_addr().unwrap().to_string()),
        "{said}"
    );
}

fn verifier_of(secret: &str, more: &[&str]) -> String {
    let mut child = Command::new(crate::harness::proxy::PROGRAM)
        .args(["key", "verifier"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(format!("{secret}\n").as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn key_verifier_makes_what_opens_the_tenant() {
    use crate::harness::Key;
    let first = verifier_of("a first key", &[]);
    let second = verifier_of("a second key", &["--like", &first]);
    assert_ne!(first, second);
    let head = |verifier: &str| verifier.rsplit_once('$').unwrap().0.to_owned();
    assert_eq!(head(&first), head(&second), "salt and iterations");
    assert!(head(&first).starts_with("SCRAM-SHA-256$"), "{first}");
    let proxy = one_tenant(|tenant| {
        let key = |verifier: &str| Key::new("").set("verifier", verifier);
        tenant.key(key(&first)).key(key(&second))
    });
    proxy
        .connect("acme")
        .password("a first key")
        .login()
        .is_in_step();
    proxy
        .connect("acme")
        .password("a second key")
        .login()
        .is_in_step();
}

#[test]
fn a_connections_end_is_one_line_with_its_numbers() {
    let proxy = Proxy::of([Tenant::new("acme", &Postgres::shared().place())])
        .set("log_format", "json")
        .start();
    let mut client = proxy.connect("acme").login();
    client.exec("select 1");
    client.exec("begin; select 2; commit");
    client.send(&Request::new().terminate());
    client.rest();
    let line = crate::harness::eventually_some("the line", || {
        let log = proxy.log();
        let mut lines = log.lines().filter(|line| line.contains("disconnected"));
        lines.next_back().map(str::to_owned)
    });
    let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(parsed.to_string().contains("acme"), "{parsed}");
    for line in proxy.log().lines() {
        serde_json::from_str::<serde_json::Value>(line)
            .unwrap_or_else(|_| panic!("not JSON: {line}"));
    }
}

#[test]
fn postgresql_may_be_reached_by_its_unix_socket() {
    let postgres = Postgres::shared();
    let folder = postgres.socket_folder().display().to_string();
    let url = format!(
        "postgres:///?host={folder}&port={}",
        postgres.endpoint().port()
    );
    let proxy = Proxy::of([Tenant::new("acme", &postgres.place())])
        .cluster("primary", url)
        .start();
    let mut client = proxy.connect("acme").login();
    assert_eq!(client.value("select inet_server_addr() is null"), "t");
    client.send(&Request::new().query("select pg_sleep(30)"));
    let mut admin = proxy.place("acme").admin();
    let role = proxy.place("acme").role().to_owned();
    let sql = format!(
        "select count(*) from pg_stat_activity where usename = '{role}' and wait_event = 'PgSleep'"
    );
    eventually("it runs", || admin.value(&sql) == "1");
    proxy.connect("acme").cancel(&client);
    assert_eq!(crate::harness::frames::code(&client.until_ready()), "57014");
}

#[test]
fn a_roles_password_may_come_from_a_file() {
    let place = Postgres::shared().place();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, format!("{ROLE_PASSWORD}\n")).unwrap();
    let tenant = Tenant::new("acme", &place)
        .without("password")
        .set("password_file", file.to_str().unwrap());
    let proxy = Proxy::of([tenant]).start();
    proxy.connect("acme").login().is_in_step();
}

#[test]
fn it_listens_on_ipv6_too() {
    let port = port::free();
    let proxy = Proxy::of([Tenant::new("acme", &Postgres::shared().place())])
        .set("listen", format!("[::1]:{port}"))
        .start();
    let address = Address::Tcp((std::net::Ipv6Addr::LOCALHOST, port).into());
    let connect = proxy.connect("acme").address(address);
    eventually("it listens there", || connect.bare().is_ok());
    connect.login().is_in_step();
}
