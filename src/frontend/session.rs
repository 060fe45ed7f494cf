//! A session from its greeting to its end: idle, check out, relay, release, again.

use super::{
    Frontend, Wishes, greeting,
    idle::Wants,
    settle::{Pin, Settled},
    split::Course,
};
use crate::{
    admission::Admitted,
    net::{Flow, Peer, Stream},
    pool::{Checkout, CheckoutError, Home, Run, TenantPool},
    relay::{Client, End, Farewell, Moved, Reading, Relay, RelayError, suspects},
    sessions::{Activity, Order, SessionHandle},
    tenant::{PoolMode, ReadTarget},
    topology::Position,
    upstream::Settings,
    usage::Figures,
    wire::Refusal,
};
use std::{sync::Arc, time::Duration};
use tokio::io::AsyncWriteExt as _;

/// How long a server may take to be reset.
pub(super) const CLEAN_TIMEOUT: Duration = Duration::from_secs(5);

/// Servers that are tried when the session's settings can't be put on one.
const SETTINGS_TRIES_MAX: u32 = 2;

/// How long a client may take to read its last words.
pub(super) const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a session ends that does not take its notifications.
pub(super) const TOO_SLOW: &str = "notifications not taken";

/// A client that has just been admitted. Boxed on its way: what is awaited for a client's whole
/// session should be small.
pub(super) struct Arrival {
    pub(super) stream: Stream,
    pub(super) to_server: Flow,
    pub(super) admitted: Admitted,
    pub(super) home: Arc<Home>,
    pub(super) wishes: Wishes,
    pub(super) minor: u16,
    pub(super) peer: Peer,
    pub(super) deadline: tokio::time::Instant,
}

/// A client's session.
pub(super) struct Session {
    pub(super) client: Client,
    /// Messages are skipped up to the next Sync.
    pub(super) is_skipping: bool,
    pub(super) pool: Arc<TenantPool>,
    pub(super) mode: PoolMode,
    pub(super) prepared_max: usize,
    /// Where the client asked to have its statements run.
    pub(super) target: ReadTarget,
    /// What the session has written itself, where its reads must see that alone.
    pub(super) own: Option<Arc<Position>>,
    /// The read that is on a replica, as the client sent it.
    pub(super) replay: Vec<u8>,
    /// How many of the client's bytes had been looked at before it.
    pub(super) replay_from: u64,
    /// What was counted when it went there: what is asked again elsewhere is counted there.
    pub(super) counted: Figures,
    pub(super) settings_failures: u32,
    /// How often it was refused by a limit since it was served last.
    pub(super) refusals: u32,
}

