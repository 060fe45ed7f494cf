//! Which thread a tenant lives on.
//!
//! A tenant's sessions and its server connections are all on one thread: whoever waits for a
//! server is woken by its own thread, no byte crosses cores, and a flood of one tenant's stays on
//! one core. The price: one tenant can use one core. On it, tenants take turns ([`Rota`]).

use super::Rota;
use crate::tenant::TenantId;
use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};
use tokio::runtime::Handle;

/// A relaying thread, a runtime of its own.
#[derive(Debug, Clone)]
pub struct Lane {
    handle: Handle,
    turns: Arc<Rota<TenantId>>,
}

impl Lane {
    /// A thread with this runtime, and the turns that are taken on it.
    pub fn new(handle: Handle, turns: Arc<Rota<TenantId>>) -> Self {
        handle.spawn(Arc::clone(&turns).drive());
        Self { handle, turns }
    }

    /// Its runtime.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The turns that tenants take on it.
    pub fn turns(&self) -> &Arc<Rota<TenantId>> {
        &self.turns
    }
}

/// The relaying threads. At least one.
#[derive(Debug, Clone)]
pub struct Lanes {
    first: Lane,
    others: Arc<[Lane]>,
}

impl Lanes {
    /// These threads.
    pub fn new(first: Lane, others: Vec<Lane>) -> Self {
        Self {
            first,
            others: others.into(),
        }
    }

    /// The tenant's thread: always the same while the process lives.
    pub fn of(&self, tenant: &TenantId) -> &Lane {
        let mut hasher = DefaultHasher::new();
        tenant.hash(&mut hasher);
        let lane = hasher.finish() % (self.others.len() as u64 + 1);
        usize::try_from(lane)
            .ok()
            .and_then(|lane| self.others.get(lane))
            .unwrap_or(&self.first)
    }
}
