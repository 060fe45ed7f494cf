//! What cannot be carried keeps its server: the client has it until it gives it up, and nobody
//! else ever has it.

use crate::harness::{
    Client, Proxy, Request, Trial,
    proxy::{is_left_out, one_tenant},
};

#[test]
fn temporary_tables_live_as_long_as_their_session() {
    let setup = [
        "create function makes() returns void language plpgsql as $$ begin create temp table mine as select 'by function' as i; end $$",
        "create table noted (i int)",
    ];
    Trial::pinned().setup(&setup).scripts(
            r"
            create temp table mine (i int) | insert into mine values (1) | select * from mine
                | drop table mine | select to_regclass('mine')
            CREATE /* a */ TEMPORARY -- b⏎ TABLE mine AS SELECT 1 AS i | table mine
                | alter table mine rename to other | table other
            select 1 as i into temp mine | insert into mine values (2) | table mine | discard temp
                | table mine
            select 1 as i into pg_temp.mine | table mine | discard all | table mine
            create table pg_temp.mine (i int) | insert into pg_temp.mine values (1) | table mine
                | create index on mine (i) | table mine
            set search_path = pg_temp, public | create table mine (i int) | insert into mine values (1)
                | table mine | reset search_path | table mine
            select makes() | table mine | select makes() | drop table mine | select makes() | table mine
            do $$ begin execute 'create te' || 'mp table mine (i int)'; end $$
                | insert into mine values (1) | table mine
            create temp table mine (i int) on commit delete rows | insert into mine values (1)
                | select count(*) from mine | begin | insert into mine values (1)
                | select count(*) from mine | commit
            create temp view seen as select 1 as i | table seen | drop view seen | table seen
            create temp sequence counted | select nextval('counted') | select nextval('counted')
                | select currval('counted')
            create function pg_temp.f() returns int language sql as 'select 7' | select pg_temp.f()
                | drop function pg_temp.f() | select 1
            create type pg_temp.pair as (a int, b int) | select (1, 2)::pg_temp.pair
                | drop type pg_temp.pair | select (1, 2)::pg_temp.pair
            create temp table noted (i text) | insert into noted values ('hidden') | table noted
                | drop table noted | table noted
            begin | create temp table mine (i int) | rollback | table mine | begin | savepoint a
                | create temp table mine (i int) | rollback to a | commit | table mine
            begin | create temp table mine (i int) | commit | table mine | select 1/0 | table mine | begin
                | drop table mine | rollback | table mine
            create temp table mine (i int) | begin | insert into mine values (1) | prepare transaction 'p'
                | table mine
            ",
        );
}

#[test]
fn cursors_with_hold_live_until_they_are_closed() {
    Trial::pinned().scripts(
            r#"
            declare c cursor with hold for select generate_series(1, 3) | fetch 1 from c
                | fetch all from c | close c | fetch 1 from c
            begin | declare c scroll cursor with hold for select generate_series(1, 3) | fetch 1 from c
                | commit | fetch 1 from c | fetch prior from c | close all | fetch 1 from c
            begin | declare c cursor with hold for select 1 | rollback | fetch 1 from c | begin
                | declare d cursor for select 1 | commit | fetch 1 from d
            declare c cursor with hold for select 1 | discard all | fetch 1 from c
                | declare c binary insensitive no scroll cursor with hold for select 258 | fetch c
            do $$ begin execute 'declare c cursor with hold for select 7'; end $$ | fetch 1 from c
                | move 1 in c | close c
            declare c cursor with hold for select 1/(2 - g) from generate_series(1, 3) g | fetch 1 from c
                | declare "C d" cursor with hold for select 1 | fetch 1 from "C d"
            "#,
        );
}

