//! What is known of the servers of a cluster: a primary and standbys that stream from it.

use crate::harness::{
    Postgres, eventually, eventually_some,
    postgres::{ADMIN, Endpoint, signal},
};
use pgusher::{
    tenant::{
        Address, Cluster, ClusterName, Login, Replica, Standbys, TenantId, UpstreamTls, Watch,
    },
    topology::{Lsn, Pick, Position, Topology},
};
use std::{
    fs,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};
use tokio::runtime::Runtime;

/// Who may do nothing but log in.
const NOBODY: &str = "watches";

/// A primary and two hot standbys.
struct Servers {
    primary: Postgres,
    standbys: [Postgres; 2],
}

impl Servers {
    fn start() -> Self {
        let primary = Postgres::start();
        let mut admin = primary.admin();
        admin.exec(&format!("create role {NOBODY} login"));
        admin.exec(&format!("grant by_trust to {NOBODY}"));
        admin.exec("create table public.written (id int)");
        let standbys = [primary.standby(), primary.standby()];
        Self { primary, standbys }
    }

    fn address(endpoint: &Endpoint) -> Address {
        Address::Tcp {
            host: "127.0.0.1".into(),
            port: endpoint.port(),
        }
    }

    fn addresses(&self) -> [Address; 3] {
        let [first, second] = &self.standbys;
        [&self.primary, first, second].map(|one| Self::address(one.endpoint()))
    }

    fn cluster(&self, role: &str, standbys: Standbys) -> Arc<Cluster> {
        let [primary, first, second] = self.addresses();
        Arc::new(Cluster {
            name: ClusterName::new("main").unwrap(),
            primary,
            replicas: vec![Replica::at(first), Replica::at(second)],
            standbys,
            is_paused: false,
            watch: Some(Watch {
                login: Login {
                    role: role.into(),
                    password: None,
                },
                database: "shared".into(),
            }),
            max_server_connections: 10,
            reserved_servers: 0,
            max_parallel_connects: 1,
            max_running_statements: 0,
            adaptive_running_statements: false,
            min_running_statements: 2,
            connect_timeout: Duration::from_secs(5),
            tls: UpstreamTls::Disable,
            client_certificate: None,
        })
    }

    /// Watches them until it is dropped.
    fn watched(&self, role: &str, standbys: Standbys) -> Watched {
        let cluster = self.cluster(role, standbys);
        let topology = Topology::new(&cluster);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(Arc::clone(&topology).watch());
        Watched {
            topology,
            cluster,
            _runtime: runtime,
        }
    }
}

struct Watched {
    topology: Arc<Topology>,
    cluster: Arc<Cluster>,
    _runtime: Runtime,
}

impl Watched {
    fn is_eligible(&self, at: usize) -> bool {
        self.topology.nodes()[at].is_eligible()
    }

    /// All is well: a primary, and two replicas to read from.
    fn is_whole(&self) {
        eventually("there are a primary and two replicas", || {
            self.topology.has_primary() && self.is_eligible(1) && self.is_eligible(2)
        });
    }

    fn primary(&self) -> Address {
        self.topology.resolve(&self.cluster).primary.clone()
    }

    fn position(&self) -> Arc<Position> {
        self.topology.position(&TenantId::new("acme").unwrap())
    }
}

/// Those that nobody harms for good, one test at a time.
fn shared() -> (&'static Servers, MutexGuard<'static, ()>) {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    (SERVERS.get_or_init(Servers::start), turn)
}

/// All processes of a server, which stand still until this is dropped.
struct Stopped(Vec<String>);

impl Stopped {
    fn stop(server: &Postgres) -> Self {
        let mut admin = server.admin();
        let file = admin.value("select pg_read_file('postmaster.pid')");
        let postmaster = file.lines().next().unwrap().to_owned();
        let children = format!("/proc/{postmaster}/task/{postmaster}/children");
        let children = fs::read_to_string(children).unwrap();
        let mut pids = vec![postmaster];
        pids.extend(children.split_whitespace().map(str::to_owned));
        for pid in &pids {
            signal("STOP", pid);
        }
        Self(pids)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for pid in &self.0 {
            signal("CONT", pid);
        }
    }
}

/// Where the primary's WAL ends that is safe.
fn end_of_wal(server: &Postgres) -> Lsn {
    let text = server.admin().value("select pg_current_wal_flush_lsn()");
    text.parse().unwrap()
}

