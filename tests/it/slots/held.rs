//! What one tenant holds or gives away stops no other.

use super::{Rows, Stage, ids, token};
use crate::harness::{eventually, frames::error};
use std::time::Duration;

#[test]
fn a_slot_can_hold_nothing_that_other_slots_need() {
    let ids = ids(2);
    let stage = Stage::of(&ids, 2, |_| ());
    let mut client = stage.client(&ids[0]);
    for sql in [
        "drop owned by current_user",
        "alter default privileges grant select on tables to public",
        "grant select on app.accounts to public",
        "create schema mine",
        "create publication p",
        "comment on view app.accounts is 'mine'",
    ] {
        client.exec("begin");
        assert_eq!(client.fails(sql).code(), "42501", "{sql}");
        // While it stands open.
        assert_eq!(
            stage.client(&ids[1]).value("select ctl.tenant()"),
            token(&ids[1])
        );
        client.exec("rollback");
    }
    assert_eq!(client.value("select ctl.tenant()"), token(&ids[0]));
}

#[test]
fn what_others_grant_to_slots_stops_none() {
    let rows = Rows::start();
    let ids = ids(2);
    let stage = Stage::on(&rows, &ids, 1, |_| ());
    let mut clients: Vec<_> = ids.iter().map(|id| stage.client(id)).collect();
    let pid = clients[0].server_pid();
    // A tenant of another tier, in a database of its own.
    let stranger = format!("t_{}", token("stranger"));
    rows.postgres().admin().exec("create database strangers");
    let mut strangers = rows.postgres().endpoint().admin_of("strangers");
    strangers.exec(&format!(
        "create role {stranger} in role pgusher_tenants; create schema its authorization {stranger};
         set role {stranger}; create table its.t (); \
         do $$ declare it text; begin for it in select rolname from pg_roles where rolname ~ '^[sq]_[0-9]+$' loop
            execute format('grant select on its.t to %I', it); \
            execute format('alter default privileges grant select on tables to %I', it);
         end loop; end $$"
    ));
    // Up to PostgreSQL 15 it may make others members of itself.
    strangers.query(&format!(
        "set session authorization {stranger}; \
         do $$ declare it text; begin for it in select rolname from pg_roles where rolname ~ '^[sq]_[0-9]+$' loop
            execute format('grant {stranger} to %I', it); end loop; end $$"
    ));
    for _ in 0..2 {
        for (id, client) in ids.iter().zip(&mut clients) {
            assert_eq!(client.value("select ctl.tenant()"), token(id));
            assert_eq!(client.server_pid(), pid, "the slot is as good as before");
        }
    }
    // A new one, too.
    rows.admin()
        .exec(&format!("select pg_terminate_backend({pid})"));
    eventually("the slot is gone", || !rows.slots().contains(&pid));
    for id in &ids {
        assert_eq!(stage.client(id).value("select ctl.tenant()"), token(id));
    }
}

#[test]
fn a_slot_that_gives_itself_away_is_made_anew_and_stops_no_other() {
    // Not the shared one: roles that other tests make would be given away, too.
    let rows = Rows::start();
    let ids = ids(2);
    let stage = Stage::on(&rows, &ids, 1, |_| ());
    for _ in 0..3 {
        let mut client = stage.client(&ids[0]);
        client.exec("begin");
        let role = client.value("select session_user");
        client.exec("commit");
        // Up to PostgreSQL 15 a role may do that by itself.
        let give = "do $$ declare it text; begin
            for it in select rolname from pg_roles where rolname ~ '^s_[0-9]+$' and rolname <> session_user loop
                execute format('grant %I to %I', session_user, it); end loop; end $$";
        client.query(give);
        rows.admin()
            .exec(&give.replace("session_user", &format!("'{role}'")));
        drop(client);
        let mut victim = stage.client(&ids[1]);
        assert_eq!(victim.value("select ctl.tenant()"), token(&ids[1]));
        victim.exec("begin");
        let own = victim.value("select session_user");
        let members = format!(
            "select member::regrole from pg_auth_members where roleid = '{own}'::regrole and member <> 'pgusher_slots'::regrole"
        );
        assert_eq!(rows.admin().values(&members), [""; 0]);
        victim.exec("commit");
    }
}

#[test]
fn while_somebody_holds_what_a_new_slot_needs_the_others_serve() {
    let rows = Rows::start();
    let ids = ids(3);
    let stage = Stage::on(&rows, &ids, 3, |_| ());
    let mut admin = rows.admin();
    admin.exec(
        "delete from ctl.slot where role <> (select min(role) from ctl.slot where kind = 's')",
    );
    let mut first = stage.client(&ids[0]);
    let pid = first.server_pid();
    // The row of the catalogue that has every role's right to connect.
    let mut holder = rows.admin();
    holder.exec("begin; grant temp on database rows to pgusher_slots");
    let mut others: Vec<_> = ids
        .iter()
        .skip(1)
        .map(|id| (id, stage.client(id)))
        .collect();
    for _ in 0..3 {
        for (id, client) in &mut others {
            assert_eq!(client.value("select ctl.tenant()"), token(id));
        }
        assert_eq!(first.value("select ctl.tenant()"), token(&ids[0]));
    }
    assert_eq!(rows.slots(), [pid.as_str()], "there is no other");
    holder.exec("rollback");
    first.exec("begin");
    let (id, other) = &mut others[0];
    eventually("another slot is made", || {
        let frames = other.query("select ctl.tenant()");
        error(&frames).is_none()
    });
    assert_eq!(other.value("select ctl.tenant()"), token(id));
    assert_eq!(rows.slots().len(), 2);
    first.exec("commit");
}

#[test]
fn a_tenant_that_keeps_transactions_open_leaves_slots_to_others() {
    let ids = ids(2);
    let stage = Stage::of(&ids, 4, |tenant| {
        tenant.timeouts.query_wait = Some(Duration::from_secs(2));
    });
    let mut greedy: Vec<_> = (0..4)
        .map(|_| stage.client(&ids[0]))
        .chain((0..4).map(|_| stage.reader(&ids[0]).login()))
        .collect();
    let held = greedy.iter_mut().filter_map(|client| {
        error(&client.query("begin; select 1"))
            .is_none()
            .then_some(())
    });
    assert_eq!(held.count(), 3, "of four slots");
    let mut victim = stage.client(&ids[1]);
    for _ in 0..3 {
        assert_eq!(victim.value("select ctl.tenant()"), token(&ids[1]));
    }
}

#[test]
fn a_transaction_that_stands_idle_gives_its_slot_back() {
    let ids = ids(2);
    let stage = Stage::of(&ids, 1, |tenant| {
        tenant.timeouts.idle_transaction = Some(Duration::from_millis(300));
    });
    let mut holder = stage.client(&ids[0]);
    holder.exec("begin");
    let mut victim = stage.client(&ids[1]);
    assert_eq!(victim.value("select ctl.tenant()"), token(&ids[1]));
    holder.ends_with("25P03");
}
