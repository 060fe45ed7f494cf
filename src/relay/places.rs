//! The places of statements that run, where a cluster bounds how many do at the same time.
//!
//! A place is taken ahead of the first message that has the server work, and left when everything is
//! answered: between the statements of a transaction there is none. Who has nothing that others could
//! wait for waits for one; who is in a transaction, or keeps its server for a lock, never does. A
//! transaction that has only begun has nothing yet: it waits ahead of its first statement, not of `BEGIN`.

use super::{Client, LongWait, Relay, Rest};
use crate::{
    net::SMALL_BYTES,
    pool::{Bound, Granted, Refused},
    sessions::{Activity, Order},
    tenant::PoolMode,
    upstream::{Change, Suspicion, TxStatus},
    wire::{HEADER_BYTES, Header, Refusal, SqlState, read, tag::frontend as tag},
};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// How long a session waits for a place where its tenant sets no limit.
const WAIT_MAX: Duration = Duration::from_hours(1);

/// A longer text is not looked at for `BEGIN`.
const BEGIN_BYTES_MAX: usize = 80;

type Waiting = Pin<Box<dyn Future<Output = Result<Granted, Refused>> + Send + Sync>>;

/// The wait for a place.
pub(super) struct Queued {
    waiting: Waiting,
    since: Instant,
    at_most: Duration,
    wait: LongWait,
    header: Header,
}

/// What a message may do.
pub(super) enum Passage {
    Go,
    Wait,
    NeedsMore,
}

/// What has run since a place was taken, and whether the transaction has done nothing but begin.
#[derive(Debug, Default)]
pub(super) struct Course {
    messages: u32,
    commands: u32,
    /// All commands were such as leave nothing that others could wait for.
    is_harmless: bool,
    /// Nothing of the kind had run before.
    was_fresh: bool,
    is_fresh: bool,
}

impl Course {
    fn begin(&mut self, is_idle: bool) {
        let was_fresh = is_idle || self.is_fresh;
        *self = Self {
            is_harmless: true,
            was_fresh,
            ..Self::default()
        };
    }

    #[inline]
    fn sent(&mut self) {
        self.messages = self.messages.saturating_add(1);
    }

    /// A command has run.
    #[inline]
    pub(super) fn ran(&mut self, is_harmless: bool) {
        self.commands = self.commands.saturating_add(1);
        self.is_harmless &= is_harmless;
    }

    fn end(&mut self, status: TxStatus) {
        let is_one = self.messages == 1 && self.commands == 1;
        self.is_fresh = status == TxStatus::Open && self.was_fresh && is_one && self.is_harmless;
    }
}

/// Whether a command with this tag leaves nothing that others could wait for.
#[inline]
pub(super) fn is_harmless(tag: &[u8]) -> bool {
    matches!(tag, b"BEGIN\0" | b"START TRANSACTION\0" | b"SET\0")
}

/// Whether a text is a transaction's beginning, and nothing else.
fn begins(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    let text = text.strip_suffix(b";").unwrap_or(text);
    let starts = |word: &[u8]| {
        let first = text.get(..word.len());
        first.is_some_and(|first| first.eq_ignore_ascii_case(word))
    };
    (starts(b"begin") || starts(b"start transaction")) && memchr::memchr(b';', text).is_none()
}

