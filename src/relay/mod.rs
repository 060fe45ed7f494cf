//! Frames between a client and a checkout, for one transaction.
//!
//! One task owns both ends; there is no channel, no lock and no allocation per message. Bytes are
//! read into a [`crate::net::Flow`] for each direction, looked at in place, and sent with one
//! write. Only the messages that matter are looked into:
//!
//! - from the client (`from_client`): everything that expects an answer is noted in the
//!   server's [`crate::upstream::Replies`]; names of prepared statements are rewritten, and what
//!   the server lacks is parsed first, in the same write;
//! - from the server (`from_server`): each message is held against that queue; ReadyForQuery
//!   alone says whether the transaction is over.
//!
//! When the client leaves in the middle, `depart` brings the server to an end that can be
//! trusted, or gives it up.

mod begun;
mod client;
mod depart;
mod error;
mod from_client;
mod from_server;
mod full;
mod lending;
mod listening;
mod names;
mod own;
mod places;
mod reading;
mod refuse;
mod reported;
mod resets;
mod sets;
mod shapes;
mod standing;
mod statements;
mod tags;
mod toll;
mod traces;
mod unnamed;
mod unnamed_requests;

pub use begun::Begun;
pub use client::Client;
pub use depart::Farewell;
pub use error::RelayError;
pub use full::Spaces;
pub use names::Names;
pub use own::value as own_value;
pub use reading::{Marks, Moved, Reading};
pub use refuse::{no_listening, not_allowed, not_on_replica, too_many};
pub use toll::LongWait;
pub use traces::suspects_with as suspects;
pub use unnamed::Unnamed;

use crate::{
    net::Flow,
    pool::{Run, TenantPool},
    sessions::{Activity, Order},
    tenant::{PoolMode, ReadTarget},
    upstream::{Expect, Numbers, Server, StatementId, Suspicion, TxStatus},
    wire::frontend,
};
use std::{
    sync::{Arc, atomic::AtomicBool},
    task::{Context, Poll},
};

/// A statement name that no server has: asking for it makes PostgreSQL raise the error, and skip
/// to the next Sync, that we word ourselves.
const NO_SUCH_STATEMENT: &[u8] = b"pgusher: no such statement";

/// Has a server forget what `currval` and `lastval` would tell.
const FORGET_NUMBERS: &str = ";DISCARD SEQUENCES";

/// What a relay moves before it lets others have the thread, in bytes; a read counts as so many more.
const TURN_BYTES: usize = 256 * 1024;
const READ_BYTES: usize = 4 * 1024;

/// What is left of a message that was not here whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    None,
    /// So many bytes that go on.
    Forward(usize),
    /// So many bytes that don't.
    Drop(usize),
}

impl Rest {
    /// Passes as much of it as is in the flow; what is left then.
    fn pass(self, flow: &mut Flow) -> Self {
        let here = flow.unscanned().len();
        match self {
            Self::None => Self::None,
            Self::Forward(left) => {
                flow.approve(left.min(here));
                left.checked_sub(here)
                    .filter(|left| *left > 0)
                    .map_or(Self::None, Self::Forward)
            }
            Self::Drop(left) => {
                flow.skip(left.min(here));
                left.checked_sub(here)
                    .filter(|left| *left > 0)
                    .map_or(Self::None, Self::Drop)
            }
        }
    }
}

/// How a relay ended.
#[derive(Debug)]
pub enum End {
    /// The transaction is over, the server owes nothing: it can be given back.
    Boundary,
    /// The client left.
    ClientLeft(Farewell),
    /// The client has been told nothing, and the answer is of no use: another server is to give it.
    Moved(Moved),
    /// The transaction has begun and belongs to another server, says what the client has sent next: so
    /// many bytes.
    Elsewhere(usize),
}

