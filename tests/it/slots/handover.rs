//! When a slot goes from one tenant to another, and when it does not.

use super::{Rows, Stage, ids, token};
use crate::harness::{
    Request, eventually,
    frames::{code, error, firsts},
};
use std::{thread, time::Duration};

#[test]
fn who_comes_again_finds_its_slot_bound_and_another_has_it_bound_once() {
    let rows = Rows::start();
    let ids = ids(2);
    let stage = Stage::on(&rows, &ids, 1, |_| ());
    let mut clients: Vec<_> = ids.iter().map(|id| stage.client(id)).collect();
    for client in &mut clients {
        for _ in 0..50 {
            client.exec("select * from accounts");
        }
    }
    let mut again = stage.client(&ids[1]);
    again.exec("select * from accounts");
    drop((clients, again, stage));
    let mut admin = rows.admin();
    let calls = "select coalesce(sum(calls), 0) from pg_stat_user_functions where funcname = ";
    eventually("the slot is closed and has told its statistics", || {
        rows.slots().is_empty() && admin.value(&format!("{calls}'claim'")) == "1"
    });
    // A login before the first survey, the survey itself, and the other tenant.
    let binds: u32 = admin.value(&format!("{calls}'bind'")).parse().unwrap();
    assert!(
        (2..=6).contains(&binds),
        "{binds} binds for 101 transactions"
    );
}

#[test]
fn who_has_to_wait_too_long_is_told() {
    let ids = ids(2);
    let stage = Stage::of(&ids, 1, |tenant| {
        tenant.timeouts.query_wait = Some(Duration::from_secs(2));
    });
    let mut holds = stage.client(&ids[0]);
    let mut waits = stage.client(&ids[1]);
    waits.exec("select 1");
    holds.exec("begin");
    assert_eq!(waits.fails("select 1").code(), "53300");
    holds.exec("commit");
    waits.exec("select 1");
}

#[test]
fn a_slot_that_is_ended_is_replaced() {
    let ids = ids(2);
    let stage = Stage::of(&ids, 2, |_| ());
    let rows = Rows::shared();
    for round in 0..3 {
        let mut client = stage.client(&ids[0]);
        let pid = client.server_pid();
        rows.admin()
            .exec(&format!("select pg_terminate_backend({pid})"));
        eventually("the slot is gone", || !rows.slots().contains(&pid));
        client.send(&Request::new().query("select ctl.tenant()").terminate());
        let frames = client.rest();
        if let Some(error) = error(&frames) {
            // It was still looked at what the session had left there.
            assert_eq!(error.code(), "08006", "round {round}: {error:?}");
        } else {
            assert_eq!(firsts(&frames), [token(&ids[0])], "round {round}");
        }
        let mut other = stage.client(&ids[1]);
        assert_eq!(other.value("select ctl.tenant()"), token(&ids[1]));
    }
}

#[test]
fn a_slot_that_ended_while_nobody_used_it_is_seen_from_another_thread() {
    let ids = ids(3);
    let stage = Stage::of(&ids, 2, |_| ());
    let rows = Rows::shared();
    let mut other = stage.client(&ids[1]);
    other.exec("select 1");
    let mut client = stage.client(&ids[0]);
    let pid = client.server_pid();
    drop((client, other));
    eventually("both live nowhere any more", || {
        stage.pools.all().is_empty()
    });
    // They log in without a slot, one on each of two threads. The tenant was the second to come, so it lived on
    // the second's; now it is the third and will live on the first's.
    let _others = [stage.client(&ids[1]), stage.client(&ids[2])];
    rows.admin()
        .exec(&format!("select pg_terminate_backend({pid})"));
    eventually("the slot is gone", || !rows.slots().contains(&pid));
    let mut again = stage.client(&ids[0]);
    assert_eq!(again.value("select ctl.tenant()"), token(&ids[0]));
}

#[test]
fn slots_come_back_after_a_crash_of_the_server() {
    let mut rows = Rows::start();
    let ids = ids(2);
    let stage = Stage::on(&rows, &ids, 2, |_| ());
    let mut clients: Vec<_> = ids.iter().map(|id| stage.client(id)).collect();
    let pid = clients[0].server_pid();
    clients[1].exec("insert into accounts values (1, 'kept')");
    crate::harness::postgres::signal("KILL", &pid);
    drop(clients);
    eventually("the server has recovered, and serves", || {
        ids.iter().all(|id| {
            // A session whose server was lost may end.
            let Ok(mut client) = stage.connect(id).try_login() else {
                return false;
            };
            let ask = Request::new().query("select ctl.tenant()").terminate();
            client.send(&ask);
            let frames = client.rest();
            let is_whole = error(&frames).is_none();
            if is_whole {
                assert_eq!(firsts(&frames), [token(id)]);
            }
            is_whole
        })
    });
    let mut client = stage.client(&ids[1]);
    assert_eq!(client.values("select secret from accounts"), ["kept"]);
    rows.stop();
}

#[test]
fn a_cancel_never_hits_the_tenant_that_has_the_slot_next() {
    let ids = ids(2);
    let stage = Stage::of(&ids, 1, |_| ());
    let attacker = stage.client(&ids[0]);
    let connect = stage.connect(&ids[0]);
    let (pid, secret) = (attacker.pid, attacker.secret.clone());
    thread::scope(|scope| {
        let storm = scope.spawn(move || {
            for _ in 0..300 {
                connect.cancel_key(pid, &secret);
            }
        });
        let noise = scope.spawn(move || {
            let mut attacker = attacker;
            let mut cancelled = 0;
            while !storm.is_finished() {
                let frames = attacker.query("select pg_sleep(0.001)");
                cancelled += u32::from(code(&frames) == "57014");
            }
            cancelled
        });
        let mut victim = stage.client(&ids[1]);
        while !noise.is_finished() {
            let frames = victim.ask(&Request::new().query("select pg_sleep(0.001)"));
            assert_eq!(error(&frames), None, "the victim was hit");
            assert_eq!(victim.value("select ctl.tenant()"), token(&ids[1]));
        }
        noise.join().unwrap();
    });
}
