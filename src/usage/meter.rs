//! What one tenant uses in this process.

use super::{
    Calendar, Counters, Errors, Figures, Month, Monthly,
    histogram::{Spread, Timings},
    month::{Reader, settle},
};
use crate::tenant::Terms;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// In this time, what was used before weighs half as much in the order of tenants.
const HALF_LIFE: Duration = Duration::from_mins(15);

/// Sums of all sessions are not made more often than this for those who only look.
const GATHER_PAUSE: Duration = Duration::from_secs(1);

/// What was used in some time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amount {
    /// Figures.
    pub figures: Figures,
    /// Errors that clients were told.
    pub errors: Errors,
    /// Most clients at the same time.
    pub connections_peak: u64,
}

impl Amount {
    /// Puts two together; the higher peak is the peak.
    pub fn add(&mut self, more: &Self) {
        self.figures.add(&more.figures);
        self.errors.add(&more.errors);
        self.connections_peak = self.connections_peak.max(more.connections_peak);
    }
}

/// What was used here so far.
#[derive(Debug, Clone)]
pub struct Total {
    /// Since when.
    pub since: SystemTime,
    /// How much.
    pub amount: Amount,
    /// Sessions that are open now.
    pub connections: u64,
}

/// All that was counted of a tenant here so far. Each number only ever grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// Figures.
    pub figures: Figures,
    /// Errors that clients were told.
    pub errors: u64,
    /// How long its transactions took: each from the moment its server was lent, or, where that was kept,
    /// from its first message, to the server's return or the end of the answer.
    pub transactions: Spread,
    /// How long its clients waited for a server; who got one at once is not among them.
    pub waits: Spread,
}

impl Reading {
    /// Adds to each.
    pub fn add(&mut self, more: &Self) {
        self.figures.add(&more.figures);
        self.errors = self.errors.saturating_add(more.errors);
        self.transactions.add(&more.transactions);
        self.waits.add(&more.waits);
    }

    /// How much each is above what was seen before; those that are not: nothing.
    pub(super) fn above(&self, seen: &Self) -> Self {
        Self {
            figures: self.figures.above(&seen.figures),
            errors: self.errors.saturating_sub(seen.errors),
            transactions: self.transactions.above(&seen.transactions),
            waits: self.waits.above(&seen.waits),
        }
    }
}

/// A look at a tenant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) reading: Reading,
    /// Sessions that are open.
    pub(super) clients: u64,
    /// Seconds of servers' time, the older ones weighing less.
    pub(super) score: f64,
    /// For how long it was seen to use nothing.
    pub(super) idle: Duration,
}

/// How much a tenant uses of late.
#[derive(Debug)]
struct Standing {
    at: Instant,
    score: f64,
    seen: Figures,
    used: Instant,
}

impl Standing {
    fn follow(&mut self, now: Instant, figures: &Figures, has_clients: bool) {
        let passed = now.saturating_duration_since(self.at);
        let weight = 0.5_f64.powf(passed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        let more = figures.above(&self.seen);
        let time = Duration::from_micros(more.server_time_us);
        self.score = self.score * weight + time.as_secs_f64();
        if has_clients || !more.is_zero() {
            self.used = now;
        }
        (self.at, self.seen) = (now, *figures);
    }
}

/// A session that is open, and what of it is in the sums.
#[derive(Debug)]
struct Open {
    counters: Arc<Counters>,
    seen: Figures,
    seen_errors: Errors,
}

#[derive(Debug)]
struct State {
    since: SystemTime,
    gathered: Instant,
    open: HashMap<u32, Open>,
    /// Since the start.
    total: Amount,
    /// Not taken yet.
    fresh: Amount,
    /// What was taken of this month.
    taken: (Calendar, Monthly),
    /// The hour and the peak that were told last.
    told: Option<(i64, u64)>,
    standing: Standing,
}

impl Default for State {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            since: SystemTime::now(),
            gathered: now,
            open: HashMap::new(),
            total: Amount::default(),
            fresh: Amount::default(),
            taken: Default::default(),
            told: None,
            standing: Standing {
                at: now,
                score: 0.0,
                seen: Figures::default(),
                used: now,
            },
        }
    }
}

