//! A logged-in server connection and all that is known of its state.

use super::{
    Binding, Endpoint, Prepared, Replies, Settings, Suspicion, UpstreamError,
    replies::{Change, Lost},
};
use crate::{
    net::Stream,
    tenant::{Scope, TenantId},
    wire::CancelKey,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Instant,
};
use tokio::sync::Notify;

/// What ReadyForQuery said last. Nothing else tells whether a transaction is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxStatus {
    /// None is.
    Idle,
    /// One is.
    Open,
    /// One is, and it has failed.
    Failed,
}

impl TxStatus {
    /// From the byte of ReadyForQuery.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::Open),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }
}

/// Whose `nextval`s a server remembers for `currval` and `lastval`. Sessions are told apart by the
/// process id that their clients know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// None were taken since it was made or reset.
    Nobodys,
    /// This session's alone.
    Of(u32),
    /// Several sessions'.
    Mixed,
}

impl Numbers {
    /// The same when this session may take numbers next.
    #[inline]
    #[must_use]
    pub fn shared_with(self, session: u32) -> Self {
        match self {
            Self::Nobodys => Self::Of(session),
            Self::Of(other) if other == session => self,
            _ => Self::Mixed,
        }
    }
}

/// Who a server connection is, for cancels and for the check before a byte is relayed.
#[derive(Debug)]
pub struct Identity {
    /// Whose role it is logged in as.
    pub tenant: TenantId,
    /// With which privileges.
    pub scope: Scope,
    /// The role itself.
    pub role: Box<str>,
    /// What cancels its statement.
    pub key: CancelKey,
    /// Where to send that.
    pub endpoint: Arc<Endpoint>,
    cancels_in_flight: AtomicU32,
    cancels_done: Notify,
    /// A cancel may or may not still come: the server can't be used again.
    is_poisoned: AtomicBool,
}

impl Identity {
    /// Nobody is cancelling yet.
    pub fn new(
        (tenant, scope): (TenantId, Scope),
        role: &str,
        key: CancelKey,
        endpoint: &Arc<Endpoint>,
    ) -> Self {
        Self {
            tenant,
            scope,
            role: role.into(),
            key,
            endpoint: Arc::clone(endpoint),
            cancels_in_flight: AtomicU32::new(0),
            cancels_done: Notify::new(),
            is_poisoned: AtomicBool::new(false),
        }
    }

    /// Keeps the server from being reused until the guard is gone.
    pub fn begin_cancel(self: &Arc<Self>) -> CancelInFlight {
        self.cancels_in_flight.fetch_add(1, Ordering::SeqCst);
        CancelInFlight(Arc::clone(self))
    }

    /// Whether a cancel is on its way to the server.
    pub fn has_cancel_in_flight(&self) -> bool {
        self.cancels_in_flight.load(Ordering::SeqCst) > 0
    }

    /// Waits until no cancel is on its way.
    ///
    /// # Cancel safety
    /// Cancel safe: it only waits.
    pub async fn cancels_landed(&self) {
        loop {
            let landed = self.cancels_done.notified();
            if !self.has_cancel_in_flight() {
                return;
            }
            landed.await;
        }
    }
}

/// A cancel on its way to a server.
#[must_use = "the server is reusable again when this is dropped"]
#[derive(Debug)]
pub struct CancelInFlight(Arc<Identity>);

impl CancelInFlight {
    /// Sends the cancel and waits until it has landed. When that can't be known, the server is
    /// not used again.
    ///
    /// # Errors
    /// [`UpstreamError`]; at most after the endpoint's `connect_timeout`.
    ///
    /// # Cancel safety
    /// Dropping the future poisons the server.
    pub async fn deliver(self) -> Result<(), UpstreamError> {
        let server = &self.0;
        server.is_poisoned.store(true, Ordering::SeqCst);
        server.endpoint.cancel(&server.key).await?;
        server.is_poisoned.store(false, Ordering::SeqCst);
        Ok(())
    }
}

impl Drop for CancelInFlight {
    fn drop(&mut self) {
        self.0.cancels_in_flight.fetch_sub(1, Ordering::SeqCst);
        self.0.cancels_done.notify_waiters();
    }
}