/// A client and the server that is lent to it.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts about the two ends that don't exclude each other"
)]
pub struct Relay<'a> {
    client: &'a mut Client,
    server: &'a mut Server,
    mode: PoolMode,
    target: ReadTarget,
    pool: &'a TenantPool,
    prepared_max: usize,
    reading: &'a Reading,
    held: reading::Held,
    /// The message that says that another server is to have the transaction, in bytes.
    elsewhere: Option<usize>,
    server_explained: bool,
    client_is_gone: bool,
    /// What the server runs was cancelled: only the deadline counts now.
    is_cancelled: bool,
    left: Option<Farewell>,
    /// A message of the client's was dealt with: before that nothing has begun that could be over.
    has_begun: bool,
    /// The client's next message waits until everything sent so far is answered.
    barrier: bool,
    /// The same, from the next Sync on.
    barrier_at_sync: bool,
    /// What SQL speaks of by the client's names.
    lending: lending::Lending,
    /// How many Syncs the client has sent.
    segment: u64,
    /// In which segment the unnamed statement was changed.
    unnamed_segment: u64,
    /// What was seen of the unnamed statement's text.
    unnamed_noted: unnamed_requests::Noted,
    /// A text of this lease may set something for the session, not for its transaction alone.
    sets_session: bool,
    /// How often functions had changed when what runs was looked at.
    function_changes: u64,
    /// A command since the last ReadyForQuery may have changed settings.
    may_change_settings: bool,
    /// A LISTEN has run on a slot, which can hear nothing.
    listens_in_vain: bool,
    /// A text since the last ReadyForQuery may have taken a slot's tenant away.
    may_unbind: bool,
    /// Settings that the client resets in what is not answered yet.
    resets: Vec<resets::Reset>,
    /// Commands that may set or undo anything ran beside those.
    resets_are_unsure: bool,
    /// The server was told to flush, as too much is outstanding.
    is_flushed: bool,
    /// The statement whose columns were found to be others than its clients were told.
    changed: Option<StatementId>,
    /// A text of this lease may have changed the path by which names are found.
    may_change_path: AtomicBool,
    /// A command since the last ReadyForQuery may have changed what statements return.
    changes_shapes: bool,
    /// What the session keeps its server for, and when the server was last asked for it.
    pinned: Suspicion,
    asked_ms: u64,
    /// A text since the last ReadyForQuery may have sent a notification.
    notifies: bool,
    /// The wait for it to come back.
    fence: listening::Fence,
    /// The wait for what others have sent through the server.
    others: listening::Fence,
    /// What was moved since the others had the thread, in bytes.
    moved: usize,
    /// There was more to read.
    is_cut_short: bool,
    /// The wait for the right to run the next transaction.
    toll: Option<Box<toll::Toll>>,
    /// What runs on the server, where that is bounded.
    run: Option<&'a Run>,
    /// The wait for a place to run in.
    queued: Option<Box<places::Queued>>,
    course: places::Course,
    /// The client's next message waits for the end of what it has sent before: others wait, too.
    yields: bool,
    /// What comes next stands in a pipeline, behind something that ends before it.
    pipelines: bool,
    /// A message has gone to the server since its transactions were made to read only.
    has_read_only: bool,
    /// Channels on which the server has told the client's own notifications that the hub brings.
    told: Vec<Box<[u8]>>,
}

/// How a server is lent.
#[derive(Debug, Clone, Copy)]
pub struct Lease<'a> {
    /// What is to be done about replicas.
    pub reading: &'a Reading,
    /// For how long.
    pub mode: PoolMode,
    /// Where the session wants its statements to run.
    pub target: ReadTarget,
    /// Prepared statements kept on a server.
    pub prepared_max: usize,
    /// State that the session keeps its server for.
    pub pinned: Suspicion,
    /// When the server was last asked for that, in milliseconds of the sessions' clock.
    pub asked_ms: u64,
    /// What runs on the server, where the cluster bounds that.
    pub run: Option<&'a Run>,
}

