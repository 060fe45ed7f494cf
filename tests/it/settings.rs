//! Settings of a session in transaction mode: they follow their client, and only their client.
//!
//! In every trial others use the same servers between two statements and leave other settings
//! there, so each statement is the first one after a change of hands.

use crate::harness::{Client, Connect, Frame, Mode, Request, Trial, frames::code, proxy::pooled};

#[test]
fn any_setting_lasts_as_long_as_the_session() {
    Trial::carried().scripts(
            r"
            set work_mem = '7MB' | show work_mem | show work_mem
            set enable_seqscan to off | show enable_seqscan | reset enable_seqscan | show enable_seqscan
            set session statement_timeout to 77000 | show statement_timeout
                | set statement_timeout to default | show statement_timeout
            set lock_timeout = '7s' | set plan_cache_mode = force_generic_plan | show lock_timeout
                | show plan_cache_mode
            set app.x = 'mine' | select current_setting('app.x') | set app.x = 'new' | show app.x
                | reset app.x | show app.x
            set app.x to 1, 2 | set app.y to a_word | show app.y | set app.y = 2.5 | show app.y
                | set app.y = -7 | show app.y
            set client_min_messages = debug1 | create table d (i int primary key) | drop table d
                | show client_min_messages
            set client_min_messages = error | drop table if exists nothing | set local work_mem = '9MB'
                | show work_mem
            set default_transaction_read_only = on | create table refused ()
                | set transaction_read_only = off | reset default_transaction_read_only
            set row_security = off | show row_security | set xml option document | show xmloption
            set temp_buffers = 1000 | show temp_buffers | set max_stack_depth = 1
                | set work_mem = 'banana' | set no_such_setting = 1
            set port = 1 | set shared_buffers = 1 | set jit_provider = 'x' | set zero_damaged_pages = on
                | show work_mem
            set application_name = '' | show application_name
                | set application_name = 'x'; set work_mem = '3MB' | show work_mem
            ",
        );
}

#[test]
fn reset_all_and_discard_all_return_to_the_beginning() {
    let script = r"
            set work_mem = '7MB' | set app.x = 'mine' | set timezone = 'Asia/Tokyo' | set search_path = pg_catalog
                | {reset} | show work_mem | select coalesce(current_setting('app.x', true), '')
                | show timezone | show search_path | set work_mem = '8MB' | show work_mem
            ";
    for reset in [
        "reset all",
        "discard all",
        "/* all */ RESET ALL;",
        "begin; reset all; rollback",
    ] {
        Trial::carried().scripts(&script.replace("{reset}", reset));
    }
    Trial::carried().scripts(
        r"
            set work_mem = '7MB' | begin | reset all | show work_mem | rollback | show work_mem
            set work_mem = '7MB' | begin | discard all | show work_mem | rollback | show work_mem
            set work_mem = '7MB' | discard plans | discard temp | discard sequences | show work_mem
            ",
    );
}

#[test]
fn a_transaction_decides_what_becomes_of_its_settings() {
    Trial::carried().scripts(
            r"
            begin | set work_mem = '7MB' | show work_mem | rollback | show work_mem
            begin | set work_mem = '7MB' | commit | show work_mem
            begin | set local work_mem = '7MB' | show work_mem | commit | show work_mem
            set work_mem = '6MB' | begin | set local work_mem = '7MB' | set work_mem = '8MB' | commit
                | show work_mem
            set work_mem = '6MB' | begin | set work_mem = '8MB' | set local work_mem = '7MB' | commit
                | show work_mem
            begin | set work_mem = '7MB' | select 1/0 | commit | show work_mem
            begin | savepoint a | set work_mem = '7MB' | rollback to a | show work_mem | commit
                | show work_mem
            begin | set work_mem = '6MB' | savepoint a | set work_mem = '7MB' | select 1/0 | rollback to a
                | commit | show work_mem
            begin | savepoint a | set work_mem = '7MB' | release a | commit | show work_mem
            begin | set work_mem = '7MB' | commit and chain | show work_mem | set work_mem = '8MB'
                | rollback and chain | show work_mem | commit | show work_mem
            set work_mem = '7MB'; select 1/0 | show work_mem
                | begin; set work_mem = '8MB'; commit; set work_mem = '9MB'; select 1/0 | show work_mem
            begin; set work_mem = '7MB'; rollback; set app.x = 'kept' | show work_mem
                | select coalesce(current_setting('app.x', true), '')
            set work_mem = '7MB' | select 1/0 | selct | show work_mem | begin | reset work_mem | rollback
                | show work_mem
            begin | set work_mem = '7MB' | prepare transaction '{role}' | rollback prepared '{role}'
                | show work_mem
            begin | set timezone = 'Asia/Tokyo' | savepoint a | set timezone = 'Asia/Seoul'
                | rollback to a | show timezone | commit | show timezone
            ",
        );
}

