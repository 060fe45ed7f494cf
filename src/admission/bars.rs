//! Tenants that are kept out for a while, as they held up others.

use crate::tenant::TenantId;
use moka::sync::Cache;
use std::time::{Duration, Instant};

/// What was done is forgotten when nothing was for this long.
const MEMORY: Duration = Duration::from_hours(1);

/// The longest bar.
const BAR_MAX: Duration = Duration::from_mins(10);

/// Tenants that are remembered.
const ENTRIES_MAX: u64 = 100_000;

/// Tenants that trespassed.
pub struct Bars(Cache<TenantId, Bar>);

#[derive(Debug, Clone, Copy)]
struct Bar {
    strikes: u32,
    until: Instant,
}

impl Default for Bars {
    fn default() -> Self {
        Self(
            Cache::builder()
                .max_capacity(ENTRIES_MAX)
                .time_to_live(MEMORY)
                .build(),
        )
    }
}

impl Bars {
    /// Notes a trespass. The first in an hour bars nobody; the next one does for `penalty`, each one
    /// after that for twice as long, up to ten minutes. Those that come while the tenant is barred
    /// are what is left of the same one. Returns how long it is barred from now.
    pub fn strike(&self, tenant: &TenantId, penalty: Duration) -> Option<Duration> {
        self.strike_at(tenant, penalty, Instant::now())
    }

    fn strike_at(&self, tenant: &TenantId, penalty: Duration, now: Instant) -> Option<Duration> {
        let entry = self.0.entry_by_ref(tenant);
        let struck = entry.and_upsert_with(|known| {
            let Some(known) = known else {
                return Bar {
                    strikes: 1,
                    until: now,
                };
            };
            let known = known.into_value();
            if known.until > now {
                return known;
            }
            let times = 2_u32.saturating_pow(known.strikes.saturating_sub(1).min(16));
            Bar {
                strikes: known.strikes.saturating_add(1),
                until: now + penalty.saturating_mul(times).min(BAR_MAX),
            }
        });
        let until = struck.into_value().until;
        Some(until.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// Lets a tenant pass.
    ///
    /// # Errors
    /// How long it is barred, in whole seconds.
    pub(super) fn pass(&self, tenant: &TenantId) -> Result<(), Duration> {
        self.pass_at(tenant, Instant::now())
    }

    fn pass_at(&self, tenant: &TenantId, now: Instant) -> Result<(), Duration> {
        let Some(bar) = self.0.get(tenant) else {
            return Ok(());
        };
        let left = bar.until.saturating_duration_since(now);
        if left.is_zero() {
            return Ok(());
        }
        Err(Duration::from_secs(left.as_secs() + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_is_forgiven_and_then_it_takes_longer_and_longer() {
        let bars = Bars::default();
        let tenant = TenantId::new("acme").unwrap();
        let (mut now, penalty) = (Instant::now(), Duration::from_secs(10));
        assert_eq!(bars.strike_at(&tenant, penalty, now), None);
        assert_eq!(bars.pass_at(&tenant, now), Ok(()));
        for times in [1, 2, 4] {
            let wait = penalty * times;
            assert_eq!(bars.strike_at(&tenant, penalty, now), Some(wait));
            let left = Duration::from_secs(1);
            now += wait.saturating_sub(left);
            let again = bars.strike_at(&tenant, penalty, now);
            assert_eq!(again, Some(left), "one that stands is not made longer");
            assert!(bars.pass_at(&tenant, now).is_err());
            now += left;
            assert_eq!(bars.pass_at(&tenant, now), Ok(()));
        }
        for _ in 0..20 {
            now += bars.strike_at(&tenant, penalty, now).unwrap();
        }
        assert_eq!(bars.strike_at(&tenant, penalty, now), Some(BAR_MAX));
        let other = TenantId::new("zeta").unwrap();
        assert_eq!(bars.pass(&other), Ok(()));
    }

    #[test]
    fn without_a_penalty_nobody_is_barred() {
        let bars = Bars::default();
        let tenant = TenantId::new("acme").unwrap();
        for _ in 0..3 {
            assert_eq!(bars.strike(&tenant, Duration::ZERO), None);
        }
        assert_eq!(bars.pass(&tenant), Ok(()));
    }
}
