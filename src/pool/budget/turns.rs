//! Whose turn it is: deficit round robin over the tenants that wait.
//!
//! What a tenant has used is counted in server time by its weight, and paid afterwards. A round gives
//! each waiting tenant as much; who has used less is first, and among equals who came first. Rounds in
//! which nobody could be served are not walked through: the clock of the rounds goes on to the first
//! who can. It knows nothing of servers, sockets or threads.

use crate::limits::Forgetful;
use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

/// Server time of a tenant of weight 1 counts so many units a microsecond.
const SCALE: u64 = 1000;

/// A tenant whose server comes back goes on with it until it is so far ahead of one that waits and has none, times
/// its weight: to make a server for another costs some milliseconds.
const QUANTUM: Duration = Duration::from_millis(25);

/// Likewise of one that has a server: what its turns under way take beyond what they were taken for is not paid
/// yet, so it only seems to be behind.
const HOLDERS_QUANTUM: Duration = Duration::from_millis(250);

/// A tenant owes at most so much, times its weight.
const DEBT_MAX: Duration = Duration::from_secs(10);

/// What a tenant's turn is taken for until its first is over.
const EXPECTED: Duration = Duration::from_millis(1);

/// The waiting tenants, each with its waiters in order.
#[derive(Debug)]
pub(in crate::pool) struct Turns<W> {
    entries: Forgetful<u64, Entry<W>>,
    /// Tenants that wait: what they have used, their place in the round, who they are.
    order: BTreeSet<(u64, u64, u64)>,
    /// Those of them with a guarantee.
    promised: BTreeSet<(u64, u64)>,
    /// The clock of the rounds: who has used up to here has no debt.
    clock: u64,
    next_seq: u64,
    waiting: usize,
}

#[derive(Debug)]
struct Entry<W> {
    weight: u32,
    used: u64,
    seq: u64,
    is_promised: bool,
    expected: Duration,
    queue: VecDeque<W>,
}

/// Who waits, with what counts for it.
#[derive(Debug, Clone, Copy)]
pub(in crate::pool) struct Party {
    pub(in crate::pool) id: u64,
    pub(in crate::pool) weight: u32,
    /// Whether it has a guarantee.
    pub(in crate::pool) is_promised: bool,
}

/// What a turn cost, and what it was taken for when it began.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::pool) struct Cost {
    pub(in crate::pool) actual: Duration,
    pub(in crate::pool) expected: Duration,
}

impl<W> Default for Turns<W> {
    fn default() -> Self {
        Self {
            entries: Forgetful::default(),
            order: BTreeSet::new(),
            promised: BTreeSet::new(),
            clock: 0,
            next_seq: 0,
            waiting: 0,
        }
    }
}

impl<W> Turns<W> {
    /// How many wait.
    pub(in crate::pool) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether one of this tenant waits.
    pub(in crate::pool) fn is_waiting(&self, id: u64) -> bool {
        self.entries.get(&id).is_some_and(|it| !it.queue.is_empty())
    }

    /// Nobody has waited for so long: debts are worked off.
    pub(in crate::pool) fn rest(&mut self, elapsed: Duration) {
        self.clock = self.clock.saturating_add(units(elapsed, 1));
    }

    /// Waits behind the others of its tenant.
    pub(in crate::pool) fn join(&mut self, party: Party, waiter: W) {
        self.forget_resting();
        self.take_out(party.id);
        let entry = self.entry(party);
        entry.queue.push_back(waiter);
        self.waiting += 1;
        self.put_in(party.id);
    }

    /// Who waits longest of a tenant.
    pub(in crate::pool) fn first_of(&self, id: u64) -> Option<&W> {
        self.entries.get(&id).and_then(|entry| entry.queue.front())
    }

