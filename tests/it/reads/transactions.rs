//! A transaction is on one server from its begin to its end.

use super::{Stage, plain_tags, reads_in_recovery, shared};
use crate::harness::{
    Request, eventually,
    frames::{self, firsts},
};

#[test]
fn a_transaction_that_may_write_stays_on_the_primary() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    for begin in [
        "begin",
        "start transaction",
        "begin isolation level serializable",
        "begin read write",
    ] {
        stage.settled(&mut client);
        stage.on_primary(&mut client, begin);
        stage.on_primary(&mut client, "select count(*) from items");
        assert_eq!(client.value("select pg_is_in_recovery()"), "f");
        stage.on_primary(&mut client, "update items set name = name where id = 1");
        stage.on_primary(&mut client, "select name from items where id = 1");
        stage.on_primary(&mut client, "commit");
    }
    assert_eq!(client.value("select 'after'"), "after");
}

#[test]
fn a_read_only_transaction_runs_on_a_replica() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    for begin in [
        "begin read only",
        "BEGIN TRANSACTION READ ONLY",
        "start transaction isolation level repeatable read, read only",
        "begin isolation level read committed read only",
    ] {
        eventually(begin, || reads_in_recovery(&mut client, begin));
    }
    // Whatever PostgreSQL lets such a transaction do, it does there.
    eventually("a whole transaction on a replica", || {
        client.exec("begin read only");
        let is_there = client.value("select pg_is_in_recovery()") == "t";
        client.exec("savepoint s");
        assert_eq!(client.fails("select 1 / 0").code(), "22012");
        assert_eq!(client.status, 'E');
        client.exec("rollback to s");
        client.exec("declare c cursor for select id from items order by id");
        assert_eq!(client.values("fetch 2 from c"), ["1", "2"]);
        assert_eq!(client.values("fetch all from c"), ["3"]);
        client.exec("set local work_mem = '7MB'");
        assert_eq!(client.value("show work_mem"), "7MB");
        let still = client.value("select pg_is_in_recovery()") == "t";
        assert_eq!(still, is_there, "it moved");
        client.exec("commit");
        is_there
    });
    assert_eq!(client.value("show work_mem"), "4MB");
}

#[test]
fn a_write_in_a_read_only_transaction_is_refused_as_ever() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    eventually("on a replica", || {
        reads_in_recovery(&mut client, "begin read only")
    });
    for _ in 0..5 {
        client.exec("begin read only");
        assert_eq!(
            client.fails("insert into items values (4, 'four')").code(),
            "25006"
        );
        assert_eq!(client.status, 'E');
        assert_eq!(client.fails("select 1").code(), "25P02");
        client.exec("rollback");
        assert_eq!(client.status, 'I');
    }
    client.exec("insert into items values (4, 'four')");
    assert_eq!(client.value("select count(*) from items"), "4");
}

#[test]
fn sessions_that_only_read_by_default_begin_on_replicas() {
    let stage = Stage::over(shared(), |tenant| tenant);
    stage.furnished();
    let mut client = stage
        .connect()
        .options("-c default_transaction_read_only=on")
        .login();
    eventually("begin", || reads_in_recovery(&mut client, "begin"));
    client.exec("begin read write; update items set name = 'ONE' where id = 1; commit");
    assert_eq!(client.value("select name from items where id = 1"), "ONE");
    assert_eq!(client.fails("delete from items").code(), "25006");
    client.exec("set default_transaction_read_only = off");
    assert!(!reads_in_recovery(&mut client, "begin"));
    client.exec("delete from items where id = 1");
    assert_eq!(client.value("select count(*) from items"), "2");
    client.exec("set session characteristics as transaction read only");
    eventually("begin", || reads_in_recovery(&mut client, "begin"));
    client.exec("reset default_transaction_read_only");
    assert_eq!(client.value("show default_transaction_read_only"), "on");
}

#[test]
fn what_no_standby_can_do_is_done_all_the_same() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    stage.settled(&mut client);
    for _ in 0..5 {
        client.exec("begin isolation level serializable read only");
        assert_eq!(client.value("select count(*) from items"), "3");
        client.exec("commit");
        client.exec("begin; set transaction read only");
        assert_eq!(client.value("select count(*) from items"), "3");
        client.exec("commit");
        client.exec("begin");
        client.exec("set transaction isolation level repeatable read, read only");
        assert_eq!(client.value("select count(*) from items"), "3");
        client.exec("commit");
    }
    // Nobody who reads a setting sees that a standby has none of this.
    client.exec("set default_transaction_isolation = 'serializable'");
    for _ in 0..5 {
        assert_eq!(client.value("select count(*) from items"), "3");
        client.exec("begin read only");
        assert_eq!(client.value("select count(*) from items"), "3");
        client.exec("commit");
    }
}

#[test]
fn a_transaction_that_says_after_its_begin_that_it_reads_runs_on_a_replica() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    for (begin, set) in [
        ("begin", "set transaction read only"),
        (
            "START TRANSACTION -- a comment",
            " Set Transaction\tRead Only;",
        ),
        (
            "begin isolation level repeatable read",
            "set transaction_read_only = on",
        ),
        ("begin", "set local transaction_read_only to 'yes'"),
        (
            "begin",
            "set transaction isolation level repeatable read, read only",
        ),
    ] {
        eventually(&format!("{begin}; {set}"), || {
            client.exec(begin);
            assert_eq!(frames::tags(&client.query(set)), "CZ");
            assert_eq!(client.status, 'T');
            let is_there = client.value("select pg_is_in_recovery()") == "t";
            assert_eq!(client.value("show transaction_read_only"), "on");
            let level = client.value("show transaction_isolation");
            let is_repeatable = begin.contains("repeatable") || set.contains("repeatable");
            assert_eq!(level == "repeatable read", is_repeatable, "{level}");
            assert_eq!(client.value("select count(*) from items"), "3");
            let refused = client.fails("insert into items values (4, 'four')");
            assert_eq!(refused.code(), "25006");
            client.exec("rollback");
            is_there
        });
    }
    client.exec("insert into items values (4, 'four')");
    assert_eq!(client.value("select count(*) from items"), "4");
}

