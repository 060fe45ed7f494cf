//! Uses of API keys in this process: how many in an hour, and when each was used last.
//!
//! A use is a new connection, or a request of the admin API. Both are kept in memory: who has a
//! registry writes the last uses there, from time to time.

use super::{KeyId, TenantId};
use governor::{
    DefaultDirectRateLimiter, Quota,
    clock::{Clock as _, DefaultClock},
};
use moka::sync::Cache;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Keys with a limit that are counted, some 300 bytes each. Beyond, those used least are counted
/// anew.
const RATES_MAX: u64 = 100_000;

/// A count that nobody has touched for so long is at its beginning again, and forgotten.
const HOUR: Duration = Duration::from_hours(1);

/// Last uses that are kept until they are written; those of more keys are not.
const LAST_MAX: usize = 100_000;

/// A key of a tenant.
pub type KeyName = (TenantId, KeyId);

/// A key was used as often as it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "rate_limit_per_hour of the API key, {limit}, is reached; try again in {}",
    humantime::format_duration(*.wait)
)]
pub struct TooOften {
    /// Its `rate_limit_per_hour`.
    pub limit: NonZeroU32,
    /// Until it may be used once more: whole seconds, at least one.
    pub wait: Duration,
}

struct Rate {
    limit: NonZeroU32,
    limiter: DefaultDirectRateLimiter,
}

impl Rate {
    fn new(limit: NonZeroU32) -> Arc<Self> {
        Arc::new(Self {
            limit,
            limiter: DefaultDirectRateLimiter::direct(Quota::per_hour(limit)),
        })
    }
}

/// Uses of API keys. Nothing here waits or does I/O.
pub struct KeyUses {
    rates: Cache<KeyName, Arc<Rate>>,
    last: Mutex<HashMap<KeyName, SystemTime>>,
}

impl fmt::Debug for KeyUses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyUses")
    }
}

impl Default for KeyUses {
    fn default() -> Self {
        let rates = Cache::builder().max_capacity(RATES_MAX).time_to_idle(HOUR);
        Self {
            rates: rates.build(),
            last: Mutex::default(),
        }
    }
}

impl KeyUses {
    /// Counts a use of a key with this limit: at once as often as the limit says, and then once
    /// each time that this part of an hour has passed.
    ///
    /// # Errors
    /// [`TooOften`]; it is not counted then.
    pub fn count(
        &self,
        (tenant, key): (&TenantId, &KeyId),
        limit: NonZeroU32,
    ) -> Result<(), TooOften> {
        let name = (tenant.clone(), key.clone());
        let mut rate = self.rates.get_with(name.clone(), || Rate::new(limit));
        if rate.limit != limit {
            rate = Rate::new(limit);
            self.rates.insert(name, Arc::clone(&rate));
        }
        rate.limiter.check().map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            TooOften {
                limit,
                wait: Duration::from_secs(wait.as_secs() + 1),
            }
        })
    }

    /// A key was used right now.
    pub fn note(&self, tenant: &TenantId, key: &KeyId) {
        let name = (tenant.clone(), key.clone());
        self.put_back([(name, SystemTime::now())]);
    }

    /// The last use of each key since this was asked.
    pub fn take(&self) -> HashMap<KeyName, SystemTime> {
        std::mem::take(&mut *self.last.lock())
    }

    /// Keeps uses that could not be written; later ones of the same keys stay.
    pub fn put_back(&self, uses: impl IntoIterator<Item = (KeyName, SystemTime)>) {
        let mut last = self.last.lock();
        for (name, at) in uses {
            if let Some(known) = last.get_mut(&name) {
                *known = at.max(*known);
            } else if last.len() < LAST_MAX {
                last.insert(name, at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(tenant: &str, key: &str) -> KeyName {
        (TenantId::new(tenant).unwrap(), KeyId::new(key).unwrap())
    }

    #[test]
    fn each_key_has_its_own_hour() {
        let uses = KeyUses::default();
        let limit = NonZeroU32::new(3).unwrap();
        let count = |(tenant, key): &KeyName, limit| uses.count((tenant, key), limit);
        let (a, b) = (name("acme", "k"), name("other", "k"));
        for _ in 0..3 {
            assert_eq!(count(&a, limit), Ok(()));
        }
        let refused = count(&a, limit).unwrap_err();
        // A third of an hour, less what has passed meanwhile.
        let wait = refused.wait.as_secs();
        assert!((1000..=1200).contains(&wait), "{refused}");
        assert!(refused.to_string().contains("is reached; try again in "));
        assert_eq!(count(&b, limit), Ok(()));
        let more = NonZeroU32::new(4).unwrap();
        assert_eq!(count(&a, more), Ok(()), "another limit begins anew");
    }

    #[test]
    fn of_many_uses_the_last_is_kept() {
        let uses = KeyUses::default();
        let (tenant, key) = name("acme", "k");
        let before = SystemTime::now();
        for _ in 0..100 {
            uses.note(&tenant, &key);
        }
        let taken = uses.take();
        assert_eq!(taken.len(), 1);
        assert!(uses.take().is_empty());
        let at = taken[&name("acme", "k")];
        assert!(at >= before);
        uses.note(&tenant, &key);
        uses.put_back([(name("acme", "k"), before - HOUR)]);
        assert!(uses.take()[&name("acme", "k")] >= at);
    }

    #[test]
    fn no_more_keys_are_kept_than_there_is_room_for() {
        let uses = KeyUses::default();
        let many = (0..LAST_MAX + 10).map(|n| (name("acme", &n.to_string()), SystemTime::now()));
        uses.put_back(many);
        assert_eq!(uses.take().len(), LAST_MAX);
    }
}
