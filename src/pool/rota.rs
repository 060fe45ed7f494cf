//! Turns on a thread: whoever keeps it busy with many tasks does not keep others waiting behind all of them.
//!
//! A runtime polls what is ready in the order in which it became ready. Of one party's tasks as many are let
//! through in a *round*, once through that order, as have a slice's worth of work; the others stand in the
//! party's own queue until the next round. A *driver*, a task like any other, begins the rounds while
//! anybody stands there; while nobody does, each pause of the thread begins one, and a poll costs a few
//! relaxed loads, no clock. It knows nothing of what the tasks do.

use crate::limits::Forgetful;
use atomic_waker::AtomicWaker;
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    hash::Hash,
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

/// The parties that had a turn in a round share so much of the thread's time in the next.
const ROUND_NS: u64 = 1_000_000;

/// A party's slice of a round.
const SLICE_NS: std::ops::RangeInclusive<u64> = 20_000..=200_000;

/// What a poll is taken for while nobody waits.
const POLL_NS: u64 = 10_000;

/// Nobody stands back for longer than this takes, whatever its last poll cost.
const DEBT_MAX_NS: u64 = 10_000_000;

/// The turns on one thread, of parties that are told apart by `K`.
#[derive(Debug)]
pub struct Rota<K> {
    parties: Mutex<Forgetful<K, Weak<Party>>>,
    round: AtomicU64,
    /// Parties that had a turn in this round.
    active: AtomicU64,
    slice_ns: AtomicU64,
    /// Polls since the driver was here last.
    polls: AtomicU64,
    /// The driver begins the rounds.
    is_driven: AtomicBool,
    /// Those in whose queues somebody stands.
    waiting: Mutex<VecDeque<Arc<Party>>>,
    driver: AtomicWaker,
    /// Parties that are here.
    present: Arc<AtomicUsize>,
}

/// One party: all of its tasks.
#[derive(Debug)]
struct Party {
    /// The round in which it had its last turn, and the time that it has used since, beyond its slices.
    round: AtomicU64,
    used_ns: AtomicU64,
    /// What a poll of it takes.
    poll_ns: AtomicU64,
    queue: Mutex<Queue>,
    /// Numbers of those in the queue are below `issued`, and not below `served`.
    issued: AtomicU64,
    served: AtomicU64,
    present: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Queue {
    tasks: VecDeque<Waker>,
    /// It is among those that the driver looks at.
    is_listed: bool,
}

impl Drop for Party {
    fn drop(&mut self) {
        self.present.fetch_sub(1, Relaxed);
    }
}

impl<K> Default for Rota<K> {
    fn default() -> Self {
        Self {
            parties: Mutex::default(),
            round: AtomicU64::new(0),
            active: AtomicU64::new(0),
            slice_ns: AtomicU64::new(*SLICE_NS.end()),
            polls: AtomicU64::new(0),
            is_driven: AtomicBool::new(false),
            waiting: Mutex::default(),
            driver: AtomicWaker::new(),
            present: Arc::default(),
        }
    }
}

impl<K: Eq + Hash + Clone> Rota<K> {
    /// Runs a task of a party's, which takes turns with those of others. They stand in the queue in the order
    /// in which they became ready, each once.
    ///
    /// # Cancel safety
    /// As the task's own.
    pub async fn take_turns<T>(&self, party: K, task: impl Future<Output = T>) -> T {
        let party = self.party(&party);
        let mut ticket = None;
        let mut task = pin!(task);
        poll_fn(|cx| {
            if !self.has_turn(&party, &mut ticket, cx) {
                return Poll::Pending;
            }
            self.poll(&party, || task.as_mut().poll(cx))
        })
        .await
    }

