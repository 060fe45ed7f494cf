//! Who waits for a place.

use super::Running;
use crate::pool::budget::{Account, Party};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot::{self, Receiver, Sender};

/// No place became free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// A place that was waited for. It goes to the next when this is dropped.
#[must_use = "the place goes to the next when this is dropped"]
#[derive(Debug)]
pub struct Granted {
    /// `None`: it is somebody's.
    running: Option<Arc<Running>>,
    account: Arc<Account>,
    expected: Duration,
}

impl Granted {
    /// It is taken: what its turn is taken for.
    pub(super) fn taken(mut self) -> Duration {
        self.running = None;
        self.expected
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let began = super::runner::Began {
                at: Some(Instant::now()),
                expected: self.expected,
            };
            running.left(&self.account, super::Kind::Counted, began);
        }
    }
}

/// One that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    running: Arc<Running>,
    account: Arc<Account>,
    told: Sender<Granted>,
}

impl Waiter {
    pub(super) fn party(&self) -> Party {
        self.account.party()
    }

    /// Gives it a place that is counted; `false` when it has left.
    pub(super) fn grant(self, expected: Duration) -> bool {
        let granted = Granted {
            running: Some(self.running),
            account: self.account,
            expected,
        };
        // Not dropped here: who calls has the ledger.
        self.told.send(granted).map_err(Granted::taken).is_ok()
    }
}

/// A place in the queue. Left when this is dropped, with what was just granted.
pub(super) struct Waiting {
    running: Arc<Running>,
    id: u64,
    granted: Receiver<Granted>,
}

impl Waiting {
    pub(super) fn join(running: &Arc<Running>, account: &Arc<Account>) -> Self {
        let (told, granted) = oneshot::channel();
        let party = account.party();
        let waiter = Waiter {
            running: Arc::clone(running),
            account: Arc::clone(account),
            told,
        };
        let mut ledger = running.ledger.lock();
        let is_first = !ledger.turns.is_waiting(party.id);
        ledger.turns.join(party, waiter);
        // From here on nobody overtakes it, and who leaves gives it its place.
        running.note_scarcity(&mut ledger);
        running.settle_by(&mut ledger);
        if is_first && ledger.turns.is_waiting(party.id) {
            running.place_first(&mut ledger, party.id);
        }
        let is_watched = ledger.turns.waiting() == 0 || ledger.is_watched;
        ledger.is_watched |= !is_watched;
        drop(ledger);
        if !is_watched {
            running.look_after();
        }
        Self {
            running: Arc::clone(running),
            id: party.id,
            granted,
        }
    }

    /// Waits for at most so long.
    pub(super) async fn granted(mut self, at_most: Duration) -> Result<Granted, Refused> {
        let granted = tokio::time::timeout(at_most, &mut self.granted).await;
        granted.ok().and_then(Result::ok).ok_or(Refused)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.granted.close();
        // Its place goes to the next.
        drop(self.granted.try_recv());
        let mut ledger = self.running.ledger.lock();
        ledger.turns.retain(self.id, |waiter| !waiter.has_left());
        self.running.note_scarcity(&mut ledger);
    }
}

impl Waiter {
    fn has_left(&self) -> bool {
        self.told.is_closed()
    }
}
