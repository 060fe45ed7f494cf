//! One direction of a relay.
//!
//! ```text
//!            unsent                        unscanned
//!      ┌──────────────────┐        ┌──────────────────────┐
//!  [outbox: copied bytes] [inbox: approved | not looked at yet]
//! ```
//!
//! Bytes are read into the inbox, looked at in place, and then *approved* (sent as they are),
//! *skipped* (dropped) or preceded by *inserted* ones. What is approved leaves straight from the
//! inbox; only what stands before an insertion is copied. Order is always kept: the outbox goes
//! first, then the approved part of the inbox.

use super::{Buffer, BufferPool, Stream};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::AsyncWrite;

/// Approved bytes up to this size join the outbox, so that one plain write sends both.
const JOIN_BYTES: usize = 4 * 1024;

/// An outbox larger than this is not kept for reuse.
const KEEP_BYTES: usize = 16 * 1024;

/// Bytes on their way from one stream to another.
#[derive(Debug)]
pub struct Flow {
    inbox: Buffer,
    approved: usize,
    outbox: Vec<u8>,
    sent: usize,
    /// TLS took bytes that may not have reached the socket.
    unflushed: bool,
    /// Bytes that were looked at, ever.
    scanned: u64,
}

impl Flow {
    /// A flow with nothing in it and no memory held.
    pub fn new(pool: BufferPool) -> Self {
        Self {
            inbox: Buffer::new(pool),
            approved: 0,
            outbox: Vec::new(),
            sent: 0,
            unflushed: false,
            scanned: 0,
        }
    }

    /// A flow that starts with bytes that were read before.
    pub fn starting_with(inbox: Buffer) -> Self {
        Self {
            inbox,
            approved: 0,
            outbox: Vec::new(),
            sent: 0,
            unflushed: false,
            scanned: 0,
        }
    }

    /// The bytes that were read and not yet looked at.
    pub fn unscanned(&self) -> &[u8] {
        self.inbox.bytes().get(self.approved..).unwrap_or_default()
    }

    /// How many bytes were approved, skipped or rewritten so far, but for those that were put back.
    pub fn scanned(&self) -> u64 {
        self.scanned
    }

    /// Approves the next `count` unscanned bytes.
    pub fn approve(&mut self, count: usize) {
        debug_assert!(
            self.approved + count <= self.inbox.len(),
            "approved more than was read"
        );
        self.approved = (self.approved + count).min(self.inbox.len());
        self.scanned += count as u64;
    }

    /// Drops the next `count` unscanned bytes.
    pub fn skip(&mut self, count: usize) {
        self.settle();
        self.inbox.consume(count);
        self.scanned += count as u64;
    }

    /// Puts bytes in front of the unscanned ones.
    pub fn insert(&mut self, bytes: &[u8]) {
        self.insertion().extend_from_slice(bytes);
    }

    /// The end of what will be sent before the unscanned bytes, to build messages in.
    pub fn insertion(&mut self) -> &mut Vec<u8> {
        self.settle();
        self.hold_outbox();
        &mut self.outbox
    }

    /// Takes the next `count` unscanned bytes away and lets `rewrite` append others in their place.
    pub fn rewrite_front(&mut self, count: usize, rewrite: impl FnOnce(&[u8], &mut Vec<u8>)) {
        self.settle();
        self.hold_outbox();
        let front = self.inbox.bytes().get(..count).unwrap_or_default();
        rewrite(front, &mut self.outbox);
        self.inbox.consume(count);
        self.scanned += count as u64;
    }

    fn settle(&mut self) {
        if self.approved > 0 {
            self.hold_outbox();
            let approved = self.inbox.bytes().get(..self.approved).unwrap_or_default();
            self.outbox.extend_from_slice(approved);
            self.inbox.consume(self.approved);
            self.approved = 0;
        }
    }

    /// Makes sure that the outbox has memory: an idle flow's is lent to others.
    fn hold_outbox(&mut self) {
        if self.outbox.capacity() == 0 {
            self.outbox = self.inbox.pool().take_outbox();
        }
    }

    /// Bytes that wait to be sent.
    pub fn unsent(&self) -> usize {
        self.outbox.len() - self.sent + self.approved
    }

    /// Whether everything approved and inserted has reached the socket.
    pub fn is_sent(&self) -> bool {
        self.unsent() == 0 && !self.unflushed
    }

    /// Whether nothing is in it, in any state.
    pub fn is_empty(&self) -> bool {
        self.unsent() == 0 && self.inbox.is_empty()
    }

    /// Whether inserted bytes have piled up so that scanning should wait.
    pub fn is_congested(&self) -> bool {
        self.outbox.len() - self.sent > super::LARGE_BYTES
    }

    /// Makes room so that a message of `count` bytes can be here whole.
    pub fn make_room_for_message(&mut self, count: usize) {
        self.settle();
        let missing = count.saturating_sub(self.inbox.len());
        self.inbox.make_room(missing);
    }

    /// Whether a read would have room now.
    pub fn has_room(&self) -> bool {
        !(self.inbox.is_full() && self.inbox.capacity() >= super::LARGE_BYTES)
    }

    /// Whether the next read has room in the memory that is held already, or in the smallest.
    pub fn has_room_without_growing(&mut self) -> bool {
        let held = self.inbox.capacity();
        if held > 0 && self.inbox.len() < held {
            // What is free may be at the front.
            self.inbox.make_room(1);
        }
        self.inbox.len() < held.max(super::SMALL_BYTES)
    }

