//! Whether a client takes what it is sent.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Since when a client has taken nothing of what waits for it, in milliseconds of the sessions' clock; 0 when
/// nothing waits.
#[derive(Debug, Default)]
pub struct Stall(AtomicU64);

impl Stall {
    /// Notes that all was taken.
    #[inline]
    pub fn ends(&self) {
        if self.0.load(Relaxed) != 0 {
            self.0.store(0, Relaxed);
        }
    }

    /// Notes that the client's socket takes no more for now; whether it has taken anything just before.
    pub fn goes_on(&self, has_taken: bool, now_ms: u64) {
        if has_taken || self.0.load(Relaxed) == 0 {
            self.0.store(now_ms.max(1), Relaxed);
        }
    }

    /// Since when it has taken nothing.
    pub fn since_ms(&self) -> Option<u64> {
        Some(self.0.load(Relaxed)).filter(|ms| *ms > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_lasts_until_something_is_taken() {
        let stall = Stall::default();
        assert_eq!(stall.since_ms(), None);
        stall.goes_on(false, 5);
        stall.goes_on(false, 9);
        assert_eq!(stall.since_ms(), Some(5));
        stall.goes_on(true, 10);
        assert_eq!(stall.since_ms(), Some(10));
        stall.ends();
        assert_eq!(stall.since_ms(), None);
    }
}
