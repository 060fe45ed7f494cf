//! A primary and its streaming replicas, and who answered what among them.

use super::{
    Client, Place, Postgres, Proxy, ProxyFile, Tenant, eventually, place::Login,
    postgres::Endpoint, proxy,
};
use std::{
    ops::{Index, IndexMut},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

/// The server that is the primary at first.
pub const PRIMARY: usize = 0;

/// A primary, which is server 0, and its streaming replicas.
pub struct Fleet {
    servers: Vec<Postgres>,
}

/// How much each server had logged at some time.
pub struct Since(Vec<u64>);

/// A comment that no other statement has, to be found in the servers' logs.
pub fn mark() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("/*mark{}.*/", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Index<usize> for Fleet {
    type Output = Postgres;
    fn index(&self, at: usize) -> &Postgres {
        &self.servers[at]
    }
}

impl IndexMut<usize> for Fleet {
    fn index_mut(&mut self, at: usize) -> &mut Postgres {
        &mut self.servers[at]
    }
}

impl Fleet {
    /// With so many replicas, of which none is behind.
    pub fn start(replicas: usize) -> Self {
        let primary = Postgres::start();
        let standbys: Vec<_> = thread::scope(|scope| {
            let starts: Vec<_> = (0..replicas)
                .map(|_| scope.spawn(|| primary.standby()))
                .collect();
            let started = starts.into_iter().map(|start| start.join().unwrap());
            started.collect()
        });
        let fleet = Self {
            servers: std::iter::once(primary).chain(standbys).collect(),
        };
        fleet.catch_up();
        fleet
    }

    /// The numbers of the replicas.
    pub fn replicas(&self) -> std::ops::Range<usize> {
        1..self.servers.len()
    }

    /// Where a server listens.
    pub fn endpoint(&self, at: usize) -> &Endpoint {
        self.servers[at].endpoint()
    }

    /// A superuser's connection.
    pub fn admin(&self, at: usize) -> Client {
        self.endpoint(at).admin()
    }

    /// A new role with a schema of its name. All that it asks is in the servers' logs.
    pub fn place(&self) -> Place {
        let place = self.quiet_place();
        let (mut admin, role) = (self.admin(PRIMARY), place.role());
        admin.exec(&format!("alter role {role} set log_statement = 'all'"));
        self.catch_up();
        place
    }

    /// A new role with a schema of its name, and nothing in the logs.
    pub fn quiet_place(&self) -> Place {
        let place = Place::room(self.endpoint(PRIMARY), Login::Scram);
        self.catch_up();
        place
    }

    /// A tenant in a place of its own.
    pub fn tenant(&self, id: &str) -> Tenant {
        Tenant::new(id, &self.place())
    }

    /// A configuration with all the replicas.
    pub fn file(&self, tenants: impl IntoIterator<Item = Tenant>) -> ProxyFile {
        let primary = self.endpoint(PRIMARY);
        let mut file = ProxyFile::new(primary, tenants.into_iter().collect());
        let urls: Vec<_> = self
            .replicas()
            .map(|at| self.endpoint(at).url().into())
            .collect();
        file.set_cluster("replicas", toml::Value::Array(urls));
        file
    }

    /// A proxy before all of them, with an admin listener.
    pub fn proxy(&self, tenants: impl IntoIterator<Item = Tenant>) -> proxy::Builder {
        Proxy::with(self.file(tenants)).admin()
    }

    /// Waits until the running replicas have replayed all that is written now.
    pub fn catch_up(&self) {
        let written = self
            .admin(PRIMARY)
            .value("select pg_current_wal_flush_lsn()");
        self.reach(&written);
    }

    /// Waits until the running replicas have replayed up to there.
    pub fn reach(&self, position: &str) {
        let replayed = format!("select pg_last_wal_replay_lsn() >= '{position}'");
        for at in self.replicas().filter(|at| self.servers[*at].is_running()) {
            let mut standby = self.admin(at);
            eventually("the standby has replayed", || {
                standby.value(&replayed) != "f"
            });
        }
    }

    /// Stops the replay of a replica, and waits until it stands.
    pub fn pause(&self, at: usize) {
        let mut admin = self.admin(at);
        admin.exec("select pg_wal_replay_pause()");
        eventually("the replay stands", || {
            admin.value("select pg_get_wal_replay_pause_state()") == "paused"
        });
    }

    /// Lets the replay of a replica go on.
    pub fn resume(&self, at: usize) {
        self.admin(at).exec("select pg_wal_replay_resume()");
    }

    /// Makes a replica a primary, and returns when it is one.
    pub fn promote(&self, at: usize) {
        let promoted = self.admin(at).value("select pg_promote()");
        assert_eq!(promoted, "t", "server {at} is a primary now");
    }

    /// Has a replica stream from another server.
    pub fn follow(&self, at: usize, leader: usize) {
        let port = self.endpoint(leader).port();
        let mut admin = self.admin(at);
        admin.exec(&format!(
            "alter system set primary_conninfo = 'host=127.0.0.1 port={port} user=admin'"
        ));
        admin.exec("select pg_reload_conf()");
    }

    /// Now.
    pub fn now(&self) -> Since {
        Since(self.servers.iter().map(Postgres::log_length).collect())
    }

    /// The servers that have run statements with this mark since then, once for each statement.
    pub fn seen(&self, since: &Since, mark: &str) -> Vec<usize> {
        let mut seen = Vec::new();
        for (at, (server, start)) in self.servers.iter().zip(&since.0).enumerate() {
            let log = server.log_since(*start);
            seen.extend(executions(&log, mark).map(|_| at));
        }
        seen
    }
}

/// The log's entries on statements with this mark; not those that name it along with an error.
fn executions<'a>(log: &'a str, mark: &'a str) -> impl Iterator<Item = &'a str> {
    let entries = log.split("LOG:  ").skip(1);
    entries.filter(move |entry| {
        let is_run = entry.starts_with("statement: ") || entry.starts_with("execute ");
        let (entry, _) = entry.split_once("ERROR:  ").unwrap_or((entry, ""));
        is_run && entry.contains(mark)
    })
}
