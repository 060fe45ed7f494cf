//! The task that owns the hub's connection.

use super::{
    HubError, Notification,
    batch::{Batch, Request},
    channel::Channel,
    hub::Shared,
    link::{Frame, Link, LinkError},
    message::{Cut, is_marker},
};
use crate::wire::tag::backend as tag;
use bytes::Bytes;
use rand::RngExt as _;
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, sleep_until};

/// What makes a connection a listener's: text in UTF-8 (where the database does not know what its text
/// is, as it is), markers without a wait for the disk, and none of the role's limits, which are meant
/// for what the tenant runs.
const SET_UP: &str = "SELECT pg_catalog.set_config('client_encoding',\
    CASE pg_catalog.current_setting('server_encoding') WHEN 'SQL_ASCII' THEN 'SQL_ASCII' \
    ELSE 'UTF8' END,false);SET synchronous_commit TO off;\
    SET application_name TO 'pgusher listener';\
    SELECT pg_catalog.set_config(name,'0',false) FROM pg_catalog.pg_settings WHERE name IN \
    ('statement_timeout','lock_timeout','transaction_timeout','idle_session_timeout',\
    'idle_in_transaction_session_timeout')";

/// Longest pause after the first failure.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Listens as long as somebody wants it.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut running = Running {
        shared: &shared,
        has_retired: false,
    };
    let mut pause = PAUSE_MIN;
    while !running.retires() {
        let begun = Instant::now();
        let Err(error) = listen(&shared).await else {
            continue;
        };
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the listener has no connection"
        );
        shared.note_failure(error.into());
        if begun.elapsed() > shared.bounds.pause_max {
            pause = PAUSE_MIN;
        }
        let share = rand::rng().random_range(0.0..=1.0);
        sleep(pause.mul_f64(share)).await;
        pause = (pause * 2).min(shared.bounds.pause_max);
    }
}

/// Says that the task is gone, however it goes.
struct Running<'a> {
    shared: &'a Shared,
    has_retired: bool,
}

impl Running<'_> {
    /// Whether nobody wants anything: then the next request starts a task of its own.
    fn retires(&mut self) -> bool {
        let mut state = self.shared.state.lock();
        state.requests.retain(Request::is_awaited);
        self.has_retired = state.requests.is_empty() && state.registry.is_empty();
        state.is_running = !self.has_retired;
        self.has_retired
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.has_retired {
            self.shared.state.lock().is_running = false;
        }
    }
}

impl Shared {
    /// Remembers why there is no connection; who can't be helped soon is told at once.
    fn note_failure(&self, error: HubError) {
        let mut state = self.state.lock();
        if error.is_final() {
            for request in state.requests.drain(..) {
                request.refuse(error.clone());
            }
        }
        state.failure = Some(error);
    }
}

/// One connection, from its beginning to its end. `Ok` when nobody has listened for a while.
async fn listen(shared: &Shared) -> Result<(), LinkError> {
    let dialled_for = shared.state.lock().dialled_for;
    let lent = (shared.dial)().await;
    let mut link = Link::new(lent.map_err(|error| LinkError::Dial(Arc::new(error)))?);
    let set_up = link.server().ask(SET_UP, shared.bounds.deadline).await;
    set_up.map_err(LinkError::SetUp)?;
    let mut listener = Listener {
        shared,
        pid: link.pid(),
        link,
        dialled_for,
        listened: HashSet::new(),
        batch: None,
        marker_number: 0,
        heard_at: Instant::now(),
        idle_since: None,
    };
    let first = Batch::first(&mut shared.state.lock().registry);
    listener.send(first);
    let served = listener.serve().await;
    shared.state.lock().is_connected = false;
    if let Some(batch) = listener.batch.take() {
        batch.put_back(&mut shared.state.lock().requests);
    }
    if matches!(served, Ok(()) | Err(LinkError::Replaced)) {
        listener.link.close().await;
    }
    served
}

/// A connection that listens.
struct Listener<'a> {
    shared: &'a Shared,
    link: Link,
    pid: u32,
    dialled_for: u64,
    /// What PostgreSQL knows that we listen to.
    listened: HashSet<Channel>,
    /// What PostgreSQL was asked and has not answered.
    batch: Option<Batch>,
    marker_number: u64,
    /// When PostgreSQL said something, or was asked something, last.
    heard_at: Instant,
    /// Since when nobody has wanted anything.
    idle_since: Option<Instant>,
}

