//! Who may use the admin API, and to whom.

use crate::{
    api_desk::Desk,
    harness::{Postgres, Proxy, Tenant, http::Http},
};
use serde_json::json;

/// Everything that a tenant's token could try on another's tenant: method, path behind the tenant, body.
const OF_A_TENANT: [(&str, &str, Option<&str>); 25] = [
    ("GET", "", None),
    ("PUT", "", Some("{}")),
    ("DELETE", "?grace_seconds=0", None),
    ("GET", "/users", None),
    (
        "POST",
        "/users",
        Some(r#"{"email":"a@b.example","role":"viewer"}"#),
    ),
    ("DELETE", "/users/ann@acme.example", None),
    ("GET", "/subscription", None),
    ("GET", "/quota", None),
    ("GET", "/usage", None),
    ("GET", "/analytics", None),
    ("GET", "/api-keys", None),
    ("POST", "/api-keys", Some("{}")),
    ("PATCH", "/api-keys/abc", Some("{}")),
    ("DELETE", "/api-keys/abc", None),
    ("GET", "/config", None),
    ("GET", "/config/colour", None),
    (
        "PUT",
        "/config/colour",
        Some(r#"{"type":"branding","value":1}"#),
    ),
    ("DELETE", "/config/colour", None),
    ("GET", "/activity", None),
    ("GET", "/health", None),
    ("POST", "/suspend", None),
    ("POST", "/resume", None),
    ("GET", "/pool", None),
    ("PUT", "/pool", Some("{}")),
    ("POST", "/pool", Some("{}")),
];

fn send(
    who: &Http,
    tenant: &str,
    what: (&str, &str, Option<&str>),
) -> crate::harness::http::Answer {
    let (method, rest, body) = what;
    who.send(method, &format!("/api/tenants/{tenant}{rest}"), body)
}

#[test]
fn nobody_gets_anything_without_a_valid_token() {
    let desk = Desk::with_cluster();
    desk.tenant("acme");
    let valid = desk.with_role("viewer", None);
    assert_eq!(valid.get("/api/tenants/acme").status, 200);
    let made = desk.office.json(&["token", "create", "--role", "admin"]);
    let token = made["token"].as_str().unwrap();
    let almost = format!(
        "{}{}",
        &token[..token.len() - 1],
        if token.ends_with('0') { "1" } else { "0" }
    );
    let strangers = [
        desk.nobody(),
        desk.nobody().token(""),
        desk.nobody().token(&almost),
        desk.nobody().token(&"x".repeat(5000)),
        desk.nobody()
            .header("Authorization", &format!("Basic {token}")),
        desk.nobody().header("Authorization", token),
        desk.nobody().token(token).token(token),
    ];
    for stranger in &strangers {
        let list = stranger.get("/api/tenants");
        list.problem(401);
        assert!(
            list.header("www-authenticate").starts_with("Bearer"),
            "{list:?}"
        );
    }
    for what in OF_A_TENANT {
        // Whether there is a tenant, nobody learns.
        let [known, unknown] = ["acme", "nobody"].map(|id| send(&desk.nobody(), id, what));
        known.problem(401);
        assert_eq!(known.body, unknown.body, "{what:?}");
    }
    assert_eq!(
        desk.value("select count(*) from pgusher.tenant where status = 'active'"),
        "1"
    );
}

#[test]
fn a_revoked_or_expired_token_opens_nothing() {
    let desk = Desk::new();
    let made = desk
        .office
        .json(&["token", "create", "--role", "viewer", "--name", "ci"]);
    let who = desk.nobody().token(made["token"].as_str().unwrap());
    assert_eq!(who.get("/api/tenants").status, 200);
    let id = made["id"].as_str().unwrap();
    desk.office.run(&["token", "revoke", id]).succeeded();
    who.get("/api/tenants").problem(401);
    let list = desk.office.json(&["token", "list"]);
    let revoked = list
        .as_array()
        .unwrap()
        .iter()
        .find(|token| token["id"] == id)
        .unwrap();
    assert!(revoked["revoked_at"].is_string(), "{list}");
    assert!(!list.to_string().contains("pga_"));

    let past = desk.office.run(&[
        "token",
        "create",
        "--role",
        "viewer",
        "--expires-at",
        "2020-01-01T00:00:00Z",
    ]);
    assert!(
        !past.is_success && past.err.contains("past"),
        "{}",
        past.err
    );
    let made = desk.office.json(&[
        "token",
        "create",
        "--role",
        "viewer",
        "--expires-at",
        "2099-01-01T00:00:00Z",
    ]);
    let who = desk.nobody().token(made["token"].as_str().unwrap());
    assert_eq!(who.get("/api/tenants").status, 200);
    desk.office
        .admin()
        .exec("update pgusher.admin_token set expires_at = now() where expires_at is not null");
    who.get("/api/tenants").problem(401);
    let kinds = "select string_agg(kind, ' ' order by seq) from pgusher.event";
    assert_eq!(
        desk.value(kinds),
        "AccessGranted AccessGranted AccessRevoked AccessGranted"
    );
}

#[test]
fn a_tenants_own_token_reaches_that_tenant_alone() {
    let desk = Desk::with_cluster();
    desk.tenant("acme");
    desk.tenant("initech");
    desk.operator()
        .put(
            "/api/tenants/initech/config/colour",
            &json!({"type": "branding", "value": "red"}),
        )
        .ok(200);
    let own = desk.with_role("admin", Some("acme"));
    for what in OF_A_TENANT {
        let other = send(&own, "initech", what);
        other.problem(404);
        // As if it did not exist.
        let unknown = send(&own, "unknown", what);
        assert_eq!(
            other.body.replace("initech", "unknown"),
            unknown.body,
            "{what:?}"
        );
    }
    let list = own.get("/api/tenants").ok(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(list["items"][0]["id"], "acme");
    own.post("/api/tenants", &json!({"id": "umbrella", "tier": "schema"}))
        .problem(403);
    // It can't serve itself again, nor end itself, nor give itself more.
    for (method, rest, body) in OF_A_TENANT {
        if ["/suspend", "/resume"].contains(&rest) || method == "DELETE" && rest.starts_with('?') {
            send(&own, "acme", (method, rest, body)).problem(403);
        }
    }
    own.put("/api/tenants/acme", &json!({"plan": "enterprise"}))
        .problem(403);
    own.put("/api/tenants/acme/pool", &json!({"pool_size": 1000}))
        .problem(403);
    assert_eq!(own.get("/api/tenants/acme/users").status, 200);
    let colour = "select value from pgusher.entry where tenant = 'initech'";
    assert_eq!(desk.value(colour), "\"red\"");
    let others =
        "select count(*) from pgusher.event where tenant = 'initech' and actor like 'token:%'";
    assert_eq!(desk.value(others), "1");
}

#[test]
fn a_role_may_what_those_below_it_may_and_no_more() {
    let desk = Desk::with_cluster();
    desk.tenant("acme");
    let roles = ["viewer", "user", "manager", "admin"];
    let who = roles.map(|role| desk.with_role(role, Some("acme")));
    let needs = [
        ("GET", "/config", None, 0),
        ("GET", "/api-keys", None, 0),
        (
            "PUT",
            "/config/theme",
            Some(r#"{"type":"branding","value":{"a":1}}"#),
            1,
        ),
        (
            "PUT",
            "/config/smtp",
            Some(r#"{"type":"integration","value":"hunter2"}"#),
            2,
        ),
        ("POST", "/api-keys", Some(r#"{"name":"one"}"#), 2),
        (
            "POST",
            "/users",
            Some(r#"{"email":"ROLE@b.example","role":"viewer"}"#),
            2,
        ),
        (
            "POST",
            "/users",
            Some(r#"{"email":"boss@b.example","role":"admin"}"#),
            3,
        ),
    ];
    for (method, rest, body, lowest) in needs {
        for (level, who) in who.iter().enumerate() {
            let body = body.map(|body| body.replace("ROLE", roles[level]));
            let answer = send(who, "acme", (method, rest, body.as_deref()));
            if level < lowest {
                assert!(answer.problem(403).contains("role"), "{answer:?}");
            } else {
                assert!(
                    [200, 201].contains(&answer.status),
                    "{method} {rest} as {}: {answer:?}",
                    roles[level]
                );
            }
        }
    }
    // Nobody removes who stands above them.
    who[2]
        .delete("/api/tenants/acme/users/boss@b.example")
        .problem(403);
    assert_eq!(
        who[3]
            .delete("/api/tenants/acme/users/boss@b.example")
            .status,
        204
    );
}

#[test]
fn an_api_key_may_look_at_its_own_tenant_from_where_it_is_allowed() {
    let desk = Desk::with_cluster();
    desk.tenant("acme");
    desk.tenant("initech");
    let make = |body| {
        let made = desk
            .operator()
            .post("/api/tenants/acme/api-keys", &body)
            .ok(201);
        (
            made["id"].as_str().unwrap().to_owned(),
            made["key"].as_str().unwrap().to_owned(),
        )
    };
    let (id, key) = make(json!({}));
    let holder = desk.nobody().token(&key);
    assert_eq!(holder.get("/api/tenants/acme").ok(200)["id"], "acme");
    holder.get("/api/tenants/initech").problem(404);
    holder
        .put(
            "/api/tenants/acme/config/a",
            &json!({"type": "feature", "value": 1}),
        )
        .problem(403);
    holder
        .post("/api/tenants/acme/api-keys", &json!({}))
        .problem(403);
    let (_, elsewhere) = make(json!({"allow": ["192.0.2.0/24"]}));
    desk.nobody()
        .token(&elsewhere)
        .get("/api/tenants/acme")
        .problem(401);
    let (_, later) = make(json!({"not_before": "2099-01-01T00:00:00Z"}));
    desk.nobody()
        .token(&later)
        .get("/api/tenants/acme")
        .problem(401);
    desk.operator()
        .delete(&format!("/api/tenants/acme/api-keys/{id}"))
        .ok(200);
    holder.get("/api/tenants/acme").problem(401);
    let (_, key) = make(json!({}));
    desk.office
        .admin()
        .exec("update pgusher.tenant set status = 'suspended' where id = 'acme'");
    desk.nobody()
        .token(&key)
        .get("/api/tenants/acme")
        .problem(401);
}

#[test]
fn the_headers_of_operators_name_the_tenant_of_the_path_or_are_refused() {
    let desk = Desk::with_cluster();
    desk.tenant("acme");
    desk.tenant("initech");
    for name in ["X-UltraCore-Tenant-Id", "Fineract-Platform-TenantId"] {
        let who = desk.operator().header(name, "acme");
        assert_eq!(who.get("/api/tenants/acme").status, 200);
        assert!(
            who.get("/api/tenants/initech")
                .problem(422)
                .contains("another tenant")
        );
        who.get("/api/tenants").problem(422);
        who.clone()
            .header(name, "initech")
            .get("/api/tenants/acme")
            .problem(422);
    }
}

#[test]
fn many_wrong_tokens_from_one_address_are_refused_and_the_right_one_goes_on() {
    let desk = Desk::new();
    let wrong = desk.nobody().token("pga_x_y");
    let statuses: Vec<_> = (0..70).map(|_| wrong.get("/api/tenants").status).collect();
    assert_eq!(statuses[0], 401);
    assert_eq!(statuses[69], 429);
    assert_eq!(wrong.get("/api/tenants").header("retry-after"), "60");
    assert_eq!(desk.operator().get("/api/tenants").status, 200);
}

#[test]
fn without_a_registry_the_api_says_so_and_the_metrics_go_on() {
    let proxy = Proxy::of([Tenant::new("acme", &Postgres::shared().place())])
        .admin()
        .start();
    let nobody = Http::new(proxy.admin_port());
    for path in [
        "/api",
        "/api/tenants",
        "/api/tenants/acme/users",
        "/api/tenants/public/acme/info",
    ] {
        assert_eq!(nobody.get(path).problem(503), "there is no [registry]");
    }
    assert_eq!(nobody.get("/metrics").status, 200);
    assert_eq!(nobody.get("/healthz").status, 200);
    assert_eq!(nobody.get("/api/openapi.json").status, 200);
}
