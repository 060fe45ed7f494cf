//! Changes of tables that tenants share, while these use them.
//!
//! Who changes a table waits until nobody uses it, and everybody who comes meanwhile waits behind
//! that: a tenant that leaves a transaction open would have all others wait. So each attempt waits
//! shortly, gives up, lets the others pass, and tries again.

use std::time::Duration;

/// How long one attempt may wait for a lock, and everybody behind it.
pub(super) const LOCK_TIME_MAX: &str = "500ms";

/// Attempts, so that it takes half a minute to a minute to give up.
const TRIES_MAX: u32 = 40;

/// The pause between them, in milliseconds: longer than an attempt, so that others are served more
/// than they wait.
const PAUSE: std::ops::Range<u64> = 500..1_000;

/// What is left of the attempts.
#[derive(Debug, Default)]
pub(super) struct Patience(u32);

impl Patience {
    /// Whether to try again after this SQLSTATE, when others have had their turn: 55P03 where the lock
    /// was not to be had, 40P01 where each waited for the other.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn tries_again(&mut self, code: Option<&str>) -> bool {
        self.0 += 1;
        if self.0 >= TRIES_MAX || !matches!(code, Some("55P03" | "40P01")) {
            return false;
        }
        let pause = Duration::from_millis(rand::random_range(PAUSE));
        tokio::time::sleep(pause).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_and_only_locks_are_waited_for() {
        let mut patience = Patience::default();
        assert!(!patience.tries_again(Some("42501")).await);
        assert!(!patience.tries_again(None).await);
        let mut tries = 2;
        while patience.tries_again(Some("55P03")).await {
            tries += 1;
        }
        assert_eq!(tries, TRIES_MAX - 1);
    }
}
