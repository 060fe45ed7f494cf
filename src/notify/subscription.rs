//! What a session that listens holds.

use super::{
    Channels, Event,
    hub::Inner,
    queue::Queue,
    registry::{Registry, SubscriptionId},
};
use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

/// One session's channels and the notifications that wait for it. When it is dropped the session
/// listens to nothing.
///
/// It has one reader; only the last task that polled it is woken.
pub struct Subscription {
    pub(super) id: SubscriptionId,
    pub(super) queue: Arc<Queue>,
    /// Keeps the hub going while somebody listens.
    inner: Arc<Inner>,
}

impl Subscription {
    pub(super) fn new(id: SubscriptionId, inner: Arc<Inner>) -> Self {
        Self {
            id,
            queue: Arc::new(Queue::new(&inner.shared.bounds)),
            inner,
        }
    }

    /// The next event, if one is here.
    pub fn try_next(&self) -> Option<Event> {
        self.queue.pop()
    }

    /// The first event that is `wanted`, if one is here. Numbers are those of
    /// [`Self::next_number`]. A session that has lagged is told so whatever it wants.
    pub fn first(&self, wanted: impl FnMut(u64, &Event) -> bool) -> Option<(u64, Event)> {
        self.queue.pop_first(wanted)
    }

    /// The number of the next event that comes: those that are here have smaller ones.
    pub fn next_number(&self) -> u64 {
        self.queue.next_number()
    }

    /// The next event, or a promise to wake the task.
    ///
    /// # Cancel safety
    /// Cancel safe: an event is taken when it is returned.
    pub fn poll_next(&self, cx: &Context<'_>) -> Poll<Event> {
        self.queue.poll_pop(cx)
    }

    /// Ready when the session has lagged; else the task is woken as by [`Self::poll_next`]. For a
    /// session that can't take events at the moment: inside a transaction, or before a client that
    /// does not read.
    pub fn poll_lagged(&self, cx: &Context<'_>) -> Poll<()> {
        self.queue.poll_lagged(cx)
    }

    /// The channels that it hears, sorted.
    pub fn channels(&self) -> Channels {
        let channels = self.with_registry(|registry| registry.channels_of(self.id));
        channels
            .iter()
            .map(|channel| channel.as_str().into())
            .collect()
    }

    /// Whether it hears this channel: another connection's notifications of it are doubles.
    pub fn hears(&self, channel: &str) -> bool {
        self.with_registry(|registry| registry.has(self.id, channel))
    }

    /// Whether it belongs to this hub.
    pub(super) fn is_of(&self, inner: &Arc<Inner>) -> bool {
        Arc::ptr_eq(&self.inner, inner)
    }

    fn with_registry<T>(&self, look: impl FnOnce(&mut Registry) -> T) -> T {
        look(&mut self.inner.shared.state.lock().registry)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subscription").field(&self.id.0).finish()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.with_registry(|registry| {
            self.queue.close();
            registry.remove(self.id);
        });
        self.inner.shared.wake.notify_one();
    }
}
