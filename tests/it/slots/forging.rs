//! Nothing that a tenant's SQL says makes it another tenant.

use super::{Rows, Stage, ids, token};
use crate::harness::Client;

/// Far in the future, in seconds since 1970.
const LATE: u64 = 9_999_999_999;

fn two(slots: u32) -> (Stage, Vec<String>) {
    let ids = ids(2);
    let stage = Stage::of(&ids, slots, |_| ());
    for id in &ids {
        stage
            .client(id)
            .exec(&format!("insert into accounts values (1, 'of {id}')"));
    }
    (stage, ids)
}

/// It is who it was, and sees what it saw.
fn is_still(client: &mut Client, id: &str) {
    assert_eq!(client.value("select ctl.tenant()"), token(id));
    assert_eq!(
        client.values("select secret from accounts"),
        [format!("of {id}")]
    );
}

#[test]
fn the_tenant_of_a_slot_is_nothing_that_sql_may_set() {
    let (stage, ids) = two(1);
    let victim = token(&ids[1]);
    let mut client = stage.client(&ids[0]);
    for sql in [
        format!("set backtrace_functions = '{victim}'"),
        format!("set local backtrace_functions = '{victim}'"),
        format!("select set_config('backtrace_functions', '{victim}', false)"),
        format!("select set_config('backtrace_functions', '{victim}', true)"),
        "reset backtrace_functions".to_owned(),
        "set backtrace_functions to default".to_owned(),
        format!("alter role current_user set backtrace_functions = '{victim}'"),
        format!("alter role current_user in database rows set backtrace_functions = '{victim}'"),
        format!("alter database rows set backtrace_functions = '{victim}'"),
        format!("alter system set backtrace_functions = '{victim}'"),
        format!("do $$ begin perform set_config('backtrace_functions', '{victim}', true); end $$"),
        format!("update pg_settings set setting = '{victim}' where name = 'backtrace_functions'"),
        "grant set on parameter backtrace_functions to public".to_owned(),
        "set role pgusher_ctl".to_owned(),
        "set session authorization pgusher_ctl".to_owned(),
        "grant pgusher_ctl to current_user".to_owned(),
        "select * from ctl.hmac_key".to_owned(),
        "select * from ctl.slot".to_owned(),
        "select * from data.accounts".to_owned(),
        "select ctl.lease('s', 'x')".to_owned(),
        "create function ctl.f() returns int language sql as 'select 1'".to_owned(),
        "create schema mine".to_owned(),
    ] {
        let code = client.fails(&sql).code().to_owned();
        assert!(
            ["42501", "0LP01", "25001", "42704"].contains(&code.as_str()),
            "{sql}: {code}"
        );
        is_still(&mut client, &ids[0]);
    }
}

#[test]
fn what_a_client_says_at_startup_does_not_make_it_another() {
    let (stage, ids) = two(1);
    let victim = token(&ids[1]);
    let connect = stage.connect(&ids[0]);
    for connect in [
        connect
            .clone()
            .options(&format!("-c backtrace_functions={victim}")),
        connect.clone().parameter("backtrace_functions", &victim),
    ] {
        if let Ok(mut client) = connect.try_login() {
            is_still(&mut client, &ids[0]);
        }
    }
    is_still(&mut connect.login(), &ids[0]);
}

