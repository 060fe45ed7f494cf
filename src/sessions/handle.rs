//! One session, seen from outside its task.

use super::{Stall, pass::Charged};
use crate::{
    limits::{Awaited, Restraints},
    net::Peer,
    tenant::{Address, Fullness, KeyId, Scope, Status, Tenant, Timeouts},
    upstream::{CancelInFlight, Identity},
    usage::{Counters, Meter},
    wire::{CancelKey, Refusal, SqlState},
};
use arc_swap::ArcSwap;
use atomic_waker::AtomicWaker;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// What a session is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Order {
    /// Stop waiting for a server: the client has sent a cancel.
    CancelWait = 1,
    /// End at the next transaction boundary: pgusher is shutting down.
    Drain = 2,
    /// End now: the shutdown deadline has passed.
    Shutdown = 3,
    /// End now: the API key is revoked, or another has its name.
    Revoked = 4,
    /// End now: a statement ran over `query_timeout` and its cancel was ignored.
    QueryTimeout = 5,
    /// End now: a transaction ran over `transaction_timeout`.
    TransactionTimeout = 6,
    /// End now: a transaction stood idle over `idle_transaction_timeout`.
    IdleTransactionTimeout = 7,
    /// End now: the client stood idle over `client_idle_timeout`.
    ClientIdleTimeout = 8,
    /// End now: the tenant is suspended.
    Suspended = 9,
    /// End now: the tenant is gone, or is somewhere else.
    Gone = 10,
    /// End now: the tenant keeps others from what it shares with them.
    Trespassed = 11,
    /// End now: the API key has expired.
    Expired = 12,
    /// Go on elsewhere: the replica that it waits for does not answer. Who has been told a part of the
    /// answer goes on waiting.
    ReplicaLost = 13,
    /// End now: the server that it holds is the primary no longer.
    PrimaryLost = 14,
    /// End, if others wait for the server that it holds: the client takes nothing of its answer.
    ClientWriteTimeout = 15,
}

impl Order {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::CancelWait,
            2 => Self::Drain,
            3 => Self::Shutdown,
            4 => Self::Revoked,
            5 => Self::QueryTimeout,
            6 => Self::TransactionTimeout,
            7 => Self::IdleTransactionTimeout,
            8 => Self::ClientIdleTimeout,
            9 => Self::Suspended,
            10 => Self::Gone,
            11 => Self::Trespassed,
            12 => Self::Expired,
            13 => Self::ReplicaLost,
            14 => Self::PrimaryLost,
            15 => Self::ClientWriteTimeout,
            _ => return None,
        })
    }

    /// Whether it holds in the middle of a transaction, too.
    pub fn is_immediate(self) -> bool {
        !matches!(
            self,
            Self::CancelWait | Self::Drain | Self::ReplicaLost | Self::ClientWriteTimeout
        )
    }

    /// What the client is told.
    pub fn refusal(self) -> Refusal {
        let (sqlstate, message) = match self {
            Self::CancelWait => {
                return Refusal::error(
                    SqlState::CANCELED,
                    "canceling statement due to user request",
                );
            }
            Self::Drain | Self::Shutdown => (
                SqlState::SHUTDOWN,
                "terminating connection: pgusher is shutting down",
            ),
            Self::ReplicaLost | Self::PrimaryLost => {
                let text = "the connection to the tenant's PostgreSQL server was lost";
                let why = "Another server is the primary now. Whether the transaction in progress was committed is not known.";
                return Refusal::fatal(SqlState::CONNECTION_FAILURE, text).with_detail(why);
            }
            Self::Revoked => return Self::no_longer_active("The API key was revoked."),
            Self::Expired => return Self::no_longer_active("The API key has expired."),
            Self::Suspended => return Self::no_longer_active("The tenant is suspended."),
            Self::Gone => return Self::no_longer_active("The tenant was removed or moved."),
            Self::Trespassed => {
                let text = "terminating connection: the tenant holds up others with a lock";
                let why = "A session of it waited for, or kept, a lock on what it shares with other tenants.";
                return Refusal::fatal(SqlState::SHUTDOWN, text).with_detail(why);
            }
            Self::QueryTimeout => (
                SqlState::CANCELED,
                "terminating connection due to query_timeout",
            ),
            Self::TransactionTimeout => (
                SqlState::TRANSACTION_TIMEOUT,
                "terminating connection due to transaction_timeout",
            ),
            Self::IdleTransactionTimeout => (
                SqlState::IDLE_IN_TRANSACTION,
                "terminating connection due to idle_transaction_timeout",
            ),
            Self::ClientIdleTimeout => (
                SqlState::IDLE_SESSION,
                "terminating connection due to client_idle_timeout",
            ),
            Self::ClientWriteTimeout => (
                SqlState::IDLE_SESSION,
                "terminating connection due to client_write_timeout",
            ),
        };
        Refusal::fatal(sqlstate, message)
    }

    fn no_longer_active(why: &'static str) -> Refusal {
        let text = "terminating connection: the tenant or its API key is no longer active";
        Refusal::fatal(SqlState::SHUTDOWN, text).with_detail(why)
    }
}

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Activity {
    /// Nothing, outside a transaction.
    Idle = 0,
    /// It waits for a server.
    Waiting = 1,
    /// A statement runs.
    Active = 2,
    /// Nothing, inside a transaction.
    IdleInTransaction = 3,
}

