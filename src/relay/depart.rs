//! A client leaves in the middle: what becomes of its server.
//!
//! A client that says goodbye behind its last statement, or closes its own direction, may still
//! read; so its answers go on to it until it proves to be gone, and then what runs is cancelled.
//! What it did not commit is rolled back.

use super::{Relay, RelayError, Rest};
use crate::{
    pool::Run,
    sessions::Order,
    upstream::Expect,
    wire::{frontend, tag::frontend as tag},
};
use std::time::Duration;

/// How long a client that closed may go on reading before it is asked for a sign of life.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// How long a server may take to end what was cancelled, and to be cleaned.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(5);

/// How a client left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// With Terminate, behind what it asked before.
    Said,
    /// Its end of the stream is closed; it may still read.
    Closed,
    /// It can't be written to.
    Gone,
}

impl Relay<'_> {
    /// Brings the server to a clean, idle state, or says that it can't be.
    ///
    /// # Errors
    /// [`RelayError`]: the server must be closed.
    ///
    /// # Cancel safety
    /// Not cancel safe: close the server when the future is dropped.
    pub async fn depart(&mut self, farewell: Farewell) -> Result<(), RelayError> {
        self.left = None;
        if matches!(self.client.rest, Rest::Forward(_)) {
            // Half a message is with the server: nothing can be said to it any more.
            self.cancel().await;
            return Err(RelayError::OutOfStep);
        }
        self.client.to_server.drop_unscanned();
        self.finish_requests();
        if farewell != Farewell::Gone && !self.read_on().await? {
            return Ok(());
        }
        self.client_is_gone = true;
        if !self.server.replies.is_settled() {
            self.cancel().await;
        }
        self.is_cancelled = true;
        let settled = tokio::time::timeout(CLEAN_TIMEOUT, self.run_to_settled()).await;
        settled.map_err(|_elapsed| RelayError::OutOfStep)??;
        Ok(())
    }

    /// Says what the client left out: the end of its copy, and a Sync. What was not synced must not
    /// be committed by our Sync: it is made to fail first, as it would by the client's absence.
    fn finish_requests(&mut self) {
        let out = self.client.to_server.insertion();
        if self.server.replies.is_copy_in() {
            frontend::message(out, tag::COPY_FAIL, &[b"the client has left\0"]);
            self.server.replies.push(Expect::CopyEnd);
        }
        if self.server.replies.needs_sync() {
            frontend::describe_statement(out, super::NO_SUCH_STATEMENT);
            self.server.replies.push(Expect::Doomed((*b"").into()));
            out.extend_from_slice(frontend::SYNC);
            self.server.replies.push(Expect::Sync);
            self.take_back_at_sync();
        }
    }

    /// Relays answers to a client that closed its own direction; whether it turned out gone
    /// before everything was answered.
    async fn read_on(&mut self) -> Result<bool, RelayError> {
        loop {
            match tokio::time::timeout(PROBE_INTERVAL, self.run_to_settled()).await {
                Ok(Ok(())) => return Ok(false),
                Ok(Err(RelayError::Client(_) | RelayError::Ordered(Order::ClientWriteTimeout))) => {
                    return Ok(true);
                }
                Ok(Err(error)) => return Err(error),
                Err(_elapsed) => self.probe(),
            }
        }
    }

    /// Sends something that a client ignores: a dead one answers with a reset.
    fn probe(&mut self) {
        if self.client.from_server_rest == Rest::None
            && self.client.to_client.is_sent()
            && let Some((name, value)) = self.client.welcome.parameters.first()
        {
            let out = self.client.to_client.insertion();
            crate::wire::backend::parameter_status(out, name, value);
        }
    }

    /// Relays until the server owes nothing, whatever state the transaction is in.
    pub(super) async fn run_to_settled(&mut self) -> Result<(), RelayError> {
        std::future::poll_fn(|cx| self.poll_settled(cx)).await
    }

    fn poll_settled(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), RelayError>> {
        use std::task::Poll;
        self.begin_turn();
        loop {
            if self.server.replies.is_copy_in() || self.server.replies.needs_sync() {
                self.finish_requests();
            }
            let mut progress = self.flush_requests(cx)?;
            progress |= self.pump_server(cx)?;
            progress |= self.poll_fence(cx);
            if self.run.is_some_and(Run::is_in) {
                self.look_at_place();
            }
            let owes_nothing = self.server.replies.is_empty()
                && self.client.from_server_rest == Rest::None
                && self.client.to_client.unscanned().is_empty()
                && self.client.to_client.is_sent();
            if owes_nothing {
                return Poll::Ready(Ok(()));
            }
            if self.lets_others(cx) || !progress {
                break;
            }
        }
        if self.is_cancelled {
            return Poll::Pending;
        }
        self.client.handle.listen(cx);
        match self.client.handle.order() {
            Some(order) if order.is_immediate() => Poll::Ready(Err(RelayError::Ordered(order))),
            Some(order @ Order::ClientWriteTimeout) => {
                if self.is_stalled_before_others() {
                    return Poll::Ready(Err(RelayError::Ordered(order)));
                }
                // It comes again, if that changes.
                self.client.handle.forget(order);
                Poll::Pending
            }
            _ => Poll::Pending,
        }
    }

    fn flush_requests(&mut self, cx: &mut std::task::Context<'_>) -> Result<bool, RelayError> {
        use std::task::Poll;
        let unsent = self.client.to_server.unsent();
        match self.client.to_server.poll_send(&mut self.server.stream, cx) {
            Poll::Ready(Err(error)) => Err(RelayError::Server(error)),
            _ => Ok(self.client.to_server.unsent() < unsent),
        }
    }

    /// Cancels what the server runs and waits until the cancel has landed.
    pub(super) async fn cancel(&self) {
        if let Err(error) = self.server.identity().begin_cancel().deliver().await {
            tracing::warn!(%error, "what a departed client ran could not be cancelled");
        }
    }
}
