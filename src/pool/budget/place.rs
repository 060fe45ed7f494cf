//! One server connection's place.

use super::{Account, Budget};
use crate::pool::running::Runner;
use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

/// One server connection's place in the budget, until its socket is closed.
#[derive(Debug)]
pub(in crate::pool) struct Place {
    budget: Arc<Budget>,
    /// Whose it is; an idle slot is nobody's.
    account: Option<Arc<Account>>,
    pid: Option<u32>,
    /// When its use began, where that is paid for.
    since: Option<Instant>,
    /// What the use is taken for until it is over.
    expected: Duration,
    /// What runs on it.
    runner: Arc<Runner>,
}

impl Place {
    /// One that is counted already.
    pub(super) fn new(budget: &Arc<Budget>, account: &Arc<Account>) -> Self {
        account.gains();
        Self {
            budget: Arc::clone(budget),
            account: Some(Arc::clone(account)),
            pid: None,
            since: None,
            expected: Duration::ZERO,
            runner: budget.running().runner(account),
        }
    }

    /// What runs on it, as others see it.
    pub(in crate::pool) fn runner(&self) -> &Arc<Runner> {
        &self.runner
    }

    /// Notes which process has this place now; one that had it before is closed.
    pub(in crate::pool) fn serves(&mut self, pid: u32) {
        if let Some(before) = self.pid.replace(pid) {
            self.budget.closed.note(before);
        }
    }

    /// Whether somebody waits for places of this budget.
    #[inline]
    pub(in crate::pool) fn is_scarce(&self) -> bool {
        self.budget.is_scarce()
    }

    /// The budget.
    pub(in crate::pool) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// It is lent: paid for while places are scarce.
    #[inline]
    pub(in crate::pool) fn lent(&mut self) {
        if self.since.is_none() && self.is_scarce() {
            self.since = Some(Instant::now());
        }
    }

    /// It is not in use any more, and nobody waits.
    #[inline]
    pub(in crate::pool) fn rests(&mut self) {
        self.since = None;
        self.expected = Duration::ZERO;
    }

    /// Whose it is from now on, or nobody's.
    pub(in crate::pool) fn assign(&mut self, account: Option<&Arc<Account>>) {
        if let Some(account) = account {
            account.gains();
            self.runner.serves(account);
        }
        let before = std::mem::replace(&mut self.account, account.map(Arc::clone));
        if let Some(before) = before {
            before.loses();
        }
    }

    pub(super) fn account(&self) -> Option<&Arc<Account>> {
        self.account.as_ref()
    }

    /// A use begins that is taken for so long.
    pub(super) fn begin(&mut self, expected: Duration) {
        self.since = Some(Instant::now());
        self.expected = expected;
    }

    /// A use of another tenant begins.
    pub(super) fn goes_to(&mut self, account: &Arc<Account>, expected: Duration) {
        self.assign(Some(account));
        self.begin(expected);
    }

    /// The use is over: when it began, where that is known, and what it was taken for.
    pub(super) fn end(&mut self) -> (Option<Instant>, Duration) {
        (self.since.take(), std::mem::take(&mut self.expected))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            self.budget.closed.note(pid);
        }
        let budget = Arc::clone(&self.budget);
        if self.since.is_some() && self.is_scarce() {
            Budget::pay(&mut budget.ledger(), self);
        }
        self.assign(None);
        let before = budget.used.fetch_sub(1, SeqCst);
        if before & super::SCARCE != 0 {
            budget.settle();
        }
    }
}
