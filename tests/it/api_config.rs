//! `…/config` and `…/users`: what goes in comes out, but for what is sensitive.

use crate::api_desk::Desk;
use serde_json::{Value, json};

fn desk() -> Desk {
    let desk = Desk::with_cluster();
    desk.tenant("acme");
    desk
}

#[test]
fn an_entry_is_written_read_changed_and_removed_and_each_is_an_event() {
    let desk = desk();
    let who = desk.operator();
    let path = "/api/tenants/acme/config/theme.main";
    who.get(path).problem(404);
    who.delete(path).problem(404);
    let value = json!({"dark": true, "colours": ["#fff", null]});
    let written = who
        .put(path, &json!({"type": "branding", "value": value}))
        .ok(200);
    assert_eq!(
        (&written["value"], &written["sensitive"]),
        (&value, &Value::Bool(false))
    );
    assert_eq!(who.get(path).ok(200), written);
    for other in [json!(null), json!(0), json!("text"), json!([])] {
        who.put(path, &json!({"type": "feature", "value": other}))
            .ok(200);
        assert_eq!(who.get(path).ok(200)["value"], other);
    }
    assert_eq!(who.delete(path).status, 204);
    who.get(path).problem(404);
    let events = who.get("/api/tenants/acme/activity").ok(200);
    let events = events["items"].as_array().unwrap();
    let removed = &events[0];
    assert_eq!(removed["kind"], "ConfigUpdated");
    assert_eq!(removed["address"], "127.0.0.1");
    assert!(
        removed["actor"].as_str().unwrap().starts_with("token:"),
        "{removed}"
    );
    assert_eq!(
        removed["changes"]["entry:theme.main"]["before"]["value"],
        json!([])
    );
    assert_eq!(removed["changes"]["entry:theme.main"]["after"], Value::Null);
    assert_eq!(events.len(), 6);
}

#[test]
fn what_is_sensitive_is_sealed_and_never_seen_again() {
    let desk = desk();
    let who = desk.operator();
    let secret = "hunter2-is-the-secret";
    let sealed = [
        ("a", json!({"type": "security", "value": secret})),
        (
            "b",
            json!({"type": "integration", "value": {"password": secret}}),
        ),
        (
            "c",
            json!({"type": "branding", "sensitive": true, "value": secret}),
        ),
    ];
    let mut seen = String::new();
    for (key, body) in &sealed {
        let path = format!("/api/tenants/acme/config/{key}");
        let written = who.put(&path, body);
        assert_eq!(
            (&written.ok(200)["value"], &written.json()["sensitive"]),
            (&Value::Null, &Value::Bool(true))
        );
        seen += &written.body;
        seen += &who.get(&path).body;
        // A change shows as an event; what it was does not.
        seen += &who.put(&path, body).body;
    }
    seen += &who.get("/api/tenants/acme/config").body;
    seen += &who.get("/api/tenants/acme/activity").body;
    assert!(!seen.contains(secret), "{seen}");
    assert!(!desk.log().contains(secret));
    let tables = "select string_agg(t::text, ' ') from (select e::text t from pgusher.entry e \
                  union all select v::text from pgusher.event v) all_rows";
    assert!(!desk.value(tables).contains(secret));
    let changed = "select count(*) from pgusher.event where changes ? 'entry:a'";
    assert_eq!(desk.value(changed), "2");
    // Said otherwise, it is shown.
    let open = json!({"type": "security", "sensitive": false, "value": "lax"});
    assert_eq!(
        who.put("/api/tenants/acme/config/a", &open).ok(200)["value"],
        "lax"
    );
    // Who may not write secrets can't lay hands on one that is there.
    let user = desk.with_role("user", Some("acme"));
    user.put(
        "/api/tenants/acme/config/b",
        &json!({"type": "branding", "value": 1}),
    )
    .problem(403);
    user.delete("/api/tenants/acme/config/b").problem(403);
    assert_eq!(
        user.get("/api/tenants/acme/config/b").ok(200)["value"],
        Value::Null
    );
}

