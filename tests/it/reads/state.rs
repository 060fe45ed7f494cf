//! What a session has, it has on whichever server it is.

use super::{Stage, shared};
use crate::harness::{Request, fleet::mark, frames};

#[test]
fn settings_hold_on_replicas_too() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    let place = stage.proxy.place("acme");
    let (role, other) = (place.role(), format!("{}_other", place.role()));
    place.admin().exec(&format!(
        "create schema {other} authorization {role}; \
         create table {other}.items as select 'other' as name; alter table {other}.items owner to {role}"
    ));
    client.exec("set datestyle = 'German'; set application_name = 'of mine'");
    client.exec("set timezone = 'Asia/Tokyo'");
    client.exec("set extra_float_digits = 0");
    let date = "select (date '2024-02-01')::text";
    assert_eq!(stage.on_replica(&mut client, date), ["01.02.2024"]);
    let third = "select (1::float8 / 3)::text";
    assert_eq!(stage.on_replica(&mut client, third), ["0.333333333333333"]);
    let zone = "select (timestamptz '2024-02-01 00:00Z')::text";
    assert_eq!(
        stage.on_replica(&mut client, zone),
        ["01.02.2024 09:00:00 JST"]
    );
    client.exec(&format!("set search_path = {other}"));
    let name = "select name from items limit 1";
    assert_eq!(stage.on_replica(&mut client, name), ["other"]);
    let mut plain = stage.client();
    assert_eq!(stage.on_replica(&mut plain, date), ["2024-02-01"]);
    let sql = "select name from items order by id limit 1";
    assert_eq!(stage.on_replica(&mut plain, sql), ["one"]);
    client.exec("reset all");
    assert_eq!(stage.on_replica(&mut client, date), ["2024-02-01"]);
    assert_eq!(stage.on_replica(&mut client, sql), ["one"]);
}

#[test]
fn settings_that_change_between_reads_are_never_mixed_up() {
    let stage = Stage::over(shared(), |tenant| tenant.pool_size(2));
    stage.settled(&mut stage.client());
    std::thread::scope(|scope| {
        for name in 0..6 {
            let stage = &stage;
            scope.spawn(move || {
                let mut client = stage.client();
                for round in 0..40 {
                    let zone = format!("mine{name}-{round}");
                    client.exec(&format!("set application_name = '{zone}'"));
                    assert_eq!(client.parameters["application_name"], zone);
                    for _ in 0..3 {
                        let got = client.value("select current_setting('application_name')");
                        assert_eq!(got, zone);
                    }
                }
            });
        }
    });
}

#[test]
fn startup_options_hold_on_replicas_too() {
    let stage = Stage::over(shared(), |tenant| tenant);
    stage.furnished();
    let mut client = stage
        .connect()
        .options("-c datestyle=German -c extra_float_digits=0")
        .login();
    let date = "select (date '2024-02-01')::text";
    assert_eq!(stage.on_replica(&mut client, date), ["01.02.2024"]);
    let third = "select (1::float8 / 3)::text";
    assert_eq!(stage.on_replica(&mut client, third), ["0.333333333333333"]);
}

#[test]
fn settings_of_the_tenant_hold_on_replicas_too() {
    let stage = Stage::over(shared(), |tenant| {
        tenant.settings(&[("datestyle", "German"), ("app.tenant", "acme")])
    });
    let mut client = stage.client();
    let sql = "select (date '2024-02-01')::text || current_setting('app.tenant')";
    assert_eq!(stage.on_replica(&mut client, sql), ["01.02.2024acme"]);
}

#[test]
fn a_session_with_a_temporary_table_stays_on_the_primary() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    stage.settled(&mut client);
    client.exec("create temp table mine as select 5 as i");
    for _ in 0..10 {
        let frames = stage.on_primary(&mut client, "select i from mine");
        assert_eq!(frames::firsts(&frames), ["5"]);
        stage.on_primary(&mut client, "select count(*) from items");
    }
    // It hides one that others read on replicas.
    client.exec("create temp table items as select 1 as lone");
    for _ in 0..10 {
        let frames = stage.on_primary(&mut client, "select lone from items");
        assert_eq!(frames::firsts(&frames), ["1"]);
    }
    let mut other = stage.client();
    let sql = "select count(*) from items";
    assert_eq!(stage.on_replica(&mut other, sql), ["3"]);
    client.exec("discard all");
    assert_eq!(stage.on_replica(&mut client, sql), ["3"]);
}

