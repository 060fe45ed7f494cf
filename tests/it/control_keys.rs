//! API keys of the registry: made, shown once, found out, replaced, revoked.

use crate::harness::estate::Estate;
use pgusher::control::Page;
use serde_json::{Value, json};

fn id(created: &Value) -> &str {
    created["id"].as_str().unwrap()
}

#[test]
fn a_key_is_shown_once_and_kept_as_what_proves_it() {
    let estate = Estate::new();
    estate.create("acme", "row");
    let made = estate.office.json(&[
        "key",
        "create",
        "acme",
        "--name",
        "reports",
        "--scope",
        "read_only",
        "--allow",
        "192.0.2.7",
    ]);
    let key = made["key"].as_str().unwrap();
    assert_eq!(
        made["url"],
        format!("postgres://acme:{key}@127.0.0.1:6432/acme")
    );
    assert!(key.starts_with(&format!("pgu_{}_", id(&made))));
    assert_eq!(made["allow"], json!(["192.0.2.7/32"]));
    let mut registry = estate.registry();
    let of = format!("from pgusher.api_key where id = '{}'", id(&made));
    let sha256 = registry.value(&format!("select sha256 = sha256('{key}') {of}"));
    assert_eq!(sha256, "t");
    let verifier = registry.value(&format!("select verifier {of}"));
    let file = estate.office.path().join("key");
    std::fs::write(&file, key).unwrap();
    let again = std::process::Command::new(crate::harness::proxy::PROGRAM)
        .args(["key", "verifier", "--like", &verifier])
        .stdin(std::fs::File::open(file).unwrap())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(again.stdout).unwrap().trim(), verifier);
    let salts = registry.value(
        "select count(distinct split_part(split_part(verifier, '$', 2), ':', 2)) from pgusher.api_key",
    );
    assert_eq!(salts, "1", "all keys of a tenant have its salt");
    assert!(verifier.starts_with("SCRAM-SHA-256$4096:"), "{verifier}");
    let listed = estate.office.json(&["key", "list", "acme"]);
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert!(!listed.to_string().contains(key));
}

#[test]
fn keys_are_listed_a_page_at_a_time_the_oldest_first() {
    let estate = Estate::new();
    estate.create("acme", "row");
    estate.create("other", "row");
    for _ in 0..3 {
        estate.office.run(&["key", "create", "acme"]).succeeded();
    }
    let all = estate.office.json(&["key", "list", "acme"]);
    let all: Vec<_> = all.as_array().unwrap().iter().map(id).collect();
    assert_eq!(all.len(), 5);
    let pages = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (control, actor) = estate.control().await;
        let mut page = Page {
            limit: Some(2),
            after: None,
        };
        let mut pages = Vec::new();
        loop {
            let listed = control.list_keys(&actor, "acme", &page).await.unwrap();
            pages.push(listed.items.into_iter().map(|key| key.id).collect());
            page.after = listed.next;
            if page.after.is_none() {
                return pages;
            }
        }
    });
    let pages: Vec<Vec<String>> = pages;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    assert_eq!(pages.concat(), all);
}

#[test]
fn a_revoked_key_stays_revoked_and_is_told_once() {
    let estate = Estate::new();
    let created = estate.create("acme", "row");
    let key = id(&created["key"]).to_owned();
    let generation = || estate.field("acme", "generation").parse::<i64>().unwrap();
    let before = generation();
    for _ in 0..2 {
        let revoked = estate.office.json(&["key", "revoke", "acme", &key]);
        assert_eq!(revoked["status"], "revoked");
    }
    assert!(generation() > before, "whoever keeps a copy is told");
    let events = estate.events("acme");
    assert_eq!(
        events
            .iter()
            .filter(|kind| *kind == "AccessRevoked")
            .count(),
        1
    );
    let told = estate.fails(&["key", "rotate", "acme", &key]);
    assert!(
        told.contains("make a new one: pgusher key create acme"),
        "{told}"
    );
}

#[test]
fn a_key_ends_at_a_time_or_after_one() {
    let estate = Estate::new();
    estate.create("acme", "row");
    let create = |expires| ["key", "create", "acme", "--expires", expires];
    let made = estate.office.json(&create("2097-01-31T00:00:00Z"));
    assert_eq!(made["expires_at"], "2097-01-31T00:00:00Z");
    let made = estate.office.json(&create("90d"));
    assert_ne!(made["expires_at"], Value::Null);
    let told = estate.fails(&create("soon"));
    assert!(
        told.contains("write \"90d\", or \"2027-01-31T00:00:00Z\""),
        "{told}"
    );
}

#[test]
fn a_replaced_key_goes_on_for_its_grace() {
    let estate = Estate::new();
    let created = estate.create("acme", "row");
    let old = id(&created["read_only_key"]).to_owned();
    let new = estate
        .office
        .json(&["key", "rotate", "acme", &old, "--grace", "1h"]);
    assert_eq!(new["scope"], "read_only");
    let status = |key: &str, sql: &str| {
        estate.registry().value(&format!(
            "select {sql} from pgusher.api_key where id = '{key}'"
        ))
    };
    assert_eq!(status(&old, "status"), "active");
    assert_eq!(
        status(
            &old,
            "expires_at between now() + interval '50 min' and now() + interval '1 hour'"
        ),
        "t"
    );
    assert_eq!(status(id(&new), "expires_at is null"), "t");
    let newer = estate
        .office
        .json(&["key", "rotate", "acme", id(&new), "--grace", "0s"]);
    assert_eq!(status(id(&new), "status"), "revoked");
    assert_eq!(status(id(&newer), "status"), "active");
}

#[test]
fn a_key_that_cannot_be_is_refused() {
    let estate = Estate::new();
    estate.create("acme", "row");
    estate.create("ended", "row");
    estate
        .office
        .run(&["tenant", "delete", "ended"])
        .succeeded();
    for (arguments, says) in [
        (&["acme", "--scope", "write"][..], "scope"),
        (&["acme", "--allow", "10.0.0.0/99"], "is no network"),
        (&["acme", "--rate-limit-per-hour", "0"], "at least 1"),
        (&["nobody"], "there is no tenant \"nobody\""),
        (&["ended"], "is terminated: it gets no keys"),
    ] {
        let told = estate.fails(&[&["key", "create"], arguments].concat());
        assert!(told.contains(says), "{told}");
    }
    for command in ["revoke", "rotate"] {
        let told = estate.fails(&["key", command, "acme", "nokey"]);
        assert!(told.contains("there is no key \"nokey\""), "{told}");
    }
}

#[test]
fn a_tenant_cannot_touch_anothers_key() {
    let estate = Estate::new();
    let created = estate.create("acme", "row");
    estate.create("other", "row");
    let told = estate.fails(&["key", "revoke", "other", id(&created["key"])]);
    assert!(told.contains("there is no key"), "{told}");
    let active = estate
        .registry()
        .value("select count(*) from pgusher.api_key where status = 'active'");
    assert_eq!(active, "4");
}