impl State {
    /// Adds to the sums what a session has done since it was looked at.
    fn gather(open: &mut Open, total: &mut Amount, fresh: &mut Amount) {
        let now = open.counters.figures();
        let more = now.above(&open.seen);
        // What was taken back is not counted again when it is done again.
        open.seen.add(&more);
        let errors = open.counters.errors().above(&open.seen_errors);
        open.seen_errors.add(&errors);
        total.figures.add(&more);
        fresh.figures.add(&more);
        for (code, count) in errors.iter() {
            // Who makes up new ones makes no more of them than the total has.
            let code = total.errors.count(code, count);
            fresh.errors.count(code, count);
        }
    }

    fn gather_all(&mut self) {
        self.gathered = Instant::now();
        for open in self.open.values_mut() {
            Self::gather(open, &mut self.total, &mut self.fresh);
        }
    }
}

/// What one tenant uses in this process. Locked at a login, at a logout and when it is asked; never
/// for a message.
#[derive(Debug, Default)]
pub struct Meter {
    state: Mutex<State>,
    timings: Arc<Timings>,
    /// How much of its month is used.
    pub month: Month,
}

impl From<&Figures> for Monthly {
    fn from(figures: &Figures) -> Self {
        Self {
            queries: figures.queries,
            transactions: figures.transactions,
        }
    }
}

impl Meter {
    pub(super) fn new(reader: Arc<Reader>) -> Self {
        Self {
            state: Mutex::default(),
            timings: Arc::default(),
            month: Month::new(reader),
        }
    }

    /// Takes over what the tenant has agreed on.
    pub fn follow(&self, terms: &Terms, now: SystemTime) {
        self.month.follow(terms, now, |month| self.so_far(month));
    }

    /// What was used in this month. What sessions do from here on is counted for the month by
    /// themselves. Without anybody who takes it by the hour, nobody knows.
    fn so_far(&self, month: Calendar) -> Monthly {
        let mut state = self.state.lock();
        state.gather_all();
        for open in state.open.values() {
            settle(&open.counters, Monthly::from(&open.seen));
        }
        match state.taken {
            (of, taken) if of == month => taken.plus(Monthly::from(&state.fresh.figures)),
            // Nobody has taken any of it yet.
            (of, _) if of == Calendar::default() && self.month.has_reader() => {
                Monthly::from(&state.fresh.figures)
            }
            _ => Monthly::default(),
        }
    }

    /// Counts a session in, by the process id that its client was given.
    pub(super) fn begin(&self, session: u32, counters: Arc<Counters>) {
        // A session is begun once; a second time its transactions stay where they are.
        counters.timings.get_or_init(|| Arc::clone(&self.timings));
        let mut state = self.state.lock();
        let open = Open {
            counters,
            seen: Figures::default(),
            seen_errors: Errors::default(),
        };
        state.open.insert(session, open);
        let open = state.open.len() as u64;
        state.total.connections_peak = state.total.connections_peak.max(open);
        state.fresh.connections_peak = state.fresh.connections_peak.max(open);
    }

