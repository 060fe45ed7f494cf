//! What follows from what servers say, without servers.

use super::{
    Lsn, Pick, Topology,
    known::Heard,
    probe::{Answer, Fault},
    roles::Standing,
};
use crate::tenant::{Address, Cluster, ClusterName, Replica, Standbys, TenantId, UpstreamTls};
use std::{sync::Arc, time::Duration};

mod choice;

fn address(port: u16) -> Address {
    Address::Tcp {
        host: "db".into(),
        port,
    }
}

fn replica(port: u16, weight: u32, region: Option<&str>) -> Replica {
    Replica {
        address: address(port),
        weight,
        region: region.map(Into::into),
    }
}

fn cluster(replicas: Vec<Replica>, standbys: Standbys) -> Arc<Cluster> {
    Arc::new(Cluster {
        name: ClusterName::new("main").unwrap(),
        primary: address(0),
        replicas,
        standbys,
        is_paused: false,
        watch: None,
        max_server_connections: 10,
        reserved_servers: 0,
        max_parallel_connects: 1,
        max_running_statements: 0,
        adaptive_running_statements: false,
        min_running_statements: 2,
        connect_timeout: Duration::from_secs(1),
        tls: UpstreamTls::Disable,
        client_certificate: None,
    })
}

/// A primary and replicas of these weights.
fn topology(weights: &[u32], standbys: Standbys) -> Arc<Topology> {
    let replicas = (1..)
        .zip(weights)
        .map(|(port, weight)| replica(port, *weight, None));
    let topology = Topology::new(&cluster(replicas.collect(), standbys));
    topology.begin();
    topology
}

fn says(topology: &Topology, at: usize, is_primary: bool, timeline: u32, lsn: u64) {
    let standing = Standing {
        is_primary,
        timeline,
        system: Some(7),
    };
    hears(topology, at, standing, lsn);
}

fn hears(topology: &Topology, at: usize, standing: Standing, lsn: u64) {
    let lsn = Lsn(lsn);
    topology.heard(&Heard {
        at,
        answer: Answer {
            standing,
            lsn,
            flushed: lsn,
        },
        asked: topology.nodes()[at].begin_probe(),
        may_return: true,
    });
}

fn misses(topology: &Topology, at: usize) {
    topology.missed(at, &Fault::Timeout);
}

/// All answer, twice: the configured primary, and standbys.
fn settle(topology: &Topology) {
    for _ in 0..2 {
        says(topology, 0, true, 1, 100);
        for at in 1..topology.nodes().len() {
            says(topology, at, false, 1, 100);
        }
    }
}

fn eligible(topology: &Topology) -> Vec<bool> {
    topology
        .nodes()
        .iter()
        .map(|node| node.is_eligible())
        .collect()
}

#[test]
fn nobody_is_trusted_before_all_were_asked() {
    let topology = topology(&[1, 1], Standbys::default());
    says(&topology, 0, true, 1, 100);
    says(&topology, 1, false, 1, 100);
    assert!(!topology.has_primary(), "the third may be the primary now");
    says(&topology, 2, true, 2, 200);
    assert!(topology.has_primary());
    assert_eq!(*topology.primary().address(), address(2));
    assert_eq!(topology.floor(), Lsn(200));
}

#[test]
fn a_server_that_does_not_answer_holds_up_nobody() {
    let topology = topology(&[1], Standbys::default());
    says(&topology, 0, true, 1, 100);
    misses(&topology, 1);
    assert!(topology.has_primary());
    assert!(matches!(topology.pick(None), Pick::Nobody));
}

#[test]
fn after_a_promotion_the_servers_exchange_their_places() {
    let topology = topology(&[3, 1], Standbys::default());
    let configured = Arc::clone(&topology.cluster);
    settle(&topology);
    assert!(Arc::ptr_eq(&topology.resolve(&configured), &configured));
    let mut changes = topology.changes();
    changes.mark_unchanged();

    misses(&topology, 0);
    assert!(!topology.has_primary());
    assert!(changes.has_changed().unwrap());
    assert!(Arc::ptr_eq(&topology.resolve(&configured), &configured));
    assert_eq!(eligible(&topology), [false, true, true], "reads go on");

    says(&topology, 1, true, 2, 150);
    assert!(topology.has_primary());
    let resolved = topology.resolve(&configured);
    assert_eq!(resolved.primary, address(1));
    let replicas: Vec<_> = resolved.replicas.iter().map(|one| &one.address).collect();
    assert_eq!(replicas, [&address(0), &address(2)]);
    assert_eq!(resolved.replicas[0].weight, 3);
    assert!(Arc::ptr_eq(&topology.resolve(&configured), &resolved));

    // The other replica may have WAL that the new primary never had.
    says(&topology, 2, false, 1, 160);
    assert_eq!(eligible(&topology), [false; 3]);
    says(&topology, 2, false, 2, 160);
    assert_eq!(eligible(&topology), [false, false, true]);

    // The old primary comes back, and the new one is gone.
    says(&topology, 0, true, 1, 500);
    misses(&topology, 1);
    assert!(!topology.has_primary());
    assert_eq!(topology.resolve(&configured).primary, address(1));
    assert_eq!(eligible(&topology), [false, false, true]);
    assert_eq!(topology.floor(), Lsn(150));

    // Then it follows.
    says(&topology, 1, true, 2, 170);
    says(&topology, 0, false, 2, 170);
    assert_eq!(eligible(&topology), [true, false, true]);
}