#[test]
fn a_session_with_an_advisory_lock_keeps_it() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    stage.settled(&mut client);
    client.exec("select pg_advisory_lock(4711)");
    let mut other = stage.client();
    for _ in 0..10 {
        stage.on_primary(&mut client, "select count(*) from items");
        assert_eq!(other.value("select pg_try_advisory_lock(4711)"), "f");
    }
    assert_eq!(client.value("select pg_advisory_unlock(4711)"), "t");
    assert_eq!(other.value("select pg_try_advisory_lock(4711)"), "t");
}

#[test]
fn a_listener_hears_while_it_reads_on_replicas() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let (mut client, mut other) = (stage.furnished(), stage.client());
    stage.settled(&mut client);
    client.exec("listen news");
    for round in 0..5 {
        assert_eq!(client.value("select count(*) from items"), "3");
        other.exec(&format!("notify news, '{round}'"));
        let heard = loop {
            let frame = client.next();
            if frame.tag == b'A' {
                break frame;
            }
        };
        assert_eq!(heard.body[4..], *format!("news\0{round}\0").as_bytes());
    }
}

#[test]
fn a_role_that_was_set_reads_as_itself() {
    let fleet = shared();
    let place = fleet.place();
    let member = format!("{}_member", place.role());
    let role = place.role();
    place.admin().exec(&format!(
        "create role {member}; grant {member} to {role}; grant usage on schema {role} to {member}"
    ));
    let stage = Stage::over(fleet, |_| crate::harness::Tenant::new("acme", &place));
    let mut client = stage.furnished();
    let sql = format!("select count(*) from {role}.items");
    assert_eq!(stage.on_replica(&mut client, &sql), ["3"]);
    client.exec(&format!("set role {member}"));
    for _ in 0..10 {
        assert_eq!(client.fails(&sql).code(), "42501");
        assert_eq!(client.value("select current_user"), member);
    }
    client.exec("reset role");
    for _ in 0..10 {
        assert_eq!(client.value(&sql), "3");
    }
}

#[test]
fn a_query_on_a_replica_can_be_cancelled() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    for begin in ["begin read only", ""] {
        stage.settled(&mut client);
        if !begin.is_empty() {
            client.exec(begin);
        }
        let mark = mark();
        let since = stage.fleet.now();
        client.send(&Request::new().query(&format!("select pg_sleep(60) {mark}")));
        let seen = crate::harness::eventually_some("it runs", || {
            stage.fleet.seen(&since, &mark).first().copied()
        });
        stage.connect().cancel(&client);
        let frames = client.until_ready();
        assert_eq!(frames::code(&frames), "57014", "on server {seen}");
        if !begin.is_empty() {
            assert_eq!(client.status, 'E');
            client.exec("rollback");
        }
        client.is_in_step();
    }
    // A cancel that comes late harms nobody.
    stage.connect().cancel(&client);
    for _ in 0..10 {
        assert_eq!(client.value("select count(*) from items"), "3");
    }
}

#[test]
fn a_client_that_leaves_in_a_replicas_transaction_leaves_nothing() {
    let stage = Stage::over(shared(), |tenant| tenant.pool_size(1));
    let mut client = stage.furnished();
    for _ in 0..5 {
        stage.settled(&mut client);
        let mut leaver = stage.client();
        leaver.exec("begin read only; set local datestyle = 'German'");
        leaver.exec("select 1");
        leaver.reset();
        let date = "select (date '2024-02-01')::text";
        assert_eq!(client.value(date), "2024-02-01");
        assert_eq!(client.status, 'I');
    }
}