#[test]
fn roles_are_known_and_replicas_take_the_reads() {
    let (servers, _turn) = shared();
    for role in [ADMIN, NOBODY] {
        let watched = servers.watched(role, Standbys::default());
        watched.is_whole();
        let topology = &watched.topology;
        assert_eq!(watched.primary(), servers.addresses()[0]);
        assert!(Arc::ptr_eq(
            &topology.resolve(&watched.cluster),
            &watched.cluster
        ));
        assert!(!watched.is_eligible(0));
        eventually("positions are known", || {
            let [primary, replicas @ ..] = topology.nodes() else {
                unreachable!()
            };
            let is_far = replicas.iter().all(|one| one.replayed() > Lsn(0));
            is_far && primary.replayed() == Lsn(0) && topology.floor() > Lsn(0)
        });
        let mut picked = Vec::new();
        for _ in 0..4 {
            match topology.pick(None) {
                Pick::Replica(node) => picked.push(node.address().clone()),
                other => panic!("{other:?}"),
            }
        }
        let [_, first, second] = servers.addresses();
        for address in [first, second] {
            let count = picked.iter().filter(|one| **one == address).count();
            assert_eq!(count, 2, "{address}");
        }
    }
}

#[test]
fn a_sample_follows_each_write_and_a_replica_that_is_there_has_it() {
    let (servers, _turn) = shared();
    let watched = servers.watched(NOBODY, Standbys::default());
    watched.is_whole();
    let position = watched.position();
    let mut primary = servers.primary.admin();
    let mut replicas = servers.standbys.each_ref().map(Postgres::admin);
    primary.exec("truncate public.written");
    for count in 1..=30 {
        primary.exec(&format!("insert into public.written values ({count})"));
        position.wrote();
        let end = end_of_wal(&servers.primary);
        let wanted = eventually_some("it is sampled", || position.wanted());
        assert!(wanted >= end, "{wanted} {end}");
        for (at, replica) in replicas.iter_mut().enumerate() {
            let node = &watched.topology.nodes()[at + 1];
            eventually("it has replayed it", || node.replayed() >= wanted);
            let seen = replica.value("select count(*) from public.written");
            assert_eq!(seen, count.to_string());
        }
    }
    drop(position);
    let again = watched.position();
    let wanted = eventually_some("what was written before is wanted", || again.wanted());
    assert!(wanted >= end_of_wal(&servers.primary));
}

#[test]
fn a_replica_that_does_not_replay_is_behind() {
    let (servers, _turn) = shared();
    let limits = Standbys {
        lag_bytes_max: Some(1 << 20),
        ..Standbys::default()
    };
    let watched = servers.watched(NOBODY, limits);
    watched.is_whole();
    let position = watched.position();
    let node = Arc::clone(&watched.topology.nodes()[1]);
    let mut paused = servers.standbys[0].admin();
    paused.exec("select pg_wal_replay_pause()");
    eventually("it is paused", || {
        paused.value("select pg_get_wal_replay_pause_state()") == "paused"
    });
    let mut primary = servers.primary.admin();
    primary.exec("insert into public.written values (-1)");
    position.wrote();
    let wanted = eventually_some("it is sampled", || position.wanted());
    assert!(node.replayed() < wanted);
    let other = &watched.topology.nodes()[2];
    eventually("the other one has it", || other.replayed() >= wanted);
    assert!(node.replayed() < wanted);
    assert!(node.is_eligible(), "it is not far behind");

    let much = "create table public.much as select repeat('much ', 1000), n from generate_series(1, 50000) n";
    primary.exec(much);
    eventually("it is too far behind", || !node.is_eligible());
    eventually("the other one is not", || other.is_eligible());
    paused.exec("select pg_wal_replay_resume()");
    eventually("it has caught up", || {
        node.is_eligible() && node.replayed() >= wanted
    });
    primary.exec("drop table public.much");
}

#[test]
fn a_server_that_never_answers_is_left_alone_until_it_does() {
    let (servers, _turn) = shared();
    let watched = servers.watched(NOBODY, Standbys::default());
    watched.is_whole();
    let changes = watched.topology.changes();
    let stopped = Stopped::stop(&servers.standbys[0]);
    eventually("it is ejected", || !watched.is_eligible(1));
    assert_eq!(watched.topology.nodes()[1].replayed(), Lsn(0));
    assert!(watched.topology.has_primary() && watched.is_eligible(2));
    assert!(changes.has_changed().unwrap());
    drop(stopped);
    watched.is_whole();

    let position = watched.position();
    eventually_some("the primary says how far it is", || position.wanted());
    let stopped = Stopped::stop(&servers.primary);
    eventually("the primary is lost", || !watched.topology.has_primary());
    assert_eq!(watched.primary(), servers.addresses()[0]);
    position.wrote();
    assert_eq!(position.wanted(), None);
    assert!(watched.is_eligible(1), "those that read old things go on");
    drop(stopped);
    eventually("the primary is back", || watched.topology.has_primary());
    eventually_some("and says how far it is", || position.wanted());
}