/// A server connection. Dropping it closes it; PostgreSQL then rolls back.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts about the server that don't exclude each other"
)]
#[derive(Debug)]
pub struct Server {
    /// Its bytes.
    pub stream: Stream,
    /// What it was asked and has not answered.
    pub replies: Replies,
    /// The shared statements that it has.
    pub prepared: Prepared,
    /// Whose unnamed statement it has: the serial number of that Parse; 0 is nobody's.
    pub unnamed: u64,
    /// The settings that stand on it, beyond those it started with.
    pub applied: Arc<Settings>,
    /// What ReadyForQuery said last.
    pub status: TxStatus,
    /// Whether it must be reset before anyone else has it.
    pub is_dirty: bool,
    /// Whether its transactions only read unless they say otherwise, as we have set it.
    pub reads_only: bool,
    /// What may have been left on it since it was last clean.
    pub suspicion: Suspicion,
    /// Whether a statement ran on it while the tenant's functions were not known.
    pub is_unsurveyed: bool,
    /// Whose sequences' last numbers it remembers.
    pub numbers: Numbers,
    /// Whose notifications alone it has sent since all others were heard, by the session's process
    /// id; 0 is nobody's.
    pub notifies_for: u32,
    /// Whether it starts with one client's own settings, and can serve no other.
    pub is_dedicated: bool,
    /// Whether its configuration has changed since it was logged in: it is not lent again.
    pub is_outdated: bool,
    /// A slot's: what binds it to its tenant, and whether it is.
    pub binding: Option<Binding>,
    /// When it was logged in.
    pub born: Instant,
    /// When it was last given back.
    pub returned_at: Instant,
    identity: Arc<Identity>,
}

impl Server {
    /// A server that has just said that it is ready.
    pub fn new(stream: Stream, identity: Identity) -> Self {
        let now = Instant::now();
        Self {
            stream,
            replies: Replies::default(),
            prepared: Prepared::default(),
            unnamed: 0,
            applied: Settings::none(),
            status: TxStatus::Idle,
            is_dirty: false,
            reads_only: false,
            suspicion: Suspicion::NONE,
            is_unsurveyed: false,
            numbers: Numbers::Nobodys,
            notifies_for: 0,
            is_dedicated: false,
            is_outdated: false,
            binding: None,
            born: now,
            returned_at: now,
            identity: Arc::new(identity),
        }
    }

    /// Who it is.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Whether it can be lent to another client as it is: idle, everything answered, nothing
    /// left on it, no cancel on its way.
    pub fn is_clean(&self) -> bool {
        self.status == TxStatus::Idle
            && self.replies.is_settled()
            && !self.is_dirty
            && !self.reads_only
            && self.suspicion.is_empty()
            && !self.is_unsurveyed
            && !self.is_dedicated
            && !self.is_outdated
            && !self.identity.has_cancel_in_flight()
            && !self.identity.is_poisoned.load(Ordering::SeqCst)
    }

    /// Undoes what errors kept from happening, from the last to the first; returns what concerns
    /// the client, in that order.
    pub fn settle_lost(&mut self) -> Vec<Lost> {
        let mut of_client = Vec::new();
        for lost in self.replies.take_lost().into_iter().rev() {
            match lost {
                Lost::Parse(id) => drop(self.prepared.remove(id)),
                Lost::Close(id, bytes) => self.prepared.restore(id, bytes),
                Lost::UnnamedCopy(change) => self.take_back(change, change.before),
                Lost::UnnamedCopyFailed(change) => self.take_back(change, 0),
                Lost::Unnamed(change) => {
                    self.take_back(change, change.before);
                    of_client.push(lost);
                }
                Lost::UnnamedFailed(change) => {
                    self.take_back(change, 0);
                    of_client.push(lost);
                }
                lost => of_client.push(lost),
            }
        }
        of_client
    }

    /// Undoes a change of the unnamed statement, if no other has followed it.
    fn take_back(&mut self, change: Change, to: u64) {
        if self.unnamed == change.made {
            self.unnamed = to;
        }
    }

    /// Notes that everything on the server is as it was after the login.
    pub fn mark_reset(&mut self) {
        self.prepared.clear();
        self.unnamed = 0;
        self.applied = Settings::none();
        self.is_dirty = false;
        self.reads_only = false;
        self.suspicion = Suspicion::NONE;
        self.is_unsurveyed = false;
        self.numbers = Numbers::Nobodys;
        self.unbind();
    }

    /// Notes that a slot may have lost its tenant: RESET takes it away like any other setting.
    #[inline]
    pub fn unbind(&mut self) {
        if let Some(binding) = &mut self.binding {
            binding.is_bound = false;
        }
    }

    /// What binds a slot to its tenant again; `None` when it is bound or no slot.
    #[inline]
    pub fn missing_binding(&mut self) -> Option<String> {
        let binding = self.binding.as_mut().filter(|b| !b.is_bound)?;
        binding.is_bound = true;
        Some(binding.sql(&self.identity))
    }
}
