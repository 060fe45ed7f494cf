//! A session's counters.

pub use super::figures::Counters;
use super::figures::Figures;
use super::{Errors, SqlStateCode, errors::Kinds};
use std::{
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    time::{Duration, Instant},
};

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Counters {
    /// Adds. Only the session's own task does, so no locked instruction is needed.
    #[inline]
    pub fn add(counter: &AtomicU64, count: u64) {
        counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Notes that a server is lent since then.
    #[inline]
    pub fn lent(&self, at: Instant) {
        let since = micros(at.saturating_duration_since(self.born));
        self.lent_since.store(since + 1, Relaxed);
        self.began.store(since, Relaxed);
    }

    /// Notes that it is no longer.
    #[inline]
    pub fn returned(&self, at: Instant) {
        let since = self.lent_since.load(Relaxed);
        if since > 0 {
            let now = micros(at.saturating_duration_since(self.born));
            // In this order, so that whoever reads them never has the same time twice.
            self.lent_since.store(0, Relaxed);
            let time = now.saturating_sub(since - 1);
            let before = self.server_time_us.load(Relaxed);
            self.server_time_us
                .store(before.wrapping_add(time), Release);
            self.measure_at(now);
        }
    }

    /// Notes that a transaction begins on a server that was lent before.
    pub fn begins(&self, at: Instant) {
        let at = micros(at.saturating_duration_since(self.born));
        self.began.store(at, Relaxed);
    }

    /// Measures the transactions that have ended since this was done last, up to this moment. Where a
    /// server goes back behind its transaction, [`Counters::returned`] does it.
    pub fn measure(&self, at: Instant) {
        self.measure_at(micros(at.saturating_duration_since(self.born)));
    }

    #[inline]
    fn measure_at(&self, now: u64) {
        let transactions = self.transactions.load(Relaxed);
        let ended = transactions.saturating_sub(self.measured.load(Relaxed));
        if ended > 0 {
            let time = now.saturating_sub(self.began.load(Relaxed));
            self.measured.store(transactions, Relaxed);
            if let Some(timings) = self.timings.get() {
                timings.transactions.add(time, ended);
            }
        }
        self.began.store(now, Relaxed);
    }

    /// Adds a wait for a server.
    pub fn waited(&self, time: Duration) {
        let time = micros(time);
        Self::add(&self.wait_time_us, time);
        if let Some(timings) = self.timings.get() {
            timings.waits.add(time, 1);
        }
    }

    /// Adds the number at the end of a command's tag.
    #[inline]
    pub fn count_rows(&self, tag: &[u8]) {
        let rows = rows(tag);
        if rows > 0 {
            Self::add(&self.rows, rows);
        }
    }

    /// Adds an error that the client is told.
    pub fn count_error(&self, sqlstate: &[u8]) {
        let kinds = self.errors.get_or_init(Box::<Kinds>::default);
        kinds.count(SqlStateCode::read(sqlstate));
    }

    /// What was counted, with the time of the server that is lent now.
    pub fn figures(&self) -> Figures {
        let done = self.server_time_us.load(Acquire);
        let mut figures = self.plain();
        figures.server_time_us = done;
        let since = self.lent_since.load(Relaxed);
        if since > 0 {
            figures.server_time_us += micros(self.born.elapsed()).saturating_sub(since - 1);
        }
        figures
    }

    /// The errors that were counted.
    pub fn errors(&self) -> Errors {
        self.errors
            .get()
            .map(|kinds| kinds.read())
            .unwrap_or_default()
    }

    /// Takes back what was counted of statements and transactions since then: an answer that was
    /// given to nobody is not the client's.
    pub fn rewind(&self, before: &Figures) {
        self.queries.store(before.queries, Relaxed);
        self.transactions.store(before.transactions, Relaxed);
        let on_replicas = &self.replica_transactions;
        on_replicas.store(before.replica_transactions, Relaxed);
        self.rows.store(before.rows, Relaxed);
        let measured = self.measured.load(Relaxed).min(before.transactions);
        self.measured.store(measured, Relaxed);
    }
}

/// The number at the end of a tag (`SELECT 5`, `INSERT 0 5`), which may have its NUL; 0: it has none.
fn rows(tag: &[u8]) -> u64 {
    let tag = tag.strip_suffix(b"\0").unwrap_or(tag);
    let digits = tag.iter().rev().take_while(|byte| byte.is_ascii_digit());
    let (mut rows, mut unit) = (0_u64, 1_u64);
    for digit in digits {
        rows = rows.saturating_add(u64::from(digit - b'0').saturating_mul(unit));
        unit = unit.saturating_mul(10);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::histogram::Timings;
    use std::sync::Arc;

    #[test]
    fn a_tag_tells_its_rows() {
        for (tag, count) in [
            (&b"SELECT 5\0"[..], 5),
            (b"INSERT 0 120\0", 120),
            (b"COPY 7", 7),
            (b"CREATE TABLE\0", 0),
            (b"UPDATE 0\0", 0),
            (b"", 0),
            (b"SELECT 18446744073709551615\0", u64::MAX),
            (b"SELECT 99999999999999999999999\0", u64::MAX),
        ] {
            assert_eq!(rows(tag), count, "{}", tag.escape_ascii());
        }
    }

    #[test]
    fn the_time_of_a_lent_server_is_seen_before_it_is_back_and_counted_once() {
        let mut counters = Counters::default();
        counters.born -= Duration::from_secs(10);
        let lent = counters.born + Duration::from_secs(1);
        counters.lent(lent);
        counters.returned(lent + Duration::from_millis(5));
        assert_eq!(counters.figures().server_time_us, 5000);
        // Nothing is lent.
        counters.returned(lent + Duration::from_secs(1));
        assert_eq!(counters.figures().server_time_us, 5000);
        counters.lent(counters.born);
        assert!(counters.figures().server_time_us > 5000);
        assert_eq!(counters.plain().server_time_us, 5000);
    }

    #[test]
    fn each_transaction_is_measured_once_whether_its_server_goes_back_or_is_kept() {
        let timings = Arc::new(Timings::default());
        let counters = Counters::default();
        counters.timings.set(Arc::clone(&timings)).unwrap();
        let at = |ms| counters.born + Duration::from_millis(ms);
        let measured = || {
            let spread = timings.transactions.read();
            (spread.count(), spread.sum_us)
        };
        // Nothing has ended: the server was asked for something else.
        counters.lent(at(1));
        counters.returned(at(2));
        assert_eq!(measured(), (0, 0));
        counters.lent(at(10));
        Counters::add(&counters.transactions, 1);
        counters.returned(at(14));
        assert_eq!(measured(), (1, 4_000));
        // Kept: from its own beginning on.
        counters.lent(at(20));
        Counters::add(&counters.transactions, 1);
        counters.measure(at(21));
        counters.begins(at(50));
        Counters::add(&counters.transactions, 1);
        counters.measure(at(52));
        counters.returned(at(90));
        assert_eq!(measured(), (3, 7_000));
        // Two that ended together, and one that nobody was given.
        counters.lent(at(100));
        Counters::add(&counters.transactions, 2);
        counters.returned(at(101));
        assert_eq!(measured(), (5, 9_000));
        let before = counters.figures();
        counters.lent(at(110));
        Counters::add(&counters.transactions, 1);
        counters.rewind(&before);
        counters.returned(at(120));
        assert_eq!(measured(), (5, 9_000));
    }

    #[test]
    fn what_nobody_was_given_is_taken_back() {
        let counters = Counters::default();
        Counters::add(&counters.queries, 2);
        let before = counters.figures();
        Counters::add(&counters.queries, 1);
        counters.count_rows(b"SELECT 3\0");
        counters.rewind(&before);
        assert_eq!(counters.figures(), before);
    }
}
