//! The gate and the meters of a tenant, or of one of its keys.

use super::{gate::Gate, meter::Meter, refusals::Limit};
use crate::tenant::Caps;
use std::{
    num::{NonZeroU32, NonZeroU64},
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

/// What one holder of limits does.
#[derive(Debug)]
pub(super) struct Limiter {
    pub(super) gate: Arc<Gate>,
    pub(super) transactions: Meter,
    pub(super) hourly: Meter,
    pub(super) bytes: Meter,
    pub(super) logins: Meter,
    /// Clients in the queues of a tenant and its keys; of a tenant.
    pub(super) waiting: AtomicU32,
    pub(super) max_waiting: AtomicU32,
}

impl Default for Limiter {
    fn default() -> Self {
        Self {
            gate: Arc::default(),
            transactions: Meter::of_second(),
            hourly: Meter::of_hour(),
            bytes: Meter::of_second(),
            logins: Meter::of_second(),
            waiting: AtomicU32::default(),
            max_waiting: AtomicU32::default(),
        }
    }
}

/// One of a limiter's meters.
pub(super) type MeterOf = fn(&Limiter) -> &Meter;

/// What a transaction takes one of before it begins.
pub(super) const TRANSACTIONS: [(Limit, MeterOf); 2] = [
    (Limit::Transactions, |limiter| &limiter.transactions),
    (Limit::HourlyTransactions, |limiter| &limiter.hourly),
];

impl Limiter {
    pub(super) fn follow(&self, caps: &Caps, now: Duration) {
        self.gate.set(caps.max_concurrent_queries.map(u32::from));
        let wide = |limit: Option<NonZeroU32>| limit.map(|limit| u64::from(limit.get()));
        self.transactions
            .set(wide(caps.transactions_per_second), now);
        self.hourly.set(wide(caps.transactions_per_hour), now);
        self.bytes
            .set(caps.bytes_per_second.map(NonZeroU64::get), now);
        self.logins.set(wide(caps.logins_per_second), now);
    }

    /// Whether forgetting it changes nothing.
    pub(super) fn is_idle(&self, now: Duration) -> bool {
        let meters = [&self.transactions, &self.hourly, &self.bytes, &self.logins];
        self.gate.is_empty() && meters.iter().all(|meter| meter.is_paid(now))
    }
}
