//! A session that keeps its server begins transactions without a checkout: the right to run them, where
//! that is limited, it takes here, ahead of the first message of each, and gives back when the server is
//! idle again.

use super::{Client, Relay, Rest};
use crate::{
    sessions::{Activity, Order, Pass},
    tenant::PoolMode,
    upstream::{Suspicion, TxStatus},
    wire::{Header, Refusal, backend, tag::frontend as tag},
};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Sleep;

/// A client that waits for longer is told what for.
const LONG: Duration = Duration::from_secs(5);

/// A wait that may become long: then the client is told once.
#[derive(Debug, Default)]
pub struct LongWait {
    timer: Option<Pin<Box<Sleep>>>,
    is_told: bool,
}

impl LongWait {
    /// Tells the client with a NOTICE what it waits for, once it has waited for long; not within a message.
    pub fn poll(
        &mut self,
        client: &mut Client,
        cx: &mut Context<'_>,
        what: impl FnOnce(&Client) -> Option<String>,
    ) {
        if self.is_told || client.is_within_message() {
            return;
        }
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LONG)));
        if timer.as_mut().poll(cx).is_pending() {
            return;
        }
        self.is_told = true;
        if let Some(text) = what(client) {
            backend::notice(client.to_client.insertion(), &text);
            // An error shows again when the client is read from or written to.
            drop(client.to_client.poll_send(&mut client.stream, cx));
        }
    }
}

type Taking = Pin<Box<dyn Future<Output = Result<Pass, Box<Refusal>>> + Send + Sync>>;

/// The wait for the right to run a transaction.
pub(super) struct Toll {
    taking: Taking,
    wait: LongWait,
    header: Header,
}

impl Relay<'_> {
    /// Whether the session has its server for more than one transaction.
    pub(super) fn is_kept(&self) -> bool {
        self.mode == PoolMode::Session || !self.pinned.is_empty()
    }

    /// Whether the client's next message begins another transaction before it is known that the one is over
    /// that the session has its pass for: each is judged by itself, in a full pipeline, too. What is sent
    /// within a transaction waits for nothing, unless it is not the first one of this pass.
    pub(super) fn awaits_end(&mut self, header: Header) -> bool {
        let Some(pass) = self.client.pass.as_ref().filter(|_| self.has_begun) else {
            return false;
        };
        let replies = &self.server.replies;
        let is_within = replies.needs_sync()
            || replies.is_copy_in()
            || self.server.status != TxStatus::Idle && !pass.is_used();
        if is_within || !tag::asks(header.tag) && header.tag != tag::SYNC {
            return false;
        }
        self.barrier |= replies.owes_ready();
        self.barrier
    }

    /// Whether the client's next message must wait, or belongs to what was refused.
    pub(super) fn owes_toll(&mut self, header: Header) -> bool {
        if self.client.skips_batch {
            return self.skip(header);
        }
        let handle = &self.client.handle;
        let replies = &self.server.replies;
        let is_within =
            self.server.status != TxStatus::Idle || replies.needs_sync() || replies.is_copy_in();
        if self.client.pass.is_some()
            || !tag::asks(header.tag)
            || !handle.restraints.is_on()
            || is_within
        {
            return false;
        }
        if !self.server.replies.is_settled() {
            // Behind a Sync, or something of ours, another transaction begins: when that is answered.
            self.barrier = self.server.replies.owes_ready();
            return self.barrier;
        }
        // What was meant for the statement before.
        handle.obeyed_cancel();
        handle.enter(Activity::Waiting);
        // Others' transactions may wait for its locks.
        let must_end = self.pinned.intersects(Suspicion::LOCKS);
        self.toll = Some(Box::new(Toll {
            taking: Box::pin(Pass::take(Arc::clone(handle), must_end)),
            wait: LongWait::default(),
            header,
        }));
        true
    }

    /// Goes on waiting; whether that is over.
    pub(super) fn poll_toll(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(mut toll) = self.toll.take() else {
            self.end_pass();
            return false;
        };
        let taken = match toll.taking.as_mut().poll(cx) {
            Poll::Ready(taken) => taken,
            Poll::Pending if self.client.handle.order() == Some(Order::CancelWait) => {
                Err(Box::new(Order::CancelWait.refusal()))
            }
            Poll::Pending => {
                let what =
                    |client: &Client| client.handle.restraints.explain(&client.handle.awaited);
                toll.wait.poll(self.client, cx, what);
                self.toll = Some(toll);
                return false;
            }
        };
        match taken {
            Ok(pass) => {
                self.client.begin_pass(pass, cx);
                self.client.handle.enter(Activity::Idle);
                // Of what this pass is for, nothing has.
                self.has_begun = false;
            }
            // Within a message an error can't be told.
            Err(refusal) if self.client.is_within_message() => {
                toll.taking = Box::pin(std::future::ready(Err(refusal)));
                self.toll = Some(toll);
                return false;
            }
            Err(refusal) => {
                self.client.handle.obeyed_cancel();
                self.client.handle.enter(Activity::Idle);
                self.refuse(toll.header, &refusal);
            }
        }
        true
    }

    /// The transaction is over: the next one's turn.
    fn end_pass(&mut self) {
        if self.client.pass.is_some() && self.has_begun && self.is_kept() && self.is_settled() {
            self.client.pass = None;
        }
    }

    /// Answers in the server's place, which is idle and knows nothing of the message.
    fn refuse(&mut self, header: Header, refusal: &Refusal) {
        let out = self.client.to_client.insertion();
        backend::error(out, refusal);
        match header.tag {
            tag::QUERY | tag::FUNCTION_CALL => backend::ready_idle(out),
            _ => self.client.skips_batch = true,
        }
        self.client.rest = Rest::Drop(header.message_bytes);
    }

    /// Drops a message of a batch that was refused; whether it was one.
    fn skip(&mut self, header: Header) -> bool {
        match header.tag {
            tag::TERMINATE => return false,
            tag::SYNC => {
                self.client.skips_batch = false;
                backend::ready_idle(self.client.to_client.insertion());
            }
            _ => {}
        }
        self.client.rest = Rest::Drop(header.message_bytes);
        true
    }
}
