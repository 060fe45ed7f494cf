//! Clusters of the registry: tried, hardened, added, changed.

use crate::harness::{
    Postgres,
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
fn a_replica_that_is_gone_is_forgotten() {
    let estate = Estate::new();
    let replica = |command, url| ["cluster", command, "main", url];
    for url in ["postgres://127.0.0.1:5998", "postgres://127.0.0.1:5999"] {
        estate.office.json(&replica("add-replica", url));
    }
    estate.create("acme", "row");
    let told = estate.fails(&["tenant", "suspend", "acme"]);
    assert!(told.contains("is suspended, but a replica"), "{told}");
    assert!(
        told.contains("pgusher cluster remove-replica main"),
        "{told}"
    );
    for url in ["postgres://127.0.0.1:5997", "postgres://127.0.0.1"] {
        let told = estate.fails(&replica("remove-replica", url));
        let says = "it has postgres://127.0.0.1:5998, postgres://127.0.0.1:5999";
        assert!(told.contains(says), "{told}");
    }
    for (url, left) in [
        (
            "postgres://127.0.0.1:5998",
            json!(["postgres://127.0.0.1:5999"]),
        ),
        ("postgres://127.0.0.1:5999", json!([])),
    ] {
        let cluster = estate.office.json(&replica("remove-replica", url));
        assert_eq!(cluster["replica_urls"], left);
    }
    let suspended = estate.office.json(&["tenant", "suspend", "acme"]);
    assert_eq!(suspended["status"], "suspended");
    let removed = estate.registry().value(
        "select string_agg(changes->'replica_urls'->>'after', ' ' order by seq) \
         from pgusher.event where kind = 'ReadReplicaRemoved'",
    );
    assert_eq!(removed, "[\"postgres://127.0.0.1:5999\"] []");
}

#[test]
fn a_cluster_is_hardened_another_way_with_all_that_is_in_it() {
    let estate = Estate::new();
    let postgres = Postgres::start();
    estate.office.add_cluster("own", postgres.endpoint(), &[]);
    for (id, tier) in [("acme", "schema"), ("globex", "row"), ("hooli", "database")] {
        let create = ["tenant", "create", id, "--tier", tier, "--cluster", "own"];
        estate.office.json(&create);
    }
    // What shows the text of others' functions, and what they wrote for themselves.
    let shown = || {
        let shows = "select has_function_privilege('public', 'pg_get_functiondef(oid)', 'execute')";
        let schemas = postgres.endpoint().admin_of("pgusher_schemas").value(shows);
        schemas + &postgres.endpoint().admin_of("pgusher_rows").value(shows)
    };
    let known = |id: &str| {
        let sql = "(select string_agg(hole->>'name', ' ' order by hole->>'name') \
                    from jsonb_array_elements(open_holes) hole)";
        estate.field(id, sql)
    };
    let before = known("acme");
    assert!(
        shown() == "ff" && !before.contains("definitions"),
        "{before}"
    );
    let set = |profile| ["cluster", "set", "own", "--profile", profile];
    let cluster = estate.office.json(&set("compatible"));
    assert_eq!(cluster["profile"], "compatible");
    assert_eq!(shown(), "tt");
    for id in ["acme", "globex"] {
        assert!(known(id).contains("definitions"), "{id}: {}", known(id));
        estate.office.run(&["tenant", "verify", id]).succeeded();
    }
    assert!(
        known("hooli").contains("role_settings"),
        "{}",
        known("hooli")
    );
    assert_eq!(estate.events("acme").last().unwrap(), "ConfigUpdated");
    estate.office.json(&set("sealed"));
    assert_eq!(shown(), "ff");
    let sealed = known("acme");
    assert!(
        before.contains("object_texts") && !sealed.contains("object_texts"),
        "{sealed}"
    );
    assert!(
        !known("hooli").contains("role_settings"),
        "{}",
        known("hooli")
    );
    estate.office.json(&set("strict"));
    assert_eq!(known("acme"), before);
    estate.office.run(&["tenant", "verify", "acme"]).succeeded();
    estate.office.run(&["cluster", "verify", "own"]).succeeded();
    let told = estate.registry().value(
        "select string_agg(kind || coalesce(' ' || (changes->'profile'->>'after'), ''), ', ' order by seq) \
         from pgusher.event where facts->>'cluster' = 'own' and kind <> 'ClusterAdded'",
    );
    assert_eq!(
        told,
        "ConfigUpdated compatible, ClusterHardened, ConfigUpdated sealed, ClusterHardened, \
         ConfigUpdated strict, ClusterHardened"
    );
    assert!(estate.fails(&set("lax")).contains("profile: it must be"));
    estate.registry().exec(
        "update pgusher.cluster set primary_url = 'postgres://127.0.0.1:1' where name = 'own'",
    );
    assert!(estate.fails(&set("sealed")).contains("does not answer"));
    let shown = estate.office.json(&["cluster", "show", "own"]);
    assert_eq!(shown["profile"], "strict");
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