/// What became of a transaction.
pub(super) enum Done {
    /// It is over.
    Next,
    /// The client's message is still to be answered, by the primary.
    Again,
    /// So is what it says now, of a transaction that has begun and goes on elsewhere.
    Elsewhere(Box<Course>),
    /// The session is over.
    Ended(&'static str),
}

/// Serves a client until it leaves.
pub(super) async fn begin(frontend: Arc<Frontend>, arrival: Box<Arrival>) {
    let started = std::time::Instant::now();
    let handle = enter(&frontend, &arrival).await;
    let peer = arrival.peer;
    let (reason, admitted) = match Box::pin(greeting::welcome(&frontend, arrival, &handle)).await {
        Ok((mut session, admitted)) => {
            handle.enter(Activity::Idle);
            let reason = session.run().await;
            session.client.pass = None;
            Box::pin(session.say_farewell()).await;
            (reason, Some(admitted))
        }
        Err(reason) => (reason, None),
    };
    frontend.sessions.leave(&handle);
    drop(admitted);
    report(&handle, peer, reason, started.elapsed());
}

/// Makes the session known. Whatever changed while the client logged in, it is told from here on.
async fn enter(frontend: &Frontend, arrival: &Arrival) -> Arc<SessionHandle> {
    let authenticated = arrival.admitted.authenticated();
    let (tenant, key) = (authenticated.tenant(), authenticated.key());
    // Limits that are older than those of its other sessions are not to hold again.
    let now = frontend.directory.tenant(tenant.id.as_str()).await;
    let now = now.ok().flatten();
    let restraints = frontend
        .admission
        .restraints(now.as_ref().unwrap_or(tenant), &key.id);
    let handle = frontend.sessions.enter(arrival.minor, |cancel_key| {
        let opened_by = (key.id.clone(), key.scope);
        let clock = frontend.sessions.clock();
        SessionHandle::new(
            cancel_key,
            Arc::clone(tenant),
            opened_by,
            arrival.peer,
            (clock, restraints),
        )
    });
    if let Ok(now) = frontend.directory.tenant(tenant.id.as_str()).await {
        handle.follow(now);
    }
    if frontend.closing.is_cancelled() {
        handle.give(Order::Drain);
    }
    handle
}

/// One line per connection, at its end.
fn report(handle: &SessionHandle, peer: Peer, reason: &'static str, lasted: Duration) {
    let count =
        |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    tracing::info!(
        tenant = %handle.tenant.load().id, key = %handle.key_id, client = %peer, reason,
        duration_ms = lasted.as_millis() as u64,
        transactions = count(&handle.counters.transactions),
        queries = count(&handle.counters.queries),
        client_bytes = count(&handle.counters.client_bytes),
        server_bytes = count(&handle.counters.server_bytes),
        "client disconnected"
    );
}

impl Session {
    async fn run(&mut self) -> &'static str {
        loop {
            match self.idle().await {
                Wants::Server => {}
                Wants::Bytes => continue,
                Wants::Leave => return "client left",
                Wants::Refused(refusal) => return self.end(&refusal, "protocol violation"),
                Wants::Lagged(refusal) => return self.end(&refusal, TOO_SLOW),
                Wants::Ordered(order) => return self.end(&order.refusal(), "told to end"),
            }
            self.client.handle.enter(Activity::Waiting);
            if self.client.handle.restraints.is_on() {
                match Box::pin(self.take_pass()).await {
                    None => {}
                    Some(Done::Ended(reason)) => return reason,
                    Some(_) => continue,
                }
            }
            let mut course = self.course();
            // What comes back from a replica goes to the primary; what SET TRANSACTION says, anywhere.
            loop {
                let (checkout, reading) = match self.checkout(course).await {
                    Ok(lent) => lent,
                    Err(absent) => {
                        self.give_pass_back();
                        return self.end_absent(&absent);
                    }
                };
                let done = match checkout {
                    Ok(checkout) => self.transact(checkout, reading).await,
                    Err(error) => {
                        self.give_pass_back();
                        self.not_served(&error)
                    }
                };
                match done {
                    Done::Next => {
                        self.forget_read();
                        self.client.pass = None;
                        break;
                    }
                    Done::Again => course = self.return_to_primary(),
                    Done::Elsewhere(there) => course = *there,
                    Done::Ended(reason) => return reason,
                }
            }
        }
    }

    /// Its server could not be prepared: the client's statement is for another.
    fn try_another(&mut self) -> Done {
        self.settings_failures += 1;
        self.client.to_client.drop_unscanned();
        self.give_pass_back();
        Done::Next
    }

    /// Nothing has begun: it counts for no rate.
    fn give_pass_back(&mut self) {
        if let Some(pass) = self.client.pass.take() {
            pass.give_back();
        }
    }

    /// The client gets no server.
    pub(super) fn not_served(&mut self, error: &CheckoutError) -> Done {
        match error {
            CheckoutError::Ordered(order) if *order != Order::CancelWait => {
                Done::Ended(self.end(&order.refusal(), "told to end"))
            }
            // It takes itself to be in a transaction.
            error if self.client.begun.was_asked_more() => {
                Done::Ended(self.end(&error.refusal(), "no server"))
            }
            error => {
                self.client.handle.enter(Activity::Idle);
                self.client.handle.obeyed_cancel();
                count_error("checkout", "target");
                let refusal = error.refusal();
                self.count_refusal(&refusal);
                self.refuse(&refusal);
                Done::Next
            }
        }
    }

