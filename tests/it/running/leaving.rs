//! Who waits for long, leaves, is cancelled or killed, or does not take what it has asked for.

use super::{STUCK, Stage, assert_says};
use crate::harness::{
    Client, Mode, Request, eventually,
    frames::{code, error, firsts, tags},
};

#[test]
fn who_waits_too_long_is_told_the_limit_and_goes_on_in_step() {
    for mode in [Mode::Transaction, Mode::Session] {
        let stage = Stage::of(1, ["acme"], |tenant| {
            tenant.mode(mode).set("query_wait_timeout", "700ms")
        });
        let mut waiter = stage.client("acme");
        waiter.is_in_step();
        let says = [
            "max_running_statements of the tenant's cluster, 1,",
            "query_wait_timeout, 700ms",
        ];
        let batch = Request::new()
            .run("select 2", &[])
            .run("select 3", &[])
            .sync();
        let call = Request::new().function_call(1598, &[]);
        for request in [&Request::new().query("select 1"), &batch, &call] {
            let mut lock = stage.lock();
            let mut stuck = stage.stuck("acme");
            let frames = waiter.ask(request);
            assert_says(&error(&frames).unwrap(), "53300", &says);
            assert_eq!(tags(&frames), "EZ", "{mode:?}");
            assert_eq!(waiter.status, 'I');
            lock.exec("commit");
            assert_eq!(code(&stuck.until_ready()), "");
            waiter.is_in_step();
        }
        assert_eq!(firsts(&waiter.ask(&batch)), ["2", "3"]);
        drop(waiter);
        stage.is_at_rest();
    }
}

#[test]
fn a_cancel_ends_the_wait_and_nothing_else() {
    for mode in [Mode::Transaction, Mode::Session] {
        let stage = Stage::one(1, mode);
        let mut first = stage.client("acme");
        let mut second = stage.client("acme");
        for client in [&mut first, &mut second] {
            client.is_in_step();
        }
        let mut lock = stage.lock();
        let mut stuck = stage.stuck("acme");
        stage.send_and_wait(&mut first, &Request::new().query(STUCK));
        stage.send_and_wait(&mut second, &Request::new().run(STUCK, &[]).sync());
        for client in [&mut first, &mut second] {
            stage.proxy.connect("acme").cancel(client);
            assert_eq!(code(&client.until_ready()), "57014");
            assert_eq!(client.status, 'I');
        }
        lock.exec("commit");
        assert_eq!(code(&stuck.until_ready()), "");
        first.is_in_step();
        second.is_in_step();
        drop((first, second, stuck));
        stage.is_at_rest();
    }
}

#[test]
fn clients_and_servers_that_die_leave_no_place_taken() {
    for mode in [Mode::Transaction, Mode::Session] {
        let stage = Stage::of(2, ["one", "two"], |tenant| tenant.mode(mode));
        let role = stage.place.role().to_owned();
        let mut admin = stage.place.admin();
        for round in 0..60 {
            let mut clients = ["one", "two", "one"].map(|tenant| stage.client(tenant));
            for (at, client) in clients.iter_mut().enumerate() {
                client.send(&match (round + at) % 8 {
                    0 => Request::new().query("begin"),
                    1 => Request::new().query("begin").query("select pg_sleep(600)"),
                    2 => Request::new().query("select pg_sleep(600)"),
                    3 => Request::new().run("select pg_sleep(600)", &[]).sync(),
                    4 => Request::new().run("select 1", &[]).flush(),
                    5 => Request::new().query("copy free from stdin"),
                    6 => Request::new()
                        .query("select repeat('x', 1000) from generate_series(1, 50000)"),
                    _ => Request::new().query("select 1").query("select 1/0"),
                });
            }
            if round % 10 == 9 {
                admin.values(&format!(
                    "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'"
                ));
            }
            clients.into_iter().for_each(Client::reset);
        }
        stage.is_at_rest();
        let mut lock = stage.lock();
        let mut stuck = [stage.stuck("one"), stage.stuck("one")];
        let mut waiter = stage.client("one");
        stage.send_and_wait(&mut waiter, &Request::new().query("select 'last'"));
        lock.exec("commit");
        for client in &mut stuck {
            assert_eq!(code(&client.until_ready()), "");
        }
        assert_eq!(firsts(&waiter.until_ready()), ["last"]);
    }
}

