//! State that a statement leaves without naming it: in functions, triggers, views, rules, defaults.
//!
//! In every trial the others look for it on all servers between two statements, and it is there
//! for its own client, as it would be on a connection of its own.

use crate::harness::{
    Client, Request, Trial, eventually,
    proxy::{is_left_out, one_tenant},
};

/// Functions that leave something, none of which says so in its name.
const FUNCTIONS: [&str; 12] = [
    "create or replace function a1() returns int language plpgsql as $$ begin perform set_config('app.x', 'hidden', false); set work_mem = '7MB'; return 1; end $$",
    "create or replace function a2() returns int language plpgsql as $$ begin create temp table if not exists hidden (i int); insert into hidden values (7); return 1; end $$",
    "create or replace function a3() returns int language plpgsql as $$ begin perform pg_advisory_lock(hashtext(current_user)); return 1; end $$",
    "create or replace function a4() returns int language plpgsql as $$ begin execute 'prepare hidden as select 7'; return 1; end $$",
    "create or replace function a5() returns int language plpgsql as $$ declare c cursor for select 7; begin open c; execute 'declare hidden cursor with hold for select generate_series(1, 9)'; return 1; end $$",
    "create or replace function a6() returns int language plpgsql as $$ declare word text := 's' || 'et'; begin execute word || ' enable_sort = off'; return 1; end $$",
    "create or replace function a7(statement text) returns int language plpgsql as $$ begin execute convert_from(decode(statement, 'hex'), 'utf8'); return 1; end $$",
    "create or replace function a8() returns int language sql as $$ select a1() + a3() $$",
    "create or replace function a9() returns int language sql begin atomic; select set_config('app.y', 'atomic', false); select 1; end",
    "create or replace function b1() returns int language plpgsql as $$ begin perform setseed(0.5); return 1; end $$",
    "create or replace procedure b2() language plpgsql as $$ begin perform a2(); commit; perform a1(); end $$",
    "create or replace function b3() returns trigger language plpgsql as $$ begin perform a1(); perform a3(); return new; end $$",
];

const OBJECTS: [&str; 9] = [
    "create table if not exists triggers (i int)",
    "create or replace trigger t before insert on triggers for each row execute function b3()",
    "create table if not exists defaults (i int default a1(), j int default a3())",
    "create or replace view viewed as select a1() as i, a6() as j",
    "create table if not exists ruled (i int)",
    "create or replace rule r as on insert to ruled do also select a3()",
    "create table if not exists checked (i int check (a1() = i))",
    "create table if not exists policed (i int)",
    "create or replace function b4(int) returns int language plpgsql as $$ begin return a4(); end $$",
];

/// What a client finds of its own.
const FINDS: &str = "select (select string_agg(coalesce(current_setting(n, true), ''), ',' order by n) from unnest(array['app.x', 'app.y', 'work_mem', 'enable_sort']) n), \
                     (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()), \
                     (select string_agg(name, ',') from pg_prepared_statements where from_sql), \
                     (select string_agg(name, ',') from pg_cursors where is_holdable), \
                     (select string_agg(relname, ',') from pg_class where relnamespace = pg_my_temp_schema())";

/// What leaves something. `a7` runs hexadecimal SQL: that text tells nothing.
const LEAVES: [&str; 22] = [
    "select a1()",
    "select a2()",
    "select a3()",
    "select a4()",
    "select a5()",
    "select a6()",
    "select a7('736574206170702e78203d20276865782727')",
    "select a7('736574206170702e78203d202768657827')",
    "select a7('63726561746520746d702074')",
    "select a7('6372656174652074656d70207461626c6520686964646e202829')",
    "select a8()",
    "select a9()",
    "select b1()",
    "call b2()",
    "insert into triggers values (1)",
    "insert into defaults default values",
    "insert into defaults (i) values (2)",
    "table viewed",
    "insert into ruled values (1)",
    "insert into checked values (1)",
    "select count(*) from generate_series(1, 3) where b4(1) = a3()",
    "do $$ declare w text := 'a'; begin for n in 1..3 loop execute 'select ' || w || n || '()'; end loop; end $$",
];

#[test]
fn what_functions_leave_is_their_own_clients() {
    let setup: Vec<_> = FUNCTIONS.into_iter().chain(OBJECTS).collect();
    let script = |leaves| format!("{leaves} | {FINDS} | select 1 | {FINDS}\n");
    let scripts: String = LEAVES.into_iter().map(script).collect();
    Trial::pinned().setup(&setup).scripts(&scripts);
}

