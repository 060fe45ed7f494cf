//! State that a client leaves by ways that are meant not to be noticed: no other client finds it.

use crate::harness::{Request, proxy::one_tenant};

/// How state is left, and how another client would notice it.
struct Way {
    setup: &'static [&'static str],
    leaves: Request,
    question: &'static str,
    clean: &'static str,
}

const APP_X: &str = "select coalesce(current_setting('app.x', true), '')";
const LOCKS_HERE: &str = "select count(*) from pg_locks where locktype = 'advisory' and objid = 4711 and pid = pg_backend_pid()";
const SORT: &str = "show enable_sort";

fn by(setup: &'static [&'static str], text: &str) -> Way {
    Way {
        setup,
        leaves: Request::new().query(text),
        question: APP_X,
        clean: "",
    }
}

impl Way {
    fn seen_by(mut self, question: &'static str, clean: &'static str) -> Self {
        (self.question, self.clean) = (question, clean);
        self
    }

    /// One client leaves it and stays; another, on whatever servers are free, does not find it.
    #[track_caller]
    fn stays_its_clients_own(self) {
        let proxy = one_tenant(|tenant| tenant.pool_size(2));
        let mut client = proxy.connect("acme").login();
        for statement in self.setup {
            client.exec(statement);
        }
        client.exec("select 1");
        let mut witness = proxy.connect("acme").login();
        assert_eq!(witness.value(self.question), self.clean, "before");
        let answer = client.ask(&self.leaves);
        let error = answer.iter().find(|frame| frame.tag == b'E');
        assert!(error.is_none(), "it is left without an error: {error:?}");
        assert_eq!(witness.value(self.question), self.clean, "behind it");
        client.is_in_step();
    }
}

#[test]
fn a_table_that_the_search_path_makes_temporary_stays_its_clients_own() {
    let mut way = by(
        &["set search_path to pg_temp"],
        "create table hidden (i int)",
    );
    way = way.seen_by("select count(*) from pg_class where relname = 'hidden' and relnamespace = pg_my_temp_schema()", "0");
    way.stays_its_clients_own();
}

#[test]
fn a_table_that_a_bound_search_path_makes_temporary_stays_its_clients_own() {
    let leaves = Request::new()
        .run("select set_config('search_path', $1, true)", &["pg_temp"])
        .run("create table hidden (i int)", &[])
        .sync();
    Way { setup: &[], leaves, question: "select count(*) from pg_class where relname = 'hidden' and relnamespace = pg_my_temp_schema()", clean: "0" }
        .stays_its_clients_own();
}

#[test]
fn a_table_that_a_functions_own_path_makes_temporary_stays_its_clients_own() {
    by(
        &["create function f() returns void language plpgsql set search_path = pg_temp as $$ begin create table hidden (i int); end $$"],
        "select f()",
    )
    .seen_by("select count(*) from pg_class where relname = 'hidden' and relnamespace = pg_my_temp_schema()", "0")
    .stays_its_clients_own();
}

#[test]
fn what_sql_in_a_bound_value_leaves_stays_its_clients_own() {
    let leaves = Request::new()
        .run(
            "select count(*) from ts_stat($1)",
            &["select to_tsvector('simple', set_config('app.x', 'left', false))"],
        )
        .sync();
    Way {
        setup: &[],
        leaves,
        question: APP_X,
        clean: "",
    }
    .stays_its_clients_own();
}

#[test]
fn what_the_condition_of_a_trigger_leaves_stays_its_clients_own() {
    by(
        &[
            "create table t (i int)",
            "create function g() returns trigger language plpgsql as $$ begin return new; end $$",
            "create trigger g before insert on t for each row when (set_config('app.x', 'left', false) is not null) execute function g()",
        ],
        "insert into t values (1)",
    )
    .stays_its_clients_own();
}

#[test]
fn what_the_condition_of_a_domain_leaves_stays_its_clients_own() {
    by(
        &["create domain d as text check (set_config('app.x', value, false) is not null)"],
        "select 'left'::d",
    )
    .stays_its_clients_own();
}

#[test]
fn what_a_function_in_the_condition_of_a_domain_leaves_stays_its_clients_own() {
    by(
        &[
            "create function f(text) returns bool language sql as $$ select set_config('app.x', $1, false) is not null $$",
            "create domain d as text check (f(value))",
        ],
        "select 'left'::d",
    )
    .stays_its_clients_own();
}