#[test]
fn advisory_locks_last_until_they_are_unlocked() {
    let setup = [
        "create function locks() returns void language plpgsql as $$ begin perform pg_advisory_lock(31001); end $$",
        "create table keys (k bigint); insert into keys values (31003), (31004)",
        "create view mine as select classid, objid, mode from pg_locks \
         where locktype = 'advisory' and pid = pg_backend_pid() order by 1, 2, 3",
    ];
    Trial::pinned().setup(&setup).scripts(
        r#"
            select pg_advisory_lock(31001) | table mine | select pg_advisory_unlock(31001) | table mine
                | select pg_advisory_unlock(31001)
            select pg_catalog.pg_advisory_lock(31001, 2) | table mine | select 1/0 | table mine
                | select pg_advisory_unlock_all() | table mine
            select "pg_catalog"."pg_try_advisory_lock"(31001) | select pg_try_advisory_lock(31001) | table mine
                | select pg_advisory_unlock(31001) | table mine | select pg_advisory_unlock(31001) | table mine
            select pg_advisory_lock_shared(31001) | select pg_try_advisory_lock_shared(31002, 1) | table mine
                | select pg_advisory_unlock_shared(31001) | table mine
                | select pg_advisory_unlock_shared(31002, 1) | table mine
            begin | select pg_advisory_lock(31001) | rollback | table mine
                | begin | select pg_advisory_unlock(31001) | rollback | table mine
            select pg_advisory_xact_lock(31001) | table mine
                | begin | select pg_try_advisory_xact_lock_shared(31001) | table mine | commit | table mine
            select locks() | table mine | select locks() | table mine | discard all | table mine
            do $$ begin perform pg_advisory_lock(31001); end $$ | table mine
                | do $$ begin execute 'select pg_adv' || 'isory_unlock(31001)'; end $$ | table mine
            select pg_advisory_lock(k) from keys | table mine
                | select k from keys where pg_try_advisory_lock(k + 10) | table mine
                | select pg_advisory_unlock(objid::bigint) from mine | table mine
            "#,
    );
    Trial::pinned().setup(&setup).run(|client| {
        let call = |name: &str, sql: &str| Request::new().parse(name, sql).sync();
        let bound = |name: &str| Request::new().run_prepared(name, &["31002"]).sync();
        let mine = Request::new().query("table mine");
        let mut frames = client.ask(&call("lock", "select pg_try_advisory_lock($1)"));
        frames.extend(client.ask(&call("unlock", "select pg_advisory_unlock($1)")));
        for name in ["lock", "unlock", "unlock"] {
            frames.extend(client.ask(&bound(name)));
            frames.extend(client.ask(&mine));
        }
        let by_oid = |oid| Request::new().function_call(oid, &["31002"]);
        for oid in [2880, 2885] {
            frames.extend(client.ask(&by_oid(oid)));
            frames.extend(client.ask(&mine));
        }
        frames
    });
}

#[test]
fn libraries_and_seeds_stay_with_who_loaded_and_sowed_them() {
    Trial::pinned()
        .admin_setup(&["alter role {role} superuser"])
        .scripts(
            r"
            load 'auto_explain' | show auto_explain.log_format | set auto_explain.log_format = 'xml'
                | show auto_explain.log_format | set auto_explain.log_format = 'rtf'
            set session_replication_role = replica | show session_replication_role
                | set log_statement = 'none'; show log_statement
            set session authorization {role} | select session_user | set session authorization admin
                | select session_user, current_user | select current_user | reset session authorization
                | select session_user
            ",
        );
    Trial::pinned().scripts(
            r"
            load 'auto_explain' | load '$libdir/plugins/nothing' | select 1
            select setseed(0.5) | select random() | select random() from generate_series(1, 3)
            set seed = 0.25 | select random() | select random() | begin | select setseed(0.5) | rollback
                | select random()
            do $$ begin perform setseed(-0.5); end $$ | select random() | discard all
                | select setseed(0.5) | select random()
            ",
        );
}

