//! Session, transaction and statement mode: when a server goes back, and what stays with a client.

use crate::harness::{
    Client, Mode, Request, eventually,
    frames::{code, error},
    proxy::{one_tenant, pooled},
};

fn leave(mut client: Client) {
    client.send(&Request::new().terminate());
    client.rest();
}

#[test]
fn in_session_mode_a_server_stays_with_its_client() {
    let proxy = pooled(Mode::Session, 2);
    let mut one = proxy.connect("acme").login();
    let mut two = proxy.connect("acme").login();
    let (first, second) = (one.server_pid(), two.server_pid());
    assert_ne!(first, second);
    for _ in 0..3 {
        assert_eq!(
            (one.server_pid(), two.server_pid()),
            (first.clone(), second.clone())
        );
    }
}

#[test]
fn in_session_mode_the_next_client_gets_a_clean_server() {
    let proxy = pooled(Mode::Session, 1);
    let mut client = proxy.connect("acme").login();
    let pid = client.server_pid();
    let clean = client.value("show work_mem");
    client
        .exec("set work_mem = '77MB'; create temp table mine (i int); select pg_advisory_lock(7)");
    client.exec("prepare p as select 1; declare c cursor with hold for select 1; listen news");
    client.exec("begin; set local enable_seqscan = off; insert into mine values (1)");
    leave(client);
    let mut next = proxy.connect("acme").login();
    assert_eq!(next.value("show work_mem"), clean);
    assert_eq!(next.value("show enable_seqscan"), "on");
    assert_eq!(next.value("select to_regclass('mine') is null"), "t");
    assert_eq!(
        next.value("select count(*) from pg_prepared_statements"),
        "0"
    );
    assert_eq!(next.value("select count(*) from pg_cursors"), "0");
    assert_eq!(
        next.value("select count(*) from pg_listening_channels()"),
        "0"
    );
    assert_eq!(
        next.value("select count(*) from pg_locks where locktype = 'advisory'"),
        "0"
    );
    // Whether it is the same server, reset, or a new one is not the client's business.
    drop(pid);
}

#[test]
fn in_session_mode_a_clean_server_is_used_again() {
    let proxy = pooled(Mode::Session, 1);
    let mut client = proxy.connect("acme").login();
    let pid = client.server_pid();
    leave(client);
    let mut next = proxy.connect("acme").login();
    assert_eq!(next.server_pid(), pid);
}

#[test]
fn in_session_mode_an_error_does_not_cost_the_server() {
    let proxy = pooled(Mode::Session, 1);
    let mut client = proxy.connect("acme").login();
    let pid = client.server_pid();
    assert_eq!(client.fails("select 1/0").code(), "22012");
    assert_eq!(client.server_pid(), pid);
}

#[test]
fn in_transaction_mode_one_server_serves_all_clients_in_turn() {
    let proxy = pooled(Mode::Transaction, 1);
    let mut one = proxy.connect("acme").login();
    let mut two = proxy.connect("acme").login();
    let pid = one.server_pid();
    for _ in 0..3 {
        assert_eq!(two.server_pid(), pid);
        assert_eq!(one.server_pid(), pid);
    }
}

#[test]
fn in_transaction_mode_a_transaction_holds_its_server() {
    let proxy = pooled(Mode::Transaction, 2);
    let mut one = proxy.connect("acme").login();
    let mut two = proxy.connect("acme").login();
    one.exec("begin");
    let held = one.server_pid();
    for _ in 0..3 {
        assert_ne!(two.server_pid(), held);
        assert_eq!(one.server_pid(), held);
    }
    assert_eq!(one.fails("select 1/0").code(), "22012");
    assert_ne!(two.server_pid(), held, "a failed transaction is still one");
    one.exec("rollback");
}

#[test]
fn a_waiting_client_is_served_when_the_transaction_ends() {
    let proxy = pooled(Mode::Transaction, 1);
    let mut holder = proxy.connect("acme").login();
    holder.exec("begin");
    let mut waiters: Vec<_> = (0..3).map(|_| proxy.connect("acme").login()).collect();
    for (number, waiter) in waiters.iter_mut().enumerate() {
        waiter.send(&Request::new().query(&format!("select {number}")));
    }
    holder.exec("commit");
    for (number, waiter) in waiters.iter_mut().enumerate() {
        let frames = waiter.until_ready();
        assert_eq!(
            crate::harness::frames::firsts(&frames),
            [number.to_string()]
        );
    }
}