#[test]
fn a_standby_on_a_later_timeline_says_that_the_primary_is_an_old_one() {
    let topology = topology(&[1, 1], Standbys::default());
    settle(&topology);
    says(&topology, 2, false, 2, 200);
    assert!(!topology.has_primary());
    says(&topology, 0, true, 1, 300);
    assert!(!topology.has_primary());
    says(&topology, 1, true, 2, 200);
    assert_eq!(*topology.primary().address(), address(1));
}

#[test]
fn who_refuses_to_say_stays_what_it_was() {
    let topology = topology(&[1], Standbys::default());
    let refused = || Fault::Refused {
        code: "53300".to_owned(),
        message: "sorry, too many clients already".to_owned(),
    };
    // Nobody may watch: writes go on.
    topology.missed(0, &refused());
    topology.missed(1, &refused());
    assert!(topology.has_primary());
    settle(&topology);
    topology.missed(0, &refused());
    assert!(topology.has_primary());
    assert_eq!(eligible(&topology), [false, true]);
    // But not against what others say.
    says(&topology, 1, true, 2, 100);
    topology.missed(0, &refused());
    misses(&topology, 1);
    assert!(!topology.has_primary());
}

#[test]
fn a_server_of_another_cluster_gets_nothing() {
    let topology = topology(&[1, 1], Standbys::default());
    let foreign = Standing {
        is_primary: true,
        timeline: 9,
        system: Some(8),
    };
    for _ in 0..2 {
        hears(&topology, 2, foreign, 100);
        says(&topology, 1, false, 1, 100);
        says(&topology, 0, true, 1, 100);
    }
    assert_eq!(*topology.primary().address(), address(0));
    assert!(topology.has_primary());
    let standby = Standing {
        is_primary: false,
        timeline: 1,
        ..foreign
    };
    hears(&topology, 2, standby, 100);
    assert_eq!(eligible(&topology), [false, true, false]);
}

#[test]
fn positions_of_the_old_primary_are_asked_again() {
    let topology = topology(&[1], Standbys::default());
    settle(&topology);
    let position = topology.position(&TenantId::new("acme").unwrap());
    let queue = &topology.positions.queue;
    queue.take().answer(queue.era(), Lsn(100));
    assert_eq!(position.wanted(), Some(Lsn(100)));
    misses(&topology, 0);
    assert_eq!(position.wanted(), Some(Lsn(100)), "reads go on");
    says(&topology, 1, true, 2, 90);
    assert_eq!(position.wanted(), None);
    queue.take().answer(queue.era(), Lsn(90));
    assert_eq!(position.wanted(), Some(Lsn(90)));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_lags_is_left_out() {
    let limits = Standbys {
        lag_bytes_max: Some(50),
        lag_max: Some(Duration::from_secs(2)),
        ..Standbys::default()
    };
    let topology = topology(&[1], limits);
    settle(&topology);
    assert_eq!(eligible(&topology), [false, true]);
    says(&topology, 0, true, 1, 151);
    says(&topology, 1, false, 1, 100);
    assert_eq!(eligible(&topology), [false, false], "51 bytes");
    says(&topology, 1, false, 1, 101);
    assert_eq!(eligible(&topology), [false, true], "50 bytes");
    tokio::time::advance(Duration::from_secs(3)).await;
    says(&topology, 1, false, 1, 101);
    assert_eq!(eligible(&topology), [false, false], "3 seconds");
    says(&topology, 1, false, 1, 151);
    assert_eq!(eligible(&topology), [false, true]);
}

#[test]
fn a_server_that_restarts_is_not_as_far_as_it_was() {
    let topology = topology(&[1], Standbys::default());
    settle(&topology);
    let node = &topology.nodes()[1];
    let before = node.lend();
    before.has_replayed(Lsn(120));
    assert_eq!(node.replayed(), Lsn(120));
    says(&topology, 1, false, 1, 80);
    before.has_replayed(Lsn(130));
    assert_eq!(node.replayed(), Lsn(80), "it was found before the restart");
    node.lend().has_replayed(Lsn(90));
    assert_eq!(node.replayed(), Lsn(90));
    misses(&topology, 1);
    assert_eq!(node.replayed(), Lsn(0));
}

#[test]
fn what_the_data_plane_found_is_disproved_only_by_a_later_probe() {
    let topology = topology(&[1], Standbys::default());
    settle(&topology);
    let node = &topology.nodes()[1];
    let sent_before = node.begin_probe();
    let connected_then = node.asked();
    node.failed();
    assert!(!node.is_eligible());
    assert_eq!(node.replayed(), Lsn(0));
    let answer = Answer {
        standing: Standing {
            is_primary: false,
            timeline: 1,
            system: Some(7),
        },
        lsn: Lsn(100),
        flushed: Lsn::default(),
    };
    topology.heard(&Heard {
        at: 1,
        answer,
        asked: sent_before,
        may_return: true,
    });
    assert!(!node.is_eligible());
    assert_eq!(node.replayed(), Lsn(0));
    assert!(node.answered() <= connected_then);
    says(&topology, 1, false, 1, 100);
    assert!(node.is_eligible());
    assert!(node.answered() > connected_then);
    // To the primary it does nothing.
    topology.nodes()[0].failed();
    assert!(topology.has_primary());
}