    /// Reads once; `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    /// As the stream's read.
    pub fn poll_fill(
        &mut self,
        from: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.inbox.poll_fill(from, cx)
    }

    /// Writes what waits until nothing does; `Ready` means that all is sent.
    ///
    /// # Errors
    /// As the stream's write.
    pub fn poll_send(&mut self, to: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_sent() {
            return Poll::Ready(Ok(()));
        }
        if self.outbox.len() > self.sent && self.approved <= JOIN_BYTES {
            self.settle();
        }
        while self.unsent() > 0 {
            let count = ready!(self.poll_write_once(to, cx))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.account_sent(count);
            self.unflushed = to.needs_flush();
        }
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_once(&self, to: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let first = self.outbox.get(self.sent..).unwrap_or_default();
        let second = self.inbox.bytes().get(..self.approved).unwrap_or_default();
        let to = Pin::new(to);
        match (first.is_empty(), second.is_empty()) {
            (false, false) => {
                to.poll_write_vectored(cx, &[IoSlice::new(first), IoSlice::new(second)])
            }
            (false, true) => to.poll_write(cx, first),
            _ => to.poll_write(cx, second),
        }
    }

    fn account_sent(&mut self, count: usize) {
        let from_outbox = count.min(self.outbox.len() - self.sent);
        self.sent += from_outbox;
        if self.sent == self.outbox.len() {
            self.outbox.clear();
            self.sent = 0;
            if self.outbox.capacity() > KEEP_BYTES {
                self.outbox = Vec::new();
            }
        }
        let from_inbox = count - from_outbox;
        self.inbox.consume(from_inbox);
        self.approved -= from_inbox;
    }

    /// Drops what waits to be sent: nobody will read it.
    pub fn drop_unsent(&mut self) {
        self.outbox.clear();
        self.sent = 0;
        self.unflushed = false;
        self.inbox.consume(self.approved);
        self.approved = 0;
    }

    /// Drops what was read and not approved.
    pub fn drop_unscanned(&mut self) {
        let count = self.unscanned().len();
        self.skip(count);
    }

    /// Puts bytes back in front of what was not looked at, as if they had been read just now.
    pub fn put_back(&mut self, bytes: &[u8]) {
        self.settle();
        self.scanned = self.scanned.saturating_sub(bytes.len() as u64);
        let behind = self.inbox.bytes().to_vec();
        self.inbox.consume(behind.len());
        self.inbox.append(bytes);
        self.inbox.append(&behind);
    }

    /// Gives all memory back that nothing is in.
    pub fn give_back(&mut self) {
        self.inbox.give_back();
        if self.outbox.is_empty() {
            let outbox = std::mem::take(&mut self.outbox);
            self.inbox.pool().put_outbox(outbox);
            self.sent = 0;
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.inbox.consume(self.inbox.len());
        self.approved = 0;
        self.unflushed = false;
        self.outbox.clear();
        self.sent = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(flow: &mut Flow) -> Vec<u8> {
        flow.settle();
        flow.outbox.clone()
    }

    fn holding(bytes: &[u8]) -> Flow {
        let mut inbox = Buffer::new(BufferPool::new(1, 1));
        inbox.append(bytes);
        Flow::starting_with(inbox)
    }

    #[test]
    fn order_is_kept_through_approve_insert_and_skip() {
        let mut flow = holding(b"abcdefgh");
        flow.approve(2);
        flow.insert(b"12");
        flow.approve(1);
        flow.skip(2);
        flow.insert(b"3");
        flow.approve(1);
        assert_eq!(flow.unscanned(), b"gh");
        assert_eq!(flow.unsent(), 7);
        assert_eq!(sent(&mut flow), b"ab12c3f");
    }

    #[test]
    fn what_was_looked_at_is_counted_until_it_is_put_back() {
        let mut flow = holding(b"abcdefgh");
        flow.approve(1);
        flow.skip(2);
        flow.rewrite_front(3, |front, out| out.extend_from_slice(front));
        flow.insert(b"12");
        assert_eq!(flow.scanned(), 6);
        flow.drop_unsent();
        flow.put_back(b"abcdef");
        assert_eq!((flow.scanned(), flow.unscanned()), (0, &b"abcdefgh"[..]));
    }

    #[test]
    fn what_is_put_back_comes_before_what_was_read_behind_it() {
        let mut flow = holding(b"abcdef");
        flow.approve(4);
        flow.drop_unsent();
        flow.put_back(b"abcd");
        assert_eq!(flow.unscanned(), b"abcdef");
        assert_eq!(flow.unsent(), 0);
    }

    #[test]
    fn an_idle_flow_lends_its_outbox_to_the_next() {
        let pool = BufferPool::new(1, 1);
        let (mut one, mut two) = (Flow::new(pool.clone()), Flow::new(pool));
        one.insert(b"x");
        let lent = one.outbox.as_ptr();
        one.give_back();
        assert_eq!(one.unsent(), 1, "bytes wait in it");
        one.drop_unsent();
        one.give_back();
        two.insert(b"yz");
        assert_eq!(two.outbox.as_ptr(), lent);
        assert_eq!(sent(&mut two), b"yz");
    }

    #[test]
    fn skipping_at_the_front_copies_nothing() {
        let mut flow = holding(b"abcdef");
        flow.skip(3);
        flow.approve(3);
        assert!(flow.outbox.is_empty());
        assert_eq!(flow.unsent(), 3);
    }
}
