//! Who waits for a place.

use super::{Account, Budget, Ledger, Place};
use crate::{pool::dialer::Pooled, tenant::Scope};
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot::{self, Receiver, Sender};

/// For which pool somebody waits: servers are handed on within one only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pool) struct Source(usize);

impl Source {
    /// No pool's: only a place will do.
    pub(in crate::pool) const NONE: Self = Self(0);

    /// The pool that is made from this, as long as it lives.
    pub(in crate::pool) fn of<T>(made_from: &Arc<T>) -> Self {
        Self(Arc::as_ptr(made_from).addr())
    }

    /// That part of a pool whose servers have these privileges.
    pub(in crate::pool) fn scoped<T>(made_from: &Arc<T>, scope: Scope) -> Self {
        let Self(pool) = Self::of(made_from);
        // Nothing else lives there.
        Self(pool + usize::from(scope == Scope::ReadOnly))
    }
}

/// What a waiter gets.
#[derive(Debug)]
pub(in crate::pool) enum Grant {
    /// A place for a new server.
    Place(Place),
    /// A server that another client of the same pool has given back.
    Server(Box<Pooled>),
}

/// One that waits.
#[derive(Debug)]
pub(in crate::pool) struct Waiter {
    pub(super) account: Arc<Account>,
    source: Source,
    told: Sender<Grant>,
}

impl Waiter {
    /// For which pool it waits.
    pub(in crate::pool) fn source(&self) -> Source {
        self.source
    }

    /// Gives it what it has waited for; back when it has left.
    pub(in crate::pool) fn grant(self, grant: Grant) -> Result<(), Grant> {
        self.told.send(grant)
    }

    pub(super) fn has_left(&self) -> bool {
        self.told.is_closed()
    }
}

/// A place in the queue. Left when this is dropped, with what was just granted.
struct Waiting<'a> {
    budget: &'a Arc<Budget>,
    account: &'a Arc<Account>,
    granted: Receiver<Grant>,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.account.stops_waiting();
        if self.is_over {
            return;
        }
        self.granted.close();
        // Its place goes to the next.
        drop(self.granted.try_recv());
        let mut ledger = self.budget.ledger();
        let id = self.account.party().id;
        ledger.turns.retain(id, |waiter| !waiter.has_left());
        self.budget.note_scarcity(&mut ledger);
    }
}

impl Ledger {
    /// Whether a tenant that waits has less than it is promised.
    pub(super) fn is_short(&self, id: u64) -> bool {
        let first = self.turns.first_of(id);
        first.is_some_and(|it: &Waiter| it.account.is_short())
    }

    /// Whether a tenant that waits has a place.
    pub(super) fn holds(&self, id: u64) -> bool {
        let first = self.turns.first_of(id);
        first.is_some_and(|it| it.account.held() > 0)
    }
}

impl Budget {
    /// Takes a place; waits in order when there is none. `None` after [`Budget::expel`].
    ///
    /// # Cancel safety
    /// Cancel safe: what was granted meanwhile goes to the next. No time limit of its own.
    pub(in crate::pool) async fn take(
        self: &Arc<Self>,
        account: &Arc<Account>,
        source: Source,
    ) -> Option<Grant> {
        if let Some(place) = self.try_take(account) {
            return Some(Grant::Place(place));
        }
        let mut waiting = self.wait(account, source);
        self.settle();
        if self.is_scarce() {
            self.reclaim();
            self.look_after();
        }
        let granted = (&mut waiting.granted).await;
        waiting.is_over = true;
        granted.ok()
    }

    /// The same for at most so long.
    ///
    /// # Cancel safety
    /// As [`Budget::take`].
    pub(in crate::pool) async fn take_within(
        self: &Arc<Self>,
        account: &Arc<Account>,
        source: Source,
        at_most: Option<Duration>,
    ) -> Option<Grant> {
        match at_most {
            Some(at_most) => tokio::time::timeout(at_most, self.take(account, source))
                .await
                .ok()
                .flatten(),
            None => self.take(account, source).await,
        }
    }

    /// Sends those away that wait for this pool: it is another now.
    pub(in crate::pool) fn expel(&self, account: &Account, source: Source) {
        let mut ledger = self.ledger();
        let id = account.party().id;
        ledger.turns.retain(id, |waiter| waiter.source != source);
        self.note_scarcity(&mut ledger);
    }

    fn wait<'a>(self: &'a Arc<Self>, account: &'a Arc<Account>, source: Source) -> Waiting<'a> {
        let (told, granted) = oneshot::channel();
        account.begins_to_wait();
        let mut ledger = self.ledger();
        let waiter = Waiter {
            account: Arc::clone(account),
            source,
            told,
        };
        ledger.turns.join(account.party(), waiter);
        // From here on nobody overtakes it.
        self.note_scarcity(&mut ledger);
        drop(ledger);
        Waiting {
            budget: self,
            account,
            granted,
            is_over: false,
        }
    }
}