#[test]
fn what_the_data_plane_found_is_looked_into_at_once() {
    let (servers, _turn) = shared();
    // Nobody would ask for an hour.
    let seldom = Standbys {
        watch_interval: Duration::from_hours(1),
        ..Standbys::default()
    };
    let watched = servers.watched(NOBODY, seldom);
    let topology = &watched.topology;
    eventually("all were asked", || {
        topology.suspect_primary();
        topology.has_primary() && watched.is_eligible(1) && watched.is_eligible(2)
    });
    let node = &topology.nodes()[1];
    node.failed();
    eventually("it was asked again, and is back", || {
        node.is_eligible() && node.replayed() > Lsn(0)
    });
    // The watch's own connection may be ended by anybody: that tells nothing of the server.
    let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
               where application_name = 'pgusher watch'";
    assert_ne!(servers.primary.admin().value(end), "0");
    let floor = topology.floor();
    servers
        .primary
        .admin()
        .exec("insert into public.written values (0)");
    eventually("it is asked on a new connection", || {
        topology.suspect_primary();
        topology.floor() > floor
    });
    assert!(topology.has_primary());
}

#[test]
fn after_a_promotion_the_new_primary_is_written_to_and_the_old_one_never_again() {
    let mut servers = Servers::start();
    let watchers = [ADMIN, NOBODY].map(|role| servers.watched(role, Standbys::default()));
    for watched in &watchers {
        watched.is_whole();
    }
    let positions = watchers.each_ref().map(Watched::position);
    let [old, new, other] = servers.addresses();
    servers.primary.kill();
    for watched in &watchers {
        eventually("the primary is lost", || !watched.topology.has_primary());
        assert_eq!(watched.primary(), old);
    }
    let mut promoted = servers.standbys[0].admin();
    assert_eq!(promoted.value("select pg_promote()"), "t");
    promoted.exec("insert into public.written values (1)");
    for (watched, position) in watchers.iter().zip(&positions) {
        position.wrote();
        eventually("the new one is known", || watched.topology.has_primary());
        let resolved = watched.topology.resolve(&watched.cluster);
        assert_eq!(resolved.primary, new);
        let replicas: Vec<_> = resolved.replicas.iter().map(|one| &one.address).collect();
        assert_eq!(replicas, [&old, &other]);
        let wanted = eventually_some("it says how far it is", || position.wanted());
        assert!(wanted >= end_of_wal(&servers.standbys[0]));
        assert!(!watched.is_eligible(1) && !watched.is_eligible(2));
    }

    // The other standby follows the new primary. That is known at once to who may see its receiver;
    // to others when something was written to its control file, as for a table that is dropped.
    let mut follower = servers.standbys[1].admin();
    let port = servers.standbys[0].endpoint().port();
    let from = format!("host=127.0.0.1 port={port} user={ADMIN}");
    follower.exec(&format!("alter system set primary_conninfo = '{from}'"));
    follower.exec("select pg_reload_conf()");
    eventually("it follows", || watchers[0].is_eligible(2));
    promoted.exec("create table public.gone (); drop table public.gone");
    promoted.exec("insert into public.written values (2); drop table public.written");
    eventually("so all know", || watchers[1].is_eligible(2));

    servers.primary.run();
    let mut back = servers.primary.admin();
    eventually("the old one is asked, and is a primary", || {
        back.value(
            "select count(*) from pg_stat_activity where application_name = 'pgusher watch' \
             and state = 'idle' and query like '%pg_is_in_recovery%'",
        ) == "2"
    });
    for watched in &watchers {
        assert!(watched.topology.has_primary() && watched.primary() == new);
        assert!(!watched.is_eligible(0) && watched.is_eligible(2));
    }
    let anew = servers.watched(NOBODY, Standbys::default());
    eventually("who starts now knows as well", || {
        anew.topology.has_primary() && anew.primary() == new
    });
}

#[test]
fn a_replica_of_an_old_primary_is_not_read_from_however_far_it_is() {
    let servers = Servers::start();
    let watched = servers.watched(ADMIN, Standbys::default());
    watched.is_whole();
    let mut promoted = servers.standbys[0].admin();
    assert_eq!(promoted.value("select pg_promote()"), "t");
    eventually("it is written to", || {
        watched.topology.has_primary() && watched.primary() == servers.addresses()[1]
    });
    let position = watched.position();
    promoted.exec("insert into public.written values (1)");
    position.wrote();
    let wanted = eventually_some("it is sampled", || position.wanted());
    // The old primary goes on, and so does its standby.
    let much = "create table public.much as select repeat('much ', 1000), n from generate_series(1, 20000) n";
    servers.primary.admin().exec(much);
    let mut follower = servers.standbys[1].admin();
    eventually("its standby is further than what is wanted", || {
        let replayed = follower.value("select pg_last_wal_replay_lsn()");
        replayed.parse::<Lsn>().unwrap() > wanted
    });
    let node = &watched.topology.nodes()[2];
    assert!(!node.is_eligible());
    assert_eq!(node.replayed(), Lsn(0));
    assert!(matches!(watched.topology.pick(None), Pick::Nobody));
    assert_eq!(watched.primary(), servers.addresses()[1]);
}