#[test]
fn the_characteristics_of_transactions_are_kept() {
    Trial::carried().scripts(
            r"
            set session characteristics as transaction isolation level serializable | begin
                | show transaction_isolation | commit | show transaction_isolation
            set session characteristics as transaction read only, deferrable
                | show default_transaction_deferrable | create table refused () | begin read write
                | show transaction_read_only | rollback
            set default_transaction_isolation = 'repeatable read' | begin; show transaction_isolation
                | commit | start transaction isolation level read committed | show transaction_isolation
                | rollback
            begin | set transaction isolation level serializable | commit | show transaction_isolation
                | set constraints all deferred
            ",
        );
}

#[test]
fn set_config_sets_as_set_does() {
    Trial::carried().scripts(
        r"
            select set_config('work_mem', '7MB', false) | show work_mem
            select pg_catalog.set_config('app.x', 'a''b\c', false), 2 | show app.x
            select set_config('work_mem', '7MB', true) | show work_mem
            begin | select set_config('work_mem', '7MB', true) | show work_mem | commit | show work_mem
            begin | select set_config('work_mem', '7MB', false) | rollback | show work_mem
            select set_config('app.' || n, 'v' || n, false) from unnest(array['x', 'y']) n | show app.x | show app.y
            select set_config(null, 'x', false) | select set_config('work_mem', null, false) | show work_mem
            with c as materialized (select set_config('app.x', 'cte', false)) select * from c | show app.x
            update pg_settings set setting = '7000' where name = 'work_mem' | show work_mem
            values (set_config('app.x', 'values', false)) | show app.x
                | select 1 where set_config('app.y', 'w', false) = 'no' | show app.y
            explain (costs off) select set_config('app.y', 'no', false) | select coalesce(current_setting('app.y', true), '')
            explain (analyze, costs off, timing off, summary off) select set_config('app.x', 'yes', false) | show app.x
            set work_mem = '7MB' | select 1 from pg_proc where set_config('work_mem', '9MB', false) = '' limit 1
                | show work_mem
            ",
    );
    Trial::carried().run(|client| {
        let sql = "select set_config($1, $2, $3::bool)";
        let prepare = Request::new().parse("c", sql).sync();
        let bound = |values: &[&str]| Request::new().run_prepared("c", values).sync();
        let show = Request::new().run(
            "select current_setting('app.x'), current_setting('work_mem')",
            &[],
        );
        [
            client.ask(&prepare),
            client.ask(&bound(&["app.x", "b'ound\\ \u{e4}\u{1f600}", "f"])),
            client.ask(&show.clone().sync()),
            client.ask(&bound(&["work_mem", "7MB", "false"])),
            client.ask(&bound(&["app.x", "local", "true"])),
            client.ask(&show.clone().sync()),
            client.ask(
                &Request::new()
                    .run_prepared("c", &["app.x", "undone", "f"])
                    .run("select 1/0", &[])
                    .sync(),
            ),
            client.ask(&show.sync()),
        ]
        .concat()
    });
}

