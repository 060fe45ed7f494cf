//! What PostgreSQL says without being asked: it reaches whom it concerns, and nobody else.

use crate::harness::{
    Mode, Postgres, Proxy, Request, Tenant, eventually,
    frames::{code, error},
    proxy::{one_tenant, pooled},
    tags,
};

const MODES: [Mode; 2] = [Mode::Session, Mode::Transaction];

#[test]
fn a_server_that_says_goodbye_while_idle_is_not_heard_by_the_next_client() {
    let proxy = pooled(Mode::Transaction, 2);
    let place = proxy.place("acme");
    let mut admin = place.admin();
    admin.exec(&format!(
        "alter role {} set idle_session_timeout = '200ms'",
        place.role()
    ));
    let mut client = proxy.connect("acme").login();
    for _ in 0..3 {
        let frames = client.query("select 1");
        assert_eq!(tags(&frames), "TDCZ", "{frames:?}");
        eventually("the server has left", || {
            place.server_pids(&mut admin).is_empty()
        });
    }
}

#[test]
fn a_timeout_of_postgresqls_own_reaches_the_client_that_waits_in_a_transaction() {
    for mode in MODES {
        let proxy = pooled(mode, 1);
        let mut client = proxy.connect("acme").login();
        client.exec("begin; set local idle_in_transaction_session_timeout = '200ms'");
        // Nothing is asked: PostgreSQL speaks up.
        assert_eq!(code(&client.until('E')), "25P03", "{mode:?}");
        proxy.connect("acme").login().is_in_step();
    }
}

#[test]
fn a_statement_timeout_of_postgresqls_own_is_an_error_like_others() {
    for mode in MODES {
        let proxy = pooled(mode, 1);
        let mut client = proxy.connect("acme").login();
        client.exec("begin; set local statement_timeout = '100ms'");
        assert_eq!(client.fails("select pg_sleep(10)").code(), "57014");
        client.exec("rollback");
        client.is_in_step();
    }
}

#[test]
fn a_notification_reaches_only_who_listens() {
    let proxy = pooled(Mode::Transaction, 1);
    let place = proxy.place("acme");
    let mut listener = proxy.connect("acme").login();
    listener.exec("listen news");
    listener.send(&Request::new().terminate());
    listener.rest();
    let mut next = proxy.connect("acme").login();
    for _ in 0..3 {
        place
            .direct()
            .login()
            .exec("notify news, 'for someone else'");
        let frames = next.query("select 1");
        assert_eq!(tags(&frames), "TDCZ", "{frames:?}");
    }
}

#[test]
fn a_notice_in_a_transaction_comes_before_its_end() {
    let proxy = pooled(Mode::Transaction, 1);
    let mut client = proxy.connect("acme").login();
    let frames = client.query("begin; do $$ begin raise notice 'now'; end $$; commit");
    assert_eq!(tags(&frames), "CNCCZ", "{frames:?}");
}

#[test]
fn a_changed_setting_of_postgresql_is_told_or_at_least_harmless() {
    let postgres = Postgres::start();
    let place = postgres.place();
    let proxy = Proxy::of([Tenant::new("acme", &place).pool_size(2)]).start();
    let mut client = proxy.connect("acme").login();
    client.exec("select 1");
    let mut admin = postgres.admin();
    admin.exec("alter system set timezone = 'Asia/Tokyo'");
    admin.exec("select pg_reload_conf()");
    eventually("PostgreSQL has read it", || {
        postgres.admin().value("show timezone") == "Asia/Tokyo"
    });
    for _ in 0..3 {
        let zone = client.value("show timezone");
        assert_eq!(
            client.parameters["TimeZone"], zone,
            "what is reported is what holds"
        );
        client.is_in_step();
    }
    let mut newcomer = proxy.connect("acme").login();
    let zone = newcomer.value("show timezone");
    assert_eq!(
        newcomer.parameters["TimeZone"], zone,
        "what is reported is what holds"
    );
}

#[test]
fn a_role_that_may_connect_but_once_still_serves_all_clients() {
    let proxy = one_tenant(|tenant| tenant.pool_size(3).set("query_wait_timeout", "2s"));
    let place = proxy.place("acme");
    place
        .admin()
        .exec(&format!("alter role {} connection limit 1", place.role()));
    let mut holder = proxy.connect("acme").login();
    holder.exec("begin");
    let mut other = proxy.connect("acme").login();
    other.send(&Request::new().query("select 1"));
    let refusal = error(&other.until('E')).unwrap();
    assert_eq!(refusal.code(), "53300", "{refusal:?}");
    holder.exec("commit");
    eventually("others are served by the one server", || {
        proxy
            .connect("acme")
            .try_login()
            .is_ok_and(|mut client| code(&client.query("select 1")).is_empty())
    });
    // Its only server may be looked at for a moment yet.
    eventually("the holder is served, too", || {
        code(&holder.query("select 1")).is_empty()
    });
}

#[test]
fn a_dropped_database_is_an_error_in_words() {
    let place = Postgres::shared().database();
    let proxy = Proxy::of([Tenant::new("acme", &place).set("query_wait_timeout", "2s")]).start();
    let mut client = proxy.connect("acme").login();
    client.exec("select 1");
    let mut admin = place.endpoint().admin();
    admin.exec(&format!(
        "drop database {} with (force)",
        place.database_name()
    ));
    client
        .try_send_bytes(Request::new().query("select 1").bytes())
        .ok();
    let frames = client.until('E');
    let said = error(&frames).unwrap();
    assert!(
        ["57P01", "3D000", "08006", "57P03", "53300"].contains(&said.code()),
        "{said:?}"
    );
    let again = match proxy.connect("acme").try_login() {
        Err(frames) => error(&frames),
        Ok(mut client) => {
            client.send(&Request::new().query("select 1"));
            error(&client.until('E'))
        }
    };
    assert!(again.is_some(), "there is no such database");
    admin.exec(&format!("create database {}", place.database_name()));
}