#[test]
fn entries_that_can_not_be_are_refused_with_the_reason() {
    let desk = desk();
    let who = desk.operator();
    let put = |key: &str, body: &Value| who.put(&format!("/api/tenants/acme/config/{key}"), body);
    let good = json!({"type": "feature", "value": 1});
    for key in ["a b", "é", "a%2Fb", &"k".repeat(129), "a%27b"] {
        assert_eq!(
            put(&key.replace(' ', "%20").replace('é', "%C3%A9"), &good).json()["field"],
            "key",
            "{key}"
        );
    }
    for body in [
        json!({}),
        json!({"type": "feature"}),
        json!({"value": 1}),
        json!({"type": "wrong", "value": 1}),
        json!({"type": "feature", "value": 1, "more": 1}),
        json!({"type": "feature", "value": "\u{0}"}),
        json!({"type": "feature", "value": "x".repeat(40_000)}),
        json!([]),
    ] {
        put("a", &body).problem(422);
    }
    assert_eq!(desk.value("select count(*) from pgusher.entry"), "0");
}

#[test]
fn a_list_comes_in_pages_that_miss_nothing_and_repeat_nothing() {
    let desk = desk();
    let who = desk.operator();
    for number in 0..7 {
        let kind = ["branding", "feature"][number % 2];
        who.put(
            &format!("/api/tenants/acme/config/k{number}"),
            &json!({"type": kind, "value": number}),
        )
        .ok(200);
    }
    let mut keys = Vec::new();
    let mut path = "/api/tenants/acme/config?limit=3".to_owned();
    loop {
        let page = who.get(&path).ok(200);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 3);
        keys.extend(
            items
                .iter()
                .map(|item| item["key"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/api/tenants/acme/config?limit=3&after={next}");
    }
    assert_eq!(
        keys,
        (0..7)
            .map(|number| format!("k{number}"))
            .collect::<Vec<_>>()
    );
    let features = who.get("/api/tenants/acme/config?type=feature").ok(200);
    assert_eq!(features["items"].as_array().unwrap().len(), 3);
    for bad in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=x",
        "type=x",
        "more=1",
        "after=%00",
        "after=a&after=b",
    ] {
        who.get(&format!("/api/tenants/acme/config?{bad}"))
            .problem(422);
    }
    who.get("/api/tenants/acme/activity?after=x").problem(422);
    let first = who.get("/api/tenants/acme/activity?limit=2").ok(200);
    let next = first["next"].as_str().unwrap();
    let rest = who
        .get(&format!("/api/tenants/acme/activity?after={next}"))
        .ok(200);
    assert_eq!(rest["items"].as_array().unwrap().len(), 5);
}

#[test]
fn a_user_is_added_once_and_removed_whatever_the_case() {
    let desk = desk();
    let who = desk.operator();
    let users = "/api/tenants/acme/users";
    let added = who
        .post(
            users,
            &json!({"email": " Ann@Acme.Example", "name": "Ann", "role": "manager"}),
        )
        .ok(201);
    assert_eq!(
        (&added["email"], &added["role"]),
        (&json!("ann@acme.example"), &json!("manager"))
    );
    who.post(
        users,
        &json!({"email": "ANN@acme.example", "role": "viewer"}),
    )
    .problem(409);
    for body in [
        json!({"email": "ann", "role": "viewer"}),
        json!({"email": "a@b.example", "role": "root"}),
        json!({"email": "a@b.example"}),
        json!({"email": "a@b.example", "role": "viewer", "name": "x".repeat(300)}),
        json!({"email": "a@b.example", "role": "viewer", "name": "a\nb"}),
    ] {
        who.post(users, &body).problem(422);
    }
    assert_eq!(who.get(users).ok(200)["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        who.delete(&format!("{users}/ANN%40acme.example")).status,
        204
    );
    who.delete(&format!("{users}/ann@acme.example"))
        .problem(404);
    let kinds =
        "select string_agg(kind, ' ' order by seq) from pgusher.event where tenant = 'acme'";
    assert_eq!(desk.value(kinds), "AccessGranted AccessRevoked");
}