#[test]
fn a_client_that_is_killed_while_it_waits_does_not_run() {
    for mode in [Mode::Transaction, Mode::Session] {
        let stage = Stage::of(1, ["acme"], |tenant| tenant.mode(mode));
        let mut dying = stage.client("acme");
        dying.is_in_step();
        let mut lock = stage.lock();
        let mut stuck = stage.stuck("acme");
        stage.send_and_wait(
            &mut dying,
            &Request::new().query("insert into held values (1)"),
        );
        dying.reset();
        // Had it gone on after a second, it would wait for the lock, too, and be cancelled.
        eventually("it is gone", || {
            stage.figure("pgusher_client_connections", "") < 1.5
        });
        lock.exec("commit");
        assert_eq!(firsts(&stuck.until_ready()), ["0"]);
        assert_eq!(stuck.value("select count(*) from held"), "0");
    }
}

#[test]
fn who_reads_slowly_keeps_nobody_waiting() {
    let stage = Stage::one(1, Mode::Transaction);
    let mut slow = stage.client("acme");
    let rows = 40_000;
    let sql = format!("select repeat('x', 1000) from generate_series(1, {rows})");
    slow.send(&Request::new().query(&sql));
    let copy = "copy (select repeat('x', 1000) from generate_series(1, 40000)) to stdout";
    let mut copies = stage.client("acme");
    copies.send(&Request::new().query(copy));
    let mut other = stage.client("acme");
    for _ in 0..5 {
        other.is_in_step();
    }
    assert_eq!(firsts(&slow.until_ready()).len(), rows);
    assert_eq!(code(&copies.until_ready()), "");
    slow.is_in_step();
    drop((slow, copies, other));
    stage.is_at_rest();
}

#[test]
fn a_copy_that_waits_for_its_client_keeps_nobody_waiting() {
    for mode in [Mode::Transaction, Mode::Session] {
        let stage = Stage::one(1, mode);
        let mut copies = stage.client("acme");
        copies.send(&Request::new().query("copy free from stdin"));
        copies.until('G');
        copies.send(&Request::new().copy_data(b"1\n"));
        let mut other = stage.client("acme");
        for _ in 0..3 {
            assert_eq!(other.value("select count(*) from free"), "0");
        }
        copies.send(&Request::new().copy_data(b"2\n").copy_done());
        assert_eq!(code(&copies.until_ready()), "");
        assert_eq!(other.value("select count(*) from free"), "2");
        copies.send(&Request::new().query("copy free from stdin"));
        copies.until('G');
        assert_eq!(code(&copies.ask(&Request::new().copy_fail("no"))), "57014");
        drop((copies, other));
        stage.is_at_rest();
    }
}

#[test]
fn an_answered_batch_without_its_end_keeps_nobody_waiting() {
    for mode in [Mode::Transaction, Mode::Session] {
        let stage = Stage::one(1, mode);
        let mut open = stage.client("acme");
        open.send(
            &Request::new()
                .run("insert into free values (1)", &[])
                .flush(),
        );
        open.until('C');
        let mut other = stage.client("acme");
        let before = stage.counted("waited");
        assert_eq!(other.value("select count(*) from free"), "0");
        assert!(stage.counted("waited") <= before, "it waited");
        open.send(&Request::new().run("select 'more'", &[]).flush());
        assert_eq!(firsts(&open.until('C')), ["more"]);
        assert_eq!(code(&open.ask(&Request::new().sync())), "");
        assert_eq!(other.value("select count(*) from free"), "1");
    }
}