#[test]
fn a_session_knows_its_own_sequences_only() {
    let setup =
        ["create sequence one; create sequence two start 100; create table numbered (i serial)"];
    Trial::pinned().setup(&setup).scripts(
        r"
            select lastval() | select currval('one') | select nextval('one') | select currval('one')
                | select lastval() | select currval('two')
            select nextval('two'), nextval('one') | select lastval() | discard sequences
                | select lastval() | select currval('one')
            begin | select nextval('two') | select 1/0 | rollback | select currval('two') | select lastval()
            begin | select nextval('two') | rollback | select currval('two')
                | select setval('one', 7) | select currval('one') | discard all | select currval('one')
            select setval('one', 70, false) | select currval('one') | alter sequence one cache 5
                | select nextval('one') | select nextval('one') | alter sequence one cache 1
            do $$ begin perform nextval('one'); end $$ | select currval('one') | select lastval()
            ",
    );
}

#[test]
fn nobody_is_told_the_last_number_of_another() {
    // Who asks for numbers keeps a server from its next number on; the other needs one, too.
    for servers in [2, 3] {
        let insert = "insert into numbered default values returning i";
        for asks in ["select lastval()", "select currval('numbered_i_seq')"] {
            let proxy = one_tenant(|tenant| tenant.pool_size(servers));
            let mut owner = proxy.connect("acme").login();
            owner.exec(
                "create table numbered (i int generated by default as identity); create sequence s",
            );
            let mut one = proxy.connect("acme").login();
            let mut two = proxy.connect("acme").login();
            for _ in 0..3 {
                let mine = one.value(insert);
                let code_or_value = |client: &mut Client| {
                    let frames = client.query(asks);
                    let error = crate::harness::frames::error(&frames);
                    error.map_or_else(
                        || crate::harness::frames::firsts(&frames).concat(),
                        |error| error.code().to_owned(),
                    )
                };
                // Not known to who never asked for a number; to who did, the own or none.
                assert_eq!(code_or_value(&mut two), "55000", "{asks}");
                let own = code_or_value(&mut one);
                assert!(
                    own == mine || own == "55000",
                    "{asks}: {own} instead of {mine}"
                );
            }
        }
    }
}

/// What makes a pin, its reason, and what ends it.
const PINS: [(&str, &str, &str); 13] = [
    ("create temp table mine (i int)", "temp", "drop table mine"),
    ("create temp table mine (i int)", "temp", "discard temp"),
    ("create temp table mine (i int)", "temp", "discard all"),
    (
        "declare c cursor with hold for select 1",
        "cursor",
        "close c",
    ),
    (
        "declare c cursor with hold for select 1",
        "cursor",
        "begin; close all; commit",
    ),
    (
        "select pg_advisory_lock(hashtext(current_user))",
        "advisory",
        "select pg_advisory_unlock(hashtext(current_user))",
    ),
    (
        "select pg_try_advisory_lock_shared(hashtext(current_user), 1)",
        "advisory",
        "select pg_advisory_unlock_all()",
    ),
    (
        "do $$ begin perform pg_advisory_lock(hashtext(current_user)); end $$",
        "advisory",
        "discard all",
    ),
    ("prepare p as select 1", "prepare", "deallocate p"),
    ("prepare p as select 1", "prepare", "deallocate all"),
    (
        "begin; prepare p as select 1; commit",
        "prepare",
        "discard all",
    ),
    (
        "create function pg_temp.f() returns int language sql as 'select 1'",
        "temp",
        "drop function pg_temp.f()",
    ),
    (
        "create temp table mine (i int); create temp table more (i int)",
        "temp",
        "drop table mine, more",
    ),
];

/// The reason why the client keeps its server, or "".
fn pin(client: &mut Client) -> String {
    client.value("show pgusher.pin")
}

fn one_server() -> (Proxy, Client, Client) {
    let proxy = one_tenant(|tenant| tenant.pool_size(1));
    let client = proxy.connect("acme").login();
    let other = proxy.connect("acme").login();
    (proxy, client, other)
}

