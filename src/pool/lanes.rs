//! Which thread a tenant lives on.
//!
//! A tenant's sessions and its server connections are all on one thread: whoever waits for a
//! server is woken by its own thread, no byte crosses cores, and a flood of one tenant's stays on
//! one core. The price: one tenant can use one core.

use crate::tenant::TenantId;
use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};
use tokio::runtime::Handle;

/// The relaying threads, each a runtime of its own. At least one.
#[derive(Debug, Clone)]
pub struct Lanes {
    first: Handle,
    others: Arc<[Handle]>,
}

impl Lanes {
    /// These threads.
    pub fn new(first: Handle, others: Vec<Handle>) -> Self {
        Self {
            first,
            others: others.into(),
        }
    }

    /// The tenant's thread: always the same while the process lives.
    pub fn of(&self, tenant: &TenantId) -> &Handle {
        let mut hasher = DefaultHasher::new();
        tenant.hash(&mut hasher);
        let lane = hasher.finish() % (self.others.len() as u64 + 1);
        usize::try_from(lane)
            .ok()
            .and_then(|lane| self.others.get(lane))
            .unwrap_or(&self.first)
    }
}
