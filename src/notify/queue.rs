//! What waits for one session.

use super::{Bounds, Notification};
use crate::wire::HEADER_BYTES;
use atomic_waker::AtomicWaker;
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

/// What a session that listens hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A whole `NotificationResponse`, as it came.
    Notification(Bytes),
    /// The listener's connection was lost and has been made again: in between notifications may
    /// have been missed.
    Interrupted,
    /// The session did not take its notifications in time. They are gone and none will follow:
    /// every later look says the same.
    Lagged,
}

impl Event {
    /// The notification, if it is one.
    pub fn notification(&self) -> Option<Notification<'_>> {
        match self {
            Self::Notification(message) => Notification::read(message.get(HEADER_BYTES..)?),
            Self::Interrupted | Self::Lagged => None,
        }
    }
}

/// A bounded queue of events with one reader.
#[derive(Debug)]
pub(super) struct Queue {
    held: Mutex<Held>,
    waker: AtomicWaker,
    count_max: usize,
    bytes_max: usize,
}

/// Invariant: `bytes` is the sum of the lengths of the notifications in `events`.
#[derive(Debug, Default)]
struct Held {
    events: VecDeque<Numbered>,
    bytes: usize,
    state: State,
    next_number: u64,
}

/// An event and its number in the order of all that this queue has taken.
#[derive(Debug)]
struct Numbered {
    number: u64,
    event: Event,
}

impl Held {
    fn add(&mut self, event: Event) {
        let number = self.next_number;
        self.next_number += 1;
        self.events.push_back(Numbered { number, event });
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    Lagged,
    /// The reader is gone.
    Closed,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a reader that takes nothing any more has to be forgotten"]
pub(super) enum Pushed {
    /// It waits for the reader.
    Queued,
    /// The queue takes nothing any more.
    Refused,
}

impl Queue {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            held: Mutex::default(),
            waker: AtomicWaker::new(),
            count_max: bounds.queued_count_max,
            bytes_max: bounds.queued_bytes_max,
        }
    }

    /// Adds a notification. What exceeds the bounds drops everything: the reader has lagged.
    pub(super) fn push(&self, message: &Bytes) -> Pushed {
        let mut held = self.held.lock();
        if held.state != State::Open {
            return Pushed::Refused;
        }
        let bytes = held.bytes + message.len();
        let pushed = if held.events.len() >= self.count_max || bytes > self.bytes_max {
            *held = Held {
                state: State::Lagged,
                ..Held::default()
            };
            Pushed::Refused
        } else {
            held.add(Event::Notification(message.clone()));
            held.bytes = bytes;
            Pushed::Queued
        };
        drop(held);
        self.waker.wake();
        pushed
    }

    /// Notes that notifications may be missing here. Several such notes in a row are one.
    pub(super) fn interrupt(&self) {
        let mut held = self.held.lock();
        let last = held.events.back().map(|last| &last.event);
        if held.state != State::Open || last == Some(&Event::Interrupted) {
            return;
        }
        held.add(Event::Interrupted);
        drop(held);
        self.waker.wake();
    }

    /// Drops the notifications of some channels.
    pub(super) fn forget(&self, is_forgotten: impl Fn(&str) -> bool) {
        let mut held = self.held.lock();
        let Held { events, bytes, .. } = &mut *held;
        events.retain(|Numbered { event, .. }| {
            let body = event.notification();
            let channel = body.and_then(|body| std::str::from_utf8(body.channel).ok());
            let is_kept = !channel.is_some_and(&is_forgotten);
            if let Event::Notification(message) = event
                && !is_kept
            {
                *bytes -= message.len();
            }
            is_kept
        });
    }

    /// The number of the next event that comes.
    pub(super) fn next_number(&self) -> u64 {
        self.held.lock().next_number
    }

    /// The reader is gone: nothing is kept from now on.
    pub(super) fn close(&self) {
        *self.held.lock() = Held {
            state: State::Closed,
            ..Held::default()
        };
    }

    /// Whether the reader is there and keeps up.
    pub(super) fn is_open(&self) -> bool {
        self.held.lock().state == State::Open
    }

    /// The next event, if one is here.
    pub(super) fn pop(&self) -> Option<Event> {
        self.pop_first(|_, _| true).map(|(_, event)| event)
    }

    /// The next event that is `wanted`, with its number, if one is here. A queue that has lagged says
    /// so whatever is wanted.
    pub(super) fn pop_first(
        &self,
        mut wanted: impl FnMut(u64, &Event) -> bool,
    ) -> Option<(u64, Event)> {
        let mut held = self.held.lock();
        if held.state == State::Lagged {
            return Some((held.next_number, Event::Lagged));
        }
        let mut events = held.events.iter();
        let at = events.position(|Numbered { number, event }| wanted(*number, event))?;
        let Numbered { number, event } = held.events.remove(at)?;
        if let Event::Notification(message) = &event {
            held.bytes -= message.len();
        }
        if held.events.is_empty() {
            // An idle session holds no memory.
            held.events = VecDeque::new();
        }
        Some((number, event))
    }