#[test]
fn what_an_aggregate_over_a_function_of_postgresql_leaves_stays_its_clients_own() {
    by(
        &["create aggregate g(text, bool) (sfunc = set_config, stype = text, initcond = 'app.x')"],
        "select g('left', false)",
    )
    .stays_its_clients_own();
}

#[test]
fn what_an_aggregate_over_a_function_leaves_stays_its_clients_own() {
    by(
        &[
            "create function f(int, int) returns int language sql as $$ select set_config('app.x', 'left', false)::text is null; select 1 $$",
            "create aggregate g(int) (sfunc = f, stype = int, initcond = '0')",
        ],
        "select g(1)",
    )
    .stays_its_clients_own();
}

#[test]
fn what_an_operator_over_a_function_of_postgresql_leaves_stays_its_clients_own() {
    by(
        &["create operator @@@ (rightarg = bigint, function = pg_try_advisory_lock)"],
        "select @@@ 4711::bigint",
    )
    .seen_by(LOCKS_HERE, "0")
    .stays_its_clients_own();
}

#[test]
fn what_a_trigger_leaves_behind_a_function_that_writes_stays_its_clients_own() {
    by(
        &[
            "create table t (i int)",
            "create function g() returns trigger language plpgsql as $$ begin perform set_config('app.x', 'left', false); return new; end $$",
            "create trigger g before insert on t for each row execute function g()",
            "create function w() returns void language sql as $$ insert into t values (1) $$",
        ],
        "select w()",
    )
    .stays_its_clients_own();
}

#[test]
fn what_a_default_leaves_behind_a_function_that_writes_stays_its_clients_own() {
    by(
        &[
            "create table t (i text default set_config('app.x', 'left', false))",
            "create function w() returns void language sql as $$ insert into t default values $$",
        ],
        "select w()",
    )
    .stays_its_clients_own();
}

#[test]
fn a_setting_between_two_comments_of_a_body_stays_its_clients_own() {
    by(
        &["create function f() returns int language plpgsql as $$ begin /* a */ set enable_sort = off; /* b */ return 1; end $$"],
        "select f()",
    )
    .seen_by(SORT, "on")
    .stays_its_clients_own();
}

