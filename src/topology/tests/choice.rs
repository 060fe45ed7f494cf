//! Who takes the next read.

use super::{address, cluster, misses, replica, says, settle, topology};
use crate::{
    tenant::{Address, Standbys},
    topology::{Pick, Topology},
};
use std::{collections::BTreeMap, time::Duration};

/// Who got how many of so many reads; port 0 is the primary.
fn shares(topology: &Topology, reads: usize) -> BTreeMap<usize, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..reads {
        let at = match topology.pick(None) {
            Pick::Replica(node) => port_of(node.address()),
            Pick::Primary => 0,
            Pick::Nobody => panic!("nobody is eligible"),
        };
        *shares.entry(at).or_default() += 1;
    }
    shares
}

fn port_of(address: &Address) -> usize {
    match address {
        Address::Tcp { port, .. } => usize::from(*port),
        Address::Unix(_) => panic!("no port"),
    }
}

#[test]
fn reads_are_spread_exactly_by_weight() {
    let topology = topology(&[3, 2, 1], Standbys::default());
    settle(&topology);
    assert_eq!(
        shares(&topology, 6),
        BTreeMap::from([(1, 3), (2, 2), (3, 1)])
    );
    let many = shares(&topology, 6000);
    assert_eq!(many, BTreeMap::from([(1, 3000), (2, 2000), (3, 1000)]));
    let mut before = Vec::new();
    for _ in 0..6 {
        before.extend(shares(&topology, 1).into_keys());
    }
    assert!(
        before.windows(3).all(|three| three != [1, 1, 1]),
        "smooth: {before:?}"
    );
}

#[test]
fn the_primary_has_its_weight_too() {
    let standbys = Standbys {
        primary_weight: 1,
        ..Standbys::default()
    };
    let topology = topology(&[3], standbys);
    settle(&topology);
    assert_eq!(shares(&topology, 400), BTreeMap::from([(0, 100), (1, 300)]));
    misses(&topology, 0);
    assert_eq!(shares(&topology, 10), BTreeMap::from([(1, 10)]));
    says(&topology, 0, true, 1, 100);
    misses(&topology, 1);
    assert!(matches!(topology.pick(None), Pick::Nobody));
}

#[test]
fn who_was_away_does_not_catch_up() {
    let standbys = Standbys {
        slow_start: Duration::ZERO,
        ..Standbys::default()
    };
    let topology = topology(&[1, 1], standbys);
    settle(&topology);
    misses(&topology, 2);
    assert_eq!(shares(&topology, 1000), BTreeMap::from([(1, 1000)]));
    says(&topology, 2, false, 1, 100);
    assert_eq!(shares(&topology, 100), BTreeMap::from([(1, 50), (2, 50)]));
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_begins_slowly() {
    let topology = topology(&[1, 1], Standbys::default());
    settle(&topology);
    assert_eq!(shares(&topology, 100)[&2], 50, "not at the start");
    misses(&topology, 2);
    says(&topology, 2, false, 1, 100);
    let at_first = shares(&topology, 1100)[&2];
    assert!(
        (100..=101).contains(&at_first),
        "{at_first}: a tenth of the other's"
    );
    tokio::time::advance(Duration::from_secs(5)).await;
    let half_way = shares(&topology, 1550)[&2];
    assert!(
        (545..=555).contains(&half_way),
        "{half_way}: 55 % of the other's"
    );
    tokio::time::advance(Duration::from_secs(5)).await;
    let then = shares(&topology, 1000)[&2];
    assert!((499..=501).contains(&then), "{then}");
}

#[test]
fn a_server_with_much_to_do_is_relieved_and_gets_nothing_back() {
    let topology = topology(&[1, 1], Standbys::default());
    settle(&topology);
    let busy = &topology.nodes()[1];
    let lent: Vec<_> = (0..5).map(|_| busy.lend()).collect();
    assert_eq!(busy.outstanding(), 5);
    assert_eq!(shares(&topology, 100), BTreeMap::from([(2, 100)]));
    drop(lent);
    assert_eq!(busy.outstanding(), 0);
    assert_eq!(shares(&topology, 100), BTreeMap::from([(1, 50), (2, 50)]));
    let _four: Vec<_> = (0..4).map(|_| busy.lend()).collect();
    assert_eq!(shares(&topology, 100)[&1], 50, "not clearly more");
}

#[test]
fn load_is_held_against_the_weight() {
    let topology = topology(&[3, 1], Standbys::default());
    settle(&topology);
    let lent: Vec<_> = (0..9).map(|_| topology.nodes()[1].lend()).collect();
    let _three: Vec<_> = (0..3).map(|_| topology.nodes()[2].lend()).collect();
    assert_eq!(shares(&topology, 100), BTreeMap::from([(1, 75), (2, 25)]));
    drop(lent);
    let _more: Vec<_> = (0..2).map(|_| topology.nodes()[2].lend()).collect();
    assert_eq!(shares(&topology, 100), BTreeMap::from([(1, 100)]));
}

#[test]
fn replicas_of_the_region_come_first_and_a_tenants_list_limits() {
    let standbys = Standbys {
        region: Some("east".into()),
        ..Standbys::default()
    };
    let replicas = vec![
        replica(1, 1, Some("west")),
        replica(2, 1, Some("east")),
        replica(3, 1, None),
    ];
    let topology = Topology::new(&cluster(replicas, standbys));
    topology.begin();
    settle(&topology);
    assert_eq!(shares(&topology, 10), BTreeMap::from([(2, 10)]));
    let among = [address(1), address(3), address(0)];
    let picked = |among: &[Address]| match topology.pick(Some(among)) {
        Pick::Replica(node) => Some(port_of(node.address())),
        Pick::Primary | Pick::Nobody => None,
    };
    let mut two: Vec<_> = (0..2).map(|_| picked(&among).unwrap()).collect();
    two.sort_unstable();
    assert_eq!(two, [1, 3], "none of the region is allowed");
    assert_eq!(picked(&[]), None);
    misses(&topology, 2);
    assert_eq!(shares(&topology, 10), BTreeMap::from([(1, 5), (3, 5)]));
}

#[test]
fn turns_are_exact_when_many_read_at_once() {
    let topology = topology(&[3, 1], Standbys::default());
    settle(&topology);
    let count = |node: &Pick| matches!(node, Pick::Replica(node) if port_of(node.address()) == 1);
    let first: usize = std::thread::scope(|threads| {
        let readers: Vec<_> = (0..4)
            .map(|_| threads.spawn(|| (0..5000).filter(|_| count(&topology.pick(None))).count()))
            .collect();
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .sum()
    });
    assert!(
        (14_900..=15_100).contains(&first),
        "{first} of 20000 at weight 3 of 4"
    );
}