    /// One transaction; in session mode, all of them.
    async fn transact(&mut self, mut checkout: Checkout, mut reading: Reading) -> Done {
        if self.mode == PoolMode::Session
            && needs_own_server(&self.client.settings)
            && let Err(error) = Box::pin(checkout.dedicate(&self.client.settings)).await
        {
            return Done::Ended(self.end(&error.refusal(), "no server"));
        }
        self.pool.catch_up(suspects);
        let mut pin = Pin::default();
        let mut goes_on = false;
        loop {
            let run = checkout.run(self.mode == PoolMode::Session || !pin.is_none());
            let lease = self.lease(&pin, (&reading, run.as_ref()));
            let (client, server) = (&mut self.client, checkout.server());
            let mut relay = if std::mem::take(&mut goes_on) {
                Relay::resume(client, server, &self.pool, lease)
            } else {
                Relay::new(client, server, &self.pool, lease)
            };
            let ended = relay.run().await;
            match ended {
                Ok(End::Boundary) => self.settings_failures = 0,
                Ok(End::Moved(moved)) => {
                    let is_whole = Box::pin(relay.abandon()).await;
                    // Before the server goes back, so that nothing of it is measured.
                    self.note_moved(moved);
                    if is_whole {
                        Box::pin(clean_and_release(checkout, &self.pool)).await;
                    }
                    return Done::Again;
                }
                Ok(End::Elsewhere(batch_bytes)) => {
                    if let Some(course) = self.course_elsewhere(batch_bytes) {
                        Box::pin(clean_and_release(checkout, &self.pool)).await;
                        return Done::Elsewhere(Box::new(course));
                    }
                    goes_on = true;
                    continue;
                }
                Err(error) if relay.is_unheard() && error.is_loss() => {
                    checkout.failed();
                    self.note_moved(Moved::Lost);
                    return Done::Again;
                }
                // The client's statement has not run yet: another server may take it.
                Err(RelayError::Settings { is_unsent: true })
                    if self.settings_failures < SETTINGS_TRIES_MAX
                        && pin.is_none()
                        && !self.client.begun.was_asked_more() =>
                {
                    return self.try_another();
                }
                ended => {
                    let parted =
                        Box::pin(self.part(ended, checkout, (&pin, &reading, run.as_ref()))).await;
                    return Done::Ended(parted);
                }
            }
            let is_clean = checkout.server().is_clean();
            if is_clean && pin.is_none() && !self.is_survey_due(&checkout) {
                checkout.release(&self.pool);
                self.client.handle.enter(Activity::Idle);
                return Done::Next;
            }
            match Box::pin(self.look_after(checkout, &mut pin)).await {
                // What follows is not looked at.
                Ok(kept) => (checkout, reading) = (kept, self.pinned_reading(reading)),
                Err(done) => return done,
            }
        }
    }

    /// Looks for what a transaction has left on its server; the server, where the session keeps it.
    async fn look_after(
        &mut self,
        mut checkout: Checkout,
        pin: &mut Pin,
    ) -> Result<Checkout, Done> {
        let counters = &self.client.handle.counters;
        counters.measure(std::time::Instant::now());
        match self.settle(&mut checkout, pin).await {
            Settled::Kept => Ok(checkout),
            Settled::Free => {
                clean_and_release(checkout, &self.pool).await;
                self.client.handle.enter(Activity::Idle);
                Err(Done::Next)
            }
            Settled::Refused(refusal) => {
                checkout.server().is_dirty = true;
                if !pin.is_indelible() {
                    clean_and_release(checkout, &self.pool).await;
                }
                Err(Done::Ended(self.end(&refusal, "state that can't be kept")))
            }
        }
    }

