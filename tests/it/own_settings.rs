//! `SHOW pgusher.…`: what the proxy knows about a session, said as PostgreSQL says its settings.

use crate::harness::{
    Client, Connect, Frame, Key, Mode, Postgres, Proxy, Request, Tenant,
    frames::{code, error},
    proxy::is_left_out,
};

/// The settings of a client in this tenant, in this order of tier, scope and mode.
fn expected(facts: [&'static str; 3]) -> [(&'static str, &'static str); 9] {
    let [tier, scope, mode] = facts;
    [
        ("pgusher.tenant", "acme"),
        ("pgusher.tier", tier),
        ("pgusher.scope", scope),
        ("pgusher.pool_mode", mode),
        ("pgusher.pin", ""),
        ("pgusher.target", "auto"),
        ("pgusher.pool_size", "3"),
        ("pgusher.max_client_connections", "77"),
        ("pgusher.max_pinned_servers", "2"),
    ]
}

fn tenant(place: &crate::harness::Place) -> Tenant {
    Tenant::new("acme", place)
        .pool_size(3)
        .set("max_client_connections", 77)
}

fn proxy() -> Proxy {
    Proxy::of([tenant(&Postgres::shared().place())]).start()
}

/// A client; without the proxy, one that has set what the proxy would know.
fn client(connect: &Connect) -> Client {
    let mut client = connect.login();
    if is_left_out() {
        tell(&mut client);
    }
    client
}

fn tell(client: &mut Client) {
    for (name, value) in expected(["database", "read_write", "transaction"]) {
        client.exec(&format!("set {name} = '{value}'"));
    }
}

/// Requests by which a setting may be shown.
fn ways_to_show(name: &str) -> Vec<Request> {
    let sql = format!("show {name}");
    let spelled = format!("/* a comment */ SHOW\n{};", name.to_uppercase());
    let named = Request::new()
        .parse("shows", &sql)
        .describe_statement("shows")
        .sync();
    vec![
        Request::new().query(&sql),
        Request::new().query(&spelled),
        Request::new().run(&sql, &[]).sync(),
        Request::new()
            .parse("", &sql)
            .describe_statement("")
            .bind("", "", &[])
            .describe_portal("")
            .execute("")
            .sync(),
        named,
        Request::new().run_prepared("shows", &[]).sync(),
        Request::new()
            .run("select 1", &[])
            .run_prepared("shows", &[])
            .run("select 2", &[])
            .sync(),
        Request::new().close_statement("shows").sync(),
    ]
}

fn all_ways(client: &mut Client) -> Vec<Frame> {
    let mut frames = Vec::new();
    for (name, _) in expected(["database", "read_write", "transaction"]) {
        for request in ways_to_show(name) {
            frames.extend(client.ask(&request));
        }
    }
    if client.status == 'I' {
        frames.extend(client.ask(&Request::new().run_prepared("shows", &[]).sync()));
    }
    frames
}

/// Frames as they are printed: errors without the lines of PostgreSQL's source.
fn shown(frames: &[Frame]) -> Vec<String> {
    frames.iter().map(|frame| format!("{frame:?}")).collect()
}

#[test]
fn they_are_shown_byte_by_byte_as_postgresql_shows_a_setting() {
    let proxy = proxy();
    let mut direct = proxy.place("acme").direct().login();
    tell(&mut direct);
    let mut client = client(&proxy.connect("acme"));
    assert_eq!(shown(&all_ways(&mut client)), shown(&all_ways(&mut direct)));
    client.exec("begin");
    direct.exec("begin");
    assert_eq!(shown(&all_ways(&mut client)), shown(&all_ways(&mut direct)));
    assert_eq!(client.status, 'T');
    client.is_in_step();
}

#[test]
fn each_tier_scope_and_mode_is_told() {
    let postgres = Postgres::shared();
    let cases = [
        (
            tenant(&postgres.place()),
            "",
            ["database", "read_write", "transaction"],
        ),
        (
            tenant(&postgres.schema()),
            "",
            ["schema", "read_write", "transaction"],
        ),
        (
            tenant(&postgres.place()).set("tier", "row"),
            "",
            ["row", "read_write", "transaction"],
        ),
        (
            tenant(&postgres.place()).mode(Mode::Session),
            "",
            ["database", "read_write", "session"],
        ),
        (
            tenant(&postgres.place()).mode(Mode::Statement),
            "",
            ["database", "read_write", "statement"],
        ),
        (
            tenant(&postgres.place()),
            "-c pgusher.pool_mode=session",
            ["database", "read_write", "session"],
        ),
        (
            tenant(&postgres.place()).mode(Mode::Session),
            "--pgusher.pool_mode=transaction",
            ["database", "read_write", "transaction"],
        ),
    ];
    for (tenant, options, facts) in cases {
        if is_left_out() && facts != ["database", "read_write", "transaction"] {
            continue;
        }
        let proxy = Proxy::of([tenant]).start();
        let connect = proxy.connect("acme");
        let mut client = client(&if options.is_empty() {
            connect
        } else {
            connect.options(options)
        });
        for (name, value) in expected(facts) {
            assert_eq!(
                client.value(&format!("show {name}")),
                value,
                "{name} with {facts:?}"
            );
        }
    }
}

#[test]
fn a_session_is_told_where_it_wanted_its_statements_to_run() {
    let proxy = proxy();
    let connect = proxy.connect("acme").options("-c pgusher.target=primary");
    let mut client = connect.login();
    assert_eq!(client.value("show pgusher.target"), "primary");
    if !is_left_out() {
        let wrong = proxy.connect("acme").options("-c pgusher.target=standby");
        assert_eq!(wrong.refused().code(), "22023");
    }
}

#[test]
fn a_read_only_key_is_told_its_scope() {
    let place = Postgres::shared().place();
    let reader = place.add_reader();
    let tenant = tenant(&place)
        .set("read_only_role", reader)
        .set("read_only_password", crate::harness::place::ROLE_PASSWORD)
        .key(Key::new(crate::harness::proxy_file::KEY).set("scope", "read_only"));
    let proxy = Proxy::of([tenant]).start();
    let mut client = proxy.connect("acme").login();
    if is_left_out() {
        client.exec("set pgusher.scope = 'read_only'");
    }
    assert_eq!(client.value("show pgusher.scope"), "read_only");
}

#[test]
fn the_limit_of_pins_is_one_less_than_the_pool_and_at_least_one() {
    for (servers, set, limit) in [
        (1, None, "1"),
        (2, None, "1"),
        (5, None, "4"),
        (5, Some(2), "2"),
    ] {
        let mut tenant = Tenant::new("acme", &Postgres::shared().place()).pool_size(servers);
        if let Some(limit) = set {
            tenant = tenant.set("max_pinned_servers", limit);
        }
        let proxy = Proxy::of([tenant]).start();
        let mut client = proxy.connect("acme").login();
        if is_left_out() {
            client.exec(&format!("set pgusher.max_pinned_servers = {limit}"));
        }
        assert_eq!(client.value("show pgusher.max_pinned_servers"), limit);
    }
}

#[test]
fn a_failed_transaction_shows_nothing() {
    let proxy = proxy();
    let mut direct = proxy.place("acme").direct().login();
    tell(&mut direct);
    let mut client = client(&proxy.connect("acme"));
    for request in ways_to_show("pgusher.tenant") {
        let answers = [&mut client, &mut direct].map(|client| {
            client.query("begin; select 1/0");
            let frames = client.ask(&request);
            client.query("rollback");
            let errors = error(&frames).map(|error| error.without_source());
            (crate::harness::tags(&frames), errors)
        });
        assert_eq!(answers[0], answers[1]);
    }
    client.query("begin; select 1/0");
    assert_eq!(client.fails("show pgusher.tenant").code(), "25P02");
    assert_eq!(client.status, 'E');
}

#[test]
fn an_unknown_name_is_42704_and_fails_its_transaction() {
    let proxy = proxy();
    let mut client = proxy.connect("acme").login();
    for name in [
        "pgusher.nothing",
        "pgusher.tenants",
        "pgusher.pool",
        "pgusher.\"a b\"",
    ] {
        let expected = proxy
            .place("acme")
            .direct()
            .login()
            .fails(&format!("show {name}"))
            .without_source();
        assert_eq!(expected.code(), "42704");
        assert_eq!(
            client.fails(&format!("show {name}")).without_source(),
            expected
        );
        let frames = client.ask(&Request::new().run(&format!("show {name}"), &[]).sync());
        assert_eq!(
            error(&frames).map(|error| error.without_source()),
            Some(expected)
        );
        client.exec("begin");
        assert_eq!(client.fails(&format!("show {name}")).code(), "42704");
        assert_eq!(client.status, 'E');
        client.exec("rollback");
    }
    client.is_in_step();
}

#[test]
fn a_client_cannot_change_what_they_say() {
    if is_left_out() {
        return;
    }
    let proxy = proxy();
    let mut client = proxy.connect("acme").login();
    for (name, value) in expected(["database", "read_write", "transaction"]) {
        for change in [
            format!("set {name} = 'another'"),
            format!("begin; set {name} = 'another'; commit"),
            format!("select set_config('{name}', 'another', false)"),
            format!("reset {name}"),
            "reset all".to_owned(),
            "discard all".to_owned(),
        ] {
            client.query(&change);
            assert_eq!(
                client.value(&format!("show {name}")),
                value,
                "after {change}"
            );
        }
    }
}

#[test]
fn a_connection_in_session_mode_is_not_pinned_and_keeps_its_state() {
    let proxy = proxy();
    let mut client = proxy
        .connect("acme")
        .options("-c pgusher.pool_mode=session")
        .login();
    client.exec("create temp table mine (i int)");
    client.exec("set work_mem = '7MB'; prepare p as select 1");
    assert_eq!(client.value("show pgusher.pool_mode"), "session");
    if !is_left_out() {
        assert_eq!(client.value("show pgusher.pin"), "");
    }
    assert_eq!(client.value("show work_mem"), "7MB");
    assert_eq!(code(&client.query("execute p; table mine")), "");
}
