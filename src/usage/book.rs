//! The meters of all tenants.

use super::{Amount, Counters, Meter};
use crate::tenant::TenantId;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

/// Meters that are kept though nobody is there; some 500 bytes each.
const METERS_MAX: usize = 100_000;

/// The meters of all tenants that have been here.
#[derive(Debug, Default)]
pub struct Book(Mutex<HashMap<TenantId, Arc<Meter>>>);

impl Book {
    /// Counts a session in: by its tenant, and the process id that its client was given.
    pub fn begin(&self, tenant: &TenantId, session: u32, counters: &Arc<Counters>) -> Arc<Meter> {
        let meter = Arc::clone(self.0.lock().entry(tenant.clone()).or_default());
        meter.begin(session, Arc::clone(counters));
        meter
    }

    /// What was used since this was asked last, for this hour.
    pub fn take(&self, hour: i64) -> Vec<(TenantId, Amount)> {
        let meters: Vec<_> = {
            let meters = self.0.lock();
            let all = meters.iter();
            all.map(|(tenant, meter)| (tenant.clone(), Arc::clone(meter)))
                .collect()
        };
        let taken = meters.into_iter();
        let taken = taken.filter_map(|(tenant, meter)| Some((tenant, meter.take(hour)?)));
        let taken = taken.collect();
        let mut meters = self.0.lock();
        if meters.len() > METERS_MAX {
            meters.retain(|_, meter| Arc::strong_count(meter) > 1 || !meter.is_idle());
        }
        taken
    }

    /// The meter of a tenant; `None` when it has not been here.
    pub fn meter(&self, tenant: &str) -> Option<Arc<Meter>> {
        let tenant = TenantId::new(tenant).ok()?;
        self.0.lock().get(&tenant).cloned()
    }
}
