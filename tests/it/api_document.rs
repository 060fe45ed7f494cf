//! `/api/openapi.json` describes what there is, all of it and nothing else.

use crate::api_desk::Desk;
use serde_json::Value;
use std::collections::BTreeSet;

/// What the admin API promises.
const PROMISED: [&str; 35] = [
    "GET /api/plans",
    "GET /api/plans/{name}",
    "PUT /api/plans/{name}",
    "DELETE /api/plans/{name}",
    "GET /api/tenants",
    "POST /api/tenants",
    "GET /api/tenants/{id}",
    "PUT /api/tenants/{id}",
    "DELETE /api/tenants/{id}",
    "GET /api/tenants/{id}/users",
    "POST /api/tenants/{id}/users",
    "DELETE /api/tenants/{id}/users/{email}",
    "GET /api/tenants/{id}/subscription",
    "GET /api/tenants/{id}/quota",
    "GET /api/tenants/{id}/usage",
    "GET /api/tenants/{id}/analytics",
    "GET /api/tenants/{id}/costs",
    "GET /api/costs",
    "GET /api/tenants/{id}/api-keys",
    "POST /api/tenants/{id}/api-keys",
    "PATCH /api/tenants/{id}/api-keys/{key}",
    "DELETE /api/tenants/{id}/api-keys/{key}",
    "GET /api/tenants/{id}/config",
    "GET /api/tenants/{id}/config/{key}",
    "PUT /api/tenants/{id}/config/{key}",
    "DELETE /api/tenants/{id}/config/{key}",
    "GET /api/tenants/{id}/activity",
    "GET /api/tenants/{id}/health",
    "POST /api/tenants/{id}/suspend",
    "POST /api/tenants/{id}/resume",
    "GET /api/tenants/{id}/pool",
    "PUT /api/tenants/{id}/pool",
    "POST /api/tenants/{id}/pool",
    "GET /api/tenants/public/{id}/info",
    "GET /api/openapi.json",
];

const METHODS: [&str; 5] = ["get", "post", "put", "delete", "patch"];

fn described(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &Value)| {
        let methods = METHODS
            .into_iter()
            .filter(|method| item.get(method).is_some());
        methods
            .map(|method| format!("{} {path}", method.to_uppercase()))
            .collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

#[test]
fn the_description_has_every_path_and_every_path_is_there() {
    let desk = Desk::with_cluster();
    desk.tenant("acme");
    let document = desk.nobody().get("/api/openapi.json").ok(200);
    let described = described(&document);
    assert_eq!(
        described,
        PROMISED.iter().map(|&line| line.to_owned()).collect()
    );
    for line in &described {
        let (method, path) = line.split_once(' ').unwrap();
        let path = path
            .replace("{id}", "acme")
            .replace("{key}", "x")
            .replace("{name}", "x")
            .replace("{email}", "x");
        // Without a token: what is there asks for one, what is not is not found.
        let answer = desk.nobody().send(method, &path, None);
        let is_open = path.ends_with("/info") || path.ends_with("openapi.json");
        assert_eq!(answer.status, if is_open { 200 } else { 401 }, "{line}");
        // And a method that is not described is not there.
        for other in METHODS {
            if !described.contains(&format!(
                "{} {}",
                other.to_uppercase(),
                line.split_once(' ').unwrap().1
            )) {
                desk.nobody()
                    .send(&other.to_uppercase(), &path, None)
                    .problem(405);
            }
        }
    }
}

#[test]
fn every_operation_says_who_may_and_how_it_can_end() {
    let desk = Desk::new();
    let document = desk.nobody().get("/api/openapi.json").ok(200);
    assert!(
        document["openapi"].as_str().unwrap().starts_with("3.1"),
        "{}",
        document["openapi"]
    );
    assert_eq!(
        document["components"]["securitySchemes"]["token"]["scheme"],
        "bearer"
    );
    assert_eq!(document["security"][0]["token"], serde_json::json!([]));
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} twice");
            assert!(operation["summary"].is_string(), "{path}");
            let responses = operation["responses"].as_object().unwrap();
            for (status, response) in responses {
                assert!(
                    response["description"].is_string(),
                    "{method} {path} {status}"
                );
            }
            assert!(
                responses.keys().any(|status| status.starts_with('2')),
                "{path}"
            );
            if path == "/api/openapi.json" {
                continue;
            }
            for status in ["401", "403", "404", "409", "422", "429", "503"] {
                let schema =
                    &responses[status]["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(
                    schema, "#/components/schemas/Problem",
                    "{method} {path} {status}"
                );
            }
        }
    }
    // A new tenant fits its schema: one piece, with what it must have among what it may.
    let new = &document["components"]["schemas"]["NewTenant"];
    assert_eq!(new["required"], serde_json::json!(["id", "tier"]));
    assert!(new["properties"]["id"].is_object() && new["properties"]["pool_size"].is_object());
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"").skip(1) {
        let reference = reference.split('"').next().unwrap();
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}
