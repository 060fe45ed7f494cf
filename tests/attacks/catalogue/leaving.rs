//! To leave something on a connection for whoever comes next, or to find what the last one left.

use crate::{
    attack::{
        ALL, Act,
        Act::Sql,
        Attack,
        Class::Leave,
        ROWS,
        Step::{A, Again, Prepared, V},
        TOGETHER,
    },
    harness::Request,
};

/// See the head of this file.
pub const ATTACKS: &[Attack] = &[
    Attack::new(
        "leave_settings",
        Leave,
        ALL,
        Sql(&[
            "set statement_timeout = 1",
            "set work_mem = '64kB'; set timezone = 'Asia/Kathmandu'",
        ]),
    ),
    Attack::new(
        "leave_path",
        Leave,
        ALL,
        Sql(&[
            "create schema evil",
            "set search_path = evil, pg_catalog",
            "set session search_path to pg_catalog",
        ]),
    ),
    Attack::new("leave_mark", Leave, ALL, Sql(&["set app.mark = '{mark}'"])),
    Attack::new(
        "leave_role",
        Leave,
        ALL,
        Sql(&[
            "set role pg_monitor",
            "set role none",
            "set session characteristics as transaction read only",
        ]),
    ),
    Attack::new(
        "leave_read_only",
        Leave,
        ALL,
        Sql(&["set default_transaction_read_only = on"]),
    ),
    Attack::new(
        "leave_encoding",
        Leave,
        ALL,
        Sql(&[
            "set client_encoding = 'LATIN1'; set datestyle = 'SQL, DMY'; set row_security = off",
        ]),
    ),
    Attack::new(
        "leave_temporary_table",
        Leave,
        ALL,
        Sql(&[
            "create temp table evil (x int)",
            "create temp table accounts (id bigint, secret text)",
            "create temp view orders as select 1 as id",
        ]),
    ),
    Attack::new(
        "leave_temporary_function",
        Leave,
        ALL,
        Act::Script(&[
            A(
                "create function pg_temp.upper(varchar) returns text language sql as $$ select '{mark}'::text $$",
            ),
            A("set search_path = pg_temp, pg_catalog"),
            Again,
            V("select upper('x'::varchar)"),
        ]),
    ),
    Attack::new(
        "leave_prepared",
        Leave,
        ALL,
        Act::Script(&[
            A("prepare recipe_of_all as select '{mark}'::text"),
            Again,
            V("execute recipe_of_all"),
        ]),
    ),
    Attack::new(
        "replace_prepared",
        Leave,
        ALL,
        Act::Script(&[
            Prepared("select 'right'::text"),
            A("deallocate all"),
            A("prepare mine as select '{mark}'::text"),
            A("prepare pgu_1 as select '{mark}'::text"),
            A("prepare pgu_2 as select '{mark}'::text"),
            V("execute mine"),
            Prepared("select 'right'::text"),
        ]),
    ),
    Attack::new(
        "read_prepared",
        Leave,
        ALL,
        Sql(&[
            "select statement from pg_prepared_statements",
            "execute recipe",
        ]),
    ),
    Attack::new(
        "read_cursors",
        Leave,
        ALL,
        Sql(&["fetch all held", "select statement from pg_cursors"]),
    ),
    Attack::new(
        "read_settings",
        Leave,
        ALL,
        Sql(&[
            "select current_setting('app.secret', true)",
            "show app.secret",
            "select setting from pg_settings",
        ]),
    ),
    Attack::new(
        "read_temporary",
        Leave,
        ALL,
        Sql(&["select * from pg_temp.diary", "select * from diary"]),
    ),
    Attack::new(
        "leave_lock",
        Leave,
        ALL,
        Act::Own(|scene| {
            scene.say("select pg_advisory_lock(992)");
            scene.come_again();
            let got = scene.stage.victim_says("select count(*) from pg_locks where locktype = 'advisory' and objid = 992 and pid = pg_backend_pid()")?;
            (got.value().is_some_and(|count| count != "0"))
                .then(|| "the victim finds itself with a lock".into())
        }),
    ),
    Attack::new(
        "leave_channel",
        Leave,
        ALL,
        Act::Script(&[
            A("listen heard_by_the_next"),
            Again,
            V(
                "select channel || '{mark}' from pg_listening_channels() channel where channel = 'heard_by_the_next'",
            ),
        ]),
    ),
    Attack::new(
        "leave_cursor",
        Leave,
        ALL,
        Act::Script(&[
            A("declare kept cursor with hold for select '{mark}'::text"),
            Again,
            V("fetch all kept"),
        ]),
    ),
    Attack::new(
        "leave_sequence",
        Leave,
        ROWS,
        Act::Own(|scene| {
            scene
                .stage
                .victim_says("insert into accounts (secret) values ('numbered')");
            let seen = scene.say("select lastval()");
            scene
                .stage
                .victim_says("delete from accounts where secret = 'numbered'");
            seen.is_ok()
                .then(|| "the attacker sees the number that the victim drew".into())
        }),
    ),
    Attack::new(
        "leave_seed",
        Leave,
        TOGETHER,
        Act::Own(|scene| {
            // What comes from this seed is known: a token that the victim makes would be, too.
            scene.say("select setseed(0.25)");
            let foretold = scene.say("select random()").value()?;
            scene.say("select setseed(0.25)");
            scene.come_again();
            let drawn = scene.stage.victim_says("select random()")?.value()?;
            (foretold == drawn).then(|| "the victim's random number was foretold".into())
        }),
    ),
    Attack::new(
        "leave_transaction",
        Leave,
        ALL,
        Act::Script(&[
            A("begin"),
            A("set local app.mark = '{mark}'"),
            A("select 1 / 0"),
            Again,
            V("select 1"),
            V("select current_setting('app.mark', true)"),
        ]),
    ),
    Attack::new(
        "leave_in_the_middle",
        Leave,
        ALL,
        Act::Own(|scene| {
            // A batch without an end: what the next one sends must not become part of it.
            let half = Request::new().parse("", "select set_config('app.mark', $1, false)");
            let half = half.bind("", "", &["left"]).execute("").flush();
            scene.attacker.send(half.bytes());
            scene.come_again();
            let mark = "select coalesce(current_setting('app.mark', true), '')";
            let found = scene.stage.victim_says(mark)?.value();
            (found.as_deref() == Some("left")).then(|| "the victim finds what was left".into())
        }),
    ),
    Attack::new(
        "leave_copy_open",
        Leave,
        ALL,
        Act::Own(|scene| {
            scene.attacker.send(
                Request::new()
                    .query("copy accounts (id, secret) from stdin")
                    .copy_data(b"77\tleft\n")
                    .bytes(),
            );
            scene.come_again();
            let heard = scene.stage.victim_says("select 'in step'")?;
            (heard.value().as_deref() != Some("in step"))
                .then(|| format!("the victim hears {heard:?}"))
        }),
    ),
    Attack::new(
        "reset_all",
        Leave,
        ALL,
        Sql(&["reset all", "select * from accounts"]),
    )
    .unproven("it takes the tenant away, and who is nobody sees no rows"),
    Attack::new(
        "discard_all",
        Leave,
        ALL,
        Sql(&["discard all", "select * from accounts"]),
    )
    .unproven("a tenant that is forgotten means no rows here"),
    Attack::new(
        "discard_and_set",
        Leave,
        ROWS,
        Sql(&[
            "discard all",
            "set app.tenant_id = '{tenant}'",
            "select * from accounts",
        ]),
    ),
    Attack::new(
        "reset_in_one_query",
        Leave,
        ROWS,
        Sql(&[
            "reset all; set app.tenant_id = '{tenant}'; select * from accounts",
            "rollback; set app.tenant_id = '{tenant}'; select * from accounts",
        ]),
    ),
    Attack::new(
        "leave_library",
        Leave,
        ALL,
        Act::Refused(&["load 'auto_explain'"]),
    ),
    Attack::new(
        "leave_session_preload",
        Leave,
        ALL,
        Act::Refused(&["alter role current_user set session_preload_libraries = 'auto_explain'"]),
    ),
    Attack::new(
        "leave_large_object",
        Leave,
        TOGETHER,
        Act::Script(&[
            A("select lo_from_bytea(770011, '{mark}')"),
            Again,
            V("select convert_from(lo_get(770011), 'UTF8')"),
            A("select lo_unlink(770011)"),
        ]),
    ),
];