    /// Counts a session out, with what it has done. A second time changes nothing.
    pub fn end(&self, session: u32) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(mut open) = state.open.remove(&session) else {
            return;
        };
        State::gather(&mut open, &mut state.total, &mut state.fresh);
        drop(guard);
        self.month.charge(&open.counters);
    }

    /// What was used since this was asked last, for this hour; `None`: nothing that was not told.
    pub(super) fn take(&self, hour: i64) -> Option<Amount> {
        let mut state = self.state.lock();
        state.gather_all();
        let open = state.open.len() as u64;
        let mut amount = std::mem::take(&mut state.fresh);
        let month = Calendar::of_hour(hour);
        if state.taken.0 != month {
            state.taken = (month, Monthly::default());
        }
        state.taken.1 = state.taken.1.plus(Monthly::from(&amount.figures));
        amount.connections_peak = amount.connections_peak.max(open);
        state.fresh.connections_peak = open;
        let told = state.told.filter(|(at, _)| *at == hour);
        let told = told.map_or(0, |(_, peak)| peak);
        state.told = Some((hour, told.max(amount.connections_peak)));
        let is_old = amount.connections_peak <= told;
        let is_nothing = amount.figures.is_zero() && amount.errors.is_empty() && is_old;
        (!is_nothing).then_some(amount)
    }

    /// What was used since the first login here: by this session up to now, by the others up to a
    /// second ago.
    pub fn total(&self, session: u32) -> Total {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.gathered.elapsed() >= GATHER_PAUSE {
            state.gather_all();
        } else if let Some(open) = state.open.get_mut(&session) {
            State::gather(open, &mut state.total, &mut state.fresh);
        }
        Total {
            since: state.since,
            amount: state.total.clone(),
            connections: state.open.len() as u64,
        }
    }

    /// What was counted up to now.
    pub(super) fn look(&self, now: Instant) -> Look {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.gather_all();
        let clients = state.open.len() as u64;
        let figures = state.total.figures;
        state.standing.follow(now, &figures, clients > 0);
        let errors = state.total.errors.iter();
        Look {
            reading: Reading {
                figures,
                errors: errors.fold(0, |sum, (_, count)| sum.saturating_add(count)),
                transactions: self.timings.transactions.read(),
                waits: self.timings.waits.read(),
            },
            clients,
            score: state.standing.score,
            idle: now.saturating_duration_since(state.standing.used),
        }
    }

    /// Whether nobody is there and nothing is left to take.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        let fresh = &state.fresh;
        state.open.is_empty() && fresh.figures.is_zero() && fresh.errors.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::SqlStateCode;

    fn with(queries: u64) -> Arc<Counters> {
        let counters = Counters::default();
        Counters::add(&counters.queries, queries);
        Arc::new(counters)
    }

    #[test]
    fn an_open_session_is_counted_before_it_ends_and_no_part_of_it_twice() {
        let meter = Meter::default();
        let counters = with(3);
        meter.begin(1, Arc::clone(&counters));
        let amount = meter.take(7).unwrap();
        assert_eq!((amount.figures.queries, amount.connections_peak), (3, 1));
        assert_eq!(meter.take(7), None);
        Counters::add(&counters.queries, 2);
        counters.count_error(b"42P01");
        meter.end(1);
        meter.end(1);
        let amount = meter.take(7).unwrap();
        assert_eq!(amount.figures.queries, 2);
        let errors: Vec<_> = amount.errors.iter().collect();
        assert_eq!(errors, [(SqlStateCode::read(b"42P01"), 1)]);
        assert_eq!(meter.take(7), None);
        let total = meter.total(1);
        assert_eq!((total.amount.figures.queries, total.connections), (5, 0));
    }

    #[test]
    fn what_is_taken_back_and_done_again_is_counted_once() {
        let meter = Meter::default();
        let counters = with(3);
        meter.begin(1, Arc::clone(&counters));
        let before = counters.figures();
        Counters::add(&counters.queries, 1);
        assert_eq!(meter.take(7).unwrap().figures.queries, 4);
        counters.rewind(&before);
        assert_eq!(meter.take(7), None);
        Counters::add(&counters.queries, 1);
        assert_eq!(meter.take(7), None);
        assert_eq!(meter.total(1).amount.figures.queries, 4);
    }

    #[test]
    fn a_tenant_that_makes_up_errors_makes_no_more_kinds_than_there_may_be() {
        let meter = Meter::default();
        let mut kinds = std::collections::BTreeSet::new();
        let mut sum = 0;
        for session in 0..100 {
            let counters = with(0);
            for number in 0..5 {
                counters.count_error(format!("X{session:03}{number}").as_bytes());
            }
            meter.begin(session, counters);
            meter.end(session);
            let errors = meter.take(7).unwrap().errors;
            sum += errors.iter().map(|(_, count)| count).sum::<u64>();
            kinds.extend(errors.iter().map(|(code, _)| code));
        }
        assert_eq!((kinds.len(), sum), (crate::usage::ERROR_KINDS_MAX + 1, 500));
    }

    #[test]
    fn each_hour_has_its_peak() {
        let meter = Meter::default();
        meter.begin(1, with(0));
        meter.begin(2, with(0));
        meter.end(1);
        assert_eq!(meter.take(7).unwrap().connections_peak, 2);
        assert_eq!(meter.take(7), None);
        assert_eq!(meter.take(8).unwrap().connections_peak, 1);
        assert_eq!(meter.take(8), None);
        meter.end(2);
        // It was there when the hour began.
        assert_eq!(meter.take(9).unwrap().connections_peak, 1);
        assert_eq!(meter.take(10), None);
        assert!(meter.is_idle());
    }
}