    fn party(&self, key: &K) -> Arc<Party> {
        let new = || {
            self.present.fetch_add(1, Relaxed);
            Arc::new(Party {
                round: AtomicU64::new(self.round.load(Relaxed)),
                used_ns: AtomicU64::new(0),
                poll_ns: AtomicU64::new(POLL_NS),
                queue: Mutex::default(),
                issued: AtomicU64::new(0),
                served: AtomicU64::new(0),
                present: Arc::clone(&self.present),
            })
        };
        self.parties.lock().shared(key, new)
    }
}

impl<K> Rota<K> {
    /// Begins rounds as long as somebody waits for one.
    ///
    /// # Cancel safety
    /// Without it, who waits is not called.
    pub async fn drive(self: Arc<Self>) {
        poll_fn(|cx| {
            self.driver.register(cx.waker());
            if self.next_round() {
                // Behind all that is ready now.
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        })
        .await;
    }

    /// The thread has nothing to do: a round is over.
    pub fn rests(&self) {
        self.round.fetch_add(1, Relaxed);
        self.active.store(0, Relaxed);
    }

    #[inline]
    fn has_turn(&self, party: &Arc<Party>, ticket: &mut Option<u64>, cx: &Context<'_>) -> bool {
        if let Some(number) = *ticket {
            // It may be woken by others than the driver.
            let is_called = party.served.load(Relaxed) > number;
            if is_called {
                *ticket = None;
            }
            return is_called;
        }
        if self.present.load(Relaxed) < 2 {
            return true;
        }
        let is_first = party.served.load(Relaxed) == party.issued.load(Relaxed);
        if is_first && self.used_ns(party) < self.slice_ns.load(Relaxed) {
            return true;
        }
        *ticket = Some(self.stand_back(party, cx.waker().clone()));
        false
    }

    /// What a party has used beyond its slices up to this round, in which it has a turn.
    #[inline]
    fn used_ns(&self, party: &Party) -> u64 {
        let (round, used_ns) = (self.round.load(Relaxed), party.used_ns.load(Relaxed));
        let rounds = round.saturating_sub(party.round.load(Relaxed));
        if rounds == 0 {
            return used_ns;
        }
        let paid = rounds.saturating_mul(self.slice_ns.load(Relaxed));
        let used_ns = used_ns.saturating_sub(paid);
        party.round.store(round, Relaxed);
        party.used_ns.store(used_ns, Relaxed);
        self.active.fetch_add(1, Relaxed);
        used_ns
    }

    fn stand_back(&self, party: &Arc<Party>, waker: Waker) -> u64 {
        let mut queue = party.queue.lock();
        queue.tasks.push_back(waker);
        let number = party.issued.fetch_add(1, Relaxed);
        let is_new = !std::mem::replace(&mut queue.is_listed, true);
        drop(queue);
        if is_new {
            self.waiting.lock().push_back(Arc::clone(party));
            self.driver.wake();
        }
        number
    }

    #[inline]
    fn poll<T>(&self, party: &Party, poll: impl FnOnce() -> T) -> T {
        if self.present.load(Relaxed) < 2 {
            return poll();
        }
        let began = self.is_driven.load(Relaxed).then(Instant::now);
        let polled = poll();
        let took_ns = began.map_or(POLL_NS, |began| {
            let took = began.elapsed().as_nanos();
            let took_ns = u64::try_from(took).unwrap_or(u64::MAX).min(DEBT_MAX_NS);
            let usual = party.poll_ns.load(Relaxed);
            party.poll_ns.store((usual * 7 + took_ns) / 8, Relaxed);
            took_ns
        });
        let used_ns = party.used_ns.load(Relaxed) + took_ns;
        party.used_ns.store(used_ns.min(DEBT_MAX_NS), Relaxed);
        self.polls.fetch_add(1, Relaxed);
        polled
    }

    /// Calls those that may go on in the next round; whether there is to be another one.
    fn next_round(&self) -> bool {
        let polls = self.polls.swap(0, Relaxed);
        let active = self.active.swap(0, Relaxed).max(1);
        let slice_ns = (ROUND_NS / active).clamp(*SLICE_NS.start(), *SLICE_NS.end());
        self.slice_ns.store(slice_ns, Relaxed);
        self.round.fetch_add(1, Relaxed);
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for party in waiting {
            if self.call(&party, slice_ns) {
                self.waiting.lock().push_back(party);
            }
        }
        let goes_on = polls > 0 || !self.waiting.lock().is_empty();
        self.is_driven.store(goes_on, Relaxed);
        goes_on
    }

    /// Calls as many of a party's as have a slice's worth of work; whether some stay.
    fn call(&self, party: &Party, slice_ns: u64) -> bool {
        let left_ns = slice_ns.saturating_sub(self.used_ns(party));
        let usual = party.poll_ns.load(Relaxed).max(1);
        // Who has anything left has a turn.
        for _ in 0..left_ns.div_ceil(usual) {
            let mut queue = party.queue.lock();
            let Some(task) = queue.tasks.pop_front() else {
                break;
            };
            party.served.fetch_add(1, Relaxed);
            drop(queue);
            task.wake();
        }
        let mut queue = party.queue.lock();
        queue.is_listed = !queue.tasks.is_empty();
        queue.is_listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        cell::{Cell, RefCell},
        rc::Rc,
    };

    /// Polls of others between one poll of a task and its next, of which it is always ready for one.
    struct Seen {
        polls: Cell<u64>,
        gaps: RefCell<Vec<u64>>,
    }

    /// A task that is ready again as soon as it was polled.
    async fn is_always_ready(polled: impl Fn() -> bool) {
        poll_fn(|cx| {
            if polled() {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// How many polls of a flood stood between two of a quiet party's; how many there were of the flood.
    fn beside_a_flood(tasks: usize, parties: usize, takes_turns: bool) -> (u64, u64) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        let rota = Arc::new(Rota::<usize>::default());
        let seen = Rc::new(Seen {
            polls: Cell::new(0),
            gaps: RefCell::default(),
        });
        local.spawn_local(Arc::clone(&rota).drive());
        for task in 0..tasks {
            let (rota, seen) = (Arc::clone(&rota), Rc::clone(&seen));
            local.spawn_local(async move {
                let floods = is_always_ready(|| {
                    seen.polls.set(seen.polls.get() + 1);
                    false
                });
                if takes_turns {
                    rota.take_turns(task % parties, floods).await;
                } else {
                    floods.await;
                }
            });
        }
        let quiet = Rc::clone(&seen);
        let last = Cell::new(0);
        let quiet = is_always_ready(move || {
            let mut gaps = quiet.gaps.borrow_mut();
            gaps.push(quiet.polls.get() - last.replace(quiet.polls.get()));
            gaps.len() > 200
        });
        local.block_on(&runtime, async move {
            tokio::task::spawn_local(async move { rota.take_turns(usize::MAX, quiet).await })
                .await
                .unwrap();
        });
        // The first ones are those of a thread that was not busy.
        let longest = seen.gaps.borrow().iter().skip(20).max().copied();
        (longest.unwrap(), seen.polls.get())
    }

    #[test]
    fn a_flood_of_one_party_stands_behind_others() {
        let (longest, _) = beside_a_flood(1000, 1, false);
        assert!(longest >= 1000, "without turns: {longest}");
        // A poll that takes next to nothing: as many as there are, in a slice's time.
        let (longest, served) = beside_a_flood(20_000, 1, true);
        assert!(longest < 10_000, "{longest}");
        assert!(served >= 200, "{served}: it goes on, too");
    }

    #[test]
    fn who_is_dropped_in_the_queue_gives_its_turn_on() {
        let rota = Arc::new(Rota::<u8>::default());
        let (flood, other) = (rota.party(&1), rota.party(&2));
        let mut cx = Context::from_waker(Waker::noop());
        flood.used_ns.store(DEBT_MAX_NS, Relaxed);
        let mut left = Box::pin(rota.take_turns(1, async {}));
        let mut next = Box::pin(rota.take_turns(1, async {}));
        assert!(left.as_mut().poll(&mut cx).is_pending());
        assert!(next.as_mut().poll(&mut cx).is_pending());
        assert!(
            next.as_mut().poll(&mut cx).is_pending(),
            "it stands there once"
        );
        drop(left);
        let rounds = (0..1000).take_while(|_| rota.next_round()).count();
        // Its debt is paid by the slices of rounds.
        assert!((40..=60).contains(&rounds), "{rounds}");
        assert!(next.as_mut().poll(&mut cx).is_ready());
        drop((flood, other));
        assert_eq!(rota.present.load(Relaxed), 0);
    }

    #[test]
    fn who_is_alone_waits_for_nobody_and_pays_nothing() {
        let rota = Rota::<u8>::default();
        let party = rota.party(&1);
        for _ in 0..10_000 {
            let mut task = Box::pin(rota.take_turns(1, async {}));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(task.as_mut().poll(&mut cx).is_ready());
        }
        assert_eq!(party.used_ns.load(Relaxed), 0);
    }

    #[test]
    fn a_thread_that_pauses_has_nobody_stand_back() {
        let rota = Rota::<u8>::default();
        let (_one, _two) = (rota.party(&1), rota.party(&2));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..1000 {
            for _ in 0..15 {
                let mut task = Box::pin(rota.take_turns(1, async {}));
                assert!(task.as_mut().poll(&mut cx).is_ready());
            }
            rota.rests();
        }
    }
}