impl<'a> Relay<'a> {
    /// Puts the two together; the client's settings go ahead of its first message.
    pub fn new(
        client: &'a mut Client,
        server: &'a mut Server,
        pool: &'a TenantPool,
        lease: Lease<'a>,
    ) -> Self {
        let mut relay = Self::resume(client, server, pool, lease);
        let session = relay.client.handle.key.pid;
        relay.client.server_pid = relay.server.identity().key.pid;
        if relay.server.notifies_for != session {
            relay.server.notifies_for = 0;
        }
        // A pinned session keeps its server between transactions: none begins by that.
        if lease.pinned.is_empty() {
            relay.client.takes_numbers = false;
            (relay.client.listens, relay.client.may_have_left) = (0, false);
            relay.client.handle.take_query_overdue();
            relay.client.handle.obeyed_cancel();
            relay.client.handle.forget_lost_server();
            relay.client.handle.stall.ends();
            relay.client.handle.begin_transaction();
            relay.client.handle.enter(Activity::Active);
        }
        relay.apply_settings();
        relay.begin_reading();
        relay.begin_elsewhere();
        let path = relay.client.settings.value("search_path");
        if path.is_some_and(|path| path.contains("pg_temp")) {
            relay.server.suspicion |= Suspicion::TEMP;
        }
        relay
    }

    /// Takes up a relay that has ended, to bring its server to an end, too.
    pub fn resume(
        client: &'a mut Client,
        server: &'a mut Server,
        pool: &'a TenantPool,
        lease: Lease<'a>,
    ) -> Self {
        Self {
            client,
            server,
            mode: lease.mode,
            target: lease.target,
            pool,
            prepared_max: lease.prepared_max,
            reading: lease.reading,
            held: reading::Held::No,
            elsewhere: None,
            server_explained: false,
            client_is_gone: false,
            is_cancelled: false,
            left: None,
            has_begun: false,
            barrier: false,
            barrier_at_sync: false,
            lending: lending::Lending::default(),
            segment: 0,
            unnamed_segment: 0,
            unnamed_noted: unnamed_requests::Noted::default(),
            sets_session: false,
            function_changes: pool.function_changes(),
            changed: None,
            may_change_path: AtomicBool::new(false),
            changes_shapes: false,
            may_change_settings: false,
            listens_in_vain: false,
            may_unbind: false,
            resets: Vec::new(),
            resets_are_unsure: false,
            is_flushed: false,
            pinned: lease.pinned,
            asked_ms: lease.asked_ms,
            notifies: false,
            fence: listening::Fence::None,
            others: listening::Fence::None,
            moved: 0,
            is_cut_short: false,
            toll: None,
            run: lease.run,
            queued: None,
            course: places::Course::default(),
            yields: false,
            pipelines: false,
            has_read_only: false,
            told: Vec::new(),
        }
    }

    /// Puts the client's settings on a settled server, ahead of its next message in the same write.
    /// Should they fail, the connection ends, and with it whatever stands behind them.
    fn apply_settings(&mut self) {
        let wanted = &self.client.settings;
        let session = self.client.handle.key.pid;
        self.server.numbers = self.server.numbers.shared_with(session);
        // First: what it would be without a tenant, it must not be told.
        let mut sql = self.server.missing_binding().unwrap_or_default();
        if !Arc::ptr_eq(wanted, &self.server.applied) {
            if !sql.is_empty() {
                sql.push(';');
            }
            sql += &self.server.applied.guarded_sql_towards(wanted);
        }
        let forgets_numbers = self.server.numbers == Numbers::Mixed && self.pool.uses_sequences();
        if forgets_numbers {
            sql.push_str(FORGET_NUMBERS);
            self.server.numbers = Numbers::Of(session);
        }
        if !sql.is_empty() {
            // A timeout that stands on the server may strike before the guard does.
            self.barrier = self.server.applied.value("statement_timeout").is_some();
            frontend::query(self.client.to_server.insertion(), &sql);
            self.server.replies.push(Expect::Injected);
            self.server.unnamed = 0;
            self.client.handle.configure();
        }
        self.server.applied = Arc::clone(wanted);
    }

    /// Before a session asks for the last number that a sequence gave it: it must not be told what
    /// the server gave another. Where it has taken numbers itself since it got the server they would
    /// be forgotten, too: then only from the tenant's first question on are they forgotten in time.
    /// `false` when the message must wait for answers first.
    fn forget_numbers(&mut self) -> bool {
        self.pool.note_sequences();
        if self.server.numbers != Numbers::Mixed || self.client.takes_numbers {
            return true;
        }
        self.say_first(|relay| {
            relay.server.numbers = Numbers::Of(relay.client.handle.key.pid);
            Some(FORGET_NUMBERS.to_owned())
        })
    }

