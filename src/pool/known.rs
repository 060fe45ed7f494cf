//! What a pool has learned about the state that its tenant's sessions leave on servers.

use crate::upstream::{Settings, Survey};
use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A survey of functions is made again after this: what is changed past us is noticed then.
const SURVEY_LIFETIME: Duration = Duration::from_secs(30);

/// Names of the tenant's own settings that are remembered, the newest; once there were more, a reset of
/// all follows where one of them may have been set.
const CUSTOMS_MAX: usize = 500;

/// What is known.
#[derive(Debug)]
pub(super) struct Known {
    survey: ArcSwap<Survey>,
    surveyed_at: Mutex<Option<Instant>>,
    is_survey_due: AtomicBool,
    forgets: AtomicU64,
    customs: Mutex<VecDeque<Box<str>>>,
    has_more_customs: AtomicBool,
    uses_sequences: AtomicBool,
    pinned: Arc<AtomicU32>,
    shapes: AtomicU64,
    settings: Mutex<HashSet<Arc<Settings>>>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            survey: ArcSwap::from_pointee(Survey::unknown()),
            surveyed_at: Mutex::new(None),
            is_survey_due: AtomicBool::new(true),
            forgets: AtomicU64::new(0),
            customs: Mutex::default(),
            has_more_customs: AtomicBool::new(false),
            uses_sequences: AtomicBool::new(false),
            pinned: Arc::default(),
            shapes: AtomicU64::new(0),
            settings: Mutex::default(),
        }
    }
}

/// A pinned server's place in the tenant's count.
#[must_use = "the place is given back when this is dropped"]
#[derive(Debug)]
pub struct PinPlace(Arc<AtomicU32>);

impl Drop for PinPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Known {
    pub(super) fn survey(&self) -> Guard<Arc<Survey>> {
        self.survey.load()
    }

    /// Whether a server should be asked for functions before it goes back.
    #[inline]
    pub(super) fn is_survey_due(&self) -> bool {
        self.is_survey_due.load(Relaxed)
    }

    /// Takes it upon the caller to make the survey, if nobody else has.
    pub(super) fn claim_survey(&self) -> bool {
        self.is_survey_due.swap(false, Relaxed)
    }

    /// How often functions have changed.
    #[inline]
    pub(super) fn forgets(&self) -> u64 {
        self.forgets.load(Relaxed)
    }

    /// Takes over what was found when functions had changed so often; if they have changed again, it
    /// is true no more.
    pub(super) fn learn_survey(&self, survey: Survey, forgets: u64) {
        self.note_customs(survey.customs.iter().map(|name| &**name));
        if self.forgets() != forgets {
            self.is_survey_due.store(true, Relaxed);
            return;
        }
        self.survey.store(Arc::new(survey));
        *self.surveyed_at.lock() = Some(Instant::now());
    }

    /// What is known of functions is not true any more.
    pub(super) fn forget_survey(&self) {
        self.forgets.fetch_add(1, Relaxed);
        let sees_locks = self.survey.load().sees_locks;
        let mut unknown = Survey::unknown();
        unknown.sees_locks = sees_locks;
        self.survey.store(Arc::new(unknown));
        self.is_survey_due.store(true, Relaxed);
    }

    /// Has the survey made again when it is old.
    pub(super) fn age(&self) {
        let is_old = |at: &Instant| at.elapsed() >= SURVEY_LIFETIME;
        if self.surveyed_at.lock().as_ref().is_none_or(is_old) {
            self.is_survey_due.store(true, Relaxed);
        }
    }

    pub(super) fn note_customs<'a>(&self, names: impl Iterator<Item = &'a str>) {
        for name in names {
            let name = name.to_ascii_lowercase();
            let mut customs = self.customs.lock();
            if customs.iter().any(|known| **known == *name) {
                continue;
            }
            if customs.len() == CUSTOMS_MAX {
                customs.pop_front();
                self.has_more_customs.store(true, Relaxed);
            }
            customs.push_back(name.into());
        }
    }

    /// Whether there are more names than are remembered.
    pub(super) fn has_more_customs(&self) -> bool {
        self.has_more_customs.load(Relaxed)
    }

    pub(super) fn customs(&self) -> Vec<Box<str>> {
        self.customs.lock().iter().cloned().collect()
    }

    #[inline]
    pub(super) fn uses_sequences(&self) -> bool {
        self.uses_sequences.load(Relaxed)
    }

    pub(super) fn note_sequences(&self) {
        self.uses_sequences.store(true, Relaxed);
    }

    /// The same settings as somebody else's, if anybody has them: then they are one and the same, and
    /// a server that changes hands needs nothing.
    pub(super) fn share_settings(&self, settings: Settings) -> Arc<Settings> {
        if settings.is_empty() {
            return Settings::none();
        }
        let mut shared = self.settings.lock();
        if let Some(known) = shared.get(&settings) {
            return Arc::clone(known);
        }
        if shared.len() >= shared.capacity() {
            shared.retain(|known| Arc::strong_count(known) > 1);
        }
        let settings = Arc::new(settings);
        shared.insert(Arc::clone(&settings));
        settings
    }

    /// How often what statements return may have changed. A statement that is prepared after a change
    /// is another one than before it, even if it reads the same.
    #[inline]
    pub(super) fn shapes(&self) -> u64 {
        self.shapes.load(Relaxed)
    }

    pub(super) fn note_change_of_shapes(&self) {
        self.shapes.fetch_add(1, Relaxed);
    }

    /// A place among the pinned servers; `None` when there are `count_max` already.
    pub(super) fn pin(&self, count_max: u32) -> Option<PinPlace> {
        let more = |count: u32| (count < count_max).then_some(count + 1);
        let taken = self.pinned.fetch_update(Relaxed, Relaxed, more);
        taken.is_ok().then(|| PinPlace(Arc::clone(&self.pinned)))
    }

    pub(super) fn pinned(&self) -> u32 {
        self.pinned.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_server_has_its_place_until_it_is_let_go() {
        let known = Known::default();
        let first = known.pin(1).unwrap();
        assert!(known.pin(1).is_none());
        drop(first);
        assert_eq!(known.pinned(), 0);
    }

    #[test]
    fn a_survey_is_made_by_one_and_again_when_it_is_forgotten() {
        let known = Known::default();
        assert!(known.is_survey_due() && known.claim_survey());
        assert!(!known.claim_survey());
        known.learn_survey(Survey::unknown(), known.forgets());
        known.age();
        assert!(!known.is_survey_due());
        let forgets = known.forgets();
        known.forget_survey();
        assert!(known.is_survey_due() && known.claim_survey());
        known.learn_survey(Survey::unknown(), forgets);
        assert!(known.is_survey_due(), "what changed meanwhile was not seen");
    }
}
