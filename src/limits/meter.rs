//! How much in a second, with a second's worth at once.
//!
//! A generic cell rate algorithm, as `governor` has one; but what was used is charged afterwards here and
//! may be more than a second's worth, and who is early is given a time of his own, so that of many who
//! wait each waits once.

use parking_lot::Mutex;
use std::time::Duration;

/// So much may be taken at once.
const BURST: Duration = Duration::from_secs(1);

/// What was charged keeps nobody out for longer: a limit far too low can be raised again.
const DEBT_MAX: Duration = Duration::from_hours(1);

/// How much in a second.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// `None`: nothing is counted.
    limit: Option<u64>,
    /// When all that was taken would have come at this rate, by the caller's clock.
    paid: Duration,
}

impl State {
    /// How long so much takes at the limit.
    fn cost(&self, amount: u64) -> Duration {
        let nanos = self.limit.map_or(0, |limit| {
            u128::from(amount) * 1_000_000_000 / u128::from(limit.max(1))
        });
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(DEBT_MAX)
    }
}

impl Meter {
    /// The limit.
    pub(super) fn limit(&self) -> Option<u64> {
        self.0.lock().limit
    }

    /// Changes the limit. What is still to be paid is paid at the new rate.
    pub(super) fn set(&self, limit: Option<u64>, now: Duration) {
        let mut state = self.0.lock();
        if let (Some(old), Some(new)) = (state.limit, limit)
            && old != new
        {
            let due = state.paid.saturating_sub(now).as_nanos();
            let due = due * u128::from(old) / u128::from(new.max(1));
            let due = Duration::from_nanos(u64::try_from(due).unwrap_or(u64::MAX));
            state.paid = now + due.min(DEBT_MAX);
        }
        if limit.is_none() {
            state.paid = Duration::ZERO;
        }
        state.limit = limit;
    }

    /// Takes so much; how long to wait before using it.
    ///
    /// # Errors
    /// It would take longer than `patience`: how long. Nothing is taken.
    pub(super) fn take(
        &self,
        amount: u64,
        now: Duration,
        patience: Duration,
    ) -> Result<Duration, Duration> {
        let mut state = self.0.lock();
        if state.limit.is_none() {
            return Ok(Duration::ZERO);
        }
        let paid = state.paid.max(now) + state.cost(amount);
        let wait = paid.saturating_sub(now + BURST);
        if wait > patience {
            return Err(wait);
        }
        state.paid = paid;
        Ok(wait)
    }

    /// Gives back what was taken and not used.
    pub(super) fn give_back(&self, amount: u64) {
        let mut state = self.0.lock();
        state.paid = state.paid.saturating_sub(state.cost(amount));
    }

    /// Charges what has been used already, as much as it was.
    pub(super) fn charge(&self, amount: u64, now: Duration) {
        let mut state = self.0.lock();
        if amount > 0 && state.limit.is_some() {
            let paid = state.paid.max(now) + state.cost(amount);
            state.paid = paid.min(now + DEBT_MAX);
        }
    }

    /// Whether all that was taken is paid.
    pub(super) fn is_paid(&self, now: Duration) -> bool {
        self.0.lock().paid <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn meter(limit: u64) -> Meter {
        let meter = Meter::default();
        meter.set(Some(limit), Duration::ZERO);
        meter
    }

    #[test]
    fn a_seconds_worth_goes_at_once_and_the_next_one_each_at_its_own_time() {
        let (meter, now) = (meter(10), 100 * SECOND);
        for _ in 0..10 {
            assert_eq!(meter.take(1, now, SECOND), Ok(Duration::ZERO));
        }
        for nth in 1..=10 {
            assert_eq!(meter.take(1, now, SECOND), Ok(SECOND * nth / 10));
        }
        assert_eq!(meter.take(1, now, SECOND), Err(SECOND * 11 / 10));
        // As much as a second is gone: those of the last one are through, and so are ten more.
        let now = now + SECOND;
        assert_eq!(meter.take(1, now, SECOND), Ok(SECOND / 10));
        meter.give_back(1);
        assert_eq!(meter.take(1, now, SECOND), Ok(SECOND / 10));
        assert!(!meter.is_paid(now));
        assert!(meter.is_paid(now + 2 * SECOND));
    }

    #[test]
    fn what_was_used_is_charged_even_where_it_was_too_much() {
        let (meter, now) = (meter(1000), 5 * SECOND);
        meter.charge(6000, now);
        assert_eq!(meter.take(0, now, SECOND), Err(5 * SECOND));
        assert_eq!(meter.take(0, now + 4 * SECOND, SECOND), Ok(SECOND));
        assert_eq!(meter.take(0, now + 5 * SECOND, SECOND), Ok(Duration::ZERO));
        meter.charge(u64::MAX, now);
        assert_eq!(meter.take(0, now + DEBT_MAX, SECOND), Ok(Duration::ZERO));
    }

    #[test]
    fn a_new_limit_holds_for_what_is_not_paid_yet() {
        let meter = meter(1000);
        meter.charge(6000, SECOND);
        meter.set(Some(2000), SECOND);
        assert_eq!(meter.take(0, SECOND, SECOND), Err(2 * SECOND));
        meter.set(None, SECOND);
        assert_eq!(meter.take(1, SECOND, SECOND), Ok(Duration::ZERO));
        meter.set(Some(1), SECOND);
        assert_eq!(meter.take(1, SECOND, SECOND), Ok(Duration::ZERO));
    }
}