/// What a session is doing, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// What.
    pub activity: Activity,
    /// Since when, in milliseconds of the sessions' clock.
    pub since_ms: u64,
}

/// The server that a session holds.
#[derive(Debug, Default)]
struct Held {
    identity: Option<Arc<Identity>>,
    /// It is being given the session's settings, which no cancel may hit.
    is_configuring: bool,
    /// A cancel came meanwhile.
    is_cancel_due: bool,
}

/// When a key expires, in milliseconds since 1970.
fn key_ends_ms(tenant: &Tenant, key: &KeyId) -> u64 {
    let key = tenant.keys.iter().find(|other| other.id == *key);
    key.and_then(|key| key.expires).map_or(u64::MAX, unix_ms)
}

/// What a session of this scope has to know of its tenant's storage: who only reads, nothing.
fn fullness_for(tenant: &Tenant, scope: Scope) -> Fullness {
    match scope {
        Scope::ReadWrite => tenant.fullness(),
        Scope::ReadOnly => Fullness::Unlimited,
    }
}

/// Milliseconds since 1970.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// One session, seen from outside its task.
#[derive(Debug)]
pub struct SessionHandle {
    /// The process id and secret that the client was given.
    pub key: CancelKey,
    /// The tenant, as of the login or the last reload.
    pub tenant: ArcSwap<Tenant>,
    /// Which key opened it.
    pub key_id: KeyId,
    /// What that key may do.
    pub scope: Scope,
    /// Where the client is.
    pub peer: Peer,
    /// What it did.
    pub counters: Arc<Counters>,
    /// Where that is gathered, from its entry on.
    pub(super) meter: OnceLock<Arc<Meter>>,
    /// What limits its transactions.
    pub restraints: Arc<Restraints>,
    /// What it waits for before a transaction.
    pub awaited: Awaited,
    pub(super) charged: Charged,
    server: Mutex<Held>,
    order: AtomicU8,
    is_query_overdue: AtomicBool,
    waker: AtomicWaker,
    state: AtomicU64,
    transaction_since_ms: AtomicU64,
    /// Whether its client takes what it is sent.
    pub stall: Stall,
    /// When its key expires, in milliseconds since 1970.
    key_ends_ms: AtomicU64,
    /// How much of its tenant's storage is used.
    fullness: AtomicU8,
    clock: Arc<AtomicU64>,
}

impl SessionHandle {
    /// A session that is idle.
    pub fn new(
        key: CancelKey,
        tenant: Arc<Tenant>,
        (key_id, scope): (KeyId, Scope),
        peer: Peer,
        (clock, restraints): (Arc<AtomicU64>, Arc<Restraints>),
    ) -> Self {
        let key_ends_ms = key_ends_ms(&tenant, &key_id);
        let fullness = fullness_for(&tenant, scope);
        let handle = Self {
            key,
            tenant: ArcSwap::new(tenant),
            key_id,
            scope,
            peer,
            counters: Arc::default(),
            meter: OnceLock::new(),
            restraints,
            awaited: Awaited::default(),
            charged: Charged::default(),
            server: Mutex::default(),
            order: AtomicU8::new(0),
            is_query_overdue: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            state: AtomicU64::new(0),
            transaction_since_ms: AtomicU64::new(0),
            stall: Stall::default(),
            key_ends_ms: AtomicU64::new(key_ends_ms),
            fullness: AtomicU8::new(fullness as u8),
            clock,
        };
        handle.enter(Activity::Idle);
        handle
    }