    /// The client leaves, or can't stay: says why, and saves the server if that is possible.
    async fn part(
        &mut self,
        ended: Result<End, RelayError>,
        mut checkout: Checkout,
        (pin, reading, run): (&Pin, &Reading, Option<&Run>),
    ) -> &'static str {
        if let Reading::Writes(marks) = reading {
            // What became of it is not known.
            marks.wrote();
        }
        let (farewell, reason) = match &ended {
            Ok(End::ClientLeft(farewell)) => (*farewell, "client left"),
            Ok(End::Boundary | End::Moved(_) | End::Elsewhere(_)) => return "boundary",
            Err(RelayError::Client(_)) => (Farewell::Gone, "client lost"),
            Err(error) => {
                count_error("relay", error.fault());
                tracing::debug!(tenant = %self.pool.tenant(), %error, "relay ended");
                if let Some(refusal) = error.refusal() {
                    self.count_refusal(&refusal);
                    self.client.to_client.drop_unscanned();
                    // Within a message an error can't be told.
                    if !self.client.is_within_message() {
                        self.client.to_client.insert(&refusal.encode());
                    }
                }
                if error.is_deaf() {
                    (Farewell::Gone, "answer not taken")
                } else if error.spares_server() {
                    self.say_farewell().await;
                    let is_slow = matches!(error, RelayError::Lagged(_));
                    (
                        Farewell::Gone,
                        if is_slow { TOO_SLOW } else { "told to end" },
                    )
                } else {
                    return "server lost";
                }
            }
        };
        let lease = self.lease(pin, (reading, run));
        let mut relay = Relay::resume(&mut self.client, checkout.server(), &self.pool, lease);
        match relay.depart(farewell).await {
            Ok(()) if pin.is_indelible() => {}
            Ok(()) => {
                checkout.server().is_dirty |= self.mode == PoolMode::Session || !pin.is_none();
                clean_and_release(checkout, &self.pool).await;
            }
            Err(error) => tracing::debug!(%error, "a departed client's server is closed"),
        }
        reason
    }

    /// An error of our own is an error of the tenant's sessions, too.
    pub(super) fn count_refusal(&self, refusal: &Refusal) {
        let code = refusal.sqlstate.0.as_bytes();
        self.client.handle.counters.count_error(code);
    }

    pub(super) fn end(&mut self, refusal: &Refusal, reason: &'static str) -> &'static str {
        self.count_refusal(refusal);
        self.client
            .to_client
            .insert(&refusal.clone().into_fatal().encode());
        reason
    }

    /// Sends what is left and closes.
    async fn say_farewell(&mut self) {
        let client = &mut self.client;
        let farewell = async {
            std::future::poll_fn(|cx| client.to_client.poll_send(&mut client.stream, cx)).await?;
            client.stream.shutdown().await
        };
        drop(tokio::time::timeout(FAREWELL_TIMEOUT, farewell).await);
    }
}

/// Whether RESET must return to settings that no shared server starts with. That of the few which
/// every driver sends is not worth a connection.
fn needs_own_server(settings: &Settings) -> bool {
    let common = [
        "application_name",
        "client_encoding",
        "DateStyle",
        "extra_float_digits",
    ];
    settings
        .iter()
        .any(|(name, _)| !common.iter().any(|c| c.eq_ignore_ascii_case(name)))
}

pub(super) fn count_error(stage: &'static str, fault: &'static str) {
    metrics::counter!("pgusher_errors_total", "stage" => stage, "fault" => fault).increment(1);
}

/// Resets a server and gives it back; one that can't be reset is closed.
async fn clean_and_release(mut checkout: Checkout, pool: &TenantPool) {
    checkout.shield();
    match checkout.server().clean(CLEAN_TIMEOUT).await {
        Ok(()) => checkout.release(pool),
        Err(error) => {
            tracing::debug!(tenant = %pool.tenant(), %error, "a server could not be cleaned");
        }
    }
}
