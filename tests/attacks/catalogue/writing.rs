//! To change the victim's data, or how its sessions behave.

use crate::attack::{
    ALL, Act,
    Act::Sql,
    Attack,
    Class::Write,
    DATABASE, LOGINS, OWN, ROWS, SCHEMA,
    Step::{A, V},
    TOGETHER,
};

/// See the head of this file.
pub const ATTACKS: &[Attack] = &[
    Attack::new(
        "update",
        Write,
        TOGETHER,
        Sql(&[
            "update {table} set secret = 'changed' where id = 1",
            "update accounts set secret = 'changed'",
        ]),
    ),
    Attack::new(
        "delete",
        Write,
        TOGETHER,
        Sql(&[
            "delete from {table} where id = 2",
            "delete from accounts where true",
        ]),
    ),
    Attack::new(
        "truncate",
        Write,
        TOGETHER,
        Sql(&["truncate {table} cascade", "truncate accounts cascade"]),
    ),
    Attack::new(
        "drop_table",
        Write,
        TOGETHER,
        Sql(&["drop table {table} cascade"]),
    ),
    Attack::new(
        "drop_view",
        Write,
        ROWS,
        Sql(&[
            "drop view app.accounts cascade",
            "drop schema app cascade",
            "drop schema data cascade",
        ]),
    ),
    Attack::new(
        "drop_schema",
        Write,
        TOGETHER,
        Sql(&["drop schema {schema} cascade"]),
    ),
    Attack::new(
        "rename_schema",
        Write,
        TOGETHER,
        Sql(&["alter schema {schema} rename to taken"]),
    ),
    Attack::new(
        "alter_table",
        Write,
        TOGETHER,
        Sql(&[
            "alter table {table} add column mine int",
            "alter table {table} drop column secret cascade",
        ]),
    ),
    Attack::new(
        "insert_for_victim",
        Write,
        ROWS,
        Sql(&[
            "insert into {table} (id, secret, tenant_id) values (50, 'planted', '{tenant}')",
            "insert into accounts (id, secret, tenant_id) values (51, 'planted', '{tenant}')",
            "insert into accounts values (52, 'planted', '{tenant}')",
        ]),
    ),
    Attack::new(
        "move_row_to_victim",
        Write,
        ROWS,
        Sql(&[
            "set app.tenant_id = '{tenant}'",
            "update accounts set tenant_id = '{tenant}' where id = 101",
            "update {table} set tenant_id = '{tenant}' where id = 102",
        ]),
    ),
    Attack::new(
        "copy_in",
        Write,
        TOGETHER,
        Act::Own(|scene| {
            for sql in [
                "copy {table} (id, secret) from stdin",
                "copy {table} (id, secret, tenant_id) from stdin",
            ] {
                use crate::harness::Request;
                let (sql, tenant) = (scene.stage.fill(sql), scene.stage.value("tenant"));
                let id = if sql.contains("tenant_id") { 61 } else { 62 };
                let line = format!("{id}\tplanted\t{tenant}\n");
                let line = if id == 62 {
                    "62\tplanted\n".to_owned()
                } else {
                    line
                };
                let request = Request::new()
                    .query(&sql)
                    .copy_data(line.as_bytes())
                    .copy_done();
                scene.attacker.ask(request.bytes());
            }
            None
        }),
    ),
    Attack::new(
        "upsert",
        Write,
        TOGETHER,
        Sql(&[
            "insert into {table} (id, secret) values (1, 'changed') on conflict (id) do update set secret = 'changed'",
            "insert into accounts (id, secret) values (1, 'changed') on conflict (id) do update set secret = 'changed'",
        ]),
    ),
    Attack::new(
        "order_for_victims_account",
        Write,
        ROWS,
        Act::Refused(&["insert into orders (id, account_id, item) values (901, 1, 'pen')"]),
    ),
    Attack::new(
        "cascade_through_key",
        Write,
        ROWS,
        Sql(&[
            "insert into accounts (id, secret) values (1, 'mine')",
            "delete from accounts where id = 1",
            "update accounts set id = 1 where id = 101",
        ]),
    )
    .unproven("a naive table has one row of a number for all tenants: no row can be shadowed"),
    Attack::new(
        "set_sequence",
        Write,
        SCHEMA,
        Sql(&[
            "select setval('{schema}.ticket', 1)",
            "alter sequence {schema}.ticket restart",
        ]),
    ),
    Attack::new(
        "draw_from_sequence",
        Write,
        SCHEMA,
        Sql(&["select nextval('{schema}.ticket')"]),
    ),
    Attack::new(
        "replace_function",
        Write,
        SCHEMA,
        Sql(&[
            "create or replace function {schema}.whisper() returns text language sql as $$ select '{mark}'::text $$",
            "drop function {schema}.whisper()",
        ]),
    ),
    Attack::new(
        "function_settings",
        Write,
        SCHEMA,
        Sql(&[
            "alter function {schema}.whisper() owner to {me}",
            "alter function {schema}.whisper() rename to mine",
        ]),
    ),
    Attack::new(
        "index_on_victim",
        Write,
        TOGETHER,
        Act::Refused(&["create index mine on {table} (secret)"]),
    ),
    Attack::new(
        "comment_on_victim",
        Write,
        TOGETHER,
        Act::Refused(&["comment on table {table} is 'mine'"]),
    ),
    Attack::new(
        "cluster_table",
        Write,
        TOGETHER,
        Act::Refused(&["alter table {table} set (autovacuum_enabled = off, fillfactor = 10)"]),
    ),
    Attack::new(
        "publish_victim",
        Write,
        TOGETHER,
        Act::Refused(&["create publication mine for table {table}"]),
    ),
    Attack::new(
        "write_large_object",
        Write,
        ALL,
        Act::Refused(&["select lo_put({lo}, 0, 'changed')"]),
    ),
    Attack::new(
        "unlink_large_object",
        Write,
        ALL,
        Act::Refused(&["select lo_unlink({lo})"]),
    ),
    Attack::new(
        "make_large_object",
        Write,
        TOGETHER,
        Act::Refused(&["select lo_create(0)"]),
    ),
    Attack::new(
        "write_temporary_table",
        Write,
        TOGETHER,
        Act::Refused(&["insert into {temp}.diary values ('mine')"]),
    ),
    Attack::new(
        "drop_temporary_table",
        Write,
        TOGETHER,
        Act::Refused(&["drop table {temp}.diary"]),
    ),
    Attack::new(
        "drop_role",
        Write,
        ALL,
        Act::Refused(&[
            "create role other",
            "drop role other",
            "drop owned by {role} cascade",
        ]),
    ),
    Attack::new(
        "rename_role",
        Write,
        ALL,
        Act::Refused(&["reset role", "alter role {role} rename to {role}x"]),
    ),
    Attack::new(
        "drop_database",
        Write,
        DATABASE,
        Act::Refused(&[
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{db}'",
            "alter database {db} rename to {db}x",
        ]),
    ),
    Attack::new(
        "database_settings",
        Write,
        ALL,
        Sql(&[
            "alter database {db} set statement_timeout = 1",
            "alter database {db} set search_path = pg_catalog",
        ]),
    ),
    Attack::new(
        "template_database",
        Write,
        ALL,
        Act::Refused(&["alter database template1 set work_mem = '64kB'"]),
    ),
    Attack::new(
        "copy_database",
        Write,
        DATABASE,
        Act::Refused(&[
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{db}'",
            "create database stolen template {db}",
        ]),
    ),
    Attack::new(
        "alter_system",
        Write,
        ALL,
        Act::Refused(&["alter system set work_mem = '64kB'"]),
    ),
    Attack::new(
        "reload",
        Write,
        ALL,
        Act::Refused(&["select pg_reload_conf()"]),
    ),
    Attack::new(
        "reset_statistics",
        Write,
        ALL,
        Act::Refused(&["select pg_stat_reset()"]),
    ),
    Attack::new(
        "reset_table_statistics",
        Write,
        ALL,
        Act::Refused(&["select pg_stat_reset_single_table_counters(1259)"]),
    ),
    Attack::new(
        "restore_point",
        Write,
        ALL,
        Act::Refused(&["select pg_create_restore_point('mine')"]),
    ),
    Attack::new(
        "switch_wal",
        Write,
        ALL,
        Act::Refused(&["select pg_switch_wal()"]),
    ),
    Attack::new(
        "message_into_wal",
        Write,
        ALL,
        Act::Refused(&["select pg_logical_emit_message(true, 'mine', 'text')"]),
    ),
    Attack::new(
        "replication_slot",
        Write,
        ALL,
        Act::Refused(&["select pg_create_physical_replication_slot('mine_' || pg_backend_pid())"]),
    ),
    Attack::new(
        "log_memory",
        Write,
        ALL,
        Act::Refused(&["select pg_log_backend_memory_contexts({pid})"]),
    ),
    Attack::new(
        "create_role",
        Write,
        ALL,
        Act::Refused(&["create role mine_{schema}"]),
    ),
    Attack::new(
        "create_schema",
        Write,
        TOGETHER,
        Act::Refused(&["create schema mine_{myschema}"]),
    ),
    Attack::new(
        "create_in_public",
        Write,
        TOGETHER,
        Act::Refused(&["create table public.planted (x int)"]),
    ),
    Attack::new(
        "create_in_shared_schema",
        Write,
        ROWS,
        Act::Refused(&["create table data.planted (x int)"]),
    ),
    Attack::new(
        "create_temporary",
        Write,
        ROWS,
        Act::Refused(&["create temp table mine (x int)"]),
    ),
    Attack::new(
        "create_operator_for_all",
        Write,
        TOGETHER,
        Act::Refused(&[
            "create function public.upper(varchar) returns text language sql as 'select ''mine'''",
        ]),
    ),
    Attack::new(
        "create_event_trigger",
        Write,
        ALL,
        Act::Refused(&[
            "create function spy_on_ddl() returns event_trigger language plpgsql as $$ begin end $$",
            "create event trigger spy on ddl_command_start execute function spy_on_ddl()",
        ]),
    ),
    Attack::new(
        "create_cast",
        Write,
        TOGETHER,
        Act::Refused(&["create cast (text as bigint) with inout as implicit"]),
    ),
    Attack::new(
        "create_language",
        Write,
        ALL,
        Act::Refused(&["create language mine handler plpgsql_call_handler"]),
    ),
    Attack::new(
        "trojan_function",
        Write,
        TOGETHER,
        Act::Script(&[
            A(
                "create function public.upper(varchar) returns text language sql as $$ select '{mark}'::text $$",
            ),
            V("select upper('x'::varchar)"),
        ]),
    ),
    Attack::new(
        "trojan_table",
        Write,
        TOGETHER,
        Act::Script(&[
            A("create table public.settings (value text)"),
            A("insert into public.settings values ('{mark}')"),
            A("grant all on public.settings to public"),
            V("select * from settings"),
        ]),
    ),
    Attack::new(
        "trojan_in_shared_schema",
        Write,
        ROWS,
        Act::Script(&[
            A(
                "create function app.upper(varchar) returns text language sql as $$ select '{mark}'::text $$",
            ),
            A(
                "create function data.upper(varchar) returns text language sql as $$ select '{mark}'::text $$",
            ),
            A("set search_path = data; create view app.whispering as select '{mark}'::text"),
            V("select upper('x'::varchar)"),
            V("select data.upper('x'::varchar)"),
        ]),
    ),
    Attack::new(
        "notify_victim",
        Write,
        LOGINS,
        Act::Script(&[
            V("listen orders"),
            A("notify orders, '{mark}'"),
            A("select pg_notify('orders', '{mark}')"),
            V("notify orders, 'fence'"),
            crate::attack::Step::VictimFence,
            V("select 1"),
        ]),
    )
    .residual_of_reader("R5"),
    Attack::new(
        "commit_prepared",
        Write,
        ALL,
        Act::Own(|scene| {
            let made = "begin; insert into accounts (id, secret) values (55, 'prepared'); prepare transaction '{gid}'";
            scene.stage.victim_says(made);
            let committed = scene.say("commit prepared '{gid}'").is_ok();
            scene.stage.victim_says("rollback prepared '{gid}'");
            committed.then(|| "the attacker commits the victim's transaction".to_owned())
        }),
    ),
    Attack::new(
        "roll_back_prepared",
        Write,
        ALL,
        Act::Own(|scene| {
            let made = "begin; insert into accounts (id, secret) values (56, 'prepared'); prepare transaction '{gid}'";
            scene.stage.victim_says(made);
            let rolled_back = scene.say("rollback prepared '{gid}'").is_ok();
            scene.stage.victim_says("rollback prepared '{gid}'");
            rolled_back.then(|| "the attacker rolls the victim's transaction back".to_owned())
        }),
    ),
    Attack::new(
        "planner_statistics_of_victim",
        Write,
        TOGETHER,
        Act::Refused(&["alter table {table} alter secret set statistics 1000"]),
    ),
    Attack::new(
        "security_label",
        Write,
        OWN,
        Act::Refused(&["security label on role {role} is 'mine'"]),
    )
    .unproven("no provider of labels is loaded"),
];
