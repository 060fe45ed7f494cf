//! Memory that bytes are read into, lent by a pool so that an idle session holds none.

use super::Stream;
use crossbeam_queue::ArrayQueue;
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, ReadBuf};

/// Memory of a small buffer, for the usual transaction.
pub const SMALL_BYTES: usize = 8 * 1024;

/// Memory of a large buffer, while bulk data flows.
pub const LARGE_BYTES: usize = 64 * 1024;

/// Memory of a new outbox: a few rewritten messages.
const OUTBOX_BYTES: usize = 512;

/// An outbox that has grown beyond this is not kept for reuse.
const OUTBOX_KEPT_BYTES_MAX: usize = 4 * 1024;

/// Memory kept for reuse. What comes back beyond the bound is freed.
#[derive(Debug, Clone)]
pub struct BufferPool(Arc<Shelves>);

#[derive(Debug)]
struct Shelves {
    small: ArrayQueue<Box<[u8]>>,
    large: ArrayQueue<Box<[u8]>>,
    outboxes: ArrayQueue<Vec<u8>>,
}

impl BufferPool {
    /// A pool that keeps at most so many pieces of each size, and as many outboxes as small ones.
    pub fn new(small_count: usize, large_count: usize) -> Self {
        Self(Arc::new(Shelves {
            small: ArrayQueue::new(small_count.max(1)),
            large: ArrayQueue::new(large_count.max(1)),
            outboxes: ArrayQueue::new(small_count.max(1)),
        }))
    }

    /// An empty outbox, with some memory.
    pub(super) fn take_outbox(&self) -> Vec<u8> {
        let kept = self.0.outboxes.pop();
        kept.unwrap_or_else(|| Vec::with_capacity(OUTBOX_BYTES))
    }

    /// Takes an outbox back. What has grown large or exceeds the bound is freed.
    pub(super) fn put_outbox(&self, mut outbox: Vec<u8>) {
        if outbox.capacity() > 0 && outbox.capacity() <= OUTBOX_KEPT_BYTES_MAX {
            outbox.clear();
            drop(self.0.outboxes.push(outbox));
        }
    }

    fn take_small(&self) -> Box<[u8]> {
        self.0.small.pop().unwrap_or_else(|| zeroed(SMALL_BYTES))
    }

    fn take_large(&self) -> Box<[u8]> {
        self.0.large.pop().unwrap_or_else(|| zeroed(LARGE_BYTES))
    }

    /// Takes memory back. Sizes that are not ours and what exceeds the bound are freed.
    fn put(&self, memory: Box<[u8]>) {
        let refused = match memory.len() {
            SMALL_BYTES => self.0.small.push(memory),
            LARGE_BYTES => self.0.large.push(memory),
            _ => Ok(()),
        };
        drop(refused);
    }
}

fn zeroed(size_bytes: usize) -> Box<[u8]> {
    vec![0; size_bytes].into_boxed_slice()
}

/// Bytes that were read and not yet used.
///
/// Invariant: `start <= end <= memory.len()`; empty memory means that none is held.
#[derive(Debug)]
pub struct Buffer {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
    pool: BufferPool,
}

impl Buffer {
    /// A buffer that takes its memory from the pool when it is first filled.
    pub fn new(pool: BufferPool) -> Self {
        Self {
            memory: Box::default(),
            start: 0,
            end: 0,
            pool,
        }
    }

    /// Where the memory comes from.
    pub(super) fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// The bytes that are here.
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.end).unwrap_or_default()
    }

    /// The bytes that are here.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory
            .get_mut(self.start..self.end)
            .unwrap_or_default()
    }

    /// How many bytes are here.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether no byte is here.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How many bytes fit in all.
    pub fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// Drops the first `count` bytes. More than there are drops all.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Gives the memory back when nothing is in it.
    pub fn give_back(&mut self) {
        if self.is_empty() && !self.memory.is_empty() {
            self.pool.put(std::mem::take(&mut self.memory));
        }
    }

    /// Puts bytes behind those that are here, growing as needed.
    pub fn append(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        if let Some(room) = self.memory.get_mut(self.end..self.end + bytes.len()) {
            room.copy_from_slice(bytes);
            self.end += bytes.len();
        }
    }

    /// Makes room for `count` more bytes: moves what is here to the front, then grows.
    pub fn make_room(&mut self, count: usize) {
        if self.memory.is_empty() {
            self.memory = self.pool.take_small();
        }
        if self.memory.len() - self.end >= count {
            return;
        }
        let needed = self.len() + count;
        if needed > self.memory.len() {
            let mut memory = if needed <= LARGE_BYTES {
                self.pool.take_large()
            } else {
                zeroed(needed.next_multiple_of(LARGE_BYTES))
            };
            if let Some(front) = memory.get_mut(..self.len()) {
                front.copy_from_slice(self.bytes());
            }
            let old = std::mem::replace(&mut self.memory, memory);
            self.pool.put(old);
        } else {
            self.memory.copy_within(self.start..self.end, 0);
        }
        self.end = self.len();
        self.start = 0;
    }

    /// Whether the memory is full, so that a read would have no room.
    pub fn is_full(&self) -> bool {
        self.end == self.memory.len() && self.start == 0 && !self.memory.is_empty()
    }

    /// Reads once from the stream into what room there is; `Ok(0)` is the end of the stream.
    ///
    /// A read that fills small memory makes the next one use large memory: bulk data flows.
    /// Holds no memory while it waits with nothing in it.
    ///
    /// # Errors
    /// As the stream's read.
    pub fn poll_fill(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let grow = self.memory.len() == SMALL_BYTES && self.end == SMALL_BYTES;
        if grow {
            self.make_room(SMALL_BYTES + 1);
        } else {
            self.make_room(1);
        }
        let mut room = ReadBuf::new(self.memory.get_mut(self.end..).unwrap_or_default());
        let polled = Pin::new(stream).poll_read(cx, &mut room);
        let count = room.filled().len();
        if polled.is_pending() {
            self.give_back();
        }
        ready!(polled)?;
        self.end += count;
        Poll::Ready(Ok(count))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.memory.is_empty() {
            self.pool.put(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_growing_and_moving() {
        let mut buffer = Buffer::new(BufferPool::new(2, 2));
        buffer.append(&[1; SMALL_BYTES]);
        buffer.consume(SMALL_BYTES - 3);
        buffer.append(&[2; 10]);
        assert_eq!(buffer.bytes(), [1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
        assert_eq!(buffer.capacity(), SMALL_BYTES);
        buffer.append(&vec![3; LARGE_BYTES * 2]);
        assert_eq!(buffer.len(), 13 + LARGE_BYTES * 2);
        assert_eq!(&buffer.bytes()[..4], [1, 1, 1, 2]);
    }

    #[test]
    fn an_empty_buffer_gives_its_memory_back() {
        let pool = BufferPool::new(2, 2);
        let mut buffer = Buffer::new(pool.clone());
        buffer.append(b"x");
        buffer.give_back();
        assert_eq!(buffer.capacity(), SMALL_BYTES, "bytes are in it");
        buffer.consume(1);
        buffer.give_back();
        assert_eq!(buffer.capacity(), 0);
        assert_eq!(pool.0.small.len(), 1);
    }
}