impl Relay<'_> {
    /// Whether a message may go to the server as to how many statements run there.
    #[inline]
    pub(super) fn passage(&mut self, header: Header) -> Passage {
        let is_of_statement = tag::asks(header.tag);
        match self.run {
            Some(run) if is_of_statement => {
                if !run.is_in() {
                    self.enter(header)
                } else if !self.is_next_of_pipeline() {
                    Passage::Go
                } else if run.is_wanted() {
                    // Who sends without end waits for its next turn as others do.
                    self.yields = true;
                    Passage::Wait
                } else {
                    self.pipelines = true;
                    Passage::Go
                }
            }
            _ => Passage::Go,
        }
    }

    /// Whether what comes next stands behind something that ends before it.
    fn is_next_of_pipeline(&self) -> bool {
        let replies = &self.server.replies;
        // Until the first message of the client's has gone, what is owed is ours.
        self.course.messages > 0
            && !replies.needs_sync()
            && !replies.is_copy_in()
            && replies.owes_ready()
    }

    /// Whether the next message waits for the end of what stands before it. A server that copies in
    /// may wait for that message.
    pub(super) fn must_yield(&mut self) -> bool {
        self.yields &= self.server.replies.owes_ready() && !self.server.replies.is_copy_in();
        self.yields
    }

    /// A message has gone to the server.
    #[inline]
    pub(super) fn note_sent(&mut self) {
        self.course.sent();
        if std::mem::take(&mut self.pipelines)
            && let Some(run) = self.run
        {
            run.goes_on();
        }
    }

    fn enter(&mut self, header: Header) -> Passage {
        let Some(run) = self.run else {
            return Passage::Go;
        };
        // A place is not kept for a client that is slow to send.
        if self.is_kept() && !self.has(header.message_bytes.min(SMALL_BYTES)) {
            return Passage::NeedsMore;
        }
        if !run.try_enter() {
            if !self.must_not_wait(header) {
                self.queue(header);
                return Passage::Wait;
            }
            // What is pipelined behind a beginning waits for a place of its own.
            self.yields = self.is_beginning(header);
            run.enter_now();
        }
        self.begin_course();
        Passage::Go
    }

    /// Whether others may wait for what the session has: it must come to an end.
    fn must_not_wait(&self, header: Header) -> bool {
        let is_within = self.server.status != TxStatus::Idle && !self.course.is_fresh;
        let has_locks = self.pinned.intersects(Suspicion::LOCKS);
        is_within || has_locks || self.server.replies.needs_sync() || self.is_beginning(header)
    }

    fn is_beginning(&self, header: Header) -> bool {
        if header.tag != tag::QUERY || header.message_bytes > BEGIN_BYTES_MAX {
            return false;
        }
        let message = self.client.to_server.unscanned();
        let body = message.get(HEADER_BYTES..header.message_bytes);
        let text = body.and_then(read::cstr).map(|(text, _)| text);
        text.is_some_and(begins)
    }

    fn queue(&mut self, header: Header) {
        let Some(run) = self.run else {
            return;
        };
        let handle = &self.client.handle;
        let at_most = handle.tenant.load().timeouts.query_wait.unwrap_or(WAIT_MAX);
        // What was meant for the statement before.
        handle.obeyed_cancel();
        if self.server.status == TxStatus::Idle {
            handle.forget_transaction();
        }
        handle.enter(Activity::Waiting);
        let since = Instant::now();
        handle.counters.returned(since);
        count("waited");
        let (waiting, session) = (run.wait(at_most), Arc::clone(handle));
        self.queued = Some(Box::new(Queued {
            waiting: Box::pin(async move {
                let _awaiting = session.awaited.await_running();
                waiting.await
            }),
            since,
            at_most,
            wait: LongWait::default(),
            header,
        }));
    }

    /// Leaves the place behind the last answer; else goes on waiting for one. Whether that is over.
    pub(super) fn poll_place(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(run) = self.run else {
            return false;
        };
        let Some(mut queued) = self.queued.take() else {
            if run.is_in() {
                self.look_at_place();
            }
            return false;
        };
        let granted = match queued.waiting.as_mut().poll(cx) {
            Poll::Ready(Ok(granted)) => Ok(granted),
            Poll::Ready(Err(Refused)) => {
                count("refused");
                Err(no_place(run.bound(), queued.at_most))
            }
            Poll::Pending if self.client.handle.order() == Some(Order::CancelWait) => {
                Err(Order::CancelWait.refusal())
            }
            Poll::Pending => {
                let what = |_: &Client| Some(still_waiting(run.bound()));
                queued.wait.poll(self.client, cx, what);
                self.queued = Some(queued);
                return false;
            }
        };
        let Queued {
            header,
            since,
            waiting,
            ..
        } = *queued;
        drop(waiting);
        self.end_wait(since);
        match granted {
            Ok(granted) => {
                run.enter_granted(granted);
                self.begin_course();
            }
            Err(refusal) => {
                self.client.handle.obeyed_cancel();
                // What raises the error is nothing to wait for.
                run.enter_free();
                self.course.begin(false);
                self.fail_message(header, &refusal);
                self.yields = true;
            }
        }
        true
    }

    fn begin_course(&mut self) {
        self.pipelines = false;
        // A batch that waits for its Sync may have locks.
        let is_idle = self.server.status == TxStatus::Idle && !self.server.replies.needs_sync();
        self.course.begin(is_idle);
    }

    fn end_wait(&self, since: Instant) {
        let handle = &self.client.handle;
        let now = Instant::now();
        handle.counters.waited(now.saturating_duration_since(since));
        handle.counters.lent(now);
        if self.server.status == TxStatus::Idle {
            handle.begin_transaction();
        }
        handle.enter(Activity::Active);
    }

    pub(super) fn look_at_place(&mut self) {
        let Some(run) = self.run else {
            return;
        };
        let replies = &self.server.replies;
        if replies.is_empty() && self.client.rest == Rest::None {
            if self.course.messages == 0 && (self.barrier || self.lending.barrier) {
                // The message that it was taken for is looked at next.
                return;
            }
            run.leave();
            self.course.end(self.server.status);
            return;
        }
        let wants_data = replies.is_copy_in()
            && self.client.to_server.is_sent()
            && self.client.to_server.unscanned().is_empty();
        let is_full = !self.client.to_client.is_sent() && !self.client.to_client.has_room();
        run.note_client(wants_data || is_full);
    }

    /// Has PostgreSQL raise an error in place of a message, and skip what belongs to it.
    fn fail_message(&mut self, header: Header, refusal: &Refusal) {
        if matches!(header.tag, tag::QUERY | tag::FUNCTION_CALL) {
            let is_shared = self.mode != PoolMode::Session;
            let change = if is_shared {
                self.drop_unnamed()
            } else {
                Change::default()
            };
            self.fail_query(header, refusal, change);
            self.close_batch();
        } else {
            self.doom(header, refusal);
        }
        self.has_begun = true;
    }
}

