//! Which look-ups still hold.

use parking_lot::Mutex;
use std::collections::HashMap;

/// Tenants whose last change is remembered one by one; with more, all are taken for changed.
const TOLD_MAX: usize = 4096;

/// When a look-up began, on a clock that ticks with every change that we are told of. A look-up
/// that began before the registry told of a change may have seen the tenant before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    /// Before everything: what is from then is never fresh.
    pub(super) const BEFORE_ALL: Self = Self(0);
}

/// Which look-ups still hold.
#[derive(Debug)]
pub(super) struct Freshness(Mutex<Marks>);

#[derive(Debug)]
struct Marks {
    now: u64,
    /// Changes may have been missed.
    lost: u64,
    /// Everything has changed.
    told_all: u64,
    /// These have.
    told: HashMap<Box<str>, u64>,
}

impl Marks {
    fn last_told(&self, id: &str) -> u64 {
        self.told_all
            .max(self.told.get(id).copied().unwrap_or_default())
    }
}

impl Freshness {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Marks {
            now: 1,
            lost: 1,
            told_all: 0,
            told: HashMap::new(),
        }))
    }

    /// To be taken before the registry is asked.
    pub(super) fn now(&self) -> Moment {
        Moment(self.0.lock().now)
    }

    /// The registry told of a change of this tenant.
    pub(super) fn tell(&self, id: &str) {
        let mut marks = self.0.lock();
        marks.now += 1;
        let now = marks.now;
        if marks.told.len() >= TOLD_MAX && !marks.told.contains_key(id) {
            marks.told.clear();
            marks.told_all = now;
        } else {
            marks.told.insert(id.into(), now);
        }
    }

    /// Changes may have been missed.
    pub(super) fn lose(&self) {
        let mut marks = self.0.lock();
        marks.now += 1;
        marks.lost = marks.now;
    }

    /// Whether what a look-up of that moment found is as it is now.
    pub(super) fn is_fresh(&self, id: &str, began: Moment) -> bool {
        let marks = self.0.lock();
        began.0 >= marks.lost && began.0 >= marks.last_told(id)
    }

    /// Whether the registry told of a change of this very tenant behind that moment, or at all.
    pub(super) fn is_told_since(&self, id: &str, moment: Option<Moment>) -> bool {
        let marks = self.0.lock();
        let told = marks.told.get(id);
        told.is_some_and(|told| moment.is_none_or(|moment| *told > moment.0))
    }

    /// Whether nothing is known against what a look-up of that moment found.
    pub(super) fn may_serve(&self, id: &str, began: Moment) -> bool {
        began.0 >= self.0.lock().last_told(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_outdates_the_look_ups_that_began_before_it() {
        let freshness = Freshness::new();
        let before = freshness.now();
        assert!(freshness.is_fresh("acme", before));
        freshness.tell("acme");
        assert!(!freshness.is_fresh("acme", before));
        assert!(!freshness.may_serve("acme", before));
        assert!(freshness.is_fresh("other", before));
        assert!(freshness.is_fresh("acme", freshness.now()));
    }

    #[test]
    fn what_may_have_been_missed_makes_all_unsure_but_not_wrong() {
        let freshness = Freshness::new();
        let before = freshness.now();
        freshness.lose();
        assert!(!freshness.is_fresh("acme", before));
        assert!(freshness.may_serve("acme", before));
        assert!(freshness.is_fresh("acme", freshness.now()));
        assert!(!freshness.is_fresh("acme", Moment::BEFORE_ALL));
    }

    #[test]
    fn more_changes_than_are_remembered_concern_everyone() {
        let freshness = Freshness::new();
        let before = freshness.now();
        for number in 0..=TOLD_MAX {
            freshness.tell(&number.to_string());
        }
        assert!(!freshness.may_serve("acme", before));
        assert!(freshness.is_fresh("acme", freshness.now()));
        assert!(freshness.0.lock().told.len() <= TOLD_MAX);
    }
}