#[test]
fn functions_procedures_and_do_blocks_set_as_set_does() {
    let setup = [
        "create function sets(value text) returns text language plpgsql as \
         $$ begin perform set_config('app.x', value, false); set work_mem = '7MB'; return value; end $$",
        "create function sets_inside() returns text language plpgsql set work_mem = '6MB' as \
         $$ begin set app.y = 'stays'; return current_setting('work_mem'); end $$",
        "create function fails_inside() returns text language plpgsql as \
         $$ begin begin set work_mem = '5MB'; perform 1/0; exception when others then null; end; return current_setting('work_mem'); end $$",
        "create procedure commits() language plpgsql as \
         $$ begin set work_mem = '4MB'; commit; set app.x = 'undone'; set local app.y = 'local'; rollback; end $$",
        "create function by_sql() returns text language sql as $$ select set_config('app.x', 'by sql', false) $$",
    ];
    Trial::carried().setup(&setup).scripts(
            r"
            select sets('f') | show app.x | show work_mem
            select sets_inside() | show work_mem | show app.y
            select fails_inside() | show work_mem
            call commits() | show work_mem
                | select nullif(current_setting('app.x', true), ''), nullif(current_setting('app.y', true), '')
            select by_sql() from generate_series(1, 2) | show app.x | begin | select sets('g') | rollback
                | show app.x
            do $$ begin set work_mem = '3MB'; perform set_config('app.x', 'do', false); end $$
                | show work_mem | show app.x
            do $$ begin execute 'set ' || 'work' || '_mem = ''2MB'''; end $$ | show work_mem
                | do $$ begin execute 'reset ' || 'all'; end $$ | show work_mem
            ",
        );
}

#[test]
fn the_role_follows_its_client_and_reset_all_does_not_touch_it() {
    let admin = ["create role {role}_other", "grant {role}_other to {role}"];
    Trial::carried().admin_setup(&admin).scripts(
            r"
            set role {role}_other | select current_user, session_user | show role | reset all
                | select current_user | reset role | select current_user
            set session role '{role}_other' | select current_user | discard all | select current_user
            select set_config('role', '{role}_other', false) | select current_user | set role none
                | select current_user | show role
            begin | set local role {role}_other | select current_user | commit | select current_user
            begin | set role {role}_other | rollback | select current_user | set role nobody_such
                | select current_user
            set role {role}_other | set work_mem = '7MB' | select current_user | show work_mem
                | reset session authorization | select current_user
            set session authorization {role} | select current_user, session_user
                | set session authorization default | set session authorization admin
                | select session_user
            do $$ begin execute 'set role {role}_other'; end $$ | select current_user | reset role
                | select current_user
            ",
        );
}

#[test]
fn every_kind_of_first_statement_runs_under_the_clients_settings() {
    let setup = [
        "create table noted (who text default coalesce(current_setting('app.x', true), ''), day date, memory text default current_setting('work_mem'))",
    ];
    let prepare = "set app.x = 'mine'; set datestyle = 'German, DMY'; set work_mem = '7MB'";
    let table = "select who, day, memory from noted order by ctid";
    for first in [
        "insert into noted (day) values ('03.04.2020')",
        "begin; insert into noted (day) values ('05.04.2020'); commit",
        "with i as (insert into noted (day) values ('06.04.2020') returning *) select * from i",
        "do $$ begin insert into noted (day) values ('07.04.2020'); end $$",
        "begin | insert into noted (day) values ('08.04.2020') | commit",
        "prepare i as insert into noted (day) values ('09.04.2020'); execute i; deallocate i",
    ] {
        let script = format!("{prepare} | {first} | {table}");
        Trial::carried().setup(&setup).scripts(&script);
    }
    Trial::carried().setup(&setup).scripts(
        r"
            set default_transaction_read_only = on | insert into noted (day) values (null) | table noted
            set datestyle = 'German, DMY' | copy (select '2020-02-01'::date) to stdout | show datestyle
            ",
    );
    Trial::carried().setup(&setup).run(move |client| {
        let copy = |line: &[u8]| {
            Request::new()
                .query("copy noted (day) from stdin")
                .copy_data(line)
                .copy_done()
        };
        let insert = "insert into noted (day) values ($1)";
        let mut frames = client.query(prepare);
        frames.extend(client.ask(&copy(b"09.04.2020\n")));
        frames.extend(client.ask(&Request::new().parse("i", insert).sync()));
        frames.extend(client.ask(&Request::new().run_prepared("i", &["10.04.2020"]).sync()));
        frames.extend(client.ask(&Request::new().run(insert, &["11.04.2020"]).sync()));
        frames.extend(client.ask(&Request::new().function_call(2077, &["work_mem"])));
        frames.extend(client.query(table));
        frames
    });
}

