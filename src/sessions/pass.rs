//! The right to run a transaction, where a session's tenant or key limits those.

use super::SessionHandle;
use crate::{limits::Slots, usage::Counters, wire::Refusal};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// How long a session waits for its turn where its tenant sets no limit.
const WAIT_MAX: Duration = Duration::from_hours(1);

/// What of a session's counters has been charged.
#[derive(Debug, Default)]
pub(super) struct Charged {
    bytes: AtomicU64,
    times_on: AtomicU32,
}

fn bytes(counters: &Counters) -> u64 {
    let sides = [&counters.client_bytes, &counters.server_bytes];
    sides.iter().map(|side| side.load(Relaxed)).sum()
}

/// The right to run a transaction. When it is dropped, its places are the next one's, and what was used
/// with it is charged.
#[must_use = "the places are free again when this is dropped"]
#[derive(Debug)]
pub struct Pass {
    session: Arc<SessionHandle>,
    transactions: u64,
    _slots: Slots,
}

impl Pass {
    /// Waits until the session may begin a transaction.
    ///
    /// # Errors
    /// What the client is told: 53300 or 53400, with the limit's name and value.
    ///
    /// # Cancel safety
    /// Cancel safe: the place in the queue is given up.
    pub async fn take(session: Arc<SessionHandle>) -> Result<Self, Box<Refusal>> {
        let wait_max = session.tenant.load().timeouts.query_wait;
        let (restraints, awaited) = (&session.restraints, &session.awaited);
        let slots = restraints.admit(wait_max.unwrap_or(WAIT_MAX), awaited);
        let slots = slots.await?;
        let charged = &session.charged;
        // What it did while nothing was limited is charged to nobody.
        let times_on = session.restraints.times_on();
        if charged.times_on.swap(times_on, Relaxed) != times_on {
            charged.bytes.store(bytes(&session.counters), Relaxed);
        }
        Ok(Self {
            transactions: session.counters.transactions.load(Relaxed),
            session,
            _slots: slots,
        })
    }
}

impl Pass {
    /// Whether a transaction has ended since it was taken.
    pub fn is_used(&self) -> bool {
        self.session.counters.transactions.load(Relaxed) != self.transactions
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let (counters, charged) = (&self.session.counters, &self.session.charged);
        let now = bytes(counters);
        let used = now.wrapping_sub(charged.bytes.swap(now, Relaxed));
        // One was taken at the start. More are those of a pipeline.
        let transactions = counters.transactions.load(Relaxed);
        let more = transactions.wrapping_sub(self.transactions);
        self.session.restraints.charge(more.saturating_sub(1), used);
    }
}
