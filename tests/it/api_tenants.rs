//! `/api/tenants`: tenants and their lifecycle, by HTTP.

use crate::{
    api_desk::{Desk, postgres},
    harness::{http::Http, port, postgres::ADMIN},
};
use serde_json::{Value, json};

fn desk() -> Desk {
    let desk = Desk::with_cluster();
    desk.tenant("acme");
    desk
}

#[test]
fn a_tenant_that_can_not_be_is_refused_with_the_field() {
    let desk = desk();
    let who = desk.operator();
    let field = |body: &Value| {
        let answer = who.post("/api/tenants", body);
        answer.problem(422);
        answer.json()["field"].as_str().unwrap().to_owned()
    };
    assert_eq!(field(&json!({"id": "Umbrella", "tier": "schema"})), "id");
    assert_eq!(field(&json!({"id": "a/b", "tier": "schema"})), "id");
    assert_eq!(field(&json!({"id": "a", "tier": "planet"})), "tier");
    assert_eq!(
        field(&json!({"id": "a", "tier": "schema", "variant": "shared"})),
        "variant"
    );
    assert_eq!(
        field(&json!({"id": "a", "tier": "schema", "pool_size": 0})),
        "pool_size"
    );
    assert_eq!(field(&json!({"id": "a"})), "body");
    assert_eq!(
        field(&json!({"id": "a", "tier": "schema", "unknown": 1})),
        "body"
    );
    who.post(
        "/api/tenants",
        &json!({"id": "a", "tier": "schema", "cluster": "nowhere"}),
    )
    .problem(404);
    who.post("/api/tenants", &json!({"id": "acme", "tier": "schema"}))
        .problem(409);
    assert_eq!(
        desk.value("select string_agg(id, ' ') from pgusher.tenant"),
        "acme"
    );
}