#[test]
fn pipelined_statements_run_under_the_settings_of_those_before() {
    Trial::carried().run(|client| {
        let show =
            "select current_setting('work_mem'), coalesce(current_setting('app.x', true), '')";
        let request = Request::new()
            .query("set work_mem = '7MB'")
            .query(show)
            .run("set app.x = 'piped'", &[])
            .run(show, &[])
            .sync()
            .run("set work_mem = '8MB'", &[])
            .run("select 1/0", &[])
            .sync()
            .query(show)
            .query("begin; set work_mem = '9MB'")
            .query("rollback")
            .run(show, &[])
            .sync();
        client.send(&request);
        let mut frames = Vec::new();
        for _ in 0..8 {
            frames.extend(client.until_ready());
        }
        frames.extend(client.query(show));
        frames
    });
}

#[test]
fn a_short_statement_timeout_stops_its_own_clients_statements() {
    Trial::carried().scripts(
        r"
            set statement_timeout = '50ms' | select pg_sleep(9) | select 1 | show statement_timeout
                | begin | select pg_sleep(9) | rollback | select 2 | reset statement_timeout
                | select pg_sleep(0.1)
            ",
    );
    let proxy = pooled(Mode::Transaction, 1);
    let mut short = proxy.connect("acme").login();
    let mut long = proxy.connect("acme").login();
    short.exec("set statement_timeout = '50ms'");
    for _ in 0..3 {
        long.exec("select pg_sleep(0.1)");
        assert_eq!(short.fails("select pg_sleep(9)").code(), "57014");
    }
}

#[test]
fn clients_with_different_settings_share_a_server() {
    for servers in [1, 4] {
        let proxy = pooled(Mode::Transaction, servers);
        let mut clients: Vec<_> = (0..8).map(|_| proxy.connect("acme").login()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.exec(&format!(
                "set app.x = 'client {number}'; set work_mem = '{}MB'",
                number + 2
            ));
        }
        for _ in 0..3 {
            for (number, client) in clients.iter_mut().enumerate() {
                let found = client.value(
                    "select current_setting('app.x') || ', ' || current_setting('work_mem')",
                );
                assert_eq!(found, format!("client {number}, {}MB", number + 2));
            }
        }
        clients[0].exec("reset app.x");
        assert_eq!(
            clients[0].value("select coalesce(current_setting('app.x', true), '')"),
            ""
        );
        assert_eq!(clients[1].value("show app.x"), "client 1");
    }
}

/// Two transactions that stand open, so that whoever comes next gets another server.
fn hold(connect: &Connect) -> Vec<Client> {
    let mut holders: Vec<_> = (0..2).map(|_| connect.login()).collect();
    for holder in &mut holders {
        holder.exec("begin");
    }
    holders
}

#[test]
fn a_setting_that_can_no_longer_be_set_stops_the_statement() {
    let proxy = pooled(Mode::Transaction, 4);
    let place = proxy.place("acme");
    let (role, mut admin) = (place.role(), place.admin());
    let other = format!("{role}_other");
    admin.exec(&format!("create role {other}; grant {other} to {role}"));
    let mut client = proxy.connect("acme").login();
    client.exec("create table noted (who text default current_user)");
    client.exec(&format!(
        "grant usage on schema {role} to {other}; grant insert on noted to {other}"
    ));
    client.exec(&format!("set role {other}"));
    admin.exec(&format!("revoke {other} from {role}"));
    let insert = Request::new()
        .run(&format!("insert into {role}.noted default values"), &[])
        .sync();
    for request in [
        insert,
        Request::new().query(&format!("insert into {role}.noted default values")),
    ] {
        let holders = hold(&proxy.connect("acme"));
        if client.try_send_bytes(request.bytes()).is_ok() {
            let frames = answer_or_end(&mut client);
            assert!(
                ["", "22023", "42501", "57P01", "08006"].contains(&code(&frames).as_str()),
                "{frames:?}"
            );
        }
        drop(holders);
    }
    let mut witness = proxy.connect("acme").login();
    let strangers = format!("select count(*) from noted where who <> '{other}'");
    assert_eq!(
        witness.value(&strangers),
        "0",
        "a statement ran as someone else"
    );
    witness.is_in_step();
}

/// An answer, or what came before the end of the connection.
fn answer_or_end(client: &mut Client) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = client.next_or_end() {
        let is_last = frame.tag == b'Z';
        frames.push(frame);
        if is_last {
            break;
        }
    }
    frames
}
