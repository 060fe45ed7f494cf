//! What the clients of one tenant share.

use super::{
    chance::Chance,
    harness::{Client, Connect},
    post::Post,
};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Instant,
};

/// When scripts end.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After so many steps of each client.
    Steps(u32),
    /// At this time.
    Time(Instant),
}

/// One tenant, seen by its clients.
pub struct World {
    /// The tenant's id.
    pub tenant: String,
    /// Its role.
    pub role: String,
    /// Where its clients connect.
    pub connect: Connect,
    /// What settings are in a new session.
    pub defaults: BTreeMap<&'static str, String>,
    /// Its notifications.
    pub post: Post,
    /// Who holds the locks that everyone wants: the key, the holder's session, and since when.
    pub holders: Mutex<BTreeMap<u32, (String, u64)>>,
    /// Sessions that were found not to hold a lock that the holders say they hold.
    pub doubted: Mutex<Vec<(u32, String)>>,
    /// A superuser's connection.
    pub admin: Mutex<Client>,
    /// The seed of all scripts.
    pub seed: u64,
    /// Servers of the pool.
    pub pool_size: u32,
    /// When scripts end.
    pub until: Until,
    /// What nobody does.
    pub without: Vec<String>,
    /// What happened how many times.
    pub counts: Mutex<BTreeMap<&'static str, u64>>,
    /// A client found something wrong: the others need not go on.
    pub is_over: AtomicBool,
    steps: AtomicU64,
}

/// One server is killed every so many steps.
const STEPS_PER_KILL: u64 = 400;

impl World {
    /// A tenant whose clients connect there.
    pub fn new(tenant: &str, role: &str, connect: Connect, admin: Client) -> Self {
        Self {
            tenant: tenant.to_owned(),
            role: role.to_owned(),
            connect,
            defaults: BTreeMap::new(),
            post: Post::default(),
            holders: Mutex::default(),
            doubted: Mutex::default(),
            admin: Mutex::new(admin),
            seed: 0,
            pool_size: 0,
            until: Until::Steps(0),
            without: Vec::new(),
            counts: Mutex::default(),
            is_over: AtomicBool::new(false),
            steps: AtomicU64::new(0),
        }
    }

    /// Whether anybody does this.
    pub fn has(&self, what: &str) -> bool {
        self.without.iter().all(|without| without != what)
    }

    /// The script of this client.
    pub fn chance(&self, client: usize) -> Chance {
        let tenant: usize = self.tenant.bytes().map(usize::from).sum();
        let stream = tenant * 10_000 + client;
        Chance::new(self.seed, u64::try_from(stream).expect("a usize fits"))
    }

    /// Whether a client that made so many steps makes another.
    pub fn goes_on(&self, steps: u32) -> bool {
        let is_time = match self.until {
            Until::Steps(count) => steps < count,
            Until::Time(end) => Instant::now() < end,
        };
        is_time && !self.is_over.load(Ordering::Relaxed)
    }

    /// Counts what happened.
    pub fn count(&self, what: &'static str) {
        *self.counts.lock().entry(what).or_default() += 1;
    }

    /// How many times it happened.
    pub fn counted(&self, what: &'static str) -> u64 {
        self.counts.lock().get(what).copied().unwrap_or_default()
    }

    /// One more step; kills a server now and then.
    pub fn step(&self) {
        let step = self.steps.fetch_add(1, Ordering::Relaxed);
        if step % STEPS_PER_KILL == STEPS_PER_KILL - 1 && self.has("kills") {
            self.kill();
        }
    }

    /// How many steps were made.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    fn kill(&self) {
        let sql = format!(
            "select pg_terminate_backend(pid) from (select pid from pg_stat_activity \
             where usename = '{}' order by random() limit 1) victim",
            self.role
        );
        // Counted before anyone can notice.
        self.count("kills");
        self.admin.lock().values(&sql);
    }
}
