//! Failed logins cost time, then the chance: per client address, and per tenant.
//!
//! An address that fails too often is refused for the rest of the minute. A tenant is never
//! locked out by somebody else's guesses: its logins only become slower. That holds where both
//! share an address, too (NAT, a node of a cluster): who has logged in from there is not refused
//! for what others fail at.

use super::AuthError;
use crate::wire::{Refusal, SqlState};
use moka::sync::Cache;
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

/// Failures count for this long after the first.
const WINDOW: Duration = Duration::from_mins(1);

/// Addresses and names that are remembered.
const ENTRIES_MAX: u64 = 100_000;

/// How long a tenant is known at an address behind its last login from there.
const KNOWN: Duration = Duration::from_hours(24);

/// How much slower a login becomes.
const DELAY: Duration = Duration::from_millis(500);

/// Counts failures.
pub struct Throttle {
    failures_max: AtomicU32,
    by_address: Cache<IpAddr, Arc<AtomicU32>>,
    by_tenant: Cache<Box<str>, Arc<AtomicU32>>,
    known: Cache<(IpAddr, Box<str>), ()>,
}

impl Throttle {
    /// Allows so many failures per minute.
    pub fn new(failures_max: u32) -> Self {
        Self {
            failures_max: AtomicU32::new(failures_max),
            by_address: Cache::builder()
                .max_capacity(ENTRIES_MAX)
                .time_to_live(WINDOW)
                .build(),
            by_tenant: Cache::builder()
                .max_capacity(ENTRIES_MAX)
                .time_to_live(WINDOW)
                .build(),
            known: Cache::builder()
                .max_capacity(ENTRIES_MAX)
                .time_to_live(KNOWN)
                .build(),
        }
    }

    /// Changes how many failures are allowed.
    pub fn set_failures_max(&self, failures_max: u32) {
        self.failures_max.store(failures_max, Relaxed);
    }

    /// Lets a login try, at once or later.
    ///
    /// # Errors
    /// 28P01 when the address has failed too often, and the tenant is not known there.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn admit(&self, address: Option<IpAddr>, user: &str) -> Result<(), AuthError> {
        let max = self.failures_max.load(Relaxed);
        let count = |counter: Option<Arc<AtomicU32>>| counter.map_or(0, |c| c.load(Relaxed));
        let is_refused = address.is_some_and(|address| {
            count(self.by_address.get(&address)) >= max
                && !self.known.contains_key(&(address, user.into()))
        });
        if is_refused {
            tokio::time::sleep(DELAY).await;
            let refusal = Refusal::fatal(
                SqlState::BAD_KEY,
                format!("password authentication failed for user \"{user}\""),
            );
            let detail = "Too many failed logins from this address; try again in a minute.";
            return Err(AuthError::Refused(refusal.with_detail(detail)));
        }
        if count(self.by_tenant.get(user)) >= max {
            tokio::time::sleep(DELAY).await;
        }
        Ok(())
    }

    /// Remembers that the tenant has proven a key from this address.
    pub(super) fn succeeded(&self, address: Option<IpAddr>, user: &str) {
        if let Some(address) = address {
            self.known.insert((address, user.into()), ());
        }
    }

    /// Counts a failure.
    pub(super) fn failed(&self, address: Option<IpAddr>, user: &str) {
        if let Some(address) = address {
            self.by_address
                .get_with(address, Arc::default)
                .fetch_add(1, Relaxed);
        }
        self.by_tenant
            .get_with(user.into(), Arc::default)
            .fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_that_fails_too_often_is_refused_and_others_are_not() {
        let throttle = Throttle::new(2);
        let (bad, good) = ("192.0.2.1".parse().ok(), "192.0.2.2".parse().ok());
        for _ in 0..2 {
            throttle.admit(bad, "acme").await.unwrap();
            throttle.failed(bad, "acme");
        }
        assert!(throttle.admit(bad, "acme").await.is_err());
        assert!(throttle.admit(bad, "other").await.is_err());
        let before = tokio::time::Instant::now();
        throttle.admit(good, "acme").await.unwrap();
        assert!(
            before.elapsed() >= DELAY,
            "guessed-at tenants are slowed down, not locked out"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_known_at_an_address_is_not_refused_for_others() {
        let throttle = Throttle::new(2);
        let (shared, elsewhere) = ("192.0.2.1".parse().ok(), "192.0.2.2".parse().ok());
        throttle.succeeded(shared, "other");
        for _ in 0..5 {
            throttle.failed(shared, "acme");
        }
        let before = tokio::time::Instant::now();
        throttle.admit(shared, "other").await.unwrap();
        assert!(before.elapsed() < DELAY, "it is not slowed either");
        for unknown in ["acme", "third"] {
            assert!(throttle.admit(shared, unknown).await.is_err(), "{unknown}");
        }
        for _ in 0..5 {
            throttle.failed(elsewhere, "nobody");
        }
        assert!(throttle.admit(elsewhere, "other").await.is_err());
        // Its own failures slow it.
        for _ in 0..2 {
            throttle.failed(shared, "other");
        }
        throttle.admit(shared, "other").await.unwrap();
        assert!(before.elapsed() >= DELAY);
    }
}
