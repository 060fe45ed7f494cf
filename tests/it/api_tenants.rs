//! `/api/tenants`: tenants and their lifecycle, by HTTP.

use crate::api_desk::Desk;
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
    assert_eq!(field(&json!({"id": "a", "tier": "schema", "variant": "shared"})), "variant");
    assert_eq!(field(&json!({"id": "a", "tier": "schema", "pool_size": 0})), "pool_size");
    assert_eq!(field(&json!({"id": "a"})), "body");
    assert_eq!(field(&json!({"id": "a", "tier": "schema", "unknown": 1})), "body");
    who.post("/api/tenants", &json!({"id": "a", "tier": "schema", "cluster": "nowhere"})).problem(404);
    who.post("/api/tenants", &json!({"id": "acme", "tier": "schema"})).problem(409);
    assert_eq!(desk.value("select string_agg(id, ' ') from pgusher.tenant"), "acme");
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
        items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&page), ["a-1", "acme", "b"]);
    let rest = who.get(&format!("/api/tenants?limit=3&after={}", page["next"].as_str().unwrap())).ok(200);
    assert_eq!((ids(&rest), rest.get("next")), (vec!["c".to_owned()], None));

    let changed = who.put("/api/tenants/b", &json!({"name": "B", "query_timeout": 5000})).ok(200);
    assert_eq!((&changed["name"], &changed["query_timeout"]), (&json!("B"), &json!(5000)));
    let back = who.put("/api/tenants/b", &json!({"query_timeout": null})).ok(200);
    assert_eq!((&back["name"], &back["query_timeout"]), (&json!("B"), &Value::Null));
    who.put("/api/tenants/b", &json!({"id": "z"})).problem(422);
    who.put("/api/tenants/b", &json!({"status": "active"})).problem(422);
    who.put("/api/tenants/nobody", &json!({})).problem(404);

    let pool = who.put("/api/tenants/b/pool", &json!({"pool_size": 9, "pool_mode": "session"})).ok(200);
    assert_eq!((&pool["pool_size"], &pool["pool_mode"]), (&json!(9), &json!("session")));
    assert_eq!(who.get("/api/tenants/b/pool").ok(200), pool);
    assert_eq!(who.post("/api/tenants/b/pool", &json!({"pool_size": 8})).ok(200)["pool_size"], 8);
    who.put("/api/tenants/b/pool", &json!({"pool_size": 100_000})).problem(422);
    who.get("/api/tenants/nobody/pool").problem(404);
}