#[test]
fn a_token_binds_its_tenant_to_one_process_of_one_slot_and_not_for_ever() {
    let (stage, ids) = two(2);
    let rows = Rows::shared();
    let mut client = stage.client(&ids[0]);
    client.exec("begin");
    let mut other = stage.client(&ids[1]);
    other.exec("begin");
    let (pid, role) = (client.server_pid(), client.value("select session_user"));
    let (other_pid, other_role) = (other.server_pid(), other.value("select session_user"));
    for end in ["rollback", "commit"] {
        client.query(end);
    }
    other.exec("rollback");
    let victim = |slot, expiry| rows.bind_sql(&ids[1], slot, expiry);
    let right = victim((&pid, &role), LATE);
    for (sql, code) in [
        // Another process, another slot, both.
        (victim((&other_pid, &role), LATE), "28000"),
        (victim((&pid, &other_role), LATE), "28000"),
        (victim((&other_pid, &other_role), LATE), "28000"),
        (victim((&pid, &role), 1_000_000_000), "28000"),
        // A right token, changed.
        (
            right.replace(&LATE.to_string(), &(LATE - 1).to_string()),
            "28000",
        ),
        (right.replace(&token(&ids[1]), &token("elsewhere")), "28000"),
        ("select ctl.bind(null, null, null)".to_owned(), "28000"),
        (
            format!("select ctl.bind('{}', {LATE}, '')", token(&ids[1])),
            "28000",
        ),
        // A right one, while the slot serves another.
        (right, "55000"),
    ] {
        client.exec("begin");
        assert_eq!(
            client.server_pid(),
            pid,
            "it is the slot that the tokens are for"
        );
        assert_eq!(client.fails(&sql).code(), code, "{sql}");
        client.exec("rollback");
        is_still(&mut client, &ids[0]);
    }
}

#[test]
fn a_rollback_takes_no_tenant_away_and_brings_none_back() {
    let (stage, ids) = two(1);
    let mut clients: Vec<_> = ids.iter().map(|id| stage.client(id)).collect();
    for _ in 0..3 {
        for (id, client) in ids.iter().zip(&mut clients) {
            client.exec("begin");
            is_still(client, id);
            client.exec("savepoint a");
            client.fails("select 1/0");
            client.exec("rollback to a");
            is_still(client, id);
            client.exec("rollback");
            client.exec("begin; reset all; rollback");
            is_still(client, id);
            client.exec("rollback");
        }
    }
}

#[test]
fn a_slot_that_has_lost_its_tenant_says_so_and_finds_it_again() {
    let (stage, ids) = two(1);
    let mut client = stage.client(&ids[0]);
    for hidden in [
        "reset all; select * from accounts",
        "do $$ begin execute 'reset all'; end $$; select * from accounts",
    ] {
        assert_eq!(client.fails(hidden).code(), "PU002", "{hidden}");
        is_still(&mut client, &ids[0]);
    }
    for reset in [
        "reset all",
        "discard all",
        "do $$ begin execute 'reset all'; end $$",
    ] {
        client.exec(reset);
        is_still(&mut client, &ids[0]);
        stage.client(&ids[1]).exec("select 1");
        is_still(&mut client, &ids[0]);
    }
    client.exec("begin");
    client.exec("reset all");
    is_still(&mut client, &ids[0]);
    client.exec("rollback");
    is_still(&mut client, &ids[0]);
}

#[test]
fn a_key_that_only_reads_writes_nothing() {
    let (stage, ids) = two(2);
    let mut reader = stage.reader(&ids[0]).login();
    is_still(&mut reader, &ids[0]);
    for write in [
        "insert into accounts values (5, 'x')",
        "update accounts set secret = 'x'",
        "delete from accounts",
    ] {
        assert_eq!(reader.fails(write).code(), "25006", "{write}");
        let all_the_same = format!("begin read write; {write}");
        assert_eq!(reader.fails(&all_the_same).code(), "42501", "{write}");
        reader.exec("rollback");
    }
    is_still(&mut reader, &ids[0]);
    assert!(reader.value("select session_user").starts_with("q_"));
    is_still(&mut stage.client(&ids[0]), &ids[0]);
}

#[test]
fn who_leases_slots_may_do_nothing_else() {
    let rows = Rows::shared();
    let lease = &rows.key.lease;
    let password = lease.password.as_ref().unwrap();
    let connect = rows.direct().user(&lease.role).password(password.expose());
    let mut client = connect.login();
    for sql in [
        "insert into accounts values (1, 'x')",
        "select ctl.claim()",
        "create table app.t ()",
        "create temp table t ()",
        "alter role s_1 password 'x'",
        "set role s_1",
        "select * from ctl.slot",
        "select ctl.lease('s', 'md5x')",
        "select ctl.lease('t', 'SCRAM-SHA-256$1:AAAA$AAAA:AAAA')",
    ] {
        client.fails(sql);
    }
    assert_eq!(client.values("select id from accounts"), [""; 0]);
}
