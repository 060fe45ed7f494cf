//! What a tenant leaves on a slot, the next one does not find.

use super::{Rows, Stage, ids, token};
use crate::harness::{
    Request, eventually,
    frames::{error, firsts},
};

#[test]
fn the_next_tenant_finds_nothing_of_the_one_before() {
    let ids = ids(2);
    let stage = Stage::of(&ids, 1, |_| ());
    let mut victim = stage.client(&ids[1]);
    for (trace, look) in [
        (
            "set work_mem = '1234kB'",
            "select setting from pg_settings where name = 'work_mem' and source = 'session'",
        ),
        (
            "set app.x = 'secret'",
            "select current_setting('app.x', true) where current_setting('app.x', true) <> ''",
        ),
        (
            "set search_path = ctl",
            "select 1 where current_setting('search_path') <> 'app'",
        ),
        (
            "set default_transaction_read_only = on",
            "select 1 where current_setting('default_transaction_read_only') = 'on'",
        ),
        (
            "begin; declare c cursor with hold for select 'secret'; commit",
            "select name from pg_cursors where name <> ''",
        ),
        (
            "prepare p as select 'secret'",
            "select name from pg_prepared_statements where from_sql",
        ),
        (
            "select set_config('role', 'none', false)",
            "select 1 where current_user <> session_user",
        ),
        (
            "do $$ begin perform set_config('app.y', 'secret', false); end $$",
            "select current_setting('app.y', true) where current_setting('app.y', true) <> ''",
        ),
        (
            "set statement_timeout = 1",
            "select 1 where current_setting('statement_timeout') <> '0'",
        ),
        (
            "set idle_session_timeout = 1",
            "select 1 where current_setting('idle_session_timeout') <> '0'",
        ),
    ] {
        let mut client = stage.client(&ids[0]);
        client.exec(trace);
        drop(client);
        assert_eq!(victim.values(look), [""; 0], "{trace}");
        assert_eq!(victim.value("select ctl.tenant()"), token(&ids[1]));
    }
}

#[test]
fn what_would_stay_cant_be_made() {
    let ids = ids(1);
    let stage = Stage::of(&ids, 1, |_| ());
    let mut client = stage.client(&ids[0]);
    for sql in [
        "create temp table t ()",
        "create table t ()",
        "create table app.t ()",
        "create function f() returns int language sql as 'select 1'",
        "select lo_create(0)",
        "select pg_advisory_lock(1)",
        "select pg_advisory_xact_lock(1)",
        "begin; prepare transaction 'x'",
        "load 'auto_explain'",
        "copy (select 1) to program 'true'",
    ] {
        client.fails(sql);
        client.query("rollback");
    }
    for sql in ["listen x", "begin; listen x"] {
        assert_eq!(client.fails(sql).code(), "0A000", "{sql}");
        client.query("rollback");
    }
    client.is_in_step();
    // Where it is hidden, the session ends.
    client.send(&Request::new().query("do $$ begin execute 'listen x'; end $$"));
    assert_eq!(client.ends_with("0A000").code(), "0A000");
    let mut other = stage.client(&ids[0]);
    assert_eq!(other.values("select pg_listening_channels()"), [""; 0]);
}

#[test]
fn the_next_tenant_cant_be_told_what_random_gives() {
    let ids = ids(2);
    let stage = Stage::of(&ids, 1, |_| ());
    let mut victim = stage.client(&ids[1]);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut client = stage.client(&ids[0]);
        client.exec("select setseed(0.5)");
        drop(client);
        eventually("the slot is free or closed", || {
            let value = victim.query("select random()::text");
            seen.extend(firsts(&value));
            error(&value).is_none()
        });
    }
    seen.sort_unstable();
    let count = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), count, "{seen:?}");
}

#[test]
fn prepared_statements_of_the_protocol_are_each_tenants_own_and_outlive_the_other() {
    let ids = ids(2);
    let stage = Stage::of(&ids, 1, |_| ());
    let mut clients: Vec<_> = ids.iter().map(|id| (id, stage.client(id))).collect();
    for (id, client) in &mut clients {
        client.exec(&format!("insert into accounts values (1, 'of {id}')"));
        let parse = Request::new()
            .parse("same", "select secret from accounts where id = $1::int")
            .sync();
        assert_eq!(error(&client.ask(&parse)), None);
    }
    for _ in 0..5 {
        for (id, client) in &mut clients {
            let frames = client.ask(&Request::new().run_prepared("same", &["1"]).sync());
            assert_eq!(firsts(&frames), [format!("of {id}")]);
            let unnamed = client.ask(
                &Request::new()
                    .run("select secret || $1 from accounts", &["!"])
                    .sync(),
            );
            assert_eq!(firsts(&unnamed), [format!("of {id}!")]);
        }
    }
}

#[test]
fn a_role_that_a_tenant_has_poisoned_is_made_ready_before_it_logs_in_again() {
    let ids = ids(2);
    let stage = Stage::of(&ids, 1, |_| ());
    let rows = Rows::shared();
    let mut client = stage.client(&ids[0]);
    client.exec("begin");
    let (role, pid) = (client.value("select session_user"), client.server_pid());
    client.exec("commit");
    for poison in [
        "alter role current_user set statement_timeout = 1",
        "alter role current_user set search_path = nowhere",
        "alter role current_user in database rows set role = 'none'",
        "alter role current_user set local_preload_libraries = 'nothing'",
        "alter role current_user password 'known'",
    ] {
        client.exec(poison);
    }
    // Who knows the password can't come beside the proxy; and knows none once it may.
    let intruder = rows.direct().user(&role).password("known");
    assert!(
        intruder.clone().try_login().is_err(),
        "one connection is there already"
    );
    rows.admin()
        .exec(&format!("select pg_terminate_backend({pid})"));
    eventually("the slot is gone", || !rows.slots().contains(&pid));
    let mut victim = stage.client(&ids[1]);
    for _ in 0..3 {
        assert_eq!(victim.value("select ctl.tenant()"), token(&ids[1]));
    }
    assert_eq!(victim.value("show statement_timeout"), "0");
    assert_eq!(victim.value("show search_path"), "app");
    let settings = format!(
        "select count(*) from pg_db_role_setting s join pg_roles r on r.oid = s.setrole \
         where r.rolname = '{}' and setconfig <> '{{temp_file_limit=1GB}}'",
        victim.value("select session_user")
    );
    assert_eq!(rows.admin().value(&settings), "0");
}

#[test]
fn a_slot_that_is_not_clean_is_closed_and_another_serves() {
    let ids = ids(2);
    let stage = Stage::of(&ids, 1, |_| ());
    let mut client = stage.client(&ids[0]);
    client.exec("begin");
    let (role, pid) = (client.value("select session_user"), client.server_pid());
    client.exec("commit");
    // As the tenant itself can't.
    Rows::shared().admin().exec(&format!(
        "alter default privileges for role {role} grant select on tables to public"
    ));
    let mut victim = stage.client(&ids[1]);
    assert_eq!(victim.value("select ctl.tenant()"), token(&ids[1]));
    assert_ne!(
        victim.server_pid(),
        pid,
        "what the other left owns something"
    );
    eventually("the slot is closed", || {
        !Rows::shared().slots().contains(&pid)
    });
}
