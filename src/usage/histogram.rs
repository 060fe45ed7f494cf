//! How long things take: counts by length, added to where it happens.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Upper bounds in microseconds; what is longer than the last one is counted behind it.
pub const BOUNDS_US: [u64; 14] = [
    100,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    120_000_000,
];

const COUNTS: usize = BOUNDS_US.len() + 1;

/// How many times were how long. Added to by the sessions of one tenant, which are all on one thread, so
/// that an addition meets no other; anyone may read it.
#[derive(Debug)]
pub(super) struct Histogram {
    counts: [AtomicU64; COUNTS],
    sum_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: array::from_fn(|_| AtomicU64::new(0)),
            sum_us: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Adds a time of so many microseconds, so many times.
    #[inline]
    pub(super) fn add(&self, time_us: u64, times: u64) {
        let at = BOUNDS_US.partition_point(|bound| *bound < time_us);
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(times, Relaxed);
        }
        let sum = time_us.saturating_mul(times);
        self.sum_us.fetch_add(sum, Relaxed);
    }

    pub(super) fn read(&self) -> Spread {
        Spread {
            counts: array::from_fn(|at| self.counts.get(at).map_or(0, |count| count.load(Relaxed))),
            sum_us: self.sum_us.load(Relaxed),
        }
    }
}

/// What a histogram has counted. Each number only ever grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spread {
    counts: [u64; COUNTS],
    /// Microseconds of all of them together.
    pub sum_us: u64,
}

impl Spread {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Each bound in microseconds, with how many were no longer than that.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let counts = self.counts.iter().scan(0_u64, |sum, count| {
            *sum = sum.saturating_add(*count);
            Some(*sum)
        });
        BOUNDS_US.into_iter().zip(counts)
    }

    /// Adds to each.
    pub fn add(&mut self, more: &Self) {
        for (count, more) in self.counts.iter_mut().zip(more.counts) {
            *count = count.saturating_add(more);
        }
        self.sum_us = self.sum_us.saturating_add(more.sum_us);
    }

    /// How much each is above what was seen before; those that are not: nothing.
    pub(super) fn above(&self, seen: &Self) -> Self {
        let mut more = *self;
        for (count, seen) in more.counts.iter_mut().zip(seen.counts) {
            *count = count.saturating_sub(seen);
        }
        more.sum_us = self.sum_us.saturating_sub(seen.sum_us);
        more
    }
}

/// How long a tenant's transactions took, and its waits for a server.
#[derive(Debug, Default)]
pub(super) struct Timings {
    pub(super) transactions: Histogram,
    pub(super) waits: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_under_the_first_bound_that_it_does_not_exceed() {
        let histogram = Histogram::default();
        for time_us in [0, 100, 101, 120_000_000, 120_000_001, u64::MAX / 2] {
            histogram.add(time_us, 1);
        }
        histogram.add(7_000, 3);
        let spread = histogram.read();
        assert_eq!(spread.count(), 9);
        let cumulative: Vec<_> = spread.cumulative().collect();
        assert_eq!(cumulative[0], (100, 2));
        assert_eq!(cumulative[1], (500, 3));
        assert_eq!(cumulative[5], (10_000, 6));
        assert_eq!(cumulative[13], (120_000_000, 7));
        assert!(cumulative.is_sorted());
    }

    #[test]
    fn what_came_since_and_what_was_there_are_what_is_there() {
        let histogram = Histogram::default();
        histogram.add(50, 2);
        let seen = histogram.read();
        histogram.add(50, 1);
        histogram.add(3_000, 1);
        let now = histogram.read();
        let more = now.above(&seen);
        assert_eq!((more.count(), more.sum_us), (2, 3_050));
        let mut sum = seen;
        sum.add(&more);
        assert_eq!(sum, now);
    }
}
