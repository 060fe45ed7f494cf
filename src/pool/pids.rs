//! Whose backend is whose: the process ids of the server connections of a cluster.
//!
//! Where tenants share a database PostgreSQL tells every listener of every notification. A tenant
//! hears those of its own servers alone, and these are known by their process ids.

use crate::tenant::TenantId;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// So long a connection that is closed is still its tenant's: what it has committed may be on its
/// way. PostgreSQL gives a process id again only when it has given all others.
const ENDED_LIFETIME: Duration = Duration::from_secs(10);

/// The owners of process ids.
#[derive(Debug, Default)]
pub(super) struct Pids(Mutex<Owners>);

#[derive(Debug, Default)]
struct Owners {
    by_pid: HashMap<u32, Owner>,
    next_serial: u64,
}

#[derive(Debug)]
struct Owner {
    tenant: TenantId,
    serial: u64,
    ended_at: Option<Instant>,
}

/// A connection's process id: its tenant's until this is dropped, and a little longer.
#[must_use = "the process id is given up when this is dropped"]
#[derive(Debug)]
pub(super) struct OwnPid {
    pids: Arc<Pids>,
    pid: u32,
    serial: u64,
}

impl Pids {
    /// Notes that a process is this tenant's, and nobody else's any more.
    pub(super) fn own(self: &Arc<Self>, pid: u32, tenant: &TenantId) -> OwnPid {
        let mut owners = self.0.lock();
        let now = Instant::now();
        owners.by_pid.retain(|_, owner| owner.counts(now));
        owners.next_serial += 1;
        let serial = owners.next_serial;
        let owner = Owner {
            tenant: tenant.clone(),
            serial,
            ended_at: None,
        };
        owners.by_pid.insert(pid, owner);
        drop(owners);
        OwnPid {
            pids: Arc::clone(self),
            pid,
            serial,
        }
    }

    /// Whether a process is this tenant's.
    pub(super) fn is_of(&self, pid: u32, tenant: &TenantId) -> bool {
        self.is_of_at(pid, tenant, Instant::now())
    }

    /// Whose a process is, if it is a tenant's.
    pub(super) fn owner(&self, pid: u32) -> Option<TenantId> {
        let (owners, now) = (self.0.lock(), Instant::now());
        let owner = owners.by_pid.get(&pid).filter(|owner| owner.counts(now));
        owner.map(|owner| owner.tenant.clone())
    }

    fn is_of_at(&self, pid: u32, tenant: &TenantId, now: Instant) -> bool {
        let owners = self.0.lock();
        let owner = owners.by_pid.get(&pid);
        owner.is_some_and(|owner| owner.tenant == *tenant && owner.counts(now))
    }
}

impl Owner {
    fn counts(&self, now: Instant) -> bool {
        self.ended_at
            .is_none_or(|at| now.saturating_duration_since(at) < ENDED_LIFETIME)
    }
}

impl Drop for OwnPid {
    fn drop(&mut self) {
        let mut owners = self.pids.0.lock();
        let owner = owners.by_pid.get_mut(&self.pid);
        if let Some(owner) = owner.filter(|owner| owner.serial == self.serial) {
            owner.ended_at = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(id: &str) -> TenantId {
        TenantId::new(id).unwrap()
    }

    #[test]
    fn a_process_is_its_tenants_alone() {
        let pids = Arc::new(Pids::default());
        let _own = pids.own(7, &tenant("acme"));
        assert!(pids.is_of(7, &tenant("acme")));
        assert!(!pids.is_of(7, &tenant("zeta")));
        assert!(!pids.is_of(8, &tenant("acme")));
        assert_eq!(pids.owner(7), Some(tenant("acme")));
        assert_eq!(pids.owner(8), None);
    }

    #[test]
    fn a_closed_connection_is_heard_a_little_longer_and_then_forgotten() {
        let pids = Arc::new(Pids::default());
        drop(pids.own(7, &tenant("acme")));
        assert!(pids.is_of(7, &tenant("acme")));
        let later = Instant::now() + ENDED_LIFETIME;
        assert!(!pids.is_of_at(7, &tenant("acme"), later));
    }

    #[test]
    fn a_process_id_that_is_given_again_is_the_next_ones() {
        let pids = Arc::new(Pids::default());
        let first = pids.own(7, &tenant("acme"));
        let second = pids.own(7, &tenant("zeta"));
        drop(first);
        assert!(!pids.is_of(7, &tenant("acme")));
        assert!(pids.is_of(7, &tenant("zeta")));
        drop(second);
        assert!(!pids.is_of(7, &tenant("acme")));
    }
}
