//! Waiting for a condition, never longer than the deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long any test waits for anything.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Returns when the condition holds.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    eventually_some(what, || is_so().then_some(()));
}

/// Returns the first value that the probe finds.
pub fn eventually_some<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(
            start.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        thread::park_timeout(Duration::from_millis(10));
    }
}