impl Listener<'_> {
    async fn serve(&mut self) -> Result<(), LinkError> {
        loop {
            self.send_next()?;
            let due = self.due();
            tokio::select! {
                biased;
                frame = self.link.next() => self.take(&frame?)?,
                () = self.shared.wake.notified() => {}
                () = sleep_until(due) => if self.is_out_of_time()? {
                    return Ok(());
                },
            }
        }
    }

    /// Sends what waits, unless something is on its way already.
    fn send_next(&mut self) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock();
        let state = &mut *state;
        if state.dialled_for != self.dialled_for {
            return Err(LinkError::Replaced);
        }
        if self.batch.is_some() {
            return Ok(());
        }
        let known = (&self.listened, &self.shared.bounds);
        let next = Batch::next(&mut state.requests, &mut state.registry, known);
        let is_idle = next.is_none() && state.registry.is_empty();
        self.idle_since = is_idle.then(|| self.idle_since.unwrap_or_else(Instant::now));
        if let Some(batch) = next {
            self.send(batch);
        }
        Ok(())
    }

    fn send(&mut self, mut batch: Batch) {
        let cut = batch.needs_marker().then(|| {
            self.marker_number += 1;
            Cut {
                pid: self.pid,
                payload: self.shared.markers.payload(self.pid, self.marker_number),
            }
        });
        self.link.query(&batch.sql(cut));
        self.batch = Some(batch);
        self.heard_at = Instant::now();
    }

    /// When something has to be done even if nothing happens.
    fn due(&self) -> Instant {
        let bounds = &self.shared.bounds;
        match (&self.batch, self.idle_since) {
            (Some(_), _) => self.heard_at + bounds.deadline,
            (None, Some(since)) => since + bounds.idle_timeout,
            (None, None) => self.heard_at + bounds.check_interval,
        }
    }

    /// What is due: the end (`true`), or a sign of life.
    fn is_out_of_time(&mut self) -> Result<bool, LinkError> {
        match (&self.batch, self.idle_since) {
            (Some(_), _) => Err(LinkError::Silent),
            (None, Some(_)) => Ok(true),
            (None, None) => {
                self.send(Batch::default());
                Ok(false)
            }
        }
    }

    fn take(&mut self, frame: &Frame) -> Result<(), LinkError> {
        self.heard_at = Instant::now();
        match frame.tag {
            tag::NOTIFICATION => self.notification(frame),
            tag::ERROR => self.error(frame),
            tag::READY => self.ready(),
            _ => Ok(()),
        }
    }

    fn notification(&mut self, frame: &Frame) -> Result<(), LinkError> {
        let notification = Notification::read(frame.body()).ok_or(LinkError::Protocol)?;
        if self.shared.markers.begins(&notification) {
            let batch = self.batch.as_mut();
            if let Some(batch) = batch.filter(|b| b.cut().is_some_and(|cut| cut.is(&notification)))
            {
                mark(batch, self.shared);
                self.settle();
            }
            return Ok(());
        }
        if is_marker(notification.channel, notification.payload) {
            return Ok(());
        }
        // A name that is not UTF-8 is nobody's here.
        let channel = std::str::from_utf8(notification.channel).unwrap_or_default();
        if (self.shared.hears)(notification.pid) {
            let registry = &mut self.shared.state.lock().registry;
            if registry.has_listener(channel) {
                registry.deliver(channel, &Bytes::copy_from_slice(frame.bytes()));
            }
        }
        Ok(())
    }

    fn error(&mut self, frame: &Frame) -> Result<(), LinkError> {
        let (sqlstate, message) = (frame.field(b'C'), frame.field(b'M'));
        match &mut self.batch {
            Some(batch) if frame.field(b'V') == "ERROR" => {
                batch.refused = Some(HubError::Refused { sqlstate, message });
                Ok(())
            }
            _ => Err(LinkError::Ended { sqlstate, message }),
        }
    }

    fn ready(&mut self) -> Result<(), LinkError> {
        let mut batch = self.batch.take().ok_or(LinkError::Protocol)?;
        match batch.refused.take() {
            None => {
                batch.answer(&mut self.listened);
                self.batch = Some(batch);
                self.settle();
                Ok(())
            }
            Some(HubError::Refused { sqlstate, message }) if batch.is_first => {
                Err(LinkError::Refused { sqlstate, message })
            }
            Some(error) => {
                let state = &mut *self.shared.state.lock();
                batch.give_up(&error, &mut state.requests, &mut state.registry);
                Ok(())
            }
        }
    }

    /// Forgets the batch when nothing of it is still to come.
    fn settle(&mut self) {
        if self.batch.as_ref().is_some_and(Batch::is_over) {
            self.batch = None;
        }
    }
}

/// The marker of the batch on its way has come.
fn mark(batch: &mut Batch, shared: &Shared) {
    let state = &mut *shared.state.lock();
    if batch.is_first && !state.registry.is_empty() {
        state.registry.interrupt();
        tracing::info!("the listener has a connection again");
    }
    state.failure = None;
    state.is_connected = true;
    batch.mark(&mut state.registry);
}