    /// Ready when the reader has lagged, else a promise to wake at the next event.
    pub(super) fn poll_lagged(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        match self.held.lock().state {
            State::Lagged => Poll::Ready(()),
            State::Open | State::Closed => Poll::Pending,
        }
    }

    /// The next event, or a promise to wake.
    pub(super) fn poll_pop(&self, cx: &Context<'_>) -> Poll<Event> {
        if let Some(event) = self.pop() {
            return Poll::Ready(event);
        }
        self.waker.register(cx.waker());
        // An event that came before the registration woke nobody.
        self.pop().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Wake, Waker},
    };

    fn queue(queued_count_max: usize, queued_bytes_max: usize) -> Queue {
        Queue::new(&Bounds {
            queued_count_max,
            queued_bytes_max,
            ..Bounds::default()
        })
    }

    fn message(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn notification(text: &'static str) -> Event {
        Event::Notification(message(text))
    }

    #[test]
    fn events_come_in_the_order_in_which_they_went_in() {
        let queue = queue(10, 100);
        assert_eq!(queue.push(&message("a")), Pushed::Queued);
        queue.interrupt();
        queue.interrupt();
        assert_eq!(queue.push(&message("b")), Pushed::Queued);
        assert_eq!(queue.pop(), Some(notification("a")));
        assert_eq!(queue.pop(), Some(Event::Interrupted));
        assert_eq!(queue.pop(), Some(notification("b")));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn a_queue_that_overflows_keeps_nothing_and_says_so_for_ever() {
        for (queue, texts) in [
            (queue(2, 100), ["a", "b", "c"]),
            (queue(10, 5), ["aa", "bb", "cc"]),
        ] {
            let pushed = texts.map(|text| queue.push(&message(text)));
            assert_eq!(pushed, [Pushed::Queued, Pushed::Queued, Pushed::Refused]);
            assert!(!queue.is_open());
            for _ in 0..3 {
                assert_eq!(queue.pop(), Some(Event::Lagged));
                assert_eq!(queue.push(&message("d")), Pushed::Refused);
                queue.interrupt();
            }
        }
    }

    #[test]
    fn room_that_is_taken_out_is_free_again() {
        let queue = queue(2, 4);
        for _ in 0..100 {
            assert_eq!(queue.push(&message("aa")), Pushed::Queued);
            assert_eq!(queue.push(&message("bb")), Pushed::Queued);
            assert_eq!(queue.pop(), Some(notification("aa")));
            assert_eq!(queue.pop(), Some(notification("bb")));
        }
        assert_eq!(queue.held.lock().events.capacity(), 0);
    }

    #[test]
    fn notifications_of_forgotten_channels_are_dropped_and_their_room_is_free() {
        let queue = queue(3, 100);
        let [a, b] = ["A\0\0\0\x0c\0\0\0\x07a\0x\0", "A\0\0\0\x0c\0\0\0\x07b\0y\0"];
        assert_eq!(queue.push(&message(a)), Pushed::Queued);
        queue.interrupt();
        assert_eq!(queue.push(&message(b)), Pushed::Queued);
        queue.forget(|channel| channel == "a");
        assert_eq!(queue.held.lock().bytes, b.len());
        assert_eq!(queue.pop(), Some(Event::Interrupted));
        assert_eq!(queue.pop(), Some(notification(b)));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn a_closed_queue_takes_nothing() {
        let queue = queue(2, 4);
        assert_eq!(queue.push(&message("a")), Pushed::Queued);
        queue.close();
        assert_eq!(queue.push(&message("b")), Pushed::Refused);
        assert_eq!(queue.pop(), None);
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn who_waits_is_woken_by_every_kind_of_event() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let cx = Context::from_waker(&waker);
        let queue = queue(1, 100);
        assert!(queue.poll_pop(&cx).is_pending());
        assert_eq!(queue.push(&message("a")), Pushed::Queued);
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert_eq!(queue.poll_pop(&cx), Poll::Ready(notification("a")));
        assert!(queue.poll_pop(&cx).is_pending());
        queue.interrupt();
        assert_eq!(woken.0.load(Ordering::SeqCst), 2);
        assert_eq!(queue.poll_pop(&cx), Poll::Ready(Event::Interrupted));
        assert!(queue.poll_pop(&cx).is_pending());
        assert_eq!(queue.push(&message("a")), Pushed::Queued);
        assert!(queue.poll_pop(&cx).is_ready());
        assert!(queue.poll_lagged(&cx).is_pending());
        assert_eq!(queue.push(&Bytes::from(vec![0; 101])), Pushed::Refused);
        assert_eq!(woken.0.load(Ordering::SeqCst), 4);
        assert!(queue.poll_lagged(&cx).is_ready());
        assert_eq!(queue.poll_pop(&cx), Poll::Ready(Event::Lagged));
    }
}
