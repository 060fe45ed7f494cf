//! Sweeps from time to time, by one proxy at a time.

use super::{Actor, Control, ControlError, Swept};
use sqlx::Connection as _;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// The first half of the lock's number: the second says what for.
const LOCK: i32 = 7_202_414;

/// For a connection to the registry, and for its end.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// A tenant that can't be gone on with is tried again after this, then after twice as long, and so
/// on up to this.
const RETRY_AFTER: Duration = Duration::from_mins(1);
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// What could not be gone on with, or was left to others: since how many times, and when it is
/// tried again.
#[derive(Debug, Default)]
struct Failures(HashMap<String, (u32, Instant)>);

impl Failures {
    fn is_due(&self, id: &str) -> bool {
        self.0
            .get(id)
            .is_none_or(|(_, again)| *again <= Instant::now())
    }

    /// Takes over how a sweep ended. Who is not looked at any more is forgotten.
    fn take(&mut self, unfinished: &[String], swept: &Swept) {
        self.0.retain(|id, _| unfinished.contains(id));
        for id in swept
            .activated
            .iter()
            .chain(&swept.removed)
            .chain(&swept.repaired)
        {
            self.0.remove(id);
        }
        for (id, _) in swept.failed.iter().chain(&swept.left) {
            let (times, again) = self.0.entry(id.clone()).or_insert((0, Instant::now()));
            let pause = RETRY_AFTER * 2_u32.saturating_pow((*times).min(16));
            *again = Instant::now() + pause.min(RETRY_AFTER_MAX);
            *times += 1;
        }
    }
}

impl Control {
    /// Sweeps at once and then every `pause`, for ever. Proxies that do so over the same registry do
    /// it one at a time. What is done is logged, and an event of the actor `system`.
    ///
    /// # Cancel safety
    /// Cancel safe: a tenant that was begun is gone on with in the background.
    pub async fn sweep_every(self, pause: Duration) {
        let mut failures = Failures::default();
        let mut ticks = interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.sweep_alone(&mut failures).await {
                // The directory says once that the registry does not answer.
                tracing::debug!(error = error.with_causes(), "nothing could be swept");
            }
        }
    }

    async fn sweep_alone(&self, failures: &mut Failures) -> Result<(), ControlError> {
        let unfinished = self.unfinished().await?;
        let due = unfinished.iter().filter(|id| failures.is_due(id)).cloned();
        let due: Vec<_> = due.collect();
        if due.is_empty() {
            failures.take(&unfinished, &Swept::default());
            return Ok(());
        }
        // The lock ends with its connection, and that with the process.
        let mut db = self.registry.connect(CONNECT_TIME_MAX).await?;
        let lock = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, 0)").bind(LOCK);
        if lock.fetch_one(&mut db).await? {
            let swept = self.sweep_these(&Actor::system(), due).await;
            tell(&swept, failures);
            failures.take(&unfinished, &swept);
        } else {
            tracing::debug!("another proxy sweeps");
        }
        timeout(CONNECT_TIME_MAX, db.close()).await.ok();
        Ok(())
    }
}

/// Says what a sweep did. That a tenant is left to others is said once.
fn tell(swept: &Swept, before: &Failures) {
    for tenant in &swept.activated {
        tracing::info!(tenant, "a half made tenant is finished; it has no keys yet");
    }
    for tenant in &swept.removed {
        tracing::info!(tenant, "a terminated tenant is removed");
    }
    for tenant in &swept.repaired {
        tracing::info!(tenant, "a tenant's password is put right");
    }
    for (tenant, why) in &swept.left {
        if before.0.contains_key(tenant) {
            tracing::debug!(tenant, why, "a half made tenant is still left to others");
        } else {
            tracing::warn!(tenant, why, "a half made tenant is left to others");
        }
    }
    for (tenant, error) in &swept.failed {
        tracing::warn!(
            tenant,
            error,
            "a tenant can't be gone on with; it is tried again"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_and_again_is_tried_less_and_less() {
        let mut failures = Failures::default();
        let ids = ["acme".to_owned()];
        let failed = Swept {
            failed: vec![("acme".to_owned(), "no".to_owned())],
            ..Swept::default()
        };
        let mut last = Duration::ZERO;
        for _ in 0..4 {
            failures.take(&ids, &failed);
            let pause = failures.0["acme"].1 - Instant::now();
            assert!(pause > last && !failures.is_due("acme"));
            last = pause;
        }
        for _ in 0..100 {
            failures.take(&ids, &failed);
        }
        assert!(failures.0["acme"].1 - Instant::now() <= RETRY_AFTER_MAX);
        failures.take(&[], &Swept::default());
        assert!(failures.is_due("acme"));
    }
}
