//! The meters of all tenants.

use super::{Amount, Counters, Meter, Month, Reading, month::Reader};
use crate::tenant::TenantId;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Instant, SystemTime},
};

/// Meters that are kept though nobody is there; some 800 bytes each.
const METERS_MAX: usize = 100_000;

/// The meters of all tenants that have been here.
#[derive(Debug, Default)]
pub struct Book {
    meters: Mutex<Meters>,
    reader: Arc<Reader>,
}

#[derive(Debug, Default)]
struct Meters {
    by_tenant: HashMap<TenantId, Arc<Meter>>,
    /// What those counted that were not kept.
    forgotten: Reading,
}

impl Meters {
    fn all(&self) -> Vec<(TenantId, Arc<Meter>)> {
        let all = self.by_tenant.iter();
        all.map(|(tenant, meter)| (tenant.clone(), Arc::clone(meter)))
            .collect()
    }

    fn forget_idle(&mut self) {
        let now = Instant::now();
        self.by_tenant.retain(|_, meter| {
            let is_kept = Arc::strong_count(meter) > 1 || !meter.is_idle();
            if !is_kept {
                self.forgotten.add(&meter.look(now).reading);
            }
            is_kept
        });
    }
}

impl Book {
    /// Counts a session in: by its tenant, and the process id that its client was given.
    pub fn begin(&self, tenant: &TenantId, session: u32, counters: &Arc<Counters>) -> Arc<Meter> {
        let new = || Arc::new(Meter::new(Arc::clone(&self.reader)));
        let meter = {
            let mut meters = self.meters.lock();
            Arc::clone(meters.by_tenant.entry(tenant.clone()).or_insert_with(new))
        };
        meter.begin(session, Arc::clone(counters));
        meter
    }

    /// What was used since this was asked last, for this hour.
    pub fn take(&self, hour: i64) -> Vec<(TenantId, Amount)> {
        let meters = self.meters.lock().all();
        let taken = meters.into_iter();
        let taken = taken.filter_map(|(tenant, meter)| Some((tenant, meter.take(hour)?)));
        let taken = taken.collect();
        let mut meters = self.meters.lock();
        if meters.by_tenant.len() > METERS_MAX {
            meters.forget_idle();
        }
        taken
    }

    /// All meters, and what those counted that are no longer among them.
    pub(super) fn all(&self) -> (Vec<(TenantId, Arc<Meter>)>, Reading) {
        let meters = self.meters.lock();
        (meters.all(), meters.forgotten)
    }

    /// Somebody is going to read what others have used: first transactions of a tenant with a quota
    /// wait for that.
    pub fn has_reader(&self) {
        self.reader.is_there.store(true, Relaxed);
    }

    /// Waits until a month is to be read, or told of.
    ///
    /// # Cancel safety
    /// Cancel safe: a call that nobody hears stands.
    pub async fn wanted(&self) {
        self.reader.wanted.notified().await;
    }

    /// Tenants of whom it is to be read what others have used; those alone that nobody knows of yet.
    pub fn months_due(&self, only_new: bool, now: SystemTime) -> Vec<(TenantId, Arc<Meter>)> {
        self.meters_whose(|month| month.is_due(only_new, now))
    }

    /// Tenants of whom it is to be told that a quota is reached.
    pub fn months_untold(&self, now: SystemTime) -> Vec<(TenantId, Arc<Meter>)> {
        self.meters_whose(|month| !month.untold(now).is_empty())
    }

    fn meters_whose(&self, is_so: impl Fn(&Month) -> bool) -> Vec<(TenantId, Arc<Meter>)> {
        let meters = self.meters.lock();
        let some = meters
            .by_tenant
            .iter()
            .filter(|(_, meter)| is_so(&meter.month));
        some.map(|(tenant, meter)| (tenant.clone(), Arc::clone(meter)))
            .collect()
    }

    /// The meter of a tenant; `None` when it has not been here.
    pub fn meter(&self, tenant: &str) -> Option<Arc<Meter>> {
        let tenant = TenantId::new(tenant).ok()?;
        self.meters.lock().by_tenant.get(&tenant).cloned()
    }
}