#[test]
fn in_the_extended_protocol_it_stays_and_nothing_is_lost() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    stage.settled(&mut client);
    let insert = |id: &str| format!("insert into items values ({id}, 'new')");
    for (id, begin) in [
        ("10", Request::new().query("begin")),
        ("11", Request::new().run("begin", &[]).sync()),
    ] {
        let isolation = "set transaction isolation level read committed";
        client.ask(&begin);
        client.ask(
            &Request::new()
                .run(isolation, &[])
                .run(&insert(id), &[])
                .sync(),
        );
        client.exec("set transaction read only");
        assert_eq!(client.value("select pg_is_in_recovery()"), "f");
        client.exec("commit");
    }
    client.exec("begin");
    let set = Request::new().run("set transaction read only", &[]).sync();
    assert_eq!(plain_tags(&client.ask(&set)), "12CZ");
    client.exec("commit");
    // To be prepared is not to be run.
    client.exec("begin");
    client.ask(&Request::new().parse("", "set transaction read only").sync());
    client.exec(&insert("12"));
    client.exec("commit");
    assert_eq!(client.value("select count(*) from items"), "6");
}

#[test]
fn a_transaction_that_has_done_anything_stays_where_it_is() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    stage.settled(&mut client);
    for first in ["select 1", "set local work_mem = '7MB'", "savepoint s"] {
        client.exec("begin");
        client.exec(first);
        client.exec("set transaction read only");
        assert_eq!(client.value("select pg_is_in_recovery()"), "f", "{first}");
        client.exec("commit");
    }
    // Sent ahead, it is not waited for.
    let ahead = Request::new()
        .query("begin")
        .query("set transaction read only")
        .query("select count(*) from items")
        .query("commit");
    client.send(&ahead);
    let frames: Vec<_> = (0..4).flat_map(|_| client.until_ready()).collect();
    assert_eq!(firsts(&frames), ["3"], "{frames:?}");
    // What fails is an error like others.
    client.exec("begin");
    assert_eq!(client.fails("set transaction sideways").code(), "42601");
    assert_eq!(client.fails("set transaction read only").code(), "25P02");
    client.exec("rollback");
    client.exec("set transaction read only");
    client.exec("delete from items where id = 1");
    assert_eq!(client.value("select count(*) from items"), "2");
}

#[test]
fn a_transaction_that_is_to_write_after_all_goes_to_the_primary() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    eventually("on a replica", || {
        reads_in_recovery(&mut client, "begin read only")
    });
    for id in 10..15 {
        client.exec("begin isolation level repeatable read read only");
        client.exec("set transaction read write");
        assert_eq!(
            client.value("show transaction_isolation"),
            "repeatable read"
        );
        client.exec(&format!("insert into items values ({id}, 'new')"));
        client.exec("commit");
    }
    assert_eq!(client.value("select count(*) from items"), "8");
    // What would fail there is not begun there.
    client.exec("begin read write");
    client.exec("set transaction read only");
    assert_eq!(client.value("select pg_is_in_recovery()"), "f");
    client.exec("commit");
    // There and back, and no further.
    client.exec("begin");
    for mode in ["read only", "read write", "read only", "read write"] {
        client.exec(&format!("set transaction {mode}"));
    }
    assert_eq!(client.value("select pg_is_in_recovery()"), "f");
    client.exec("delete from items where id > 3");
    client.exec("commit");
    assert_eq!(client.value("select count(*) from items"), "3");
    // What no standby has.
    client.exec("begin read only");
    client.exec("set transaction isolation level serializable");
    assert_eq!(client.value("select count(*) from items"), "3");
    client.exec("commit");
}

#[test]
fn chained_transactions_are_what_the_first_was() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    client.exec("begin");
    for id in 10..15 {
        client.exec(&format!("insert into items values ({id}, 'new')"));
        client.exec("commit and chain");
        assert_eq!(client.status, 'T');
        assert_eq!(client.value("select pg_is_in_recovery()"), "f");
    }
    client.exec("rollback and chain");
    assert_eq!(client.value("select count(*) from items"), "8");
    client.exec("commit");
    eventually("on a replica", || {
        client.exec("begin read only");
        client.exec("commit and chain");
        let told = client.value("select pg_is_in_recovery()");
        assert_eq!(client.fails("delete from items").code(), "25006");
        client.exec("rollback");
        told == "t"
    });
}

#[test]
fn messages_of_several_statements_stay_together() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    stage.settled(&mut client);
    for _ in 0..5 {
        let got = client.values("begin; select count(*) from items; commit; select 2");
        assert_eq!(got, ["3", "2"]);
        client.exec("begin read only; select 1");
        assert_eq!(client.status, 'T');
        assert_eq!(client.value("select count(*) from items"), "3");
        assert_eq!(client.fails("delete from items").code(), "25006");
        client.exec("rollback");
        let frames = client.query("select 1; insert into items values (1, 'again'); select 2");
        assert_eq!(frames::code(&frames), "23505");
        assert_eq!(firsts(&frames), ["1"]);
    }
}
