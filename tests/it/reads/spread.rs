//! Which replica answers: by weight, by list, and who else.

use super::{Stage, shared};
use crate::harness::{
    Tenant, eventually,
    fleet::{PRIMARY, mark},
};

/// How many of these reads each server has answered.
fn answered(stage: &Stage<'_>, reads: usize) -> [usize; 3] {
    let mut client = stage.client();
    stage.settled(&mut client);
    let (mark, since) = (mark(), stage.fleet.now());
    for n in 0..reads {
        assert_eq!(client.value(&format!("select {n} {mark}")), n.to_string());
    }
    let mut count = [0; 3];
    for at in stage.fleet.seen(&since, &mark) {
        count[at] += 1;
    }
    // One that was found behind is asked and left.
    assert!(count.iter().sum::<usize>() >= reads);
    count
}

fn stage_with(
    change: impl FnOnce(crate::harness::proxy::Builder, [String; 2]) -> crate::harness::proxy::Builder,
) -> Stage<'static> {
    let fleet = shared();
    let urls = [1, 2].map(|at| fleet.endpoint(at).url());
    let proxy = change(fleet.proxy([fleet.tenant("acme")]), urls).start();
    Stage { fleet, proxy }
}

#[test]
fn weights_say_how_many_reads_a_replica_gets() {
    let stage = stage_with(|proxy, [one, two]| {
        let urls = [format!("{one}?weight=4"), format!("{two}?weight=1")];
        proxy.cluster("replicas", urls.map(toml::Value::from).to_vec())
    });
    // They may be behind for a moment: other tests write as well.
    eventually("the heavy one answers most of them", || {
        let [primary, heavy, light] = answered(&stage, 500);
        primary < 50 && light > 0 && heavy > 2 * light
    });
}

#[test]
fn replicas_of_equal_weight_share_the_reads() {
    let stage = Stage::over(shared(), |tenant| tenant);
    eventually("they share them", || {
        let [primary, one, two] = answered(&stage, 400);
        primary < 50 && one > 100 && two > 100
    });
}

#[test]
fn the_primary_takes_its_share_where_it_has_a_weight() {
    let stage = stage_with(|proxy, _| proxy.cluster("primary_weight", 1));
    eventually("all three answer", || {
        let [primary, one, two] = answered(&stage, 400);
        primary > 40 && one > 40 && two > 40
    });
}

#[test]
fn a_tenant_reads_only_on_its_own_replicas() {
    let fleet = shared();
    let own = vec![toml::Value::from(fleet.endpoint(2).url())];
    let stage = Stage::over(fleet, |tenant| tenant.set("read_replicas", own));
    // It may be behind for a moment: other tests write as well.
    eventually("it answers most of them", || {
        let [_, one, two] = answered(&stage, 100);
        assert_eq!(one, 0);
        two > 50
    });
    let mut admin = fleet.admin(1);
    let place = stage.proxy.place("acme");
    // The one other login may be the watch's.
    assert!(place.server_pids(&mut admin).len() <= 1);
}

#[test]
fn busy_replicas_are_left_to_their_work() {
    let stage = Stage::over(shared(), |tenant| tenant.pool_size(10));
    let mut client = stage.client();
    // They may be behind for a moment, or held up: other tests use them, too.
    eventually("busy is not sick", || {
        stage.settled(&mut client);
        // Six long reads; three or so on each.
        let mut busy: Vec<_> = (0..6).map(|_| stage.client()).collect();
        for client in &mut busy {
            client.send(&crate::harness::Request::new().query("select pg_sleep(2)"));
        }
        let (mark, since) = (mark(), stage.fleet.now());
        for n in 0..50 {
            assert_eq!(client.value(&format!("select {n} {mark}")), n.to_string());
        }
        let seen = stage.fleet.seen(&since, &mark);
        let on_primary = seen.iter().filter(|at| **at == PRIMARY).count();
        for client in &mut busy {
            client.until_ready();
        }
        on_primary < 25
    });
}

#[test]
fn tenants_of_one_cluster_each_read_their_own() {
    let fleet = shared();
    let tenants: Vec<Tenant> = ["acme", "globex", "initech"]
        .map(|id| fleet.tenant(id))
        .into();
    let proxy = fleet.proxy(tenants).start();
    for id in ["acme", "globex", "initech"] {
        let mut client = proxy.connect(id).login();
        client.exec(&format!("create table owner as select '{id}'::text as id"));
    }
    std::thread::scope(|scope| {
        for id in ["acme", "globex", "initech"] {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut client = proxy.connect(id).login();
                for _ in 0..200 {
                    assert_eq!(client.value("select id from owner"), id);
                }
            });
        }
    });
}

#[test]
fn a_watch_may_have_a_login_of_its_own() {
    let stage = stage_with(|proxy, _| proxy.cluster("monitor_role", "admin"));
    let [primary, ..] = answered(&stage, 20);
    assert_eq!(primary, 0);
}

#[test]
fn replicas_of_the_proxys_own_region_come_first() {
    let stage = stage_with(|proxy, [one, two]| {
        let urls = [format!("{one}?region=us"), format!("{two}?region=eu")];
        proxy
            .cluster("replicas", urls.map(toml::Value::from).to_vec())
            .set("region", "eu")
    });
    eventually("the near one answers", || {
        let [primary, far, near] = answered(&stage, 100);
        primary < 50 && near > 50 && far == 0
    });
}
