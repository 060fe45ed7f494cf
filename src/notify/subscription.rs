//! What one session listens to, and what has come for it.

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::{BTreeSet, VecDeque},
    task::{Context, Poll},
};

/// Names of channels.
pub type Channels = BTreeSet<Box<str>>;

/// Notifications that wait for one session; one more and it is told that it lags.
const QUEUE_MAX: usize = 4096;

/// The same in bytes.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// What a session hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A `NotificationResponse`, ready to be sent.
    Notification(Bytes),
    /// The listener's connection was lost and is back: something may have been missed.
    Interrupted,
    /// Too much has come that the session did not take; nothing more will.
    Lagged,
}

/// One session's side.
#[derive(Debug, Default)]
pub struct Subscription {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct Queue {
    channels: Channels,
    events: VecDeque<Event>,
    bytes: usize,
    has_lagged: bool,
}

impl Subscription {
    /// The channels whose notifications come this way.
    pub fn channels(&self) -> Channels {
        self.queue.lock().channels.clone()
    }

    /// Whether notifications of this channel come this way.
    pub fn hears(&self, channel: &str) -> bool {
        self.queue.lock().channels.contains(channel)
    }

    /// What has come next, if anything has.
    pub fn try_next(&self) -> Option<Event> {
        let mut queue = self.queue.lock();
        let event = queue.events.pop_front()?;
        if let Event::Notification(message) = &event {
            queue.bytes -= message.len();
        }
        Some(event)
    }

    /// Waits for what comes next.
    pub fn poll_next(&self, cx: &Context<'_>) -> Poll<Event> {
        self.waker.register(cx.waker());
        self.try_next().map_or(Poll::Pending, Poll::Ready)
    }

    pub(super) fn add(&self, channels: impl IntoIterator<Item = Box<str>>) {
        self.queue.lock().channels.extend(channels);
    }

    /// Hears of these channels no more.
    pub(super) fn keep_only(&self, channels: &Channels) {
        self.queue
            .lock()
            .channels
            .retain(|channel| channels.contains(channel));
    }

    /// Takes a notification, if it is for this session.
    pub(super) fn tell(&self, channel: &str, message: &Bytes) {
        let mut queue = self.queue.lock();
        if queue.has_lagged || !queue.channels.contains(channel) {
            return;
        }
        let is_full = queue.events.len() >= QUEUE_MAX
            || queue.bytes + message.len() > QUEUE_BYTES_MAX && !queue.events.is_empty();
        if is_full {
            queue.has_lagged = true;
            queue.events.clear();
            queue.bytes = 0;
            queue.events.push_back(Event::Lagged);
        } else {
            queue.bytes += message.len();
            queue.events.push_back(Event::Notification(message.clone()));
        }
        drop(queue);
        self.waker.wake();
    }

    /// Something may have been missed.
    pub(super) fn interrupt(&self) {
        let mut queue = self.queue.lock();
        if !queue.has_lagged && queue.events.back() != Some(&Event::Interrupted) {
            queue.events.push_back(Event::Interrupted);
        }
        drop(queue);
        self.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Bytes {
        Bytes::from_static(b"A")
    }

    #[test]
    fn only_its_own_channels_are_heard() {
        let subscription = Subscription::default();
        subscription.add(["a".into(), "b".into()]);
        subscription.tell("a", &message());
        subscription.tell("c", &message());
        subscription.keep_only(&Channels::from(["b".into()]));
        subscription.tell("a", &message());
        assert_eq!(
            subscription.try_next(),
            Some(Event::Notification(message()))
        );
        assert_eq!(subscription.try_next(), None);
    }

    #[test]
    fn a_session_that_takes_nothing_lags() {
        let subscription = Subscription::default();
        subscription.add(["a".into()]);
        for _ in 0..=QUEUE_MAX {
            subscription.tell("a", &message());
        }
        assert_eq!(subscription.try_next(), Some(Event::Lagged));
        subscription.tell("a", &message());
        assert_eq!(subscription.try_next(), None);
    }
}
