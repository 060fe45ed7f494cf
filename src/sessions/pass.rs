//! The right to run a transaction, where a session's tenant or key limits those.

use super::SessionHandle;
use crate::{
    limits::{self, Slots},
    usage::{Counters, Month, Standing},
    wire::Refusal,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
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
    /// It is one of its tenant's month.
    is_of_month: bool,
    /// Of which quota the client is to be told that little is left.
    news: [Option<Standing>; 2],
    _slots: Slots,
}

impl Pass {
    /// Waits until the session may begin a transaction; not for others' transactions where it has what they
    /// may wait for (`must_end`).
    ///
    /// # Errors
    /// What the client is told: 53300 or 53400, with the limit's name and value.
    ///
    /// # Cancel safety
    /// Cancel safe: the place in the queue is given up.
    pub async fn take(session: Arc<SessionHandle>, must_end: bool) -> Result<Self, Box<Refusal>> {
        let wait_max = session.tenant.load().timeouts.query_wait;
        let is_of_month = session.has_time()?;
        if is_of_month && let Some(month) = session.month() {
            month.known(SystemTime::now()).await;
            let room = month.check(SystemTime::now());
            room.map_err(|full| Box::new(limits::used_up(&full)))?;
        }
        let (restraints, awaited) = (&session.restraints, &session.awaited);
        // Places are for transactions that can wait for each other.
        let wait_max = (!must_end).then(|| wait_max.unwrap_or(WAIT_MAX));
        let slots = restraints.admit(wait_max, awaited);
        let slots = slots.await?;
        let charged = &session.charged;
        // What it did while nothing was limited is charged to nobody.
        let times_on = session.restraints.times_on();
        if charged.times_on.swap(times_on, Relaxed) != times_on {
            charged.bytes.store(bytes(&session.counters), Relaxed);
        }
        // Last, as what is refused before takes nothing.
        let news = match session.month().filter(|_| is_of_month) {
            Some(month) => month
                .take(&session.counters, SystemTime::now())
                .map_err(|full| {
                    session.restraints.give_back();
                    Box::new(limits::used_up(&full))
                })?,
            None => [None; 2],
        };
        Ok(Self {
            is_of_month,
            news,
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

    /// Gives it back: nothing has begun with it, unless a transaction has ended meanwhile.
    pub fn give_back(self) {
        if !self.is_used() {
            self.session.restraints.give_back();
        }
    }

    /// What the client is to be told before its transaction, once.
    pub fn take_news(&mut self) -> impl Iterator<Item = String> {
        let news = std::mem::take(&mut self.news);
        news.into_iter()
            .flatten()
            .map(|it| limits::running_out(&it))
    }
}

impl SessionHandle {
    /// Where its tenant's month is counted.
    fn month(&self) -> Option<&Month> {
        self.meter().map(|meter| &meter.month)
    }

    /// Whether its tenant's month is limited.
    ///
    /// # Errors
    /// 53400: its trial is over.
    fn has_time(&self) -> Result<bool, Box<Refusal>> {
        let tenant = self.tenant.load();
        let terms = &tenant.terms;
        if terms.trial_ends_at.is_some()
            && let Some(end) = terms.trial_over(SystemTime::now())
        {
            return Err(Box::new(limits::trial_over(tenant.id.as_str(), end)));
        }
        Ok(terms.has_quota())
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.is_of_month
            && let Some(month) = self.session.month()
        {
            month.charge(&self.session.counters);
        }
        let (counters, charged) = (&self.session.counters, &self.session.charged);
        let now = bytes(counters);
        let used = now.wrapping_sub(charged.bytes.swap(now, Relaxed));
        // One was taken at the start. More are those of a pipeline.
        let transactions = counters.transactions.load(Relaxed);
        let more = transactions.wrapping_sub(self.transactions);
        self.session.restraints.charge(more.saturating_sub(1), used);
    }
}