#[test]
fn in_transaction_mode_reported_settings_follow_their_client() {
    let proxy = pooled(Mode::Transaction, 1);
    let mut one = proxy.connect("acme").login();
    let mut two = proxy.connect("acme").login();
    let before = two.values("select current_setting('TimeZone'), 1");
    for (name, value) in [
        ("timezone", "Asia/Tokyo"),
        ("application_name", "o'ne"),
        ("client_encoding", "LATIN1"),
        ("datestyle", "German, DMY"),
        ("intervalstyle", "iso_8601"),
    ] {
        let other = two.value(&format!("show {name}"));
        let quoted = value.replace('\'', "''");
        one.exec(&format!(
            "set {name} = {}",
            if name == "datestyle" {
                quoted
            } else {
                format!("'{quoted}'")
            }
        ));
        for _ in 0..2 {
            assert_eq!(
                two.value(&format!("show {name}")),
                other,
                "{name} of the other client"
            );
            assert_eq!(
                one.value(&format!("show {name}")),
                value,
                "{name} of the one who set it"
            );
        }
    }
    assert_eq!(two.values("select current_setting('TimeZone'), 1"), before);
    assert_eq!(two.parameters["TimeZone"], before[0]);
    assert_eq!(one.parameters["TimeZone"], "Asia/Tokyo");
}

#[test]
fn a_setting_that_is_rolled_back_does_not_follow() {
    let proxy = pooled(Mode::Transaction, 1);
    let mut one = proxy.connect("acme").login();
    let mut two = proxy.connect("acme").login();
    let before = one.value("show timezone");
    one.exec("begin; set timezone = 'Asia/Tokyo'; rollback");
    two.exec("select 1");
    assert_eq!(one.value("show timezone"), before);
    one.exec("begin; set local timezone = 'Asia/Tokyo'; commit");
    two.exec("select 1");
    assert_eq!(one.value("show timezone"), before);
    one.exec("begin; set timezone = 'Asia/Tokyo'; commit");
    two.exec("select 1");
    assert_eq!(one.value("show timezone"), "Asia/Tokyo");
    one.exec("reset timezone");
    two.exec("select 1");
    assert_eq!(one.value("show timezone"), before);
}

#[test]
fn no_setting_of_one_client_reaches_another() {
    let proxy = pooled(Mode::Transaction, 1);
    let mut one = proxy.connect("acme").login();
    let mut two = proxy.connect("acme").login();
    let cases = [
        ("set work_mem = '77MB'", "show work_mem"),
        ("set statement_timeout = '77s'", "show statement_timeout"),
        ("set search_path = pg_catalog", "show search_path"),
        (
            "set app.mine = 'secret'",
            "select current_setting('app.mine', true) is null or current_setting('app.mine', true) = ''",
        ),
        (
            "select set_config('enable_seqscan', 'off', false)",
            "show enable_seqscan",
        ),
        (
            "do $$ begin perform set_config('enable_sort', 'off', false); end $$",
            "show enable_sort",
        ),
        (
            "set session characteristics as transaction read only",
            "show default_transaction_read_only",
        ),
        ("begin; set work_mem = '66MB'; commit", "show work_mem"),
    ];
    for (set, show) in cases {
        let clean = two.value(show);
        one.exec(set);
        assert_eq!(two.value(show), clean, "after {set}");
        leave(one);
        one = proxy.connect("acme").login();
        assert_eq!(one.value(show), clean, "for the next client after {set}");
    }
}

#[test]
fn the_role_that_a_client_took_does_not_stay() {
    for mode in [Mode::Session, Mode::Transaction] {
        let proxy = pooled(mode, 1);
        let place = proxy.place("acme");
        let reader = place.add_reader();
        place
            .admin()
            .exec(&format!("grant {reader} to {}", place.role()));
        for take in [
            "set role",
            "set session role",
            "select set_config('role', NAME, false);",
        ] {
            let mut one = proxy.connect("acme").login();
            let sql = if take.contains("NAME") {
                take.replace("NAME", &format!("'{reader}'"))
            } else {
                format!("{take} {reader}")
            };
            one.exec(&sql);
            leave(one);
            let mut two = proxy.connect("acme").login();
            assert_eq!(
                two.value("select current_user"),
                place.role(),
                "{mode:?} after {sql}"
            );
            leave(two);
        }
    }
}

#[test]
fn locks_and_cursors_of_a_client_go_with_it() {
    for mode in [Mode::Session, Mode::Transaction] {
        let proxy = pooled(mode, 1);
        let mut one = proxy.connect("acme").login();
        one.exec("select pg_advisory_lock(42)");
        one.exec("begin; declare held cursor with hold for select 1; commit");
        leave(one);
        let mut two = proxy.connect("acme").login();
        assert_eq!(
            two.value("select count(*) from pg_cursors"),
            "0",
            "{mode:?}"
        );
        let locks = "select count(*) from pg_locks where locktype = 'advisory' and objid = 42";
        let mut admin = proxy.place("acme").admin();
        eventually("the lock is free", || admin.value(locks) == "0");
    }
}

#[test]
fn no_session_state_of_one_client_reaches_another() {
    let proxy = pooled(Mode::Transaction, 1);
    let mut one = proxy.connect("acme").login();
    one.exec("create temp table mine (i int)");
    leave(one);
    let mut two = proxy.connect("acme").login();
    assert_eq!(two.value("select to_regclass('mine') is null"), "t");
    leave(two);
    let mut three = proxy.connect("acme").login();
    three.exec("prepare p as select 'secret'");
    leave(three);
    let mut four = proxy.connect("acme").login();
    assert_eq!(four.fails("execute p").code(), "26000");
}

