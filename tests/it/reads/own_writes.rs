//! Everybody of a tenant reads what anybody of it has written before, wherever the replicas are.

use super::{Stage, plain_tags};
use crate::harness::{
    Client, Fleet, Key, Proxy, Request, Tenant, eventually,
    fleet::{PRIMARY, mark},
    frames::{self, firsts},
    place::ROLE_PASSWORD,
};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The fleet whose replicas are paused, one test after the other.
pub(super) struct Turn(MutexGuard<'static, Fleet>);

impl Turn {
    pub(super) fn take() -> Self {
        static FLEET: OnceLock<Mutex<Fleet>> = OnceLock::new();
        let fleet = FLEET.get_or_init(|| Mutex::new(Fleet::start(2)));
        Self(fleet.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn fleet(&self) -> &Fleet {
        &self.0
    }

    pub(super) fn pause(&self) {
        self.0.replicas().for_each(|at| self.0.pause(at));
    }

    pub(super) fn resume(&self) {
        self.0.replicas().for_each(|at| self.0.resume(at));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        for at in self.0.replicas() {
            if let Some(mut admin) = self.0.endpoint(at).admin_if_up() {
                admin.query("select pg_wal_replay_resume()");
            }
        }
    }
}

const TABLE: &str = "
    create table counter (id int primary key, n int); insert into counter values (1, 0);
    create function bump(v int) returns int language plpgsql as
        $$ begin update counter set n = v where id = 1; return v; end $$;
    create procedure bump_all(v int) language plpgsql as
        $$ begin update counter set n = v where id = 1; commit; end $$;
    create table inbox (v int);
    create function take() returns trigger language plpgsql as
        $$ begin update counter set n = new.v where id = 1; return new; end $$;
    create trigger take before insert on inbox for each row execute function take()";

const READ: &str = "select n from counter where id = 1";

/// The ways in which a session commits that the counter is `v`.
const WAYS: [fn(&mut Client, &str); 19] = [
    |client, v| drop(client.exec(&format!("update counter set n = {v}"))),
    |client, v| {
        let update = Request::new().run("update counter set n = $1", &[v]).sync();
        assert_eq!(plain_tags(&client.ask(&update)), "12CZ");
    },
    |client, v| {
        let frames = client.exec(&format!("update counter set n = {v} returning n"));
        assert_eq!(firsts(&frames), [v]);
    },
    |client, v| {
        client.exec("begin");
        client.exec(&format!("update counter set n = {v}"));
        client.exec("commit");
    },
    |client, v| {
        let whole = Request::new()
            .run("begin", &[])
            .run("update counter set n = $1", &[v])
            .run("commit", &[])
            .sync();
        assert_eq!(plain_tags(&client.ask(&whole)), "12C12C12CZ");
    },
    |client, v| drop(client.exec(&format!("begin; update counter set n = {v}; commit"))),
    |client, v| drop(client.exec(&format!("begin; update counter set n = {v}; end; select 1"))),
    |client, v| drop(client.exec(&format!("select 1; update counter set n = {v}; select 2"))),
    |client, v| {
        client.exec(&format!("begin; update counter set n = {v}"));
        client.exec("commit and chain");
        assert_eq!(client.value(READ), v);
        client.exec("rollback");
    },
    |client, v| {
        client.send(&Request::new().query("copy inbox from stdin"));
        client.until('G');
        let data = Request::new()
            .copy_data(format!("{v}\n").as_bytes())
            .copy_done();
        assert_eq!(frames::error(&client.ask(&data)), None);
    },
    |client, v| assert_eq!(client.value(&format!("select bump({v})")), v),
    |client, v| drop(client.exec(&format!("do $$ begin perform bump({v}); end $$"))),
    |client, v| drop(client.exec(&format!("call bump_all({v})"))),
    |client, v| drop(client.exec(&format!("insert into inbox values ({v})"))),
    |client, v| {
        let sql =
            format!("with done as (update counter set n = {v} returning n) select n from done");
        assert_eq!(client.value(&sql), v);
    },
    |client, v| {
        let sql = format!("explain analyze update counter set n = {v}");
        client.exec(&sql);
    },
    |client, v| {
        client.exec(&format!(
            "begin; update counter set n = {v}; prepare transaction 'own{v}'"
        ));
        client.exec(&format!("commit prepared 'own{v}'"));
    },
    |client, v| {
        client.exec("set synchronous_commit = off");
        client.exec(&format!("update counter set n = {v}"));
        client.exec("reset synchronous_commit");
    },
    |client, v| {
        client.exec(&format!(
            "truncate counter; insert into counter values (1, {v})"
        ));
    },
];

/// A proxy for a tenant in a place of its own with a key that only reads, and its writer.
fn two_keys(fleet: &Fleet, consistency: &str) -> (Proxy, Client) {
    let place = fleet.place();
    let (reader, role) = (place.add_reader(), place.role());
    place.admin().exec(&format!(
        "grant usage on schema {role} to {reader}; alter role {reader} set search_path = {role}; \
         alter role {reader} set log_statement = 'all'"
    ));
    fleet.catch_up();
    let tenant = Tenant::new("acme", &place)
        .set("consistency", consistency)
        .set("read_only_role", reader.as_str())
        .set("read_only_password", ROLE_PASSWORD)
        .key(Key::new("writer"))
        .key(Key::new("reader").set("scope", "read_only"));
    let other = fleet.tenant("globex").set("consistency", "eventual");
    let proxy = fleet.proxy([tenant, other]).start();
    let mut writer = proxy.connect("acme").password("writer").login();
    writer.exec(TABLE);
    (proxy, writer)
}

/// Everybody reads this, simple and extended, in a transaction or not.
fn everybody_reads(readers: &mut [Client], v: &str, told: &str) {
    for (number, client) in readers.iter_mut().enumerate() {
        assert_eq!(client.value(READ), v, "{told}: reader {number}");
        let run = Request::new().run_prepared("r", &[]).sync();
        assert_eq!(
            firsts(&client.ask(&run)),
            [v],
            "{told}: reader {number}, prepared"
        );
    }
    let client = &mut readers[0];
    client.exec("begin read only");
    assert_eq!(client.value(READ), v, "{told}: read only");
    client.exec("commit");
    assert_eq!(
        client.values(&format!("select 0; {READ}")),
        ["0", v],
        "{told}: several"
    );
}

#[test]
fn a_write_is_read_back_by_everybody_while_replicas_stand_still() {
    let turn = Turn::take();
    let (proxy, mut writer) = two_keys(turn.fleet(), "tenant");
    let stage = Stage {
        fleet: turn.fleet(),
        proxy,
    };
    let login = |key: &str| {
        let mut client = stage.connect().password(key).login();
        client.ask(&Request::new().parse("r", READ).sync());
        client
    };
    let mut readers = ["writer", "writer", "reader"].map(login);
    stage.settled(&mut readers[1]);
    let mut other = stage.proxy.connect("globex").login();
    stage.settled(&mut other);
    let mut v = 0;
    for is_paused in [true, false] {
        if is_paused {
            turn.pause();
        }
        for round in 0..3 {
            for (number, way) in WAYS.iter().enumerate() {
                v += 1;
                let text = v.to_string();
                way(&mut writer, &text);
                let told = format!("way {number}, round {round}, paused: {is_paused}");
                assert_eq!(writer.value(READ), text, "{told}: the writer");
                everybody_reads(&mut readers, &text, &told);
            }
        }
        if is_paused {
            // Who doesn't mind still reads on replicas.
            stage.settled(&mut other);
            let kept = stage.figure("pgusher_routed_total", "reason=\"consistency\"");
            assert!(kept > 0.0, "{kept}");
            turn.resume();
        }
    }
    let text = v.to_string();
    for reader in &mut readers {
        assert_eq!(stage.on_replica(reader, READ), std::slice::from_ref(&text));
    }
    assert_eq!(writer.value("select count(*) from inbox"), "12");
}

#[test]
fn a_commit_that_is_not_yet_on_disk_is_read_back() {
    let turn = Turn::take();
    // What is committed is sent to replicas only then.
    let mut admin = turn.fleet().admin(PRIMARY);
    admin.exec("alter system set wal_writer_delay = '500ms'");
    admin.exec("select pg_reload_conf()");
    let stage = Stage::over(turn.fleet(), |tenant| tenant);
    let (mut writer, mut reader) = (stage.client(), stage.client());
    writer.exec("create table log (n int)");
    let mut lazy = stage.connect().options("-c synchronous_commit=off").login();
    for n in 1..=300 {
        if n % 50 == 1 {
            stage.settled(&mut reader);
        }
        lazy.exec(&format!("insert into log values ({n})"));
        let sql = "select count(*) from log";
        for client in [&mut reader, &mut writer, &mut lazy] {
            assert_eq!(client.value(sql), n.to_string());
        }
    }
    admin.exec("alter system reset wal_writer_delay");
    admin.exec("select pg_reload_conf()");
}

#[test]
fn with_consistency_of_sessions_each_reads_its_own_writes() {
    let turn = Turn::take();
    let (proxy, mut writer) = two_keys(turn.fleet(), "session");
    let stage = Stage {
        fleet: turn.fleet(),
        proxy,
    };
    let mut other = stage.connect().password("writer").login();
    stage.settled(&mut writer);
    stage.on_replica(&mut other, READ);
    turn.pause();
    for v in 1..=100 {
        writer.exec(&format!("update counter set n = {v}"));
        assert_eq!(writer.value(READ), v.to_string());
        let run = Request::new().run(READ, &[]).sync();
        assert_eq!(firsts(&writer.ask(&run)), [v.to_string()]);
    }
    // Others read on replicas, which have nothing of it.
    assert_eq!(stage.on_replica(&mut other, READ), ["0"]);
    assert_eq!(writer.value(READ), "100");
    turn.resume();
    assert_eq!(stage.on_replica(&mut writer, READ), ["100"]);
    eventually("others see it, too", || other.value(READ) == "100");
}

#[test]
fn with_eventual_consistency_reads_stay_on_replicas() {
    let turn = Turn::take();
    let (proxy, mut writer) = two_keys(turn.fleet(), "eventual");
    let stage = Stage {
        fleet: turn.fleet(),
        proxy,
    };
    turn.fleet().catch_up();
    stage.on_replica(&mut writer, READ);
    turn.pause();
    writer.exec("update counter set n = 1");
    assert_eq!(stage.on_replica(&mut writer, READ), ["0"]);
    // Within a transaction that may write it is as ever.
    writer.exec("begin");
    assert_eq!(writer.value(READ), "1");
    writer.exec("commit");
    turn.resume();
    eventually("it arrives", || writer.value(READ) == "1");
}

#[test]
fn what_was_written_before_a_session_came_is_read_by_it() {
    let turn = Turn::take();
    let (proxy, mut writer) = two_keys(turn.fleet(), "tenant");
    let stage = Stage {
        fleet: turn.fleet(),
        proxy,
    };
    stage.settled(&mut writer);
    turn.pause();
    for v in 1..=30 {
        writer.exec(&format!("update counter set n = {v}"));
        let mut newcomer = stage.connect().password("writer").login();
        assert_eq!(newcomer.value(READ), v.to_string());
        let mut newcomer = stage.connect().password("reader").login();
        assert_eq!(newcomer.value(READ), v.to_string());
    }
    // The writer is gone, and a table is new.
    writer.exec("create table fresh as select 5 as n");
    drop(writer);
    let mut newcomer = stage.connect().password("writer").login();
    assert_eq!(newcomer.value("select n from fresh"), "5");
    turn.resume();
    assert_eq!(
        stage.on_replica(&mut newcomer, "select n from fresh"),
        ["5"]
    );
}

#[test]
fn a_replica_that_stands_still_does_not_keep_reads_from_the_other() {
    let turn = Turn::take();
    let stage = Stage::over(turn.fleet(), |tenant| tenant);
    let mut client = stage.furnished();
    stage.settled(&mut client);
    turn.fleet().pause(1);
    for id in 10..30 {
        client.exec(&format!("insert into items values ({id}, 'new')"));
        assert_eq!(
            client.value("select count(*) from items"),
            (id - 6).to_string()
        );
    }
    let sql = "select count(*) from items";
    assert_eq!(stage.on_replica(&mut client, sql), ["23"]);
    eventually("the other one answers", || {
        let (mark, since) = (mark(), turn.fleet().now());
        for _ in 0..50 {
            assert_eq!(client.value(&format!("{sql} {mark}")), "23");
        }
        let seen = turn.fleet().seen(&since, &mark);
        seen.iter().filter(|at| **at == 2).count() >= 10
    });
}

#[test]
fn a_write_whose_answer_nobody_waited_for_counts() {
    let turn = Turn::take();
    let stage = Stage::over(turn.fleet(), |tenant| tenant);
    let mut client = stage.furnished();
    stage.settled(&mut client);
    turn.pause();
    for id in 10..20 {
        let mut leaver = stage.client();
        leaver.send(
            &Request::new()
                .query(&format!("insert into items values ({id}, 'left')"))
                .terminate(),
        );
        leaver.rest();
        // What was seen once is seen from then on.
        let mut admin = stage.proxy.place("acme").admin();
        let role = stage.proxy.place("acme").role().to_owned();
        let is_there = format!("select count(*) from {role}.items where id = {id}");
        eventually("it is committed", || admin.value(&is_there) == "1");
        let sql = format!("select count(*) from items where id = {id}");
        eventually("it is read", || client.value(&sql) == "1");
        for _ in 0..5 {
            assert_eq!(client.value(&sql), "1");
        }
    }
}

#[test]
fn a_read_only_transaction_begins_after_the_writes_before_it() {
    let turn = Turn::take();
    let (proxy, mut writer) = two_keys(turn.fleet(), "tenant");
    let stage = Stage {
        fleet: turn.fleet(),
        proxy,
    };
    let mut reader = stage.connect().password("writer").login();
    for is_paused in [true, false] {
        stage.settled(&mut reader);
        if is_paused {
            turn.pause();
        }
        for v in 1..=50 {
            writer.exec(&format!("update counter set n = {v}"));
            reader.exec("begin isolation level repeatable read read only");
            assert_eq!(reader.value(READ), v.to_string());
            writer.exec(&format!("update counter set n = -{v}"));
            assert_eq!(reader.value(READ), v.to_string());
            reader.exec("commit");
            assert_eq!(reader.value(READ), format!("-{v}"));
        }
        turn.resume();
    }
}
