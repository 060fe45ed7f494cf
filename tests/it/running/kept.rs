//! Sessions that keep their servers, pipelines, replicas, and limits that change.

use super::{RUN, Stage, most_at_once};
use crate::harness::{
    Client, Fleet, Mode, Request, eventually,
    frames::{code, firsts},
};

#[test]
fn pipelines_take_turns() {
    let stage = Stage::of(1, ["one", "two"], |tenant| tenant);
    let long = (0..200).fold(Request::new(), |all, n| {
        all.query(&format!("select {n} from pg_sleep(0.002)"))
    });
    let mut pipes: Vec<_> = (0..4).map(|_| stage.client("one")).collect();
    for client in &mut pipes {
        client.send(&long);
    }
    let mut other = stage.client("two");
    for _ in 0..5 {
        other.is_in_step();
    }
    for client in &mut pipes {
        for n in 0..200 {
            assert_eq!(firsts(&client.until_ready()), [n.to_string()]);
        }
    }
}

#[test]
fn sessions_that_keep_their_servers_run_in_turns() {
    for mode in [Mode::Session, Mode::Transaction] {
        let stage = Stage::one(1, mode);
        let mut keepers: Vec<_> = (0..4).map(|_| stage.client("acme")).collect();
        for keeper in &mut keepers {
            keeper.exec("create temp table mine (n int)");
        }
        for round in 0..3 {
            for keeper in &mut keepers {
                keeper.send(&Request::new().query(&format!(
                    "insert into mine select {round} from pg_sleep(0.01)"
                )));
            }
            for keeper in &mut keepers {
                assert_eq!(code(&keeper.until_ready()), "");
            }
            for keeper in &mut keepers {
                keeper.exec("begin");
                let count = Request::new().run("select count(*) from mine", &[]).sync();
                assert_eq!(firsts(&keeper.ask(&count)), [(round + 1).to_string()]);
                keeper.exec("commit");
            }
        }
        drop(keepers);
        stage.is_at_rest();
    }
}

#[test]
fn the_limit_changes_while_statements_run() {
    let mut stage = Stage::one(0, Mode::Transaction);
    let mut clients: Vec<_> = (0..12).map(|_| stage.client("acme")).collect();
    let limits = [(2, 2.0), (1, 1.0), (4, 4.0), (0, 12.0)];
    for (reloads, (limit, most_allowed)) in limits.into_iter().enumerate() {
        stage
            .proxy
            .reload(|file| file.set_cluster("max_running_statements", limit));
        eventually("the new limit holds", || {
            let log = stage.proxy.log();
            log.matches("configuration reloaded").count() > reloads
        });
        let forgiven = stage.counted("forgiven");
        clients[0].exec("truncate runs");
        for client in &mut clients {
            client.send(&Request::new().query(RUN).query(RUN));
        }
        for client in &mut clients {
            assert_eq!(code(&client.until_ready()), "");
            assert_eq!(code(&client.until_ready()), "");
        }
        let most = most_at_once(&mut clients[0]);
        let extra = stage.counted("forgiven") - forgiven;
        assert!(most <= most_allowed + extra, "{most} of {most_allowed}");
        let told = stage.figure("pgusher_running_statements_limit", "primary");
        assert!((told - f64::from(limit)).abs() < 0.5, "{told}");
    }
}

#[test]
fn nothing_is_counted_where_there_is_no_limit() {
    let stage = Stage::one(0, Mode::Transaction);
    let mut lock = stage.lock();
    let mut stuck: Vec<_> = (0..5).map(|_| stage.stuck("acme")).collect();
    assert!(stage.figure("pgusher_running_statements", "") < 0.5);
    assert!(stage.counted("waited") < 0.5);
    lock.exec("commit");
    for client in &mut stuck {
        assert_eq!(code(&client.until_ready()), "");
    }
}

#[test]
fn each_replica_has_a_limit_of_its_own() {
    let fleet = Fleet::start(1);
    let tenant = fleet.tenant("acme");
    let place = tenant.place.clone();
    let proxy = fleet
        .proxy([tenant])
        .cluster("max_running_statements", 1)
        .start();
    let stage = Stage { proxy, place };
    let mut client = stage.client("acme");
    client.exec("create table held (n int); create table free (n int)");
    fleet.catch_up();
    let on_replica = |client: &mut Client| {
        client.exec("begin read only");
        let told = client.value("select pg_is_in_recovery()");
        client.exec("commit");
        told == "t"
    };
    eventually("it reads on the replica", || on_replica(&mut client));
    let mut lock = stage.lock();
    let mut stuck = stage.client("acme");
    stuck.send(&Request::new().query("insert into held values (1)"));
    eventually("it waits for the lock", || stage.locked_out() != "0");
    eventually("it reads beside it", || on_replica(&mut client));
    assert!(stage.figure("pgusher_running_statements", "server=\"primary\"") > 0.5);
    lock.exec("commit");
    assert_eq!(code(&stuck.until_ready()), "");
    fleet.catch_up();
    eventually("it reads on the replica", || on_replica(&mut client));
    // The replica's own place is taken.
    let mut slow = stage.client("acme");
    slow.send(&Request::new().query("select repeat('x', 1000) from generate_series(1, 40000)"));
    let mut other = stage.client("acme");
    for _ in 0..10 {
        other.value("select count(*) from free");
    }
    assert_eq!(firsts(&slow.until_ready()).len(), 40_000);
    drop((client, stuck, slow, other));
    stage.is_at_rest();
}