    /// What its tenant uses in this process; `None` before its entry.
    pub fn meter(&self) -> Option<&Arc<Meter>> {
        self.meter.get()
    }

    /// Gives an order. A stronger one that stands stays.
    pub fn give(&self, order: Order) {
        let stronger = |standing: u8| {
            let standing_immediate = Order::from_byte(standing).is_some_and(Order::is_immediate);
            (!standing_immediate
                && (standing == 0 || order.is_immediate() || order == Order::Drain))
                .then_some(order as u8)
        };
        if self.order.fetch_update(Relaxed, Relaxed, stronger).is_ok() {
            self.waker.wake();
        }
    }

    /// Goes on under the tenant's new settings, or ends: the tenant, its place or the key is gone.
    pub fn follow(&self, new: Option<Arc<Tenant>>) {
        let old = self.tenant.load_full();
        match new {
            Some(new) if Arc::ptr_eq(&old, &new) => {}
            Some(new) if old.keeps_session(&new, &self.key_id) => {
                let end = key_ends_ms(&new, &self.key_id);
                if let Some(meter) = self.meter() {
                    meter.follow(&new.terms, SystemTime::now());
                }
                self.restraints.follow(&new);
                let fullness = fullness_for(&new, self.scope);
                self.fullness.store(fullness as u8, Relaxed);
                self.tenant.store(new);
                self.key_ends_ms.store(end, Relaxed);
            }
            Some(new) if new.status == Status::Suspended => self.give(Order::Suspended),
            Some(new) if new.keeps_place(&old) => self.give(Order::Revoked),
            _ => self.give(Order::Gone),
        }
    }

    /// Whether its key has expired by then, in milliseconds since 1970.
    pub(super) fn has_expired(&self, at_ms: u64) -> bool {
        self.key_ends_ms.load(Relaxed) <= at_ms
    }

    /// How much of its tenant's storage is used, where it may write at all. One relaxed load.
    #[inline]
    pub fn fullness(&self) -> Fullness {
        Fullness::from_byte(self.fullness.load(Relaxed))
    }

    /// The order that stands.
    #[inline]
    pub fn order(&self) -> Option<Order> {
        match self.order.load(Relaxed) {
            0 => None,
            byte => Order::from_byte(byte),
        }
    }

    /// Takes back a cancel that has been obeyed.
    pub fn obeyed_cancel(&self) {
        let cancel = Order::CancelWait as u8;
        let standing = self.order.compare_exchange(cancel, 0, Relaxed, Relaxed);
        debug_assert!(standing != Ok(0), "only an order is obeyed");
    }

    /// Takes back what was said of a server that the session holds no longer.
    pub fn forget_lost_server(&self) {
        let orders = [
            Order::ReplicaLost,
            Order::PrimaryLost,
            Order::ClientWriteTimeout,
        ];
        for order in orders {
            self.forget(order);
        }
    }

    /// Takes an order back that does not hold any more.
    pub fn forget(&self, order: Order) {
        let standing = self
            .order
            .compare_exchange(order as u8, 0, Relaxed, Relaxed);
        debug_assert!(standing != Ok(0), "only an order is forgotten");
    }

