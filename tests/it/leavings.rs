//! What a session leaves by ways that its texts don't show: each was met by another client once.

use crate::{
    harness::{
        Postgres, Request, Tenant,
        proxy::{Proxy, is_left_out, one_tenant},
    },
    pin_limits::{metrics, sum},
};

#[test]
fn a_custom_setting_of_the_startup_is_its_clients_alone() {
    let proxy = one_tenant(|tenant| tenant.pool_size(1));
    let mut one = proxy
        .connect("acme")
        .parameter("options", "-c app.y=mine")
        .login();
    let mut two = proxy.connect("acme").login();
    one.exec("set work_mem = '1MB'");
    let asks = "select coalesce(current_setting('app.y', true), '')";
    assert_eq!(two.value(asks), "");
    assert_eq!(one.value(asks), "mine");
}

#[test]
fn a_view_that_sets_something_by_itself_sets_it_for_its_client_alone() {
    let proxy = one_tenant(|tenant| tenant.pool_size(1));
    let mut one = proxy.connect("acme").login();
    let mut two = proxy.connect("acme").login();
    two.exec("create view sets as select set_config('app.view', 'by a view', false) as mark");
    assert_eq!(one.value("select mark from sets"), "by a view");
    let asks = "select coalesce(current_setting('app.view', true), '')";
    assert_eq!(two.value(asks), "");
    assert_eq!(one.value(asks), "by a view");
}

#[test]
fn discard_all_ends_listening() {
    let proxy = one_tenant(|tenant| tenant.pool_size(1));
    let mut one = proxy.connect("acme").login();
    let mut two = proxy.connect("acme").login();
    one.exec("listen alerts");
    assert_eq!(one.value("select pg_listening_channels()"), "alerts");
    one.exec("discard all");
    two.exec("notify alerts, 'x'");
    for _ in 0..3 {
        let frames = one.ask(&Request::new().query("select 1"));
        assert!(frames.iter().all(|frame| frame.tag != b'A'), "{frames:?}");
    }
    assert_eq!(
        one.value("select count(*)::text from pg_listening_channels()"),
        "0"
    );
}

#[test]
fn notifications_reach_every_listener_in_order_and_the_own_one_at_once() {
    let proxy = one_tenant(|tenant| tenant.pool_size(1));
    let mut one = proxy.connect("acme").login();
    let mut two = proxy.connect("acme").login();
    let mut sender = proxy.connect("acme").login();
    for listener in [&mut one, &mut two] {
        listener.exec("listen news");
    }
    two.exec("begin; unlisten news; rollback");
    for n in 0..5 {
        sender.exec(&format!("notify news, '{n}'"));
    }
    let frames = one.ask(&Request::new().query("notify news, 'own'"));
    let payloads = |frames: &[crate::harness::Frame]| -> Vec<String> {
        let notifications = frames.iter().filter(|frame| frame.tag == b'A');
        notifications
            .map(|frame| {
                let body = frame.body.get(4..).unwrap();
                let text = body.split(|b| *b == 0).nth(1).unwrap();
                String::from_utf8(text.to_vec()).unwrap()
            })
            .collect()
    };
    let all = ["0", "1", "2", "3", "4", "own"];
    assert_eq!(payloads(&frames), all, "before the own end is told");
    let mut heard = Vec::new();
    while heard.len() < all.len() {
        heard.extend(payloads(&[two.next()]));
    }
    assert_eq!(heard, all);
}

/// How often a server was asked what is left on it.
fn questions(proxy: &Proxy) -> f64 {
    sum(&metrics(proxy), "pgusher_state_checks_total", "")
}