    /// Who is next; and whether because of a guarantee: `is_short` says whose is not kept. Looked at are at
    /// most as many as there are places, and one: who is not short has one.
    pub(in crate::pool) fn next(&self, is_short: impl Fn(u64) -> bool) -> Option<(u64, bool)> {
        let short = self.promised.iter().find(|(_, id)| is_short(*id));
        let short = short.map(|(_, id)| (*id, true));
        short.or_else(|| self.order.first().map(|(_, _, id)| (*id, false)))
    }

    /// The first of those that wait for whom it is possible.
    pub(in crate::pool) fn first_that(&self, may: impl Fn(u64) -> bool) -> Option<u64> {
        self.waiting_ids().find(|id| may(*id))
    }

    /// The tenants that wait, in order.
    pub(in crate::pool) fn waiting_ids(&self) -> impl Iterator<Item = u64> {
        self.order.iter().map(|(_, _, id)| *id)
    }

    /// To whom a waiting tenant's server goes when it comes back, by who of them has servers; `None`: it goes on.
    /// Looked at are at most as many as have one, and one.
    pub(in crate::pool) fn heir(&self, id: u64, holds: impl Fn(u64) -> bool) -> Option<u64> {
        let used = self.entries.get(&id).map_or(0, |entry| entry.used);
        let is_behind = |by: u64, quantum| by.saturating_add(units(quantum, 1)) < used;
        let behind = self.order.iter();
        let mut behind = behind.take_while(|(other, ..)| is_behind(*other, QUANTUM));
        let heir = behind.find(|(other, _, id)| is_behind(*other, HOLDERS_QUANTUM) || !holds(*id));
        heir.map(|(_, _, id)| *id)
    }

    /// Takes the first waiter of a tenant out, and what its turn is taken for.
    pub(in crate::pool) fn pop(&mut self, id: u64) -> Option<(W, Duration)> {
        let first = self.order.first().map_or(0, |(used, ..)| *used);
        self.clock = self.clock.max(first);
        self.take_out(id);
        let entry = self.entries.get_mut(&id)?;
        let popped = entry.queue.pop_front();
        let expected = entry.expected;
        if popped.is_some() {
            self.waiting -= 1;
            entry.used += units(expected, entry.weight);
            entry.seq = self.next_seq;
            self.next_seq += 1;
        }
        self.put_in(id);
        Some((popped?, expected))
    }

    /// Notes what a tenant's turn cost in the end.
    pub(in crate::pool) fn charge(&mut self, party: Party, cost: Cost) {
        let clock = self.clock;
        let limit = clock.saturating_add(units(DEBT_MAX, 1));
        self.take_out(party.id);
        let entry = self.entry(party);
        let paid = units(cost.expected, entry.weight);
        let due = units(cost.actual, entry.weight);
        entry.used = entry.used.saturating_sub(paid).saturating_add(due);
        // What was cut off its debt is not paid back.
        entry.used = entry.used.clamp(clock, limit);
        entry.expected = (entry.expected * 7 + cost.actual.min(DEBT_MAX)) / 8;
        self.put_in(party.id);
    }

    /// Sends those of a tenant away that are not to stay.
    pub(in crate::pool) fn retain(&mut self, id: u64, stays: impl FnMut(&W) -> bool) {
        self.take_out(id);
        if let Some(entry) = self.entries.get_mut(&id) {
            let before = entry.queue.len();
            entry.queue.retain(stays);
            self.waiting -= before - entry.queue.len();
        }
        self.put_in(id);
    }

    fn entry(&mut self, party: Party) -> &mut Entry<W> {
        let clock = self.clock;
        let seq = &mut self.next_seq;
        let entry = self.entries.entry(party.id).or_insert_with(|| {
            *seq += 1;
            Entry {
                weight: 1,
                used: clock,
                seq: *seq - 1,
                is_promised: false,
                expected: EXPECTED,
                queue: VecDeque::new(),
            }
        });
        if entry.queue.is_empty() {
            // What it did not use while it was away is not kept for it.
            entry.used = entry.used.max(clock);
        }
        entry.weight = party.weight.max(1);
        entry.is_promised = party.is_promised;
        entry
    }

