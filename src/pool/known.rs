//! What a pool has learned about the state that its tenant's sessions leave on servers.

use super::surveyed::Surveyed;
use crate::upstream::{Settings, Survey};
use parking_lot::Mutex;
use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

/// Names of the tenant's own settings that are remembered, the newest; once there were more, a reset of
/// all follows where one of them may have been set.
const CUSTOMS_MAX: usize = 500;

/// What is known.
#[derive(Debug)]
pub(super) struct Known {
    surveyed: Arc<Surveyed>,
    judged_by: AtomicU64,
    customs: Mutex<VecDeque<Box<str>>>,
    has_more_customs: AtomicBool,
    uses_sequences: AtomicBool,
    pinned: Arc<AtomicU32>,
    shapes: AtomicU64,
    settings: Mutex<HashSet<Arc<Settings>>>,
}

impl Known {
    /// Nothing is known but what others that share the survey know of functions.
    pub(super) fn new(surveyed: Arc<Surveyed>) -> Self {
        Self {
            judged_by: AtomicU64::new(surveyed.count()),
            surveyed,
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
    /// What is known of functions.
    pub(super) fn surveyed(&self) -> &Surveyed {
        &self.surveyed
    }

    /// Takes over what was found when functions had changed so often; if they have changed again, it
    /// is true no more.
    pub(super) fn learn_survey(&self, survey: Survey, forgets: u64) {
        self.note_customs(survey.customs.iter().map(|name| &**name));
        self.surveyed.learn(survey, forgets);
    }

    /// Whether statements were judged by an older survey than the one that is known: another pool
    /// that shares it has made one. Told once.
    #[inline]
    pub(super) fn is_behind(&self) -> bool {
        let newest = self.surveyed.count();
        self.judged_by.load(Relaxed) != newest && self.judged_by.swap(newest, Relaxed) != newest
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
        let known = Known::new(Arc::default());
        let first = known.pin(1).unwrap();
        assert!(known.pin(1).is_none());
        drop(first);
        assert_eq!(known.pinned(), 0);
    }
}
