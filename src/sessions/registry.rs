//! All sessions by process id.

use super::{Order, SessionHandle};
use crate::{
    tenant::TenantId,
    usage::{Book, Counters},
    wire::CancelKey,
};
use parking_lot::Mutex;
use rand::Rng as _;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Instant, SystemTime},
};
use subtle::ConstantTimeEq as _;

/// Bytes of a cancel secret in protocol 3.2.
const LONG_SECRET_BYTES: usize = 32;

/// Counters of sessions, those that have ended included.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// Transactions.
    pub transactions: u64,
    /// Statements.
    pub queries: u64,
    /// Bytes from clients.
    pub client_bytes: u64,
    /// Bytes from servers.
    pub server_bytes: u64,
}

impl Totals {
    fn add(&mut self, counters: &Counters) {
        self.transactions += counters.transactions.load(Relaxed);
        self.queries += counters.queries.load(Relaxed);
        self.client_bytes += counters.client_bytes.load(Relaxed);
        self.server_bytes += counters.server_bytes.load(Relaxed);
    }
}

/// All sessions.
pub struct Sessions {
    /// What their tenants use.
    pub usage: Arc<Book>,
    by_pid: Mutex<HashMap<u32, Arc<SessionHandle>>>,
    ended: Mutex<Totals>,
    clock: Arc<AtomicU64>,
    started: Instant,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            usage: Arc::default(),
            by_pid: Mutex::default(),
            ended: Mutex::default(),
            clock: Arc::default(),
            started: Instant::now(),
        }
    }
}

impl Sessions {
    /// The clock that handles are stamped with: milliseconds, as of the last tick.
    pub fn clock(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.clock)
    }

    /// Moves the clock to now and returns it.
    pub fn tick(&self) -> u64 {
        let now_ms = self.started.elapsed().as_millis() as u64;
        self.clock.store(now_ms, Relaxed);
        now_ms
    }

    /// Enters a session that `make` builds around a cancel key which no other session has.
    pub fn enter(
        &self,
        minor: u16,
        make: impl FnOnce(CancelKey) -> SessionHandle,
    ) -> Arc<SessionHandle> {
        let secret_bytes = if minor >= 2 { LONG_SECRET_BYTES } else { 4 };
        let mut secret = vec![0; secret_bytes];
        rand::rng().fill_bytes(&mut secret);
        let mut by_pid = self.by_pid.lock();
        let pid = loop {
            // Positive, as clients read it into a signed number.
            let pid = rand::rng().next_u32() & 0x7fff_ffff;
            if pid != 0 && !by_pid.contains_key(&pid) {
                break pid;
            }
        };
        let handle = Arc::new(make(CancelKey {
            pid,
            secret: secret.into(),
        }));
        by_pid.insert(pid, Arc::clone(&handle));
        drop(by_pid);
        let tenant = &handle.tenant.load().id;
        let meter = self.usage.begin(tenant, pid, &handle.counters);
        meter.follow(&handle.tenant.load().terms, SystemTime::now());
        handle.meter.get_or_init(|| meter);
        handle
    }

    /// Takes a session out.
    pub fn leave(&self, handle: &SessionHandle) {
        let removed = self.by_pid.lock().remove(&handle.key.pid);
        debug_assert!(removed.is_some(), "a session leaves once");
        self.ended.lock().add(&handle.counters);
        if let Some(meter) = handle.meter() {
            meter.end(handle.key.pid);
        }
    }

    /// The session with this cancel key, if there is one.
    pub fn find(&self, key: &CancelKey) -> Option<Arc<SessionHandle>> {
        let by_pid = self.by_pid.lock();
        let handle = by_pid.get(&key.pid)?;
        bool::from(handle.key.secret.ct_eq(&key.secret)).then(|| Arc::clone(handle))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.by_pid.lock().len()
    }

    /// All of them now.
    pub fn all(&self) -> Vec<Arc<SessionHandle>> {
        self.by_pid.lock().values().cloned().collect()
    }

    /// Looks at every session, under the lock: quick things only.
    pub fn for_each(&self, look: impl FnMut(&Arc<SessionHandle>)) {
        self.by_pid.lock().values().for_each(look);
    }

    /// Those of one tenant.
    pub fn of_tenant(&self, tenant: &TenantId) -> Vec<Arc<SessionHandle>> {
        let mut all = self.all();
        all.retain(|handle| handle.tenant.load().id == *tenant);
        all
    }

    /// Gives an order to every session.
    pub fn give_all(&self, order: Order) {
        for handle in self.all() {
            handle.give(order);
        }
    }

    /// What all sessions did since the start.
    pub fn totals(&self) -> Totals {
        let mut totals = *self.ended.lock();
        for handle in self.all() {
            totals.add(&handle.counters);
        }
        totals
    }
}
