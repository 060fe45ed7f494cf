//! What the admin listener is given of the rest: the use cases, and the data plane's numbers.

use super::combined::Combined;
use crate::{
    api::{Live, LiveTenant},
    config::Config,
    control::Control,
    frontend::Frontend,
    tenant::KeyUses,
};
use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
};

/// The use cases over the registry that the data plane follows, with the same master keys and the
/// same counts.
pub(super) fn control(
    config: &Config,
    directory: &Combined,
    uses: &Arc<KeyUses>,
) -> Option<Control> {
    let registry = directory.registry()?.registry().clone();
    let mut control = Control::new(registry, config);
    control.uses = Arc::clone(uses);
    Some(control)
}

/// The data plane's numbers of a tenant.
pub(super) struct LiveNumbers(pub(super) Arc<Frontend>);

impl fmt::Debug for LiveNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LiveNumbers")
    }
}

impl Live for LiveNumbers {
    fn tenant(&self, id: &str) -> LiveTenant {
        let mut live = LiveTenant::default();
        self.0.sessions.for_each(|session| {
            if session.tenant.load().id.as_str() != id {
                return;
            }
            live.clients += 1;
            let counters = &session.counters;
            live.transactions += counters.transactions.load(Relaxed);
            live.queries += counters.queries.load(Relaxed);
            live.client_bytes += counters.client_bytes.load(Relaxed);
            live.server_bytes += counters.server_bytes.load(Relaxed);
        });
        let pools = self.0.pools.all();
        for pool in pools.iter().filter(|pool| pool.tenant().as_str() == id) {
            let occupancy = pool.occupancy();
            live.servers_active += occupancy.active as u64;
            live.servers_idle += occupancy.idle as u64;
            live.clients_waiting += occupancy.waiting as u64;
            live.servers_pinned += u64::from(pool.pinned());
        }
        live
    }
}
