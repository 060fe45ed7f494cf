//! Strangers to the admin API, and clients that mean harm.

use crate::{
    api_desk::Desk,
    harness::{Postgres, eventually},
};
use serde_json::json;
use std::{io::Write as _, net::TcpStream};

fn desk() -> Desk {
    let desk = Desk::with_cluster();
    desk.tenant("acme");
    desk
}

#[test]
fn paths_that_lead_astray_lead_nowhere() {
    let desk = desk();
    let who = desk.operator();
    let long = "a".repeat(4000);
    for id in [
        "%2e%2e",
        "..",
        "%2e%2e%2facme",
        "acme%2f..",
        "acme%00",
        "%00",
        "acme%0a",
        "%c3%28",
        "ACME",
        "acme%20",
        "acme'--",
        "%27%20or%201=1--",
        "acme%3b",
        &long,
        "*",
        "%25",
        "acme%252e",
    ] {
        for rest in ["", "/users", "/config", "/health"] {
            let answer = who.get(&format!("/api/tenants/{id}{rest}"));
            assert!(
                [400, 404].contains(&answer.status),
                "{id}{rest}: {answer:?}"
            );
        }
    }
    for key in ["..", "%2e%2e", "%00", "a%00b", "%c3%28", "a%2fb", &long] {
        who.get(&format!("/api/tenants/acme/config/{key}"))
            .problem(404);
        who.delete(&format!("/api/tenants/acme/users/{key}"))
            .problem(404);
        who.delete(&format!("/api/tenants/acme/api-keys/{key}"))
            .problem(404);
    }
    for path in [
        "/api",
        "/api/",
        "/api/tenants/",
        "/api//tenants",
        "/api/tenants/acme/",
        "/api/tenants/acme/nothing",
    ] {
        who.get(path).problem(404);
    }
    assert_eq!(who.get("/api/tenants/acme").status, 200);
}

#[test]
fn a_method_that_a_path_has_not_is_refused_with_those_that_it_has() {
    let desk = desk();
    for (method, path, allow) in [
        ("DELETE", "/api/tenants", "GET,HEAD,POST"),
        ("PATCH", "/api/tenants/acme", "DELETE,GET,HEAD,PUT"),
        ("GET", "/api/tenants/acme/suspend", "POST"),
        ("POST", "/api/openapi.json", "GET,HEAD"),
    ] {
        let answer = desk.operator().send(method, path, None);
        answer.problem(405);
        let mut allowed: Vec<_> = answer.header("allow").split(',').collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(","), allow, "{method} {path}");
    }
}

#[test]
fn bodies_that_are_too_large_or_no_json_are_refused() {
    let desk = desk();
    let who = desk.operator();
    let path = "/api/tenants/acme/config/a";
    let huge = format!(
        "{{\"type\":\"feature\",\"value\":\"{}\"}}",
        "x".repeat(70_000)
    );
    who.send("PUT", path, Some(&huge)).problem(413);
    // A body without an end, in chunks of 32 KiB.
    let endless = format!("8000\r\n{}\r\n", "x".repeat(0x8000)).repeat(4);
    let head = raw_head(
        &who,
        "PUT",
        path,
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n",
    );
    assert_eq!(desk.nobody().raw((head + &endless).as_bytes()).status, 413);
    for body in [
        "",
        "{",
        "nonsense",
        "[1,",
        "{\"type\":\"feature\",\"value\":1}}",
        "\u{feff}{}",
        &"[".repeat(60_000),
    ] {
        who.send("PUT", path, Some(body)).problem(422);
    }
    let text = who.clone().header("Content-Type", "text/plain");
    text.send("PUT", path, Some("{}")).problem(415);
    let form = who
        .clone()
        .header("Content-Type", "application/x-www-form-urlencoded");
    form.send("POST", "/api/tenants", Some("id=a&tier=schema"))
        .problem(415);
    assert_eq!(desk.value("select count(*) from pgusher.entry"), "0");
}

/// The head of a request, by hand.
fn raw_head(who: &crate::harness::http::Http, method: &str, path: &str, more: &str) -> String {
    let authorization = who
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}{more}\r\n",
        authorization.collect::<String>()
    )
}

#[test]
fn nobody_uploads_anything_before_it_is_known_who_it_is() {
    let desk = desk();
    let head = raw_head(
        &desk.nobody(),
        "POST",
        "/api/tenants",
        "Content-Type: application/json\r\nContent-Length: 100000000\r\n",
    );
    // The answer comes though the body never does.
    let answer = desk.nobody().raw(head.as_bytes());
    assert_eq!(answer.status, 401, "{answer:?}");
    let head = raw_head(
        &desk.operator(),
        "POST",
        "/api/tenants",
        "Content-Type: application/json\r\nContent-Length: 100000000\r\n",
    );
    assert_eq!(
        desk.nobody()
            .raw((head + &"x".repeat(100_000)).as_bytes())
            .status,
        413
    );
}