#[test]
fn statement_mode_refuses_transactions() {
    for sql in [
        "begin",
        "start transaction",
        "BEGIN; select 1",
        "select 1; begin; select 2",
    ] {
        for request in [
            Request::new().query(sql),
            Request::new().run(sql, &[]).sync(),
        ] {
            let proxy = pooled(Mode::Statement, 1);
            let mut client = proxy.connect("acme").login();
            assert_eq!(client.value("select 1"), "1");
            if sql.contains(';') && request.bytes()[0] == b'P' {
                continue;
            }
            client.send(&request);
            let mut refusal = String::new();
            while let Some(frame) = client.next_or_end() {
                if frame.tag == b'E' {
                    frame.fields().code().clone_into(&mut refusal);
                }
                assert_ne!(
                    (frame.tag, frame.body.as_slice()),
                    (b'Z', &b"T"[..]),
                    "{sql} opened a transaction"
                );
                if frame.tag == b'Z' {
                    break;
                }
            }
            assert!(!refusal.is_empty(), "{sql} was not refused");
            let mut other = proxy.connect("acme").login();
            other.is_in_step();
            assert_eq!(
                other.value("select now() = statement_timestamp()"),
                "t",
                "no open transaction"
            );
        }
    }
}

#[test]
fn statement_mode_serves_statements() {
    let proxy = pooled(Mode::Statement, 1);
    let mut one = proxy.connect("acme").login();
    let mut two = proxy.connect("acme").login();
    one.exec("create table t (i int); insert into t values (1)");
    assert_eq!(two.value("select count(*) from t"), "1");
    let frames = one.ask(
        &Request::new()
            .parse("s", "select $1::int")
            .run_prepared("s", &["5"])
            .sync(),
    );
    assert_eq!(error(&frames), None);
    assert_eq!(one.server_pid(), two.server_pid());
}

#[test]
fn a_connection_chooses_its_mode_in_its_options() {
    let proxy = pooled(Mode::Transaction, 2);
    let mut session = proxy
        .connect("acme")
        .options("-c pgusher.pool_mode=session")
        .login();
    session.exec("set work_mem = '77MB'; create temp table mine (i int)");
    let pid = session.server_pid();
    let mut other = proxy.connect("acme").login();
    for _ in 0..3 {
        assert_ne!(other.server_pid(), pid);
        assert_eq!(session.server_pid(), pid);
    }
    assert_eq!(session.value("show work_mem"), "77MB");
    leave(session);

    let proxy = pooled(Mode::Session, 1);
    let short = |options: &str| proxy.connect("acme").options(options).login();
    let mut one = short("-c pgusher.pool_mode=transaction");
    let mut two = short("--pgusher.pool_mode=transaction -c work_mem=5MB");
    assert_eq!(one.server_pid(), two.server_pid());
    assert_eq!(two.value("show work_mem"), "5MB");
}

#[test]
fn an_unknown_mode_is_refused() {
    let proxy = pooled(Mode::Transaction, 1);
    let error = proxy
        .connect("acme")
        .options("-c pgusher.pool_mode=eternal")
        .refused();
    assert_eq!(error.code(), "22023", "{error:?}");
    assert!(error.text().contains("pgusher.pool_mode"), "{error:?}");
}

#[test]
fn a_transaction_left_open_is_rolled_back_in_every_mode() {
    for mode in [Mode::Session, Mode::Transaction] {
        let proxy = pooled(mode, 1);
        let mut client = proxy.connect("acme").login();
        client.exec("create table t (i int)");
        client.exec("begin; insert into t values (1)");
        leave(client);
        let mut next = proxy.connect("acme").login();
        assert_eq!(next.value("select count(*) from t"), "0");
    }
}

#[test]
fn servers_are_opened_when_needed_and_closed_when_idle() {
    let proxy = one_tenant(|tenant| tenant.pool_size(3).set("server_idle_timeout", "2s"));
    let place = proxy.place("acme");
    let mut admin = place.admin();
    let mut client = proxy.connect("acme").login();
    client.exec("select 1");
    assert_eq!(place.server_pids(&mut admin).len(), 1);
    eventually("the idle server is closed", || {
        place.server_pids(&mut admin).is_empty()
    });
    client.exec("select 1");
}

#[test]
fn the_smallest_pool_is_kept_open() {
    let proxy = one_tenant(|tenant| {
        tenant
            .pool_size(3)
            .set("min_pool_size", 2)
            .set("server_idle_timeout", "200ms")
    });
    let place = proxy.place("acme");
    let mut admin = place.admin();
    let mut client = proxy.connect("acme").login();
    client.exec("select 1");
    eventually("two servers are open", || {
        place.server_pids(&mut admin).len() == 2
    });
}

#[test]
fn a_server_is_replaced_at_the_end_of_its_life() {
    let proxy = one_tenant(|tenant| tenant.pool_size(1).set("server_lifetime", "1s"));
    let mut client = proxy.connect("acme").login();
    let first = client.server_pid();
    eventually("another server", || client.server_pid() != first);
    assert_eq!(code(&client.query("select 1")), "");
}
