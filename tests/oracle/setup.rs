//! What a tenant has in its database: tables, and functions that leave session state unnamed.

use super::{harness::Place, setting::SETTINGS};
use std::collections::BTreeMap;

/// Statements of the tenant's own role.
const SCHEMA: &[&str] = &[
    "create schema alt",
    "create table placed (place text)",
    "insert into placed values ('main')",
    "create table alt.placed (place text)",
    "insert into alt.placed values ('alt')",
    "create table shadowed (mark text)",
    "insert into shadowed values ('permanent')",
    "create sequence one",
    "create sequence two",
    "create table numbered (id serial, mark text)",
    "create function h_set(n text, v text) returns text language plpgsql as \
        $$ begin return set_config(n, v, false); end $$",
    "create function h_set_hidden(v text) returns text language sql as \
        $$ select set_config('app.hidden', v, false) $$",
    "create function h_calls(v text) returns text language plpgsql as \
        $$ begin return h_set_hidden(v); end $$",
    "create function h_dynamic(statement text) returns void language plpgsql as \
        $$ begin execute statement; end $$",
    "create function h_caught(v text) returns text language plpgsql as \
        $$ begin perform set_config('app.hidden', v, false); raise division_by_zero; \
           exception when division_by_zero then return 'caught'; end $$",
    "create function h_clause() returns text language sql set work_mem = '7777kB' as \
        $$ select current_setting('work_mem') $$",
    "create function h_lock(k bigint) returns void language plpgsql as \
        $$ begin perform pg_advisory_lock(k); end $$",
    "create table triggering (what text, mark text)",
    "create function h_trigger() returns trigger language plpgsql as $$ begin \
        if new.what = 'set' then perform set_config('app.trigger', new.mark, false); end if; \
        if new.what = 'temp' then \
            create temp table t0 (mark text); insert into t0 values (new.mark); end if; \
        if new.what = 'lock' then perform pg_advisory_lock(new.mark::bigint); end if; \
        return null; end $$",
    "create trigger hidden before insert on triggering for each row execute function h_trigger()",
    "create view v_set as select set_config('app.view', 'by a view', false) as mark",
    "create view v_lock as select pg_try_advisory_lock_shared(7) as got",
    "grant usage, create on schema public to public",
    "grant usage on schema alt to public",
    "grant all on all tables in schema public to public",
    "grant all on all tables in schema alt to public",
    "grant all on all sequences in schema public to public",
];

/// A database for a tenant, with a second role that the tenant may become.
pub fn furnish(place: &Place) {
    let role = place.role();
    let mut admin = place.admin();
    admin.exec(&format!("create role {role}_b; grant {role}_b to {role}"));
    let mut owner = place.direct().login();
    for statement in SCHEMA {
        owner.exec(statement);
    }
}

/// The settings of a session that has set nothing.
pub fn defaults(place: &Place) -> BTreeMap<&'static str, String> {
    let mut client = place.direct().login();
    let value = |name: &'static str| {
        client.value(&format!(
            "select coalesce(current_setting('{name}', true), '')"
        ))
    };
    let names = SETTINGS.map(|setting| setting.name);
    let values = names.map(value);
    let mut defaults: BTreeMap<_, _> = names.into_iter().zip(values).collect();
    defaults.insert("role", "none".to_owned());
    defaults
}
