//! What is known of a tenant is told, and what is not is null.

use crate::{
    api_desk::Desk,
    harness::{DEADLINE, eventually},
};
use serde_json::{Value, json};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

fn desk() -> Desk {
    let desk = Desk::with_cluster();
    desk.tenant("acme");
    desk
}

#[test]
fn a_subscription_is_the_plans_numbers_and_a_plan_of_ones_own_has_none() {
    let desk = desk();
    let who = desk.operator();
    let path = "/api/tenants/acme/subscription";
    let custom = who.get(path).ok(200);
    assert_eq!(
        (&custom["plan"], &custom["limits"]),
        (&json!("custom"), &Value::Null)
    );
    let starter = json!({ "plan": "starter" });
    who.put("/api/tenants/acme", &starter).ok(200);
    let starter = who.get(path).ok(200);
    assert_eq!(
        (&starter["plan"], &starter["enforced"]),
        (&json!("starter"), &json!(true))
    );
    assert_eq!(starter["limits"]["users"], 10);
    assert_eq!(starter["limits"]["api_calls_per_month"], 10_000);
    assert_eq!(starter["limits"]["storage_bytes"], 5_000_000_000_u64);
    assert_eq!(starter["limits"]["transactions_per_month"], 1000);
    assert_eq!(
        (&starter["cycle"], &starter["trial_ends_at"]),
        (&json!("monthly"), &Value::Null)
    );
    for (plan, users) in [
        ("professional", json!(100)),
        ("enterprise", json!(1000)),
        ("custom", Value::Null),
    ] {
        who.put("/api/tenants/acme", &json!({ "plan": plan }))
            .ok(200);
        assert_eq!(who.get(path).ok(200)["limits"]["users"], users);
    }
    who.get("/api/tenants/nobody/subscription").problem(404);
}

