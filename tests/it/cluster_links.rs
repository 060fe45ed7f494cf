//! How a cluster's admin, and its tenants' servers, reach PostgreSQL: over TLS that is verified, and
//! over a Unix socket.

use crate::harness::{
    Client, Connect, Postgres, certificates::Authority, eventually_some, office::Office,
    postgres::ADMIN,
};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

/// A cluster for this module, which `cluster add` hardens, with an admin who is let in over TLS
/// alone.
fn own() -> &'static Postgres {
    static OWN: OnceLock<Postgres> = OnceLock::new();
    OWN.get_or_init(|| {
        let postgres = Postgres::start();
        let mut admin = postgres.admin();
        admin.exec("create role over_tls superuser login password 'over tls'");
        admin.exec("grant by_tls to over_tls");
        postgres
    })
}

/// What is made is counted.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn office() -> Office {
    let office = Office::new(Postgres::shared().endpoint());
    fs::write(office.path().join("pw"), "over tls\n").unwrap();
    office
}

/// `cluster add`, as the admin who needs TLS.
fn add<'a>(url: &'a str, tls: &'a str, ca: Option<&'a str>) -> Vec<&'a str> {
    let mut add = vec!["cluster", "add", "main", "--primary", url];
    add.extend(["--admin-role", "over_tls", "--admin-password-file", "pw"]);
    add.extend(["--tls", tls]);
    add.extend(ca.into_iter().flat_map(|ca| ["--tls-ca", ca]));
    add
}

/// Makes a tenant and logs in through a proxy.
fn first_client(office: &Office, tier: &str) -> (crate::harness::Proxy, Client) {
    let made = office.json(&["tenant", "create", "acme", "--tier", tier]);
    let proxy = office.serve();
    let connect = Connect::to(proxy.address())
        .user("acme")
        .password(key(&made));
    let client = eventually_some("the tenant logs in", || connect.try_login().ok());
    (proxy, client)
}

/// The key in the URL that was printed.
fn key(made: &Value) -> &str {
    let url = made["url"].as_str().unwrap();
    url.split([':', '@']).nth(2).unwrap()
}

/// How many of the tenant's server connections have TLS, and how many have a TCP address.
fn links(client: &mut Client) -> String {
    let role = client.value("select current_user");
    own().admin().value(&format!(
        "select count(*) || ' ' || count(*) filter (where ssl) || ' ' || count(client_addr) \
         from pg_stat_ssl join pg_stat_activity using (pid) where usename = '{role}'"
    ))
}

/// Deletes the tenant with a dump that has its table.
fn is_dumped(office: &Office, is_over_tls: bool) {
    let delete = ["tenant", "delete", "acme", "--grace", "0s"];
    let dumped = office.run(&[&delete[..], &["--dump", "acme.dump"]].concat());
    // Some builds of PostgreSQL's programs have no TLS, and say so.
    if is_over_tls && dumped.err.contains("SSL support is not compiled in") {
        office.run(&delete).succeeded();
        return;
    }
    dumped.succeeded();
    let dump = fs::read(office.path().join("acme.dump")).unwrap();
    assert!(String::from_utf8_lossy(&dump).contains("seen"));
}

#[test]
fn the_admin_and_the_tenants_reach_a_cluster_over_tls_that_is_verified() {
    let _turn = turn();
    let office = office();
    let (url, ca) = (own().endpoint().url(), own().endpoint().ca());
    let added = office.run(&add(&url, "verify-full", ca.to_str()));
    assert!(added.is_success, "{}", added.err);
    let shown = office.json(&["cluster", "show", "main"]);
    assert_eq!(shown["tls"], "verify-full");
    let (_proxy, mut client) = first_client(&office, "database");
    client.exec("create table seen (i int)");
    assert_eq!(links(&mut client), "1 1 1");
    office.run(&["cluster", "verify", "main"]).succeeded();
    office.run(&["tenant", "suspend", "acme"]).succeeded();
    office.run(&["tenant", "resume", "acme"]).succeeded();
    drop(client);
    is_dumped(&office, true);
}

#[test]
fn a_server_that_another_authority_signed_is_refused_and_nothing_is_written() {
    let _turn = turn();
    let office = office();
    let folder = tempfile::tempdir().unwrap();
    let other = Authority::new(folder.path());
    let url = own().endpoint().url();
    let told = |tls: &str, ca: Option<&Path>| {
        let run = office.run(&add(&url, tls, ca.and_then(Path::to_str)));
        assert!(!run.is_success, "{tls}: {}", run.out);
        assert!(!run.err.contains("over tls"), "{}", run.err);
        run.err
    };
    for mode in ["verify-full", "verify-ca"] {
        let err = told(mode, Some(&other.ca));
        assert!(err.contains("certificate"), "{err}");
        assert!(err.contains(&url["postgres://".len()..]), "{err}");
        // The system's authorities have not signed it either.
        let err = told(mode, None);
        assert!(err.contains("certificate"), "{err}");
    }
    let err = told("verify-full", Some(Path::new("/nonexistent/ca.crt")));
    assert!(err.contains("/nonexistent/ca.crt"), "{err}");
    // Without TLS this admin is not let in.
    let err = told("disable", None);
    assert!(err.contains("refused the login"), "{err}");
    let clusters = office.json(&["cluster", "list"]);
    assert_eq!(clusters.as_array().unwrap().len(), 0);
    office.run(&add(&url, "require", None)).succeeded();
}

#[test]
fn a_ca_that_is_replaced_later_is_told_by_what_fails_then() {
    let _turn = turn();
    let office = office();
    let ca = office.path().join("ca.crt");
    fs::copy(own().endpoint().ca(), &ca).unwrap();
    let url = own().endpoint().url();
    office
        .run(&add(&url, "verify-full", ca.to_str()))
        .succeeded();
    let folder = tempfile::tempdir().unwrap();
    fs::copy(Authority::new(folder.path()).ca, &ca).unwrap();
    let create = ["tenant", "create", "acme", "--tier", "row"];
    let refused = office.run(&create);
    assert!(!refused.is_success, "{}", refused.out);
    assert!(refused.err.contains("certificate"), "{}", refused.err);
    fs::copy(own().endpoint().ca(), &ca).unwrap();
    office.run(&create).succeeded();
    office
        .run(&["tenant", "delete", "acme", "--grace", "0s"])
        .succeeded();
}

#[test]
fn the_admin_and_the_tenants_reach_a_cluster_by_its_unix_socket() {
    let _turn = turn();
    let office = office();
    let folder = own().socket_folder().display();
    let port = own().endpoint().port();
    let url = format!("postgres:///?host={folder}&port={port}");
    // What is asked of TLS is for TCP: a socket has none.
    let ca = own().endpoint().ca().to_str().unwrap();
    let add = ["cluster", "add", "main", "--primary", &url];
    let tls = [
        "--admin-role",
        ADMIN,
        "--tls",
        "verify-full",
        "--tls-ca",
        ca,
    ];
    let added = office.run(&[&add[..], &tls].concat());
    assert!(added.is_success, "{}", added.err);
    let (_proxy, mut client) = first_client(&office, "schema");
    client.exec("create table seen (i int)");
    assert_eq!(links(&mut client), "1 0 0");
    office.run(&["tenant", "verify", "acme"]).succeeded();
    drop(client);
    is_dumped(&office, false);
}