    /// Relays until the transaction is over or the client leaves.
    ///
    /// # Errors
    /// [`RelayError`].
    ///
    /// # Cancel safety
    /// Cancel safe between calls: all state is in the client and the server. Dropping it for good
    /// leaves the server in the middle of something: close it.
    pub async fn run(&mut self) -> Result<End, RelayError> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<End, RelayError>> {
        self.client.keeps_up(cx).map_err(RelayError::Lagged)?;
        self.begin_turn();
        loop {
            let mut progress = self.pump_client(cx)?;
            progress |= self.pump_server(cx)?;
            progress |= self.poll_fence(cx);
            progress |= self.hear(cx)?;
            progress |= self.poll_toll(cx);
            progress |= self.poll_place(cx);
            progress |= self.end_reads_only();
            if let Some(farewell) = self.left {
                return Poll::Ready(Ok(End::ClientLeft(farewell)));
            }
            if let Some(moved) = self.spoiled() {
                return Poll::Ready(Ok(End::Moved(moved)));
            }
            if let Some(end) = self.goes_elsewhere() {
                return Poll::Ready(Ok(end));
            }
            if self.is_at_boundary() {
                return Poll::Ready(Ok(End::Boundary));
            }
            if self.lets_others(cx) || !progress {
                break;
            }
        }
        self.client.handle.listen(cx);
        match self.client.handle.order() {
            Some(order) if order.is_immediate() => Poll::Ready(Err(RelayError::Ordered(order))),
            Some(Order::ReplicaLost) if self.is_unheard() => {
                Poll::Ready(Err(RelayError::Ordered(Order::ReplicaLost)))
            }
            Some(Order::ClientWriteTimeout) if self.is_stalled_before_others() => {
                Poll::Ready(Err(RelayError::Ordered(Order::ClientWriteTimeout)))
            }
            Some(order @ Order::ClientWriteTimeout) => {
                // It comes again, if that changes.
                self.client.handle.forget(order);
                Poll::Pending
            }
            Some(Order::Drain) if self.is_settled() => {
                Poll::Ready(Err(RelayError::Ordered(Order::Drain)))
            }
            _ => Poll::Pending,
        }
    }

    /// Whether the client takes nothing while others wait for the server.
    fn is_stalled_before_others(&self) -> bool {
        let is_wanted = match self.reading {
            Reading::Replica { pool, .. } => pool.is_wanted(),
            _ => self.pool.is_wanted(),
        };
        is_wanted && !self.client.to_client.is_sent()
    }

    /// The others have had the thread.
    fn begin_turn(&mut self) {
        (self.moved, self.is_cut_short) = (0, false);
    }

    /// Notes what a read has moved.
    fn note_read(&mut self, bytes: usize) {
        self.moved += bytes + READ_BYTES;
    }

    /// Whether there may be another read, where so much may be moved in this turn.
    fn may_read(&mut self, turn_bytes: usize) -> bool {
        self.is_cut_short |= self.moved >= turn_bytes;
        self.moved < turn_bytes
    }

    /// Whether others have the thread first; then it goes on behind them.
    fn lets_others(&self, cx: &Context<'_>) -> bool {
        if self.is_cut_short {
            cx.waker().wake_by_ref();
        }
        self.is_cut_short
    }

    /// Whether the server can be given back: idle, nothing owed in either direction. In session
    /// mode the client keeps it; while it is pinned, too, unless something may have changed that.
    fn is_at_boundary(&self) -> bool {
        self.mode != PoolMode::Session
            && self.has_begun
            && self.is_settled()
            && (self.pinned.is_empty() || !self.server.suspicion.is_empty())
    }

    /// Whether the server is idle and owes nothing, and no message is half through.
    fn is_settled(&self) -> bool {
        self.server.status == TxStatus::Idle
            && self.server.replies.is_settled()
            && self.client.from_server_rest == Rest::None
            && self.client.rest == Rest::None
            && self.client.to_client.unscanned().is_empty()
            && self.client.to_server.is_sent()
    }
}