#[test]
fn a_pin_has_a_reason_and_an_end() {
    for (make, reason, end) in PINS {
        let (proxy, mut client, mut other) = one_server();
        client.exec(make);
        if !is_left_out() {
            assert_eq!(pin(&mut client), reason, "after {make}");
        }
        client.exec("select 1");
        other.send(&Request::new().query("select 'served'"));
        client.exec("select 2");
        client.exec(end);
        assert_eq!(
            crate::harness::frames::firsts(&other.until_ready()),
            ["served"],
            "after {end}"
        );
        if !is_left_out() {
            assert_eq!(pin(&mut client), "", "after {end}");
        }
        drop(proxy);
    }
}

#[test]
fn what_ends_with_its_transaction_does_not_pin() {
    for harmless in [
        "create temp table mine (i int) on commit drop",
        "begin; create temp table mine (i int) on commit drop; insert into mine values (1); commit",
        "begin; create temp table mine (i int); rollback",
        "create temp table mine (i int); drop table mine",
        "begin; declare c cursor for select 1; fetch 1 from c; commit",
        "begin; declare c cursor with hold for select 1; rollback",
        "select pg_advisory_xact_lock(33001)",
        "select pg_try_advisory_xact_lock_shared(33001, 2)",
        "select pg_advisory_lock(33001), pg_advisory_unlock(33001)",
        "prepare p as select 1; execute p; deallocate p",
        "set work_mem = '7MB'; set app.x = 'mine'",
        "select 'create temp table', 'pg_advisory_lock(1)', 'with hold', 'prepare'",
        "create table if not exists lasting (temp int, \"with hold\" int)",
        "select 1 /* create temp table mine */ -- prepare p",
    ] {
        let (proxy, mut client, mut other) = one_server();
        client.exec(harmless);
        other.is_in_step();
        if !is_left_out() {
            assert_eq!(pin(&mut client), "", "after {harmless}");
        }
        other.is_in_step();
        drop(proxy);
    }
}

#[test]
fn a_pinned_client_keeps_its_server_while_others_change_theirs() {
    for (make, _, end) in PINS {
        let proxy = one_tenant(|tenant| tenant.pool_size(3));
        let mut client = proxy.connect("acme").login();
        let mut other = proxy.connect("acme").login();
        client.exec(make);
        let pid = client.server_pid();
        for _ in 0..3 {
            assert_ne!(other.server_pid(), pid, "after {make}");
            assert_eq!(client.server_pid(), pid, "after {make}");
        }
        assert_eq!(client.fails("select 1/0").code(), "22012");
        assert_eq!(client.server_pid(), pid, "an error ends no pin");
        client.exec(end);
        assert_eq!(client.value("select 'free'"), "free");
    }
}

#[test]
fn pinned_clients_do_not_see_each_other() {
    let proxy = one_tenant(|tenant| tenant.pool_size(4));
    let mut clients: Vec<_> = (0..3).map(|_| proxy.connect("acme").login()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.exec(&format!(
            "create temp table mine as select {number} as i; prepare p as select 'p{number}'"
        ));
        client.exec(&format!(
            "declare c cursor with hold for select generate_series({number}, 9)"
        ));
        assert_eq!(
            client.value(&format!("select pg_try_advisory_lock({})", 34000 + number)),
            "t"
        );
    }
    for _ in 0..2 {
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.value("table mine"), number.to_string());
            assert_eq!(client.value("execute p"), format!("p{number}"));
            let other = 34000 + (number + 1) % 3;
            assert_eq!(
                client.value(&format!("select pg_try_advisory_lock({other})")),
                "f"
            );
        }
    }
    assert_eq!(clients[1].value("fetch 1 from c"), "1");
    assert_eq!(clients[2].value("fetch 1 from c"), "2");
}
