//! A tenant's month: what of it is used at all proxies, and whether there is room for more.
//!
//! What others have used is the registry's sum less what this process has written of it; what this
//! process has used is counted here, with the transactions that run. So nothing is in it twice, and
//! in one process the last transaction that there is room for is the last one that begins.

use super::{Calendar, Counters, Level, Monthly, Quota, Standing};
use crate::tenant::Terms;
use parking_lot::{Mutex, MutexGuard};
use std::{
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};
use tokio::sync::Notify;

/// How long a transaction waits to learn what was used before.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// What was read longer ago is read again, for a tenant of which nobody has asked since.
const FRESH: Duration = Duration::from_secs(10);

/// What of a session is counted in its tenant's month, and what the session was told.
#[derive(Debug, Default)]
pub(super) struct Tally {
    queries: AtomicU64,
    transactions: AtomicU64,
    /// The month's number, and a bit for each quota.
    noticed: AtomicU64,
}

impl Tally {
    fn get(&self) -> Monthly {
        Monthly {
            queries: self.queries.load(Relaxed),
            transactions: self.transactions.load(Relaxed),
        }
    }

    fn set(&self, to: Monthly) {
        self.queries.store(to.queries, Relaxed);
        self.transactions.store(to.transactions, Relaxed);
    }
}

fn counted(counters: &Counters) -> Monthly {
    Monthly {
        queries: counters.queries.load(Relaxed),
        transactions: counters.transactions.load(Relaxed),
    }
}

/// Who reads from the registry what others have used.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) is_there: AtomicBool,
    pub(super) wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    queries: Option<NonZeroU64>,
    transactions: Option<NonZeroU64>,
    made_at: Option<SystemTime>,
    month: Calendar,
    /// Of this process, with what runs.
    mine: Monthly,
    /// Of this process, in the registry.
    written: Monthly,
    others: Monthly,
    /// Of this process under its name, before there was this tenant.
    before: Monthly,
    /// When it was asked for last.
    read_at: Option<SystemTime>,
    /// Somebody has asked since `others` was read.
    is_active: bool,
    /// Who tells of it has been woken, by quota and level.
    is_announced: Marks,
    is_told: Marks,
}

impl State {
    fn roll(&mut self, now: SystemTime) {
        if !self.month.has(now) {
            self.month = Calendar::of(now);
            (self.mine, self.written, self.others) = Default::default();
            self.before = Monthly::default();
            (self.is_announced, self.is_told) = Default::default();
        }
    }

    fn has_quota(&self) -> bool {
        self.queries.is_some() || self.transactions.is_some()
    }

    fn used(&self) -> Monthly {
        self.others.plus(self.mine)
    }

    fn standing(&self, quota: Quota) -> Option<Standing> {
        let max = match quota {
            Quota::Queries => self.queries,
            Quota::Transactions => self.transactions,
        };
        Some(Standing {
            quota,
            used: self.used().of(quota),
            max: max?.get(),
            month: self.month,
        })
    }

    fn standings(&self) -> impl Iterator<Item = Standing> {
        let all = Quota::ALL.into_iter();
        all.filter_map(|quota| self.standing(quota))
    }

    fn has_room(&self) -> Result<(), Standing> {
        let full = self.standings().find(|it| it.level() == Level::Hard);
        full.map_or(Ok(()), Err)
    }

    /// Counts what a session has done since it was last counted, less what it took for nothing.
    fn charge(&mut self, counters: &Counters) {
        let (tally, now) = (counters.tally.get(), counted(counters));
        self.mine = self.mine.plus(now).less(tally);
        counters.tally.set(now);
    }
}

/// Levels of quotas, a bit each.
#[derive(Debug, Clone, Copy, Default)]
struct Marks(u8);

impl Marks {
    fn bit(quota: Quota, level: Level) -> u8 {
        1 << (quota as u8 * 2 + u8::from(level == Level::Hard))
    }

