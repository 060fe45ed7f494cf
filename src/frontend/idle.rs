//! A client between transactions: no server, no buffer while nothing comes.

use super::session::Session;
use crate::{
    net::SMALL_BYTES,
    relay::Rest,
    routing::TEXT_BYTES_MAX,
    sessions::Order,
    usage::Counters,
    wire::{Header, Refusal, backend, peek, tag::frontend as tag},
};
use std::task::{Context, Poll, ready};

/// Why a client's idleness ended.
pub(super) enum Wants {
    /// The next message needs a server.
    Server,
    /// More bytes must come first.
    Bytes,
    /// The client has left.
    Leave,
    /// The client broke the protocol.
    Refused(Refusal),
    /// The client did not take its notifications.
    Lagged(Refusal),
    /// The session was told to end.
    Ordered(Order),
}

impl Session {
    /// Sends what is left for the client and waits for a message that needs a server.
    ///
    /// # Cancel safety
    /// Cancel safe: all state is in the session.
    pub(super) async fn idle(&mut self) -> Wants {
        std::future::poll_fn(|cx| self.poll_idle(cx)).await
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Wants> {
        self.client.handle.listen(cx);
        loop {
            match self.client.handle.order() {
                Some(Order::CancelWait) => self.client.handle.obeyed_cancel(),
                Some(Order::ReplicaLost | Order::PrimaryLost | Order::ClientWriteTimeout) => {
                    self.client.handle.forget_lost_server();
                }
                Some(order) => return Poll::Ready(Wants::Ordered(order)),
                None => {}
            }
            // A client that takes no bytes is ended all the same when it lags.
            let kept_up = self.client.keeps_up(cx);
            let has_heard = match kept_up.and_then(|()| self.client.hear(cx)) {
                Ok(has_heard) => has_heard,
                Err(refusal) => return Poll::Ready(Wants::Lagged(*refusal)),
            };
            if ready!(self.client.to_client.poll_send(&mut self.client.stream, cx)).is_err() {
                return Poll::Ready(Wants::Leave);
            }
            if has_heard {
                // There may be more than there was room for.
                continue;
            }
            if let Some(wants) = self.scan() {
                return Poll::Ready(wants);
            }
            if !self.client.to_client.is_sent() {
                continue;
            }
            match self.client.to_server.poll_fill(&mut self.client.stream, cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Wants::Leave),
                Poll::Ready(Ok(count)) => {
                    let counters = &self.client.handle.counters;
                    Counters::add(&counters.client_bytes, count as u64);
                }
                Poll::Pending => {
                    self.client.to_client.give_back();
                    self.client.to_server.give_back();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Deals with messages that need no server; `None` when more bytes must come.
    fn scan(&mut self) -> Option<Wants> {
        loop {
            self.drop_rest();
            if self.client.rest != Rest::None {
                return None;
            }
            let header = match peek(self.client.to_server.unscanned()) {
                Ok(header) => header?,
                Err(error) => {
                    let error = crate::relay::RelayError::ClientFrame(error);
                    return error.refusal().map(Wants::Refused);
                }
            };
            match self.message(header) {
                None => {}
                Some(Wants::Bytes) => return None,
                wants => return wants,
            }
        }
    }

    fn message(&mut self, header: Header) -> Option<Wants> {
        match header.tag {
            tag::TERMINATE => return Some(Wants::Leave),
            tag::SYNC => {
                self.is_skipping = false;
                backend::ready_idle(self.client.to_client.insertion());
            }
            // Left over from a copy that has failed; PostgreSQL ignores them, too.
            tag::FLUSH | tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => {}
            asks if tag::asks(asks) => {
                if !self.is_skipping {
                    return Some(self.wants_server(header));
                }
            }
            other => {
                return crate::relay::RelayError::ClientMessage(other)
                    .refusal()
                    .map(Wants::Refused);
            }
        }
        self.client.rest = Rest::Drop(header.message_bytes);
        None
    }

    /// A server is wanted when the message is here, or as much of it as a buffer takes: a client
    /// that is slow to send must not hold one meanwhile.
    fn wants_server(&mut self, header: Header) -> Wants {
        let wanted = header.message_bytes.min(self.look_bytes());
        if self.client.to_server.unscanned().len() >= wanted {
            return Wants::Server;
        }
        self.client.to_server.make_room_for_message(wanted);
        Wants::Bytes
    }

    /// As much of a message is waited for: where reads are split, as much as is read of a text.
    fn look_bytes(&self) -> usize {
        if self.pool.replicas().is_some() {
            TEXT_BYTES_MAX
        } else {
            SMALL_BYTES
        }
    }

    fn drop_rest(&mut self) {
        if let Rest::Drop(left) = self.client.rest {
            let here = self.client.to_server.unscanned().len();
            self.client.to_server.skip(left.min(here));
            self.client.rest = if left > here {
                Rest::Drop(left - here)
            } else {
                Rest::None
            };
        }
    }

    /// Answers the message that needs a server with an error, as PostgreSQL would: a Query gets
    /// ReadyForQuery at once, what belongs to a pipeline is skipped up to its Sync.
    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        let Ok(Some(header)) = peek(self.client.to_server.unscanned()) else {
            return;
        };
        let out = self.client.to_client.insertion();
        backend::error(out, refusal);
        match header.tag {
            tag::QUERY | tag::FUNCTION_CALL => backend::ready_idle(out),
            _ => self.is_skipping = true,
        }
        self.client.rest = Rest::Drop(header.message_bytes);
    }
}
