//! `Idempotency-Key`: the same request twice is done once.

use crate::{api_desk::Desk, harness::http::Http};
use serde_json::json;
use std::thread;

const KEYS: &str = "/api/tenants/acme/api-keys";

fn desk() -> Desk {
    let desk = Desk::with_cluster();
    desk.tenant("acme");
    desk
}

fn with(who: &Http, key: &str) -> Http {
    who.clone().header("Idempotency-Key", key)
}

#[test]
fn the_same_request_is_answered_again_and_not_done_again() {
    let desk = desk();
    let operator = desk.operator();
    let who = with(&operator, "one");
    let first = who.post(KEYS, &json!({"name": "ci"}));
    let second = who.post(KEYS, &json!({"name": "ci"}));
    assert_eq!(first.ok(201), second.ok(201));
    assert_eq!(first.header("idempotency-replayed"), "");
    assert_eq!(second.header("idempotency-replayed"), "true");
    assert_eq!(desk.value("select count(*) from pgusher.api_key"), "1");
    // What is kept shows a key, so it is sealed.
    let key = first.json()["key"].as_str().unwrap().to_owned();
    let kept = format!(
        "select strpos(encode(answer, 'escape'), '{key}') from pgusher.idempotency where status = 201"
    );
    assert_eq!(desk.value(&kept), "0");

    // Another body, another path, another one's key.
    assert!(
        who.post(KEYS, &json!({"name": "other"}))
            .problem(422)
            .contains("another request")
    );
    who.post("/api/tenants/acme/users", &json!({"name": "ci"}))
        .problem(422);
    let other = desk.with_role("admin", None);
    assert_ne!(
        with(&other, "one")
            .post(KEYS, &json!({"name": "ci"}))
            .ok(201),
        first.json()
    );
    // Without a key each request is one.
    operator.post(KEYS, &json!({"name": "ci"})).ok(201);
    assert_eq!(desk.value("select count(*) from pgusher.api_key"), "3");
}

#[test]
fn a_refusal_is_kept_too_and_a_failure_that_may_pass_is_not() {
    let desk = desk();
    let who = with(&desk.operator(), "two");
    let unknown = "/api/tenants/nobody/api-keys";
    who.post(unknown, &json!({})).problem(404);
    desk.tenant("nobody");
    let again = who.post(unknown, &json!({}));
    again.problem(404);
    assert_eq!(again.header("idempotency-replayed"), "true");
    // A failure of the registry: the claim goes, and the next one is done.
    let who = with(&desk.operator(), "three");
    desk.office
        .admin()
        .exec("alter table pgusher.api_key rename to gone");
    who.post(KEYS, &json!({})).problem(500);
    desk.office
        .admin()
        .exec("alter table pgusher.gone rename to api_key");
    who.post(KEYS, &json!({})).ok(201);
}

#[test]
fn of_many_at_once_one_is_done_and_the_others_hear_of_it() {
    let desk = desk();
    let who = with(&desk.operator(), "four");
    let answers: Vec<_> = thread::scope(|scope| {
        let ask = || who.post(KEYS, &json!({"name": "ci"}));
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(desk.value("select count(*) from pgusher.api_key"), "1");
    let done: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 201)
        .collect();
    assert!(!done.is_empty());
    for answer in &answers {
        match answer.status {
            201 => assert_eq!(answer.body, done[0].body),
            _ => assert!(answer.problem(409).contains("under way")),
        }
    }
    assert_eq!(who.post(KEYS, &json!({"name": "ci"})).body, done[0].body);
}

#[test]
fn a_claim_whose_process_died_lapses_and_a_days_old_answer_is_forgotten() {
    let desk = desk();
    let who = with(&desk.operator(), "five");
    who.post(KEYS, &json!({})).ok(201);
    let mut admin = desk.office.admin();
    admin.exec("update pgusher.idempotency set answer = null, status = null");
    assert!(
        who.post(KEYS, &json!({}))
            .problem(409)
            .contains("under way")
    );
    admin.exec("update pgusher.idempotency set created_at = now() - interval '16 minutes'");
    who.post(KEYS, &json!({})).ok(201);
    admin.exec("update pgusher.idempotency set created_at = now() - interval '25 hours'");
    let anew = who.post(KEYS, &json!({"name": "another"}));
    anew.ok(201);
    assert_eq!(anew.header("idempotency-replayed"), "");
    assert_eq!(desk.value("select count(*) from pgusher.api_key"), "3");
}

#[test]
fn a_key_that_can_not_be_is_refused() {
    let desk = desk();
    for key in ["", &"k".repeat(201), "é"] {
        with(&desk.operator(), key)
            .post(KEYS, &json!({}))
            .problem(422);
    }
    let twice = with(&with(&desk.operator(), "a"), "b");
    twice.post(KEYS, &json!({})).problem(422);
    assert_eq!(desk.value("select count(*) from pgusher.api_key"), "0");
    // Of no account elsewhere.
    with(&desk.operator(), "").get("/api/tenants").ok(200);
}
