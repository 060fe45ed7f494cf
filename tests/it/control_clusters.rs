//! Clusters of the registry: tried, hardened, added, changed.

use crate::harness::{
    estate::{Estate, ground},
    office::Office,
    postgres::ADMIN,
};
use serde_json::json;
use std::fs;

#[test]
fn a_cluster_is_added_with_its_password_sealed() {
    let estate = Estate::new();
    ground()
        .admin()
        .exec("create role keeper login superuser password 'open sesame'");
    fs::write(estate.office.path().join("pw"), "open sesame\n").unwrap();
    let url = ground().endpoint().url();
    let add = [
        "cluster",
        "add",
        "second",
        "--primary",
        &url,
        "--admin-role",
        "keeper",
        "--admin-password-file",
        "pw",
    ];
    let added = estate.office.json(&add);
    assert_eq!(added["has_admin_password"], true);
    let everything = estate.registry().value(
        "select (select string_agg(c::text, ' ') from pgusher.cluster c) || \
         (select string_agg(e::text, ' ') from pgusher.event e)",
    );
    assert!(!everything.contains("sesame") && everything.contains("keeper"));
    assert!(!added.to_string().contains("sesame"));
    let told = estate.fails(&add);
    assert!(
        told.contains("there is a cluster \"second\" already"),
        "{told}"
    );
    let created = estate.office.json(&[
        "tenant",
        "create",
        "acme",
        "--tier",
        "row",
        "--cluster",
        "second",
    ]);
    assert_eq!(created["tenant"]["cluster"], "second");
}

#[test]
fn a_cluster_that_cannot_be_used_is_not_added() {
    let estate = Estate::new();
    ground()
        .admin()
        .exec("create role locked login superuser password 'right'");
    fs::write(estate.office.path().join("pw"), "wrong").unwrap();
    let url = ground().endpoint().url();
    let with_password = ["--admin-role", "locked", "--admin-password-file", "pw"];
    for (primary, options, says) in [
        (
            url.as_str(),
            &with_password[..],
            "refused the login of \"locked\"; is its password right?",
        ),
        (
            "postgres://127.0.0.1:1",
            &[],
            "does not answer at 127.0.0.1:1",
        ),
        ("postgres://admin:secret@127.0.0.1", &[], "primary_url"),
        (url.as_str(), &["--tls", "sometimes"], "tls: it must be"),
        (url.as_str(), &["--profile", "lax"], "profile: it must be"),
        (
            url.as_str(),
            &["--schema-database", "x", "--row-database", "x"],
            "another database",
        ),
        (
            url.as_str(),
            &["--admin-password-env", "NO_SUCH_VARIABLE"],
            "NO_SUCH_VARIABLE",
        ),
    ] {
        let add = ["cluster", "add", "bad", "--primary", primary];
        let told = estate.fails(&[&add, options].concat());
        assert!(told.contains(says), "{told}");
        assert!(!told.contains("secret@"), "{told}");
    }
    let names = estate
        .registry()
        .value("select string_agg(name, ' ') from pgusher.cluster");
    assert_eq!(names, "main");
}

#[test]
fn the_address_may_stand_in_proxy_toml() {
    let office = Office::new(ground().endpoint());
    let path = office.path().join("proxy.toml");
    let toml = fs::read_to_string(&path).unwrap();
    let url = ground().endpoint().url();
    let cluster = format!("\n[[clusters]]\nname = \"main\"\nprimary = \"{url}\"\n");
    fs::write(&path, toml + &cluster).unwrap();
    let added = office.json(&["cluster", "add", "main", "--admin-role", ADMIN]);
    assert_eq!(added["primary_url"], url);
    let missing = office.run(&["cluster", "add", "other", "--admin-role", ADMIN]);
    assert!(
        !missing.is_success && missing.err.contains("--primary"),
        "{}",
        missing.err
    );
}

#[test]
fn each_profile_is_known_by_its_name() {
    let estate = Estate::new();
    for profile in ["strict", "compatible", "sealed"] {
        estate.add_cluster(profile, &["--profile", profile]);
        let shown = estate.office.json(&["cluster", "show", profile]);
        assert_eq!(shown["profile"], profile);
    }
}

#[test]
fn a_replica_is_added_once_and_told() {
    let estate = Estate::new();
    let add = [
        "cluster",
        "add-replica",
        "main",
        "postgres://127.0.0.1:5999",
    ];
    let cluster = estate.office.json(&add);
    assert_eq!(
        cluster["replica_urls"],
        json!(["postgres://127.0.0.1:5999"])
    );
    assert!(estate.fails(&add).contains("already"));
    let kinds = estate
        .registry()
        .value("select string_agg(kind, ' ' order by seq) from pgusher.event where tenant is null");
    assert_eq!(kinds, "ClusterAdded ReadReplicaAdded");
    let shown = estate.office.json(&["cluster", "show", "main"]);
    assert_eq!(shown["replica_urls"], cluster["replica_urls"]);
    let hardened = estate.office.json(&["cluster", "harden", "main"]);
    assert_eq!(hardened["name"], "main");
}

#[test]
fn without_a_cluster_or_a_registry_the_way_out_is_said() {
    let office = Office::new(ground().endpoint());
    let told = office.run(&["tenant", "create", "acme", "--tier", "row"]);
    assert!(
        told.err.contains("pgusher cluster add NAME"),
        "{}",
        told.err
    );
    let migrated = office.json(&["migrate"]);
    assert!(migrated["version"].as_i64().unwrap() >= 3);
    fs::write(office.path().join("proxy.toml"), "").unwrap();
    for command in [
        &["tenant", "list"][..],
        &["key", "list", "acme"],
        &["cluster", "list"],
        &["migrate"],
    ] {
        let told = office.run(command);
        assert!(told.err.contains("[registry]"), "{}", told.err);
    }
    // Without a registry keys are made for proxy.toml, as before.
    let made = office.run(&["key", "create"]).succeeded();
    assert!(made.out.contains("verifier"), "{}", made.out);
}