#[test]
fn what_is_set_for_a_transaction_alone_is_not_asked_for() {
    if is_left_out() {
        return;
    }
    let tenant = Tenant::new("acme", &Postgres::shared().database()).pool_size(1);
    let proxy = Proxy::of([tenant]).admin().start();
    let mut one = proxy.connect("acme").login();
    let mut two = proxy.connect("acme").login();
    one.exec(
        "create function enter(t text) returns void language plpgsql as \
         $$ begin perform set_config('app.tenant', coalesce(t::text, 'x,y'), true); end $$",
    );
    one.exec("create table t (i int, tenant text default current_setting('app.tenant', true))");
    // The only server is looked at behind each of them.
    one.exec("select 1");
    two.exec("select 1");
    let before = questions(&proxy);
    for _ in 0..3 {
        one.exec("begin; select set_config('app.tenant', 'one', true), set_config('TimeZone', 'Asia/Tokyo', true)");
        one.exec("insert into t values (1)");
        assert_eq!(one.value("show timezone"), "Asia/Tokyo");
        one.exec("commit");
        one.exec("select enter('two'); insert into t values (2)");
        one.exec("begin");
        let sets = Request::new().run("select set_config('app.tenant', $1, true)", &["three"]);
        let frames = one.ask(&sets.sync());
        assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
        one.exec("insert into t values (3); commit");
        assert_eq!(
            two.value("select coalesce(current_setting('app.tenant', true), '')"),
            ""
        );
        assert_eq!(two.value("show timezone"), one.value("show timezone"));
    }
    let told = one.value("select string_agg(distinct i || tenant, ',') from t");
    assert_eq!(told, "1one,2two,3three");
    assert!((questions(&proxy) - before).abs() < 0.1);
}

#[test]
fn a_call_that_only_looks_as_if_it_set_for_a_transaction_is_seen_through() {
    let proxy = one_tenant(|tenant| tenant.pool_size(1));
    let mut one = proxy.connect("acme").login();
    let mut two = proxy.connect("acme").login();
    let schema = one.value("select current_schema()");
    one.exec(&format!("set search_path = {schema}, pg_catalog"));
    one.exec(
        "create function f() returns void language plpgsql as $$ declare x text; begin \
         x := 'set_config('; perform set_config('app.a', 'a, true)', false); end $$; \
         create function g() returns void language plpgsql as \
         $$ begin perform set_config('app.a', e'\\', true)', false); end $$; \
         create function set_config(text, text, boolean) returns text \
         language plpgsql as $$ begin update pg_settings set setting = '7MB' where name = 'work_mem'; return $2; end $$; \
         create function h() returns void language plpgsql set search_path from current as \
         $$ begin perform set_config('app.a', 'a', true); end $$",
    );
    one.exec("discard all");
    let shadowed = format!(
        "set search_path = {schema}, pg_catalog; select h(), set_config('app.a', 'a', true)"
    );
    for leaves in [
        shadowed.as_str(),
        "select f()",
        "select g()",
        "select set_config('app.a', ', true)', false)",
        "select set_config('app.a', set_config('app.a', 'b', false), true)",
        "set standard_conforming_strings = off; select '\\', '; set app.a = 'c'; select '",
        "set local app.a = '\\'; set app.a = 'c",
    ] {
        one.ask(&Request::new().query(leaves));
        let asks =
            "select coalesce(current_setting('app.a', true), '') || current_setting('work_mem')";
        assert_eq!(two.value(asks), "4MB", "{leaves}");
        one.exec("discard all");
    }
}

#[test]
fn a_function_counts_from_the_end_of_the_transaction_that_made_it() {
    let proxy = one_tenant(|tenant| tenant.pool_size(2));
    let mut one = proxy.connect("acme").login();
    let mut two = proxy.connect("acme").login();
    let asks = "select coalesce(current_setting('app.f', true), '')";
    for (made, called) in [
        (
            "create or replace function f() returns void language plpgsql as $$ begin perform set_config('app.f', 'f', false); end $$",
            "select f()",
        ),
        (
            "do $do$ begin create function g() returns void language plpgsql as $$ begin perform set_config('app.f', 'f', false); end $$; end $do$",
            "select g()",
        ),
        ("select makes()", "select made()"),
    ] {
        one.exec("create or replace function makes() returns void language plpgsql as $m$ begin create or replace function made() returns void language plpgsql as $$ begin perform set_config('app.f', 'f', false); end $$; end $m$");
        one.exec("begin");
        one.exec(made);
        for _ in 0..3 {
            two.exec("select 1");
        }
        one.exec("commit");
        two.exec(called);
        assert_eq!(one.value(asks), "", "{made}");
        assert_eq!(two.value(asks), "f", "{made}");
        two.exec("discard all");
    }
}
