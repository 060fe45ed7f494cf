//! Server connections that were closed a moment ago.
//!
//! PostgreSQL notices that when it reads or writes next. A statement that catches its own cancel
//! may never do so: it would stay, beside the budget, for as long as it likes. Who can end
//! processes asks which of these are still there.

use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How long PostgreSQL may take to notice by itself.
const GRACE: Duration = Duration::from_secs(1);

/// After this nobody asks any more.
const MEMORY: Duration = Duration::from_mins(1);

/// So many are remembered, the newest.
const ENTRIES_MAX: usize = 10_000;

/// Process ids, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Closed(Mutex<VecDeque<(u32, Instant)>>);

impl Closed {
    /// Notes that a process has lost its client now.
    pub(super) fn note(&self, pid: u32) {
        self.note_at(pid, Instant::now());
    }

    fn note_at(&self, pid: u32, now: Instant) {
        let mut closed = self.0.lock();
        let is_old = |(_, at): &(u32, Instant)| now.saturating_duration_since(*at) > MEMORY;
        while closed.len() >= ENTRIES_MAX || closed.front().is_some_and(is_old) {
            closed.pop_front();
        }
        closed.push_back((pid, now));
    }

    /// Those that should be gone by now, with how long ago they were closed. Each is named until it is
    /// forgotten, a minute after.
    pub(super) fn due(&self) -> Vec<(u32, Duration)> {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> Vec<(u32, Duration)> {
        let closed = self.0.lock();
        closed
            .iter()
            .map(|(pid, at)| (*pid, now.saturating_duration_since(*at)))
            .filter(|(_, age)| (GRACE..=MEMORY).contains(age))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_connection_is_due_after_a_second_and_forgotten_after_a_minute() {
        let (closed, start) = (Closed::default(), Instant::now());
        closed.note_at(7, start);
        assert_eq!(closed.due_at(start), []);
        assert_eq!(closed.due_at(start + GRACE), [(7, GRACE)]);
        assert_eq!(closed.due_at(start + MEMORY), [(7, MEMORY)]);
        let later = start + MEMORY + GRACE;
        assert_eq!(closed.due_at(later), []);
        closed.note_at(8, later);
        assert_eq!(closed.0.lock().len(), 1, "the first is forgotten");
    }

    #[test]
    fn the_newest_are_remembered() {
        let (closed, start) = (Closed::default(), Instant::now());
        for pid in 0..=ENTRIES_MAX {
            closed.note_at(u32::try_from(pid).unwrap(), start);
        }
        let due = closed.due_at(start + GRACE);
        assert_eq!((due.len(), due[0].0), (ENTRIES_MAX, 1));
    }
}