#[test]
fn what_a_function_leaves_that_was_made_a_moment_ago_is_its_own_clients() {
    let made: Vec<_> = FUNCTIONS.into_iter().chain(OBJECTS).collect();
    Trial::pinned().setup(&[]).run(move |client| {
        let mut frames = Vec::new();
        for leaves in LEAVES {
            client.query(&made.join(";"));
            frames.extend(client.query(leaves));
            frames.extend(client.query(FINDS));
            frames.extend(client.query("discard all"));
            frames.extend(client.query(FINDS));
        }
        frames
    });
}

#[test]
fn a_function_that_changes_between_two_calls_is_not_trusted() {
    let bodies = [
        "null",
        "perform set_config('app.x', 'changed', false)",
        "create temp table hidden (i int)",
        "perform pg_advisory_lock(hashtext(current_user))",
        "null",
    ];
    Trial::pinned().run(move |client| {
        let mut frames = client.ask(&Request::new().query(&definition("null")));
        frames.extend(client.ask(&Request::new().parse("c", "select c1()").sync()));
        for body in bodies {
            frames.extend(client.ask(&Request::new().query(&definition(body))));
            frames.extend(client.ask(&Request::new().run_prepared("c", &[]).sync()));
            frames.extend(client.query(FINDS));
            frames.extend(client.query("reset all; discard temp; select pg_advisory_unlock_all()"));
            frames.extend(client.query(FINDS));
        }
        frames
    });
}

fn definition(body: &str) -> String {
    format!(
        "create or replace function c1() returns void language plpgsql as $$ begin {body}; end $$"
    )
}

#[test]
fn what_another_makes_of_a_function_does_not_reach_its_caller_unseen() {
    for servers in [1, 3] {
        let proxy = one_tenant(|tenant| tenant.pool_size(servers));
        let mut maker = proxy.connect("acme").login();
        maker.exec(&definition("null"));
        for (body, question, clean) in [
            (
                "perform set_config('app.x', 'changed', false)",
                "select coalesce(current_setting('app.x', true), '')",
                "",
            ),
            ("set work_mem = '7MB'", "show work_mem", "4MB"),
            (
                "create temp table hidden (i int)",
                "select count(*) from pg_class where relnamespace = pg_my_temp_schema()",
                "0",
            ),
            (
                "execute 'prepare hidden as select 7'",
                "select count(*) from pg_prepared_statements where from_sql",
                "0",
            ),
            (
                "execute 'declare hidden cursor with hold for select 1'",
                "select count(*) from pg_cursors where is_holdable",
                "0",
            ),
            (
                "execute 'listen hidden'",
                "select count(*) from pg_listening_channels()",
                "0",
            ),
        ] {
            let mut caller = proxy.connect("acme").login();
            let mut witnesses: Vec<_> = (0..2).map(|_| proxy.connect("acme").login()).collect();
            caller.ask(&Request::new().parse("c", "select c1()").sync());
            caller.exec("select c1()");
            maker.exec(&definition(body));
            caller.ask(&Request::new().run_prepared("c", &[]).sync());
            if servers > 1 {
                for witness in &mut witnesses {
                    assert_eq!(witness.value(question), clean, "after {body}");
                }
            }
            leave(caller);
            for witness in &mut witnesses {
                assert_eq!(witness.value(question), clean, "after {body} and good-bye");
            }
            maker.exec(&definition("null"));
        }
    }
}

fn leave(mut client: Client) {
    client.send(&Request::new().terminate());
    client.rest();
}

#[test]
fn a_lock_hidden_in_a_trigger_is_free_when_its_client_is_gone() {
    for is_reset in [false, true] {
        let proxy = one_tenant(|tenant| tenant.pool_size(2));
        let mut client = proxy.connect("acme").login();
        for statement in FUNCTIONS.into_iter().chain(OBJECTS) {
            client.exec(statement);
        }
        client.exec("insert into triggers values (1)");
        let holds =
            "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()";
        assert_eq!(client.value(holds), "1", "its own client has it");
        assert_eq!(client.value("show app.x"), "hidden");
        if is_reset {
            client.reset();
        } else {
            leave(client);
        }
        let mut next = proxy.connect("acme").login();
        eventually("the lock is free", || {
            next.value("select pg_try_advisory_xact_lock(hashtext(current_user))") == "t"
                || is_left_out()
        });
        assert_eq!(
            next.value("select coalesce(current_setting('app.x', true), '')"),
            ""
        );
    }
}
