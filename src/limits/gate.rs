//! Places for what runs at the same time. Who finds none waits, in the order of coming.

use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::oneshot;

/// So many places, and the queue for them.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// `None`: nobody is counted.
    limit: Option<u32>,
    running: u32,
    next: u64,
    /// In the order of their numbers.
    waiting: VecDeque<(u64, oneshot::Sender<Slot>)>,
}

impl State {
    fn has_room(&self) -> bool {
        self.limit.is_none_or(|limit| self.running < limit)
    }
}

/// What somebody finds at a gate.
#[derive(Debug)]
pub(super) enum Entry {
    /// Nobody is counted.
    Free,
    /// A place.
    Slot(Slot),
    /// A place in the queue.
    Turn(Turn),
}

/// A place. It is free again when this is dropped, and the next one's at once.
#[must_use = "the place is free again when this is dropped"]
#[derive(Debug)]
pub struct Slot(Option<Arc<Gate>>);

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(gate) = self.0.take() {
            gate.leave();
        }
    }
}

/// A place in a gate's queue, which becomes a [`Slot`]. It is given up when this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    gate: Arc<Gate>,
    number: u64,
    granted: oneshot::Receiver<Slot>,
}

impl Future for Turn {
    type Output = Slot;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Slot> {
        match Pin::new(&mut self.granted).poll(cx) {
            Poll::Ready(Ok(slot)) => Poll::Ready(slot),
            // The gate lives as long as this, and keeps the other end until it grants a place.
            Poll::Ready(Err(_)) => Poll::Ready(Slot(None)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.gate.0.lock();
        let at = state
            .waiting
            .binary_search_by_key(&self.number, |(number, _)| *number);
        // A place that was granted meanwhile is given back with the receiver.
        let left = at.ok().and_then(|at| state.waiting.remove(at));
        drop(state);
        drop(left);
    }
}

impl Gate {
    /// How many may be in.
    pub(super) fn limit(&self) -> Option<u32> {
        self.0.lock().limit
    }

    /// How many are in, where they are counted.
    pub(super) fn running(&self) -> Option<u32> {
        let state = self.0.lock();
        state.limit.map(|_| state.running)
    }

    /// Changes how many may be in. Who waits goes on at once where there is room now; who is in stays.
    pub(super) fn set(self: &Arc<Self>, limit: Option<u32>) {
        let mut state = self.0.lock();
        if state.limit != limit {
            state.limit = limit;
            drop(state);
            self.grant();
        }
    }

    /// Takes a place, or one in the queue.
    pub(super) fn enter(self: &Arc<Self>) -> Entry {
        let mut state = self.0.lock();
        if state.waiting.is_empty() {
            if state.limit.is_none() {
                return Entry::Free;
            }
            if state.has_room() {
                state.running += 1;
                return Entry::Slot(Slot(Some(Arc::clone(self))));
            }
        }
        let (grant, granted) = oneshot::channel();
        let number = state.next;
        state.next += 1;
        state.waiting.push_back((number, grant));
        Entry::Turn(Turn {
            gate: Arc::clone(self),
            number,
            granted,
        })
    }

    /// Whether nobody is in, and nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.0.lock();
        state.running == 0 && state.waiting.is_empty()
    }

    fn leave(self: &Arc<Self>) {
        self.0.lock().running -= 1;
        self.grant();
    }

    /// Lets in as many of those that wait as there is room for.
    fn grant(self: &Arc<Self>) {
        loop {
            let mut state = self.0.lock();
            if !state.has_room() {
                return;
            }
            let Some((_, next)) = state.waiting.pop_front() else {
                return;
            };
            state.running += 1;
            // Not under the lock: who takes it may drop it at once.
            drop(state);
            if let Err(mut unheard) = next.send(Slot(Some(Arc::clone(self)))) {
                unheard.0 = None;
                self.0.lock().running -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(limit: u32) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        gate.set(Some(limit));
        gate
    }

    fn slot(gate: &Arc<Gate>) -> Slot {
        match gate.enter() {
            Entry::Slot(slot) => slot,
            other => panic!("{other:?}"),
        }
    }

    fn turn(gate: &Arc<Gate>) -> Turn {
        match gate.enter() {
            Entry::Turn(turn) => turn,
            other => panic!("{other:?}"),
        }
    }

    fn now(turn: &mut Turn) -> Option<Slot> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match Pin::new(turn).poll(&mut cx) {
            Poll::Ready(slot) => Some(slot),
            Poll::Pending => None,
        }
    }

    #[test]
    fn places_go_to_those_who_wait_in_the_order_they_came() {
        let gate = gate(1);
        let first = slot(&gate);
        let (mut second, mut third) = (turn(&gate), turn(&gate));
        assert!(now(&mut second).is_none());
        drop(first);
        let held = now(&mut second).unwrap();
        assert!(now(&mut third).is_none(), "there is one place");
        drop(held);
        drop(now(&mut third).unwrap());
        assert!(gate.is_empty());
    }

    #[test]
    fn who_leaves_the_queue_takes_no_place_with_him() {
        let gate = gate(1);
        let first = slot(&gate);
        let (left, mut next, granted) = (turn(&gate), turn(&gate), turn(&gate));
        drop(left);
        drop(first);
        drop(now(&mut next).unwrap());
        // It has its place already, and never asked for it.
        drop(granted);
        assert!(gate.is_empty());
        drop(slot(&gate));
    }

    #[test]
    fn a_raised_limit_lets_in_who_waits_and_a_lowered_one_ends_nobody() {
        let gate = gate(1);
        let first = slot(&gate);
        let mut waiting = [turn(&gate), turn(&gate)];
        gate.set(Some(2));
        let second = now(&mut waiting[0]).unwrap();
        assert!(now(&mut waiting[1]).is_none());
        gate.set(Some(1));
        drop(second);
        assert!(now(&mut waiting[1]).is_none(), "one is in still");
        drop(first);
        let third = now(&mut waiting[1]).unwrap();
        let mut fourth = turn(&gate);
        gate.set(None);
        assert!(now(&mut fourth).is_some());
        assert!(matches!(gate.enter(), Entry::Free));
        drop((third, fourth));
        assert!(gate.is_empty());
    }
}
