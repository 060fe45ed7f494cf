//! The meters of all tenants.

use super::{Amount, Counters, Meter, Reading};
use crate::tenant::TenantId;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Instant};

/// Meters that are kept though nobody is there; some 800 bytes each.
const METERS_MAX: usize = 100_000;

/// The meters of all tenants that have been here.
#[derive(Debug, Default)]
pub struct Book(Mutex<Meters>);

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
        let meter = {
            let mut meters = self.0.lock();
            Arc::clone(meters.by_tenant.entry(tenant.clone()).or_default())
        };
        meter.begin(session, Arc::clone(counters));
        meter
    }

    /// What was used since this was asked last, for this hour.
    pub fn take(&self, hour: i64) -> Vec<(TenantId, Amount)> {
        let meters = self.0.lock().all();
        let taken = meters.into_iter();
        let taken = taken.filter_map(|(tenant, meter)| Some((tenant, meter.take(hour)?)));
        let taken = taken.collect();
        let mut meters = self.0.lock();
        if meters.by_tenant.len() > METERS_MAX {
            meters.forget_idle();
        }
        taken
    }

    /// All meters, and what those counted that are no longer among them.
    pub(super) fn all(&self) -> (Vec<(TenantId, Arc<Meter>)>, Reading) {
        let meters = self.0.lock();
        (meters.all(), meters.forgotten)
    }

    /// The meter of a tenant; `None` when it has not been here.
    pub fn meter(&self, tenant: &str) -> Option<Arc<Meter>> {
        let tenant = TenantId::new(tenant).ok()?;
        self.0.lock().by_tenant.get(&tenant).cloned()
    }
}
