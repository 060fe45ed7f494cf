//! How much in a second or an hour, with as much at once.
//!
//! A generic cell rate algorithm, as `governor` has one; but what was used is charged afterwards here and
//! may be more than there was, and who is early is given a time of his own, so that of many who wait each
//! waits once.

use parking_lot::Mutex;
use std::time::Duration;

/// What was used keeps nobody out for longer: a limit far too low can be raised again.
const DEBT_MAX: Duration = Duration::from_hours(1);

/// How much in a period. A period's worth may be taken at once; it comes back evenly.
#[derive(Debug)]
pub(super) struct Meter {
    period: Duration,
    period_nanos: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// `None`: nothing is counted.
    limit: Option<u64>,
    /// When all that was taken would have come at this rate, by the caller's clock.
    paid: Duration,
}

impl Meter {
    /// In a second.
    pub(super) fn of_second() -> Self {
        Self::of(Duration::from_secs(1))
    }

    /// In an hour.
    pub(super) fn of_hour() -> Self {
        Self::of(Duration::from_hours(1))
    }

    fn of(period: Duration) -> Self {
        Self {
            period,
            period_nanos: u64::try_from(period.as_nanos()).unwrap_or(u64::MAX),
            state: Mutex::default(),
        }
    }

    /// How long so much takes at the limit. Rounded down: up to a million in an hour are exact, of a thousand
    /// million there may be three in ten thousand more.
    fn cost(&self, limit: Option<u64>, amount: u64) -> Duration {
        let Some(limit) = limit.map(|limit| limit.max(1)) else {
            return Duration::ZERO;
        };
        // What fits is divided in a fraction of the time.
        let nanos = if let Some(product) = amount.checked_mul(self.period_nanos) {
            product / limit
        } else {
            let product = u128::from(amount) * u128::from(self.period_nanos);
            u64::try_from(product / u128::from(limit)).unwrap_or(u64::MAX)
        };
        let cost = Duration::from_nanos(nanos);
        cost.min(self.period + DEBT_MAX)
    }

    /// The latest that may be paid: then one more may begin after [`DEBT_MAX`].
    fn latest(&self, limit: Option<u64>, now: Duration) -> Duration {
        (now + self.period + DEBT_MAX).saturating_sub(self.cost(limit, 1))
    }

    /// The limit.
    pub(super) fn limit(&self) -> Option<u64> {
        self.state.lock().limit
    }

    /// Changes the limit. What is still to be paid is paid at the new rate.
    pub(super) fn set(&self, limit: Option<u64>, now: Duration) {
        let mut state = self.state.lock();
        if let (Some(old), Some(new)) = (state.limit, limit)
            && old != new
        {
            let due = state.paid.saturating_sub(now).as_nanos();
            let due = due * u128::from(old) / u128::from(new.max(1));
            let due = Duration::from_nanos(u64::try_from(due).unwrap_or(u64::MAX));
            state.paid = now.saturating_add(due).min(self.latest(limit, now));
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
        let mut state = self.state.lock();
        if state.limit.is_none() {
            return Ok(Duration::ZERO);
        }
        let paid = state.paid.max(now) + self.cost(state.limit, amount);
        let wait = paid.saturating_sub(now + self.period);
        if wait > patience {
            return Err(wait);
        }
        state.paid = paid;
        Ok(wait)
    }

    /// Gives back what was taken and not used.
    pub(super) fn give_back(&self, amount: u64) {
        let mut state = self.state.lock();
        state.paid = state.paid.saturating_sub(self.cost(state.limit, amount));
    }

    /// Charges what has been used already, as much as it was.
    pub(super) fn charge(&self, amount: u64, now: Duration) {
        let mut state = self.state.lock();
        if amount > 0 && state.limit.is_some() {
            let paid = state.paid.max(now) + self.cost(state.limit, amount);
            state.paid = paid.min(self.latest(state.limit, now));
        }
    }

    /// How much was taken that has not come back; `None` where nobody counts.
    pub(super) fn used(&self, now: Duration) -> Option<u64> {
        let state = self.state.lock();
        let due = state.paid.saturating_sub(now).as_nanos();
        let used = (due * u128::from(state.limit?)).div_ceil(self.period.as_nanos());
        Some(u64::try_from(used).unwrap_or(u64::MAX))
    }

    /// Whether all that was taken is paid.
    pub(super) fn is_paid(&self, now: Duration) -> bool {
        self.state.lock().paid <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn meter(limit: u64) -> Meter {
        let meter = Meter::of_second();
        meter.set(Some(limit), Duration::ZERO);
        meter
    }

    fn hourly(limit: u64) -> Meter {
        let meter = Meter::of_hour();
        meter.set(Some(limit), Duration::ZERO);
        meter
    }

    /// How many begin without a wait.
    fn at_once(meter: &Meter, now: Duration) -> usize {
        let begins = || meter.take(1, now, Duration::ZERO).is_ok();
        std::iter::repeat_with(begins)
            .take_while(|begins| *begins)
            .count()
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

    #[test]
    fn an_hours_worth_goes_at_once_and_comes_back_evenly() {
        let now = 100 * SECOND;
        for limit in [1, 7, 150, 1000, 999_983] {
            let meter = hourly(limit);
            assert_eq!(at_once(&meter, now), usize::try_from(limit).unwrap());
            assert_eq!(at_once(&meter, now + DEBT_MAX / 2), (limit / 2) as usize);
        }
        let meter = hourly(150);
        at_once(&meter, now);
        assert_eq!(meter.used(now), Some(150));
        assert_eq!(meter.used(now + DEBT_MAX / 2), Some(75));
        assert_eq!(meter.take(1, now, SECOND), Err(24 * SECOND));
        assert_eq!(meter.take(1, now + 23 * SECOND, SECOND), Ok(SECOND));
        meter.give_back(1);
        assert_eq!(at_once(&meter, now + 24 * SECOND), 1);
        assert!(!meter.is_paid(now + DEBT_MAX));
        assert!(meter.is_paid(now + DEBT_MAX + 24 * SECOND));
    }

    #[test]
    fn a_raised_hour_lets_in_at_once_and_a_lowered_one_remembers_what_was_used() {
        let (meter, now) = (hourly(100), 100 * SECOND);
        assert_eq!(at_once(&meter, now), 100);
        meter.set(Some(150), now);
        assert_eq!(at_once(&meter, now), 50);
        meter.set(Some(120), now);
        // Thirty too many, at one in thirty seconds; and the one itself.
        assert_eq!(meter.take(1, now, SECOND), Err(31 * 30 * SECOND));
        for limit in [1, 2, 100] {
            meter.set(Some(1_000_000), now);
            at_once(&meter, now);
            meter.set(Some(limit), now);
            let wait = meter.take(1, now, SECOND).unwrap_err();
            assert_eq!(wait, DEBT_MAX, "nobody is kept out for longer");
            meter.charge(u64::MAX, now);
            assert_eq!(meter.take(1, now, SECOND), Err(DEBT_MAX));
        }
        meter.set(None, now);
        assert_eq!(meter.used(now), None);
        meter.set(Some(3), now);
        assert_eq!(at_once(&meter, now), 3);
    }

    #[test]
    fn a_pipelines_overrun_is_charged_to_the_hour() {
        let (meter, now) = (hourly(60), 100 * SECOND);
        assert_eq!(at_once(&meter, now), 60);
        meter.charge(9, now);
        assert_eq!(meter.take(1, now, SECOND), Err(600 * SECOND));
    }
}