    fn has(self, quota: Quota, level: Level) -> bool {
        self.0 & Self::bit(quota, level) != 0
    }

    /// Whether it was not marked before.
    fn set(&mut self, quota: Quota, level: Level) -> bool {
        let is_new = !self.has(quota, level);
        self.0 |= Self::bit(quota, level);
        is_new
    }
}

/// One tenant's month. Locked at the begin and the end of a transaction of a tenant with a quota, at a
/// change, and when it is read or written.
#[derive(Debug, Default)]
pub struct Month {
    state: Mutex<State>,
    reader: Arc<Reader>,
    /// The registry was asked what was used before, whatever came of it.
    is_asked: AtomicBool,
    answered: Notify,
}

impl Month {
    pub(super) fn new(reader: Arc<Reader>) -> Self {
        Self {
            reader,
            ..Self::default()
        }
    }

    /// Takes over what the tenant has agreed on. `so_far` is what this process has used in this month;
    /// it is asked for when a quota is new, and has the sessions counted so far.
    pub(super) fn follow(
        &self,
        terms: &Terms,
        now: SystemTime,
        so_far: impl Fn(Calendar) -> Monthly,
    ) {
        let mut state = self.state.lock();
        state.roll(now);
        if state.made_at != terms.made_at {
            if state.made_at.is_some() {
                // Another tenant of the same name.
                state.before = so_far(state.month);
            }
            (state.mine, state.written, state.others) = Default::default();
            state.made_at = terms.made_at;
            self.is_asked.store(false, Relaxed);
        }
        let had_quota = state.has_quota();
        let limits = (terms.queries_per_month, terms.transactions_per_month);
        if (state.queries, state.transactions) != limits {
            (state.is_announced, state.is_told) = Default::default();
        }
        (state.queries, state.transactions) = limits;
        if !had_quota && state.has_quota() {
            state.mine = so_far(state.month).less(state.before);
            self.is_asked.store(false, Relaxed);
        }
        let wants = state.has_quota() && !self.is_asked.load(Relaxed);
        drop(state);
        if wants {
            self.reader.wanted.notify_one();
        }
    }

    /// Whether somebody reads what others have used, and writes what this process has.
    pub(super) fn has_reader(&self) -> bool {
        self.reader.is_there.load(Relaxed)
    }