#[test]
fn a_quota_says_what_is_used_and_what_nobody_counts() {
    let desk = desk();
    let who = desk.operator();
    who.post(
        "/api/tenants/acme/users",
        &json!({"email": "a@b.example", "role": "viewer"}),
    )
    .ok(201);
    who.put(
        "/api/tenants/acme/pool",
        &json!({"max_client_connections": 50, "pool_size": 7}),
    )
    .ok(200);
    let starter = json!({ "plan": "starter" });
    who.put("/api/tenants/acme", &starter).ok(200);
    let quotas = who.get("/api/tenants/acme/quota").ok(200);
    let quota = |name: &str| {
        let quotas = quotas["quotas"].as_array().unwrap();
        quotas
            .iter()
            .find(|quota| quota["name"] == name)
            .unwrap()
            .clone()
    };
    let users = quota("users");
    assert_eq!(
        (&users["max"], &users["current"], &users["available"]),
        (&json!(10), &json!(1), &json!(9))
    );
    assert_eq!(users["percentage"], 10.0);
    let clients = quota("client_connections");
    assert_eq!(
        (&clients["max"], &clients["current"], &clients["enforced"]),
        (&json!(50), &json!(0), &json!(true))
    );
    assert_eq!(quota("server_connections")["max"], 14);
    for (name, current) in [
        ("api_calls", json!(0)),
        ("transactions", json!(0)),
        ("storage_bytes", Value::Null),
    ] {
        assert!(quota(name)["max"].is_number());
        assert_eq!(quota(name)["current"], current);
        assert_eq!(quota(name)["percentage"].is_null(), current.is_null());
        assert!(quota(name)["note"].is_string());
    }
    for path in ["quota", "usage", "analytics", "health"] {
        who.get(&format!("/api/tenants/nobody/{path}")).problem(404);
    }
    let usage = who.get("/api/tenants/acme/usage").ok(200);
    assert_eq!(
        (&usage["now"]["clients"], &usage["api_calls"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(usage["storage_bytes"], Value::Null);
    let analytics = who.get("/api/tenants/acme/analytics").ok(200);
    assert_eq!(
        (
            &analytics["counts"]["users"],
            &analytics["active_users_30d"]
        ),
        (&json!(1), &Value::Null)
    );
    assert_eq!(analytics["counts"]["events_30d"], 3);
}

#[test]
fn a_tenant_is_well_when_it_is_active_and_its_cluster_answers() {
    let desk = desk();
    let who = desk.operator();
    let health = who.get("/api/tenants/acme/health").ok(200);
    assert_eq!(
        (&health["healthy"], &health["cluster"]),
        (&json!(true), &json!(true)),
        "{health}"
    );
    let mut admin = desk.office.admin();
    admin.exec("update pgusher.tenant set status = 'suspended'");
    let health = who.get("/api/tenants/acme/health").ok(200);
    assert_eq!(
        (&health["healthy"], &health["status"]),
        (&json!(false), &json!("suspended"))
    );
    admin.exec("update pgusher.tenant set status = 'active'");
    let nowhere = crate::harness::port::free();
    admin.exec(&format!(
        "update pgusher.cluster set primary_url = 'postgres://127.0.0.1:{nowhere}'"
    ));
    let health = who.get("/api/tenants/acme/health").ok(200);
    assert_eq!(
        (&health["healthy"], &health["cluster"]),
        (&json!(false), &json!(false))
    );
    assert!(
        health["cluster_problem"]
            .as_str()
            .unwrap()
            .contains("does not answer"),
        "{health}"
    );
    // Where its cluster is, is not the tenant's to know.
    let own = desk.with_role("admin", Some("acme"));
    assert_eq!(
        own.get("/api/tenants/acme/health").ok(200)["cluster_problem"],
        Value::Null
    );
}

#[test]
fn the_public_face_is_public_and_nothing_else_is() {
    let desk = desk();
    let metadata = json!({"logo": "https://acme.example/logo.svg", "colours": {"primary": "#123456"},
        "licence_number": "SECRET-42"});
    desk.operator()
        .put(
            "/api/tenants/acme",
            &json!({ "name": "Acme Bank", "metadata": metadata }),
        )
        .ok(200);
    let info = |id: &str| desk.nobody().get(&format!("/api/tenants/public/{id}/info"));
    let acme = info("acme").ok(200);
    assert_eq!(
        acme,
        json!({"id": "acme", "name": "Acme Bank", "logo": "https://acme.example/logo.svg",
            "colours": {"primary": "#123456"}})
    );
    let unknown = info("nobody");
    unknown.problem(404);
    // One that is not served any more looks like one that never was.
    desk.office
        .admin()
        .exec("update pgusher.tenant set status = 'terminated'");
    let ended = info("acme");
    assert_eq!(ended.body.replace("acme", "nobody"), unknown.body);
    for id in ["%2e%2e", "ACME", "%00", &"a".repeat(1000)] {
        info(id).problem(404);
    }
}

#[test]
fn a_tenant_sees_what_was_done_to_it_but_not_which_operator_did_it() {
    let desk = desk();
    desk.office.admin().exec(
        "insert into pgusher.event (seq, id, at_us, tenant, kind, actor, address, previous, hash) \
         values (0, gen_random_uuid(), 1, 'acme', 'ScaledUp', 'operator:root', '10.1.2.3', '', '')",
    );
    desk.operator()
        .put(
            "/api/tenants/acme/config/a",
            &json!({"type": "feature", "value": 1}),
        )
        .ok(200);
    let own = desk.with_role("viewer", Some("acme"));
    let events = own.get("/api/tenants/acme/activity").ok(200);
    let text = events.to_string();
    assert!(
        text.contains("ScaledUp") && text.contains("ConfigUpdated"),
        "{text}"
    );
    assert!(
        !text.contains("root") && !text.contains("10.1.2.3"),
        "{text}"
    );
    let all = desk
        .operator()
        .get("/api/tenants/acme/activity")
        .ok(200)
        .to_string();
    assert!(all.contains("operator:root") && all.contains("10.1.2.3"));
}

#[test]
fn answers_on_one_connection_come_one_after_the_other() {
    let desk = desk();
    let mut socket = TcpStream::connect(("127.0.0.1", desk.port())).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let one = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET /api/openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    socket
        .write_all(format!("{one}{one}{last}").as_bytes())
        .unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3);
    eventually("it still answers", || {
        desk.nobody().get("/healthz").status == 200
    });
}
