//! The log of events: whatever is done to it shows.

use crate::harness::{Client, Postgres, office::Office};

/// An office whose log has so many events; its superuser can switch the table's guard off.
fn office(events: u32) -> (Office, Client) {
    let office = Office::new(Postgres::shared().endpoint());
    office.run(&["audit", "verify"]).succeeded();
    let mut admin = office.admin();
    for number in 0..events {
        admin.exec(&format!(
            "insert into pgusher.event (seq, id, at_us, tenant, kind, actor, changes, previous, hash) \
             values (0, gen_random_uuid(), {number}, 'acmé', 'ConfigUpdated', 'operator:me', \
             '{{\"name\": {{\"before\": null, \"after\": \"ü\"}}}}', '', '')"
        ));
    }
    (office, admin)
}

fn tamper(admin: &mut Client, sql: &str) {
    admin.exec("alter table pgusher.event disable trigger all");
    admin.exec(sql);
    admin.exec("alter table pgusher.event enable trigger all");
}

fn broken(office: &Office) -> serde_json::Value {
    let run = office.run(&["audit", "verify", "--json"]);
    assert!(!run.is_success, "{}", run.out);
    let verified: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    verified["broken"].clone()
}

#[test]
fn a_whole_log_is_whole() {
    let (office, mut admin) = office(5);
    let verified = office.json(&["audit", "verify"]);
    assert_eq!(verified["events"], 5);
    assert_eq!(verified["broken"], serde_json::Value::Null);
    let hash = admin.value("select encode(hash, 'hex') from pgusher.event where seq = 5");
    assert_eq!(verified["head"]["hash"], hash);
}

#[test]
fn events_are_neither_changed_nor_removed() {
    let (_office, mut admin) = office(1);
    for sql in [
        "update pgusher.event set actor = 'somebody else'",
        "delete from pgusher.event",
        "truncate pgusher.event",
    ] {
        assert_eq!(admin.fails(sql).code(), "42501", "{sql}");
    }
}

#[test]
fn a_changed_event_shows() {
    let (office, mut admin) = office(3);
    tamper(
        &mut admin,
        "update pgusher.event set actor = 'somebody else' where seq = 2",
    );
    assert_eq!(broken(&office)["kind"], "changed");
    assert_eq!(broken(&office)["seq"], 2);
}

#[test]
fn a_removed_event_shows() {
    let (office, mut admin) = office(3);
    tamper(&mut admin, "delete from pgusher.event where seq = 2");
    assert_eq!(broken(&office)["kind"], "gap");
}

#[test]
fn a_replaced_event_shows() {
    let (office, mut admin) = office(3);
    tamper(
        &mut admin,
        "update pgusher.event e set actor = 'x' where seq = 2; \
         update pgusher.event e set hash = sha256(previous || convert_to(pgusher.event_text(e), 'UTF8')) where seq = 2",
    );
    assert_eq!(broken(&office)["kind"], "chain");
    assert_eq!(broken(&office)["seq"], 3);
}

#[test]
fn a_removed_end_shows_against_a_noted_head() {
    let (office, mut admin) = office(3);
    let verified = office.json(&["audit", "verify"]);
    let head = format!("3:{}", verified["head"]["hash"].as_str().unwrap());
    office
        .run(&["audit", "verify", "--head", &head])
        .succeeded();
    tamper(&mut admin, "delete from pgusher.event where seq = 3");
    office.run(&["audit", "verify"]).succeeded();
    let run = office.run(&["audit", "verify", "--head", &head]);
    assert!(
        !run.is_success && run.err.contains("event 3"),
        "{}",
        run.err
    );
}

#[test]
fn many_writers_at_once_make_one_chain() {
    let (office, _admin) = office(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = office.admin();
                for _ in 0..20 {
                    client.exec(
                        "insert into pgusher.event (seq, id, at_us, kind, actor, previous, hash) \
                         values (0, gen_random_uuid(), 1, 'Activated', 'a', '', '')",
                    );
                }
            });
        }
    });
    assert_eq!(office.json(&["audit", "verify"])["events"], 160);
}