#[test]
fn a_name_in_unicode_escapes_in_a_body_is_not_trusted() {
    by(
        &[r#"create function f() returns text language sql as $$ select U&"set\005fconfig"('app.x', 'left', false) $$"#],
        "select f()",
    )
    .stays_its_clients_own();
}

#[test]
fn a_function_with_a_quote_in_its_name_is_known() {
    by(
        &[r#"create function "f""g"() returns text language sql as $$ select set_config('app.x', 'left', false) $$"#],
        r#"select "f""g"()"#,
    )
    .stays_its_clients_own();
}

#[test]
fn a_function_is_known_by_a_name_that_postgresql_cuts() {
    let name = "f".repeat(63);
    let body = format!(
        "create function {name}() returns text language sql as $$ select set_config('app.x', 'left', false) $$"
    );
    let proxy = one_tenant(|tenant| tenant.pool_size(2));
    let mut client = proxy.connect("acme").login();
    client.exec(&body);
    client.exec("select 1");
    client.exec(&format!("select {name}fff()"));
    assert_eq!(proxy.connect("acme").login().value(APP_X), "");
}

#[test]
fn a_function_with_a_name_beyond_ascii_is_known_in_another_encoding() {
    let proxy = one_tenant(|tenant| tenant.pool_size(2));
    let mut client = proxy.connect("acme").login();
    client.exec("create function fä() returns text language sql as $$ select set_config('app.x', 'left', false) $$");
    client.exec("set client_encoding to latin1");
    client.exec("select 1");
    let answer = client.ask(&Request::new().message(b'Q', b"select f\xe4()\0"));
    assert!(answer.iter().all(|frame| frame.tag != b'E'), "{answer:?}");
    assert_eq!(proxy.connect("acme").login().value(APP_X), "");
}

#[test]
fn a_constraint_that_is_checked_by_an_alteration_is_known() {
    by(
        &[
            "create table t (i int)",
            "insert into t values (1)",
            "create function f(int) returns bool language sql as $$ select set_config('app.x', 'left', false) is not null $$",
            "alter table t add constraint c check (f(i)) not valid",
            "discard all",
        ],
        "alter table t validate constraint c",
    )
    .stays_its_clients_own();
}

#[test]
fn a_seed_stays_its_clients_own_in_whatever_case_it_is_written() {
    let mut values = Vec::new();
    for _ in 0..2 {
        let proxy = one_tenant(|tenant| tenant.pool_size(2));
        let mut client = proxy.connect("acme").login();
        client.exec("SET SEED TO 0.5");
        values.push(proxy.connect("acme").login().value("select random()"));
    }
    assert_ne!(
        values[0], values[1],
        "another's numbers can be told in advance"
    );
}

#[test]
fn a_seed_that_is_set_by_a_function_keeps_the_session_in_step() {
    let proxy = one_tenant(|tenant| tenant.pool_size(2));
    let mut client = proxy.connect("acme").login();
    client.exec("select set_config('seed', '0.5', false)");
    client.is_in_step();
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn settings_are_their_clients_alone_however_their_names_are_written() {
    for (text, question) in [
        (r#"set "app"."x" = 'left'"#, APP_X),
        ("set app . x = 'left'", APP_X),
        ("set app/**/./**/x = 'left'", APP_X),
        (r#"set app."x" = 'left'"#, APP_X),
        (r"select set_config(E'app\x2ex', 'left', false)", APP_X),
        ("select set_config('app' || '.x', 'left', false)", APP_X),
        (
            "set äpp.x = 'left'",
            "select coalesce(current_setting('äpp.x', true), '')",
        ),
        (
            "select set_config('öpp.x', 'left', false)",
            "select coalesce(current_setting('öpp.x', true), '')",
        ),
    ] {
        by(&[], text).seen_by(question, "").stays_its_clients_own();
    }
}

#[test]
fn a_setting_with_a_very_long_name_stays_its_clients_own() {
    let part = "a".repeat(60);
    let name = format!("{part}.{part}.{part}");
    let proxy = one_tenant(|tenant| tenant.pool_size(2));
    let mut client = proxy.connect("acme").login();
    client.exec(&format!("set {name} = 'left'"));
    let question = format!("select coalesce(current_setting('{name}', true), '')");
    assert_eq!(proxy.connect("acme").login().value(&question), "");
}

#[test]
fn a_setting_stays_its_clients_own_when_very_many_names_were_used() {
    let proxy = one_tenant(|tenant| tenant.pool_size(2));
    let mut client = proxy.connect("acme").login();
    for block in 0..6 {
        let names = (0..100).map(|n| format!("current_setting('zz.n{block}_{n}', true)"));
        let names = names.collect::<Vec<_>>().join(",");
        client.exec(&format!("select {names}"));
    }
    client.exec("set zzz.secret = 'left'");
    let question = "select coalesce(current_setting('zzz.secret', true), '')";
    assert_eq!(proxy.connect("acme").login().value(question), "");
    assert_eq!(client.value(question), "left", "its own client has it");
}

#[test]
fn a_local_setting_does_not_hide_another_where_backslashes_escape() {
    by(
        &["set standard_conforming_strings = off"],
        r"set local a.b = 'x\'' ; set app.x = 'left'; --'",
    )
    .stays_its_clients_own();
}

#[test]
fn a_local_set_config_does_not_hide_another_where_backslashes_escape() {
    by(
        &["set standard_conforming_strings = off"],
        r"select set_config('a.b', 'x\'', true), set_config('app.x', 'left', false) --', true)",
    )
    .stays_its_clients_own();
}

#[test]
fn set_config_with_a_named_or_computed_scope_stays_its_clients_own() {
    for text in [
        "select set_config('app.x', 'left', false and true)",
        "select set_config('app.x', 'left', not true)",
        "select set_config('app.x', 'left', false = true)",
        "select set_config('app.x', 'left', 'f'), 'true', true",
        "select set_config('app.x', 'left', (false /*, true)*/))",
    ] {
        by(&[], text).stays_its_clients_own();
    }
    by(
        &["create function f() returns text language sql as $$ select set_config('app.x', 'left', false = true) $$"],
        "select f()",
    )
    .stays_its_clients_own();
}