    /// Waits until it is known what was used before, or can't be known now. What was read a while ago, and
    /// not asked for since, is read again.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn known(&self, now: SystemTime) {
        self.stir(now);
        while !self.is_asked.load(Relaxed) && self.reader.is_there.load(Relaxed) {
            let answered = self.answered.notified();
            if self.is_asked.load(Relaxed) {
                break;
            }
            self.reader.wanted.notify_one();
            let is_over = tokio::time::timeout(ANSWER_TIME_MAX, answered).await;
            if is_over.is_err() {
                // Nobody waits twice.
                self.is_asked.store(true, Relaxed);
            }
        }
    }

    fn stir(&self, now: SystemTime) {
        let mut state = self.state.lock();
        let was_active = std::mem::replace(&mut state.is_active, true);
        let age = state.read_at.map(|at| now.duration_since(at));
        let is_fresh = age.is_some_and(|age| age.is_ok_and(|age| age < FRESH));
        if !was_active && !is_fresh {
            self.is_asked.store(false, Relaxed);
        }
    }

    /// Whether there is room for one more.
    ///
    /// # Errors
    /// Which quota is used up.
    pub fn check(&self, now: SystemTime) -> Result<(), Standing> {
        let mut state = self.state.lock();
        state.roll(now);
        state.has_room()
    }

    /// Takes one transaction with one statement; what the session is to be told.
    ///
    /// # Errors
    /// Which quota is used up; nothing is taken then.
    pub fn take(
        &self,
        counters: &Counters,
        now: SystemTime,
    ) -> Result<[Option<Standing>; 2], Standing> {
        let mut state = self.state.lock();
        state.roll(now);
        state.charge(counters);
        state.has_room()?;
        let one = Monthly {
            queries: 1,
            transactions: 1,
        };
        counters.tally.set(counters.tally.get().plus(one));
        state.mine = state.mine.plus(one);
        self.announce(&mut state);
        let news = Quota::ALL.map(|quota| state.standing(quota));
        Ok(news.map(|news| news.filter(|it| is_news(&counters.tally, it))))
    }

    /// Wakes who tells of it where a level is new.
    fn announce(&self, state: &mut State) {
        let reached = Quota::ALL.map(|quota| state.standing(quota));
        for standing in reached.into_iter().flatten() {
            let level = standing.level();
            if level != Level::Ok && state.is_announced.set(standing.quota, level) {
                self.reader.wanted.notify_one();
            }
        }
    }

    /// The transaction is over: what it really was is counted.
    pub fn charge(&self, counters: &Counters) {
        let mut state = self.state.lock();
        if state.has_quota() {
            state.charge(counters);
            self.announce(&mut state);
        }
    }

    /// Where the tenant stands; `None` for what is not limited.
    pub fn standings(&self, now: SystemTime) -> [Option<Standing>; 2] {
        let mut state = self.state.lock();
        state.roll(now);
        Quota::ALL.map(|quota| state.standing(quota))
    }

    fn of(&self, month: Calendar) -> Option<MutexGuard<'_, State>> {
        Some(self.state.lock()).filter(|state| state.month == month)
    }

    /// Whether what others have used is to be read.
    pub(super) fn is_due(&self, only_new: bool, now: SystemTime) -> bool {
        let mut state = self.state.lock();
        state.roll(now);
        let is_new = !self.is_asked.load(Relaxed);
        state.has_quota() && (is_new || (state.is_active && !only_new))
    }

    /// So much of this process is in the registry now.
    pub fn written(&self, month: Calendar, more: Monthly) {
        if let Some(mut state) = self.of(month) {
            state.written = state.written.plus(more);
        }
    }

    /// So much is in the registry, of all processes; `None`: it can't be asked.
    pub fn read(&self, month: Calendar, all: Option<Monthly>, now: SystemTime) {
        self.state.lock().read_at = Some(now);
        if let Some(mut state) = self.of(month)
            && let Some(all) = all
        {
            state.others = all.less(state.written);
            state.is_active = false;
            self.announce(&mut state);
        }
        self.is_asked.store(true, Relaxed);
        self.answered.notify_waiters();
    }

    /// What is to be told of, and was not yet: once for each quota, level and month.
    pub fn untold(&self, now: SystemTime) -> Vec<(Standing, Level)> {
        let mut state = self.state.lock();
        state.roll(now);
        let reached = state.standings().flat_map(|it| {
            let levels = [Level::Soft, Level::Hard].into_iter();
            levels.filter_map(move |level| (it.level() >= level).then_some((it, level)))
        });
        let is_new = |(it, level): &(Standing, Level)| !state.is_told.has(it.quota, *level);
        reached.filter(is_new).collect()
    }

    /// It is told.
    pub fn told(&self, standing: &Standing, level: Level) {
        if let Some(mut state) = self.of(standing.month) {
            state.is_told.set(standing.quota, level);
        }
    }
}

/// Whether the session is to be told that little is left; once.
fn is_news(tally: &Tally, standing: &Standing) -> bool {
    if standing.level() == Level::Ok {
        return false;
    }
    let month = standing.month.number() << 2;
    let before = tally.noticed.load(Relaxed);
    let bits = if before & !3 == month { before & 3 } else { 0 };
    tally
        .noticed
        .store(month | bits | standing.quota.bit(), Relaxed);
    bits & standing.quota.bit() == 0
}

/// What a session has done so far is counted from here on.
pub(super) fn settle(counters: &Counters, seen: Monthly) {
    counters.tally.set(seen);
}

#[cfg(test)]
mod tests;
