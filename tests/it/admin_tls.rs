//! The admin listener with a certificate.

use crate::harness::{
    Postgres, Proxy, Tenant, certificates::Authority, estate::Estate, eventually, http::Http,
    programs::pgusher, proxy::Builder, tls::trusting,
};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
};

fn with_certificate() -> Builder {
    Proxy::of([Tenant::new("acme", &Postgres::shared().place())]).admin_tls()
}

/// Somebody who trusts the proxy's authority.
fn https(proxy: &Proxy) -> Http {
    Http::new(proxy.admin_port()).over(proxy.tls_with(Some("http/1.1"), None))
}

#[test]
fn who_trusts_its_authority_asks_over_https() {
    let proxy = with_certificate().start();
    let https = https(&proxy);
    eventually("it is well", || https.get("/healthz").status == 200);
    let metrics = https.get("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(metrics.body.contains("pgusher_"), "{}", metrics.body);
    // Without a protocol's name, as older clients.
    let plain = Http::new(proxy.admin_port()).over(proxy.tls());
    assert_eq!(plain.get("/healthz").body, "ok\n");
    // Two requests on one connection, and more than one record.
    let twice = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let both = https.raw(twice.as_bytes());
    assert!(both.body.ends_with("ok\n"), "{}", both.body);
}

#[test]
fn who_does_not_use_tls_or_trusts_another_is_told_nothing() {
    let proxy = with_certificate().start();
    eventually("it is well", || https(&proxy).get("/healthz").status == 200);
    let plain = Http::new(proxy.admin_port()).get("/metrics");
    assert_eq!(plain.status, 0, "{plain:?}");
    assert!(!plain.body.contains("pgusher_"), "{plain:?}");
    let folder = tempfile::tempdir().unwrap();
    let other = trusting(&Authority::new(folder.path()).ca, None, None);
    let distrusting = Http::new(proxy.admin_port()).over(other);
    assert_eq!(distrusting.get("/healthz").status, 0);
    // PostgreSQL's clients are at the wrong door.
    let postgresql = proxy.tls_with(Some("postgresql"), None);
    let wrong = Http::new(proxy.admin_port()).over(postgresql);
    assert_eq!(wrong.get("/healthz").status, 0);
    assert_eq!(https(&proxy).get("/healthz").status, 200);
}

#[test]
fn the_admin_api_is_served_over_https() {
    let estate = Estate::new();
    let made = estate
        .office
        .json(&["token", "create", "--role", "admin", "--name", "tests"]);
    let master_key = fs::read_to_string(estate.office.path().join("master.key")).unwrap();
    let proxy = Proxy::with(crate::harness::ProxyFile::bare())
        .registry(&estate.office.url(), &master_key)
        .admin_tls()
        .start();
    let https = https(&proxy);
    eventually("it is well", || https.get("/healthz").status == 200);
    https.get("/api/tenants").problem(401);
    let operator = https.token(made["token"].as_str().unwrap());
    let created = operator.post(
        "/api/tenants",
        &serde_json::json!({ "id": "acme", "tier": "row" }),
    );
    assert_eq!(created.ok(201)["tenant"]["id"], "acme");
    assert_eq!(
        operator.get("/api/tenants/acme").ok(200)["status"],
        "active"
    );
}

#[test]
fn a_new_certificate_is_used_from_the_next_connection_on() {
    let proxy = with_certificate().start();
    let before = https(&proxy);
    eventually("it is well", || before.get("/healthz").status == 200);
    let mut open = before.open();
    let folder = tempfile::tempdir().unwrap();
    let other = Authority::new(folder.path());
    let new = other.sign("admin");
    // The key first: until both fit, the old ones stay.
    fs::copy(&new.key, proxy.folder().join("admin.key")).unwrap();
    fs::copy(&new.cert, proxy.folder().join("admin.crt")).unwrap();
    proxy.signal("HUP");
    let after = Http::new(proxy.admin_port()).over(trusting(&other.ca, None, None));
    eventually("the new certificate is shown", || {
        after.get("/healthz").status == 200
    });
    assert_eq!(before.get("/healthz").status, 0);
    open.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).ok();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_certificate_that_cannot_be_used_is_told_and_changes_nothing() {
    let mut proxy = with_certificate().start();
    eventually("it is well", || https(&proxy).get("/healthz").status == 200);
    fs::write(proxy.folder().join("admin.crt"), "no certificate").unwrap();
    proxy.signal("HUP");
    eventually("it is told", || {
        proxy.log().contains("reload failed, nothing was changed")
    });
    assert!(proxy.log().contains("admin.crt"), "{}", proxy.log());
    assert_eq!(https(&proxy).get("/healthz").status, 200);
    proxy.reload(|file| {
        file.admin.remove("tls_key");
    });
    eventually("it is told", || {
        proxy.log().contains("admin.tls_cert: it needs tls_key")
    });
    assert_eq!(https(&proxy).get("/healthz").status, 200);
}

#[test]
fn who_never_begins_the_handshake_does_not_hold_up_the_end() {
    let mut proxy = with_certificate().start();
    eventually("it is well", || https(&proxy).get("/healthz").status == 200);
    let mut silent = TcpStream::connect(("127.0.0.1", proxy.admin_port())).unwrap();
    silent.write_all(&[22, 3, 1]).unwrap();
    proxy.signal("TERM");
    assert!(proxy.end().success());
}

#[test]
fn the_health_check_asks_over_https() {
    let proxy = with_certificate().start();
    eventually("it is well", || https(&proxy).get("/healthz").status == 200);
    let url = format!("https://localhost:{}/readyz", proxy.admin_port());
    let ca = proxy.authority().ca.display().to_string();
    let asked = pgusher(&["health", "--url", &url, "--ca", &ca]);
    assert!(asked.status.success(), "{asked:?}");
    assert_eq!(asked.stdout, b"ready\n");
    let folder = tempfile::tempdir().unwrap();
    let other = Authority::new(folder.path()).ca.display().to_string();
    let refused = pgusher(&["health", "--url", &url, "--ca", &other]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("certificate"), "{told}");
    let refused = pgusher(&["health", "--url", &url.replace("https", "http")]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
}

#[test]
fn tokens_in_clear_text_for_the_network_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.toml");
    let check = |admin: &str| {
        fs::write(&path, format!("[admin]\n{admin}\n")).unwrap();
        let checked = pgusher(&["check", "--config", path.to_str().unwrap()]);
        assert!(checked.status.success(), "{checked:?}");
        let both = [checked.stdout, checked.stderr].concat();
        String::from_utf8_lossy(&both).into_owned()
    };
    let authority = Authority::new(folder.path());
    authority.sign("admin");
    let told = check("listen = \"0.0.0.0:6433\"");
    assert!(
        told.contains("line 2: admin.listen: ") && told.contains("tls_cert"),
        "{told}"
    );
    for quiet in [
        "listen = \"127.0.0.1:6433\"",
        "listen = \"[::1]:6433\"",
        "listen = \"0.0.0.0:6433\"\ntls_cert = \"admin.crt\"\ntls_key = \"admin.key\"",
    ] {
        let told = check(quiet);
        assert!(!told.contains("clear text"), "{told}");
    }
}