/// Counts a statement that waits for a place, or was refused.
fn count(result: &'static str) {
    metrics::counter!("pgusher_limited_total", "limit" => "max_running_statements", "result" => result)
        .increment(1);
}

/// No place became free in time (53300).
fn no_place(limit: Bound, waited: Duration) -> Refusal {
    let waited = humantime::format_duration(Duration::from_millis(waited.as_millis() as u64));
    Refusal::error(
        SqlState::TOO_MANY,
        format!("too many running statements: max_running_statements of the tenant's cluster, {limit}, is reached"),
    )
    .with_detail(format!(
        "No place became free within query_wait_timeout, {waited}. Keep statements short, run fewer at the \
         same time, or try again later."
    ))
}

/// What a client is told that waits long (a NOTICE).
fn still_waiting(limit: Bound) -> String {
    format!(
        "still waiting: max_running_statements of the tenant's cluster, {limit}, is reached; other statements must end first"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_told_from_what_does_more() {
        for (text, is_one) in [
            ("begin", true),
            (" BEGIN ISOLATION LEVEL SERIALIZABLE; ", true),
            ("Start Transaction read only", true),
            ("begin; select 1", false),
            ("select 1; begin", false),
            ("commit", false),
            ("", false),
        ] {
            assert_eq!(begins(text.as_bytes()), is_one, "{text}");
        }
    }

    #[test]
    fn a_transaction_is_fresh_until_something_has_run_in_it() {
        let mut course = Course::default();
        let mut run = |is_idle: bool, commands: &[&[u8]], status: TxStatus| {
            course.begin(is_idle);
            course.sent();
            for command in commands {
                course.ran(is_harmless(command));
            }
            course.end(status);
            course.is_fresh
        };
        assert!(run(true, &[b"BEGIN\0"], TxStatus::Open));
        assert!(run(false, &[b"SET\0"], TxStatus::Open));
        assert!(!run(false, &[b"SELECT 1\0"], TxStatus::Open));
        assert!(!run(false, &[b"SET\0"], TxStatus::Open), "it has a lock");
        assert!(!run(true, &[b"BEGIN\0", b"SELECT 1\0"], TxStatus::Open));
        assert!(!run(true, &[], TxStatus::Open), "a portal has rows left");
        assert!(!run(true, &[b"BEGIN\0"], TxStatus::Failed));
    }
}
