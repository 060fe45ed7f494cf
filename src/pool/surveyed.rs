//! What a tenant's functions may leave: asked by one session, known to all of a pool; and to all pools
//! of tenants that use a database through slots, as those may use the same functions.

use crate::upstream::Survey;
use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A survey of functions is made again after this: what is changed past us is noticed then.
const SURVEY_LIFETIME: Duration = Duration::from_secs(30);

/// The newest survey.
#[derive(Debug)]
pub(super) struct Surveyed {
    survey: ArcSwap<Survey>,
    at: Mutex<Option<Instant>>,
    is_due: AtomicBool,
    forgets: AtomicU64,
    count: AtomicU64,
}

impl Default for Surveyed {
    fn default() -> Self {
        Self {
            survey: ArcSwap::from_pointee(Survey::unknown()),
            at: Mutex::new(None),
            is_due: AtomicBool::new(true),
            forgets: AtomicU64::new(0),
            count: AtomicU64::new(0),
        }
    }
}

impl Surveyed {
    pub(super) fn survey(&self) -> Guard<Arc<Survey>> {
        self.survey.load()
    }

    /// Whether a server should be asked for functions before it goes back.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        self.is_due.load(Relaxed)
    }

    /// Takes it upon the caller to make the survey, if nobody else has.
    pub(super) fn claim(&self) -> bool {
        self.is_due.swap(false, Relaxed)
    }

    /// How often functions have changed.
    #[inline]
    pub(super) fn forgets(&self) -> u64 {
        self.forgets.load(Relaxed)
    }

    /// How many surveys were made.
    #[inline]
    pub(super) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// Takes over what was found when functions had changed so often; if they have changed again, it
    /// is true no more.
    pub(super) fn learn(&self, survey: Survey, forgets: u64) {
        if self.forgets() != forgets {
            self.is_due.store(true, Relaxed);
            return;
        }
        self.survey.store(Arc::new(survey));
        self.count.fetch_add(1, Relaxed);
        *self.at.lock() = Some(Instant::now());
    }

    /// What is known of functions is not true any more.
    pub(super) fn forget(&self) {
        self.forgets.fetch_add(1, Relaxed);
        let sees_locks = self.survey.load().sees_locks;
        let mut unknown = Survey::unknown();
        unknown.sees_locks = sees_locks;
        self.survey.store(Arc::new(unknown));
        self.is_due.store(true, Relaxed);
    }

    /// Has the survey made again when it is old.
    pub(super) fn age(&self) {
        let is_old = |at: &Instant| at.elapsed() >= SURVEY_LIFETIME;
        if self.at.lock().as_ref().is_none_or(is_old) {
            self.is_due.store(true, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_survey_is_made_by_one_and_again_when_it_is_forgotten() {
        let known = Surveyed::default();
        assert!(known.is_due() && known.claim());
        assert!(!known.claim());
        known.learn(Survey::unknown(), known.forgets());
        known.age();
        assert!(!known.is_due());
        let forgets = known.forgets();
        known.forget();
        assert!(known.is_due() && known.claim());
        known.learn(Survey::unknown(), forgets);
        assert!(known.is_due(), "what changed meanwhile was not seen");
    }
}