#[test]
fn tenants_are_listed_in_pages_and_changed_field_by_field() {
    let desk = desk();
    for id in ["b", "c", "a-1"] {
        desk.tenant(id);
    }
    let who = desk.operator();
    let page = who.get("/api/tenants?limit=3").ok(200);
    let ids = |page: &Value| {
        let items = page["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&page), ["a-1", "acme", "b"]);
    let rest = who
        .get(&format!(
            "/api/tenants?limit=3&after={}",
            page["next"].as_str().unwrap()
        ))
        .ok(200);
    assert_eq!((ids(&rest), rest.get("next")), (vec!["c".to_owned()], None));

    let changed = who
        .put(
            "/api/tenants/b",
            &json!({"name": "B", "query_timeout": 5000}),
        )
        .ok(200);
    assert_eq!(
        (&changed["name"], &changed["query_timeout"]),
        (&json!("B"), &json!(5000))
    );
    let back = who
        .put("/api/tenants/b", &json!({"query_timeout": null}))
        .ok(200);
    assert_eq!(
        (&back["name"], &back["query_timeout"]),
        (&json!("B"), &Value::Null)
    );
    who.put("/api/tenants/b", &json!({"id": "z"})).problem(422);
    who.put("/api/tenants/b", &json!({"status": "active"}))
        .problem(422);
    who.put("/api/tenants/nobody", &json!({})).problem(404);

    let pool = who
        .put(
            "/api/tenants/b/pool",
            &json!({"pool_size": 9, "pool_mode": "session"}),
        )
        .ok(200);
    assert_eq!(
        (&pool["pool_size"], &pool["pool_mode"]),
        (&json!(9), &json!("session"))
    );
    assert_eq!(who.get("/api/tenants/b/pool").ok(200), pool);
    assert_eq!(
        who.post("/api/tenants/b/pool", &json!({"pool_size": 8}))
            .ok(200)["pool_size"],
        8
    );
    who.put("/api/tenants/b/pool", &json!({"pool_size": 100_000}))
        .problem(422);
    who.get("/api/tenants/nobody/pool").problem(404);
}

/// With a cluster that can really be used.
fn whole_desk() -> Desk {
    let desk = Desk::new();
    desk.office.add_cluster("main", postgres().endpoint(), &[]);
    desk
}

/// Each step of a life is an event with who did it, and from where.
fn events_are_told(who: &Http, path: &str) {
    let events = who.get(&format!("{path}/activity")).ok(200);
    let events = events["items"].as_array().unwrap();
    for kind in [
        "TenantCreated",
        "Activated",
        "Suspended",
        "Reactivated",
        "Terminated",
    ] {
        let event = events
            .iter()
            .find(|event| event["kind"] == kind)
            .unwrap_or_else(|| panic!("{kind}"));
        assert_eq!(event["address"], "127.0.0.1", "{event}");
        assert!(
            event["actor"].as_str().unwrap().starts_with("token:"),
            "{event}"
        );
    }
}

#[test]
fn a_tenant_of_each_tier_is_made_suspended_resumed_and_ended() {
    let desk = whole_desk();
    let who = desk.operator();
    for tier in ["database", "schema", "row"] {
        let path = format!("/api/tenants/{tier}");
        let new = json!({"id": tier, "tier": tier, "name": "T", "owner_email": "a@b.example"});
        let once = who
            .clone()
            .header("Idempotency-Key", &format!("make-{tier}"));
        let made = once.post("/api/tenants", &new);
        let created = made.ok(201);
        assert_eq!(made.header("location"), path);
        assert_eq!(created["tenant"]["status"], "active");
        let key = created["key"]["key"].as_str().unwrap();
        assert!(
            created["url"]
                .as_str()
                .unwrap()
                .starts_with(&format!("postgres://{tier}:{key}@"))
        );
        // Sent again it is the same tenant, with the same key; another request finds it taken.
        assert_eq!(once.post("/api/tenants", &new).ok(201), created);
        who.post("/api/tenants", &new).problem(409);
        // The key is never shown again, and opens what is its own.
        let seen = who.get(&path).body
            + &who.get(&format!("{path}/api-keys")).body
            + &who.get(&format!("{path}/activity")).body;
        assert!(!seen.contains(key));
        let holder = desk.nobody().token(key);
        assert_eq!(holder.get(&path).ok(200)["tier"], tier);
        assert_eq!(who.get(&format!("{path}/health")).ok(200)["healthy"], true);

        let suspended = who
            .post(&format!("{path}/suspend"), &json!({"reason": "not paid"}))
            .ok(200);
        assert_eq!(suspended["status"], "suspended");
        holder.get(&path).problem(401);
        assert_eq!(
            who.send("POST", &format!("{path}/resume"), None).ok(200)["status"],
            "active"
        );
        assert_eq!(who.delete(&path).status, 204);
        assert_eq!(who.get(&path).ok(200)["status"], "terminated");
        holder.get(&path).problem(401);
        who.post(&format!("{path}/api-keys"), &json!({}))
            .problem(409);
        who.post(
            &format!("{path}/users"),
            &json!({"email": "a@b.example", "role": "viewer"}),
        )
        .problem(409);
        assert_eq!(who.delete(&format!("{path}?grace_seconds=0")).status, 204);
        events_are_told(&who, &path);
        who.delete(&format!("{path}?grace_seconds=x")).problem(422);
        who.delete(&format!("{path}?grace_seconds=99999999999"))
            .problem(422);
    }
}

#[test]
fn many_tenants_made_at_once_are_all_made() {
    let desk = whole_desk();
    let who = desk.operator();
    std::thread::scope(|scope| {
        for number in 0..12 {
            let (who, desk) = (&who, &desk);
            scope.spawn(move || {
                let new = json!({"id": format!("t{number}"), "tier": "row"});
                let made = who.post("/api/tenants", &new);
                assert_eq!(made.status, 201, "{made:?}: {}", desk.log());
            });
        }
    });
    assert_eq!(
        desk.value("select count(*) from pgusher.tenant where status = 'active'"),
        "12"
    );
}

#[test]
fn a_cluster_that_does_not_answer_is_told_and_nothing_is_left() {
    let desk = Desk::new();
    let nowhere = port::free();
    desk.office.admin().exec(&format!(
        "insert into pgusher.cluster (name, primary_url, admin_role) \
         values ('main', 'postgres://127.0.0.1:{nowhere}', 'root')"
    ));
    let who = desk.operator().header("Idempotency-Key", "one");
    let told = who
        .post("/api/tenants", &json!({"id": "acme", "tier": "schema"}))
        .problem(502);
    assert!(
        told.contains("main") && told.contains("does not answer"),
        "{told}"
    );
    assert_eq!(desk.value("select count(*) from pgusher.tenant"), "0");
    // It may pass, so the next one is tried, and not answered as the first was.
    desk.office.admin().exec(&format!(
        "update pgusher.cluster set primary_url = '{}', admin_role = '{ADMIN}'",
        postgres().endpoint().url()
    ));
    who.post("/api/tenants", &json!({"id": "acme", "tier": "schema"}))
        .ok(201);
}
