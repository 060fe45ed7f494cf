//! What a tenant and a key may do at the same time, in a second and in an hour.

use super::Check;
use crate::{
    config::{error::Fault, location::At, raw},
    tenant::Caps,
};
use std::num::{NonZeroU32, NonZeroU64};

/// The numbers, as they are given; 0 is no limit.
pub(super) struct GivenCaps([(&'static str, Option<u64>); 5]);

impl From<&raw::Tuning> for GivenCaps {
    fn from(tuning: &raw::Tuning) -> Self {
        Self([
            ("max_concurrent_queries", tuning.max_concurrent_queries),
            ("transactions_per_second", tuning.transactions_per_second),
            ("transactions_per_hour", tuning.transactions_per_hour),
            ("logins_per_second", tuning.logins_per_second),
            ("bytes_per_second", tuning.bytes_per_second),
        ])
    }
}

impl From<&raw::Key> for GivenCaps {
    fn from(key: &raw::Key) -> Self {
        Self([
            ("max_concurrent_queries", key.max_concurrent_queries),
            ("transactions_per_second", key.transactions_per_second),
            ("transactions_per_hour", key.transactions_per_hour),
            ("logins_per_second", key.logins_per_second),
            ("bytes_per_second", key.bytes_per_second),
        ])
    }
}

impl GivenCaps {
    /// What they mean, once they are checked.
    pub(super) fn caps(&self) -> Caps {
        let [running, transactions, hourly, logins, (_, bytes)] = self.0;
        let count = |(_, value): (&str, Option<u64>)| {
            NonZeroU32::new(u32::try_from(value?).unwrap_or(u32::MAX))
        };
        Caps {
            max_concurrent_queries: count(running),
            transactions_per_second: count(transactions),
            transactions_per_hour: count(hourly),
            logins_per_second: count(logins),
            bytes_per_second: bytes.and_then(NonZeroU64::new),
        }
    }
}

impl Check<'_> {
    /// Checks the bounds of what is given here.
    pub(super) fn caps(&mut self, at: At<'_>, given: &GivenCaps) {
        for (key, value) in given.0 {
            let max = match key {
                "bytes_per_second" => Caps::BYTES_MAX,
                "transactions_per_hour" => Caps::HOUR_MAX.into(),
                _ => Caps::COUNT_MAX.into(),
            };
            if let Some(value) = value.filter(|value| *value > max) {
                let fault = Fault::Range { value, min: 0, max };
                self.note(at.key(key), fault);
            }
        }
    }
}