#[test]
fn clients_that_hang_or_leave_do_no_harm() {
    let desk = desk();
    let port = desk.port();
    let open = |bytes: &[u8]| {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.write_all(bytes).unwrap();
        socket
    };
    let half = raw_head(
        &desk.operator(),
        "POST",
        "/api/tenants/acme/users",
        "Content-Type: application/json\r\nContent-Length: 64\r\n",
    );
    let mut hanging: Vec<_> = (0..100)
        .map(|_| open(b"GET /api/tenants HTTP/1.1\r\nHo"))
        .collect();
    hanging.extend((0..20).map(|_| open((half.clone() + "{").as_bytes())));
    assert_eq!(desk.operator().get("/api/tenants").status, 200);
    drop(hanging);
    for bytes in [
        &[0; 100][..],
        &[0xff; 16_000],
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
    ] {
        assert!([0, 400, 404, 431, 505].contains(&desk.nobody().raw(bytes).status));
    }
    let head = format!(
        "GET /api/tenants HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "y".repeat(200_000)
    );
    assert!([0, 431].contains(&desk.nobody().raw(head.as_bytes()).status));
    assert_eq!(desk.operator().get("/api/tenants").status, 200);
}

#[test]
fn what_has_begun_goes_on_when_the_client_leaves() {
    let desk = desk();
    let mut admin = desk.office.admin();
    admin.exec("begin");
    admin.exec("select 1 from pgusher.tenant where id = 'acme' for update");
    let body = json!({"email": "ann@acme.example", "role": "viewer"}).to_string();
    let head = raw_head(
        &desk.operator(),
        "POST",
        "/api/tenants/acme/users",
        &format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        ),
    );
    let mut socket = TcpStream::connect(("127.0.0.1", desk.port())).unwrap();
    socket.write_all((head + &body).as_bytes()).unwrap();
    eventually("the request waits for the lock", || {
        desk.value("select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()") != "0"
    });
    drop(socket);
    admin.exec("commit");
    eventually("the user is added", || {
        desk.value("select count(*) from pgusher.member") == "1"
    });
}

#[test]
fn no_secret_stands_in_an_answer_a_log_or_an_event() {
    let desk = desk();
    let who = desk.operator();
    let made = who
        .post("/api/tenants/acme/api-keys", &json!({"name": "ci"}))
        .ok(201);
    let key = made["key"].as_str().unwrap().to_owned();
    who.put(
        "/api/tenants/acme/config/smtp",
        &json!({"type": "integration", "value": "hunter2-secret"}),
    )
    .ok(200);
    desk.nobody().token(&key).get("/api/tenants/acme").ok(200);
    desk.nobody()
        .token("pga_wrong_hunter3-secret")
        .get("/api/tenants")
        .problem(401);
    who.post(
        "/api/tenants",
        &json!({"id": "x", "tier": "hunter4-secret"}),
    )
    .problem(422);
    let mut seen = desk.log();
    for path in [
        "",
        "/users",
        "/subscription",
        "/quota",
        "/usage",
        "/analytics",
        "/api-keys",
        "/config",
        "/config/smtp",
        "/activity",
        "/health",
        "/pool",
    ] {
        let answer = who.get(&format!("/api/tenants/acme{path}"));
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store");
        seen += &answer.body;
    }
    seen += &who.get("/api/tenants").body;
    seen += &who.get("/api/openapi.json").body;
    seen += &who.get("/metrics").body;
    seen += &desk.value("select string_agg(v::text, ' ') from pgusher.event v");
    let token = who.headers()[0].1.split(' ').nth(1).unwrap();
    for secret in [
        &key,
        token,
        "hunter2-secret",
        "hunter3-secret",
        "hunter4-secret",
        "SCRAM-SHA-256$",
    ] {
        assert!(!seen.contains(secret), "{secret}");
    }
    // Not even the registry has what opens it.
    let rows = "select string_agg(t, ' ') from (select k::text t from pgusher.api_key k union all \
                select a::text from pgusher.admin_token a union all select e::text from pgusher.entry e) rows";
    let rows = desk.value(rows);
    assert!(!rows.contains(&key) && !rows.contains(token) && !rows.contains("hunter2"));
}

#[test]
fn while_the_registry_is_down_the_api_says_so_and_the_rest_goes_on() {
    let mut postgres = Postgres::start();
    let desk = Desk::at(postgres.endpoint());
    postgres.stop();
    let answer = desk.operator().get("/api/tenants");
    answer.problem(503);
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(desk.nobody().get("/healthz").status, 200);
    assert_eq!(desk.nobody().get("/api/openapi.json").status, 200);
    postgres.run();
    eventually("the API is back", || {
        desk.operator().get("/api/tenants").status == 200
    });
}