    /// Has the current task woken when an order comes.
    #[inline]
    pub fn listen(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    /// Waits for an order.
    ///
    /// # Cancel safety
    /// Cancel safe: the order stands until it is obeyed.
    pub async fn ordered(&self) -> Order {
        std::future::poll_fn(|cx| {
            self.listen(cx);
            // Who waits holds none.
            self.forget_lost_server();
            self.order().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Notes what the session does now.
    #[inline]
    pub fn enter(&self, activity: Activity) {
        self.state
            .store(self.clock.load(Relaxed) << 8 | activity as u64, Relaxed);
    }

    /// Milliseconds of the sessions' clock.
    #[inline]
    pub fn now_ms(&self) -> u64 {
        self.clock.load(Relaxed)
    }

    /// Notes that a transaction begins.
    #[inline]
    pub fn begin_transaction(&self) {
        self.transaction_since_ms
            .store(self.clock.load(Relaxed).max(1), Relaxed);
    }

    /// Notes that a transaction goes on, or begins.
    #[inline]
    pub fn continue_transaction(&self) {
        if self.transaction_since_ms.load(Relaxed) == 0 {
            self.begin_transaction();
            // The one before ended on a server that the session has kept.
            self.counters.begins(Instant::now());
        }
    }

    /// Notes that the transaction has not begun after all.
    pub fn forget_transaction(&self) {
        self.transaction_since_ms.store(0, Relaxed);
    }

    /// Notes that no transaction is open.
    #[inline]
    pub fn end_transaction(&self) {
        self.transaction_since_ms.store(0, Relaxed);
        Counters::add(&self.counters.transactions, 1);
    }

    /// What the session does.
    pub fn state(&self) -> State {
        let packed = self.state.load(Relaxed);
        let activity = match packed & 0xff {
            0 => Activity::Idle,
            1 => Activity::Waiting,
            2 => Activity::Active,
            _ => Activity::IdleInTransaction,
        };
        State {
            activity,
            since_ms: packed >> 8,
        }
    }

    /// When the open transaction began, in milliseconds of the sessions' clock.
    pub fn transaction_since_ms(&self) -> Option<u64> {
        Some(self.transaction_since_ms.load(Relaxed)).filter(|ms| *ms > 0)
    }

    /// The timeouts that hold for it.
    pub fn timeouts(&self) -> Timeouts {
        self.tenant.load().timeouts.clone()
    }

    /// Notes that the session holds this server: cancels go there from now on.
    pub fn hold(&self, server: &Arc<Identity>) {
        self.server.lock().identity = Some(Arc::clone(server));
    }

    /// Notes that the session holds no server. After this no new cancel reaches it.
    pub fn let_go(&self) {
        *self.server.lock() = Held::default();
    }

    /// Whether the session holds the server of this process there.
    pub fn holds(&self, pid: u32, address: &Address) -> bool {
        let held = self.server.lock();
        let identity = held.identity.as_ref();
        identity.is_some_and(|it| it.key.pid == pid && it.endpoint.address == *address)
    }

    /// Whether the session holds a server there.
    pub fn is_at(&self, address: &Address) -> bool {
        let held = self.server.lock();
        let identity = held.identity.as_ref();
        identity.is_some_and(|it| it.endpoint.address == *address)
    }

    /// Begins a cancel of what the session runs; `None` when it holds no server, or when the cancel
    /// is kept until the server has the session's settings.
    pub fn begin_cancel(&self) -> Option<CancelInFlight> {
        // The guard is made under the lock, so that the server can't be let go in between.
        let mut held = self.server.lock();
        if held.is_configuring {
            held.is_cancel_due = true;
            return None;
        }
        held.identity.as_ref().map(Identity::begin_cancel)
    }

    /// Notes that the server is being given the session's settings.
    pub fn configure(&self) {
        self.server.lock().is_configuring = true;
    }

    /// Notes that the server has the session's settings; the cancel that came meanwhile, if any.
    pub fn configured(&self) -> Option<CancelInFlight> {
        let mut held = self.server.lock();
        held.is_configuring = false;
        let is_due = std::mem::take(&mut held.is_cancel_due);
        held.identity
            .as_ref()
            .filter(|_| is_due)
            .map(Identity::begin_cancel)
    }

    /// Notes that the running statement is cancelled by us, so that its error is worded by us.
    pub fn mark_query_overdue(&self) {
        self.is_query_overdue.store(true, Relaxed);
    }

    /// Whether the running statement is cancelled by us.
    pub fn is_query_overdue(&self) -> bool {
        self.is_query_overdue.load(Relaxed)
    }

    /// Whether an error just seen is due to `query_timeout`; asked once per error.
    pub fn take_query_overdue(&self) -> bool {
        self.is_query_overdue.load(Relaxed) && self.is_query_overdue.swap(false, Relaxed)
    }
}