    fn take_out(&mut self, id: u64) {
        if let Some(entry) = self.entries.get(&id) {
            self.order.remove(&(entry.used, entry.seq, id));
            self.promised.remove(&(entry.seq, id));
        }
    }

    fn put_in(&mut self, id: u64) {
        let Some(entry) = self.entries.get(&id).filter(|it| !it.queue.is_empty()) else {
            return;
        };
        self.order.insert((entry.used, entry.seq, id));
        if entry.is_promised {
            self.promised.insert((entry.seq, id));
        }
    }

    fn forget_resting(&mut self) {
        let clock = self.clock;
        let rests = |entry: &Entry<W>| entry.queue.is_empty() && entry.used <= clock;
        self.entries.forget(rests);
    }
}

/// Server time of a tenant of this weight.
fn units(time: Duration, weight: u32) -> u64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    micros.saturating_mul(SCALE) / u64::from(weight.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cmp::Reverse, collections::BinaryHeap};

    /// A tenant of the simulation: its clients ask again as soon as they are answered, or after a pause.
    #[derive(Clone, Copy)]
    struct Load {
        clients: usize,
        takes_ms: u64,
        /// Up to so much longer.
        varies_ms: u64,
        pause_ms: u64,
        weight: u32,
        guaranteed: usize,
    }

    impl Load {
        fn takes(&self, chance: &mut u64) -> u64 {
            *chance = chance.wrapping_mul(6_364_136_223_846_793_005);
            *chance = chance.wrapping_add(1);
            self.takes_ms + (*chance >> 33) % (self.varies_ms + 1)
        }
    }

    const BUSY: Load = Load {
        clients: 10,
        takes_ms: 5,
        varies_ms: 0,
        pause_ms: 0,
        weight: 1,
        guaranteed: 0,
    };

    #[derive(Default, Clone, Copy)]
    struct Seen {
        served: u64,
        held: usize,
        server_ms: u64,
        longest_wait_ms: u64,
        least_held: Option<usize>,
        /// Servers of others that were closed for it.
        moved: u64,
    }

    /// Runs the loads over so many servers for so long, as a budget does: who has its server back and
    /// no heir goes on, else that one gets it.
    fn simulate(loads: &[Load], servers: usize, until_ms: u64) -> Vec<Seen> {
        let mut turns = Turns::default();
        let mut seen = vec![Seen::default(); loads.len()];
        // What happens when: a client of a tenant asks (0), or a turn is over (its beginning + 1).
        let mut events = BinaryHeap::new();
        let party = |id: usize| Party {
            id: id as u64,
            weight: loads[id].weight,
            is_promised: loads[id].guaranteed > 0,
        };
        for (id, load) in loads.iter().enumerate() {
            (0..load.clients).for_each(|_| events.push(Reverse((0, id, 0, Duration::ZERO))));
        }
        let mut free = servers;
        let mut chance = 7_u64;
        while let Some(Reverse((now, id, began, expected))) = events.pop() {
            if now > until_ms {
                break;
            }
            let mut returned = None;
            if began == 0 {
                turns.join(party(id), now);
            } else {
                let took = now - (began - 1);
                seen[id].served += 1;
                seen[id].server_ms += took;
                let actual = Duration::from_millis(took);
                turns.charge(party(id), Cost { actual, expected });
                seen[id].held -= 1;
                free += 1;
                returned = Some(id);
                if loads[id].pause_ms == 0 {
                    turns.join(party(id), now);
                } else {
                    let again = now + loads[id].pause_ms;
                    events.push(Reverse((again, id, 0, Duration::ZERO)));
                }
            }
            while free > 0 {
                let short = |id: u64| {
                    let id = usize::try_from(id).unwrap();
                    seen[id].held < loads[id].guaranteed
                };
                let Some((first, is_promised)) = turns.next(short) else {
                    break;
                };
                let own = returned.take().map_or(u64::MAX, |id| id as u64);
                let holds = |id: u64| seen[usize::try_from(id).unwrap()].held > 0;
                let next = match turns.heir(own, holds) {
                    _ if is_promised || !turns.is_waiting(own) => first,
                    heir => heir.unwrap_or(own),
                };
                let is_moved = own != u64::MAX && next != own;
                let (asked, expected) = turns.pop(next).unwrap();
                let next = usize::try_from(next).unwrap();
                seen[next].moved += u64::from(is_moved);
                let it = &mut seen[next];
                it.held += 1;
                it.longest_wait_ms = it.longest_wait_ms.max(now - asked);
                free -= 1;
                let over = now + loads[next].takes(&mut chance);
                events.push(Reverse((over, next, now + 1, expected)));
            }
            if now > until_ms / 10 {
                for it in &mut seen {
                    it.least_held = Some(it.least_held.unwrap_or(it.held).min(it.held));
                }
            }
        }
        seen
    }

    /// Jain's index: 1 is equal, 1/n is all for one.
    fn jain(shares: impl Iterator<Item = u64> + Clone) -> f64 {
        let to_f64 = |x: u64| f64::from(u32::try_from(x).unwrap());
        let count = to_f64(shares.clone().count() as u64);
        let sum: f64 = shares.clone().map(to_f64).sum();
        let squares: f64 = shares.map(|x| to_f64(x) * to_f64(x)).sum();
        sum * sum / (count * squares)
    }

    #[test]
    fn ten_equal_tenants_get_the_same_whatever_their_loads_are() {
        let loads: Vec<_> = (0..10)
            .map(|index| Load {
                clients: 5 + 10 * index,
                takes_ms: [1, 40, 3, 20, 7, 100, 2, 5, 60, 10][index],
                ..BUSY
            })
            .collect();
        let seen = simulate(&loads, 5, 60_000);
        let index = jain(seen.iter().map(|it| it.server_ms));
        assert!(index >= 0.99, "{index}");
        let all: u64 = seen.iter().map(|it| it.server_ms).sum();
        assert!(all > 5 * 59_000, "servers stood idle: {all}");
    }

    #[test]
    fn as_many_servers_as_tenants_stay_where_they_are() {
        let varied = Load {
            varies_ms: 90,
            ..BUSY
        };
        let seen = simulate(&[varied; 10], 10, 60_000);
        assert!(jain(seen.iter().map(|it| it.server_ms)) >= 0.99);
        let moved: u64 = seen.iter().map(|it| it.moved).sum();
        assert!(moved <= 40, "{moved}");
    }

    #[test]
    fn a_server_too_many_goes_round_slowly() {
        let seen = simulate(&[BUSY; 3], 4, 60_000);
        assert!(jain(seen.iter().map(|it| it.server_ms)) >= 0.99);
        let moved: u64 = seen.iter().map(|it| it.moved).sum();
        assert!(moved <= 60 * 4, "{moved}");
    }

    #[test]
    fn a_weight_of_three_gets_three_times_as_much() {
        let heavy = Load { weight: 3, ..BUSY };
        let seen = simulate(&[BUSY, heavy], 4, 60_000);
        let [light, heavy] = [seen[0].server_ms, seen[1].server_ms];
        assert!(
            jain([3 * light, heavy].into_iter()) >= 0.99,
            "{light} {heavy}"
        );
    }

    #[test]
    fn a_flood_does_not_keep_quiet_tenants_waiting() {
        let flood = Load {
            clients: 1000,
            ..BUSY
        };
        let quiet = Load {
            clients: 1,
            pause_ms: 20,
            takes_ms: 1,
            ..BUSY
        };
        let mut loads = vec![quiet; 10];
        loads.push(flood);
        let seen = simulate(&loads, 4, 60_000);
        for it in &seen[..10] {
            // At most what the flood may be ahead, by its four servers, and their last turns.
            assert!(it.longest_wait_ms <= 25, "{}", it.longest_wait_ms);
            assert!(it.served > 60_000 / 50, "{}", it.served);
        }
    }

    #[test]
    fn a_guarantee_is_kept_beside_greater_weights() {
        let promised = Load {
            guaranteed: 2,
            ..BUSY
        };
        let others = Load {
            weight: 1000,
            ..BUSY
        };
        let seen = simulate(&[promised, others, others], 4, 10_000);
        assert!(seen[0].least_held >= Some(2), "{:?}", seen[0].least_held);
        assert!(seen[1].served > 0 && seen[2].served > 0);
    }

    #[test]
    fn two_hundred_tenants_over_five_servers_are_all_served() {
        let load = Load { clients: 1, ..BUSY };
        let seen = simulate(&[load; 200], 5, 20_000);
        assert!(jain(seen.iter().map(|it| it.served)) >= 0.99);
        let longest = seen.iter().map(|it| it.longest_wait_ms).max();
        // A round: each goes on until it is a quantum ahead, and its last turn.
        assert!(longest <= Some(200 * (25 + 2 * 5) / 5), "{longest:?}");
    }

    #[test]
    fn who_owes_much_is_served_again_soon() {
        let mut turns = Turns::default();
        let party = |id| Party {
            id,
            weight: 1,
            is_promised: false,
        };
        let hours = Cost {
            actual: Duration::from_hours(5),
            expected: Duration::ZERO,
        };
        turns.charge(party(1), hours);
        turns.join(party(1), ());
        assert_eq!(turns.next(|_| false), Some((1, false)), "nobody else waits");
        let second = Cost {
            actual: Duration::from_secs(1),
            expected: Duration::ZERO,
        };
        for round in 0..=11 {
            turns.join(party(2), ());
            if turns.next(|_| false) == Some((1, false)) {
                assert!(round >= 5, "{round}");
                return;
            }
            turns.pop(2).unwrap();
            turns.charge(party(2), second);
        }
        panic!("the debtor starves");
    }

    #[test]
    fn who_leaves_gives_its_turn_on() {
        let mut turns = Turns::default();
        for id in [1, 2] {
            let party = Party {
                id,
                weight: 1,
                is_promised: false,
            };
            turns.join(party, id);
        }
        turns.retain(1, |_| false);
        assert_eq!(turns.waiting(), 1);
        assert_eq!(turns.next(|_| false), Some((2, false)));
        assert!(turns.pop(1).is_none() && turns.pop(2).is_some());
        assert_eq!((turns.waiting(), turns.next(|_| false)), (0, None));
    }

    #[test]
    fn who_does_not_wait_and_owes_nothing_is_forgotten() {
        let mut turns = Turns::default();
        for id in 0..10_000 {
            let party = Party {
                id,
                weight: 1,
                is_promised: false,
            };
            turns.join(party, ());
            turns.pop(id).unwrap();
            turns.rest(Duration::from_secs(1));
        }
        assert!(turns.entries.len() <= 100, "{}", turns.entries.len());
    }

    #[test]
    fn ten_thousand_tenants_over_fifty_servers_are_served_in_a_few_steps_each() {
        let party = |id: u64| Party {
            id,
            weight: 1,
            // All that have a place have what they were promised.
            is_promised: id < 50,
        };
        let mut turns = Turns::default();
        let mut served = vec![0_u32; 10_000];
        let steps = std::cell::Cell::new(0_u64);
        for id in 0..10_000 {
            turns.join(party(id), ());
        }
        for _ in 0..30_000 {
            let short = |_: u64| {
                steps.set(steps.get() + 1);
                false
            };
            let (id, _) = turns.next(short).unwrap();
            let ((), expected) = turns.pop(id).unwrap();
            served[usize::try_from(id).unwrap()] += 1;
            let actual = Duration::from_millis(1);
            turns.charge(party(id), Cost { actual, expected });
            turns.join(party(id), ());
        }
        assert!(served.iter().all(|count| *count == 3));
        assert!(steps.get() <= 50 * 30_000);
    }
}
