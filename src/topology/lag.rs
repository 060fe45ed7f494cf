//! How far a replica is behind, in time.

use super::Lsn;
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// So many samples are kept. When there are more, one is forgotten whose neighbours are close to each
/// other for its age: an hour is known to some percent, the last seconds exactly.
const SAMPLES_MAX: usize = 256;

/// When the primary was first known to be how far.
///
/// Not `pg_last_xact_replay_timestamp`: it stands still when nobody writes, and is told by the
/// primary's clock.
#[derive(Debug, Default)]
pub(super) struct Samples(VecDeque<(Instant, Lsn)>);

impl Samples {
    /// The primary was there then.
    pub(super) fn add(&mut self, now: Instant, lsn: Lsn) {
        match self.0.back() {
            Some((_, last)) if *last == lsn => return,
            // It came back from a crash and lost what nobody was promised.
            Some((_, last)) if *last > lsn => self.0.clear(),
            _ => {}
        }
        if self.0.len() == SAMPLES_MAX
            && let Some(at) = self.least_missed(now)
        {
            self.0.remove(at);
        }
        self.0.push_back((now, lsn));
    }

    /// The sample without which the lags that are told stay the most exact.
    fn least_missed(&self, now: Instant) -> Option<usize> {
        let times = || self.0.iter().map(|(at, _)| *at);
        let around = times().zip(times().skip(1)).zip(times().skip(2));
        let missed = around
            .map(|((before, at), after)| (after - before).as_secs_f64() / (now - at).as_secs_f64());
        let least = missed.enumerate().min_by(|(_, a), (_, b)| a.total_cmp(b));
        least.map(|(at, _)| at + 1)
    }

    /// For how long the primary has been known to be beyond that: the age of the oldest sample that
    /// is, rounded down by what was forgotten.
    pub(super) fn lag(&self, now: Instant, replayed: Lsn) -> Duration {
        let beyond = self.0.partition_point(|(_, lsn)| *lsn <= replayed);
        let oldest = self.0.get(beyond);
        oldest.map_or(Duration::ZERO, |(since, _)| {
            now.saturating_duration_since(*since)
        })
    }

    /// There is another history.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_replica_is_behind_since_the_primary_was_first_seen_beyond_it() {
        let start = Instant::now();
        let mut samples = Samples::default();
        assert_eq!(samples.lag(start, Lsn(0)), Duration::ZERO);
        samples.add(start, Lsn(10));
        samples.add(start + SECOND, Lsn(20));
        // It stands still: nobody falls further behind what is replayed.
        samples.add(start + SECOND * 2, Lsn(20));
        let now = start + SECOND * 5;
        assert_eq!(samples.lag(now, Lsn(20)), Duration::ZERO);
        assert_eq!(samples.lag(now, Lsn(30)), Duration::ZERO);
        assert_eq!(samples.lag(now, Lsn(19)), SECOND * 4);
        assert_eq!(samples.lag(now, Lsn(10)), SECOND * 4);
        assert_eq!(samples.lag(now, Lsn(9)), SECOND * 5);
        // After a crash of the primary.
        samples.add(now, Lsn(15));
        assert_eq!(samples.lag(now + SECOND, Lsn(14)), SECOND);
        samples.clear();
        assert_eq!(samples.lag(now, Lsn(0)), Duration::ZERO);
    }

    #[test]
    fn an_hour_behind_is_known_in_bounded_memory() {
        let start = Instant::now();
        let tenth = SECOND / 10;
        let mut samples = Samples::default();
        for step in 0..36_000 {
            samples.add(start + tenth * step, Lsn(u64::from(step) + 1));
        }
        assert!(samples.0.len() <= SAMPLES_MAX);
        let now = start + tenth * 36_000;
        assert_eq!(samples.lag(now, Lsn(0)), SECOND * 3600);
        for behind in [10_u32, 100, 1000, 10_000, 30_000] {
            let replayed = Lsn(36_000 - u64::from(behind));
            let lag = samples.lag(now, replayed).as_secs_f64() * 10.0;
            let told = lag / f64::from(behind);
            assert!((0.9..=1.01).contains(&told), "{behind}: {lag}");
        }
    }
}
