//! A map that forgets what nobody needs any more.

use std::{
    collections::HashMap,
    hash::Hash,
    ops::{Deref, DerefMut},
    sync::{Arc, Weak},
};

/// A map that is looked through for what it can do without whenever it has doubled since the last time: for
/// each entry that is made, that is one step or two.
#[derive(Debug)]
pub struct Forgetful<K, V> {
    entries: HashMap<K, V>,
    looked_at: usize,
}

/// A smaller map is not looked through.
const LEN_MIN: usize = 64;

impl<K, V> Default for Forgetful<K, V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            looked_at: 0,
        }
    }
}

impl<K: Eq + Hash, V> Forgetful<K, V> {
    /// Forgets entries that are `needless`, if it is time to. Call it before an entry is made.
    pub fn forget(&mut self, needless: impl Fn(&V) -> bool) {
        if self.entries.len() >= 2 * self.looked_at.max(LEN_MIN / 2) {
            self.entries.retain(|_, entry| !needless(entry));
            self.looked_at = self.entries.len();
        }
    }
}

impl<K: Eq + Hash + Clone, V> Forgetful<K, Weak<V>> {
    /// What somebody holds by this key, else what is made now. What nobody holds any more is forgotten in time.
    pub fn shared(&mut self, key: &K, new: impl FnOnce() -> Arc<V>) -> Arc<V> {
        if let Some(known) = self.entries.get(key).and_then(Weak::upgrade) {
            return known;
        }
        self.forget(|held| held.strong_count() == 0);
        let held = new();
        self.entries.insert(key.clone(), Arc::downgrade(&held));
        held
    }
}

impl<K, V> Deref for Forgetful<K, V> {
    type Target = HashMap<K, V>;

    fn deref(&self) -> &HashMap<K, V> {
        &self.entries
    }
}

impl<K, V> DerefMut for Forgetful<K, V> {
    fn deref_mut(&mut self) -> &mut HashMap<K, V> {
        &mut self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn ten_thousand_entries_are_made_in_a_few_steps_each() {
        let steps = Cell::new(0);
        let mut map = Forgetful::default();
        for round in 0..10 {
            for n in 0..10_000 {
                if !map.contains_key(&n) {
                    map.forget(|_: &bool| {
                        steps.set(steps.get() + 1);
                        false
                    });
                    map.insert(n, true);
                }
            }
            assert!(steps.get() < 2 * 10_000, "{} in round {round}", steps.get());
        }
    }

    #[test]
    fn what_is_held_is_shared_and_made_anew_when_nobody_holds_it() {
        let mut map = Forgetful::default();
        let first = map.shared(&1, || Arc::new("first"));
        let again = map.shared(&1, || Arc::new("again"));
        assert!(Arc::ptr_eq(&first, &again));
        drop((first, again));
        assert_eq!(*map.shared(&1, || Arc::new("anew")), "anew");
        for n in 0..10_000 {
            drop(map.shared(&n, || Arc::new("once")));
        }
        assert!(map.len() <= LEN_MIN, "{}", map.len());
    }

    #[test]
    fn what_is_needless_is_forgotten() {
        let mut map = Forgetful::default();
        for n in 0..10_000 {
            map.forget(|is_needless| *is_needless);
            map.insert(n, n % 100 != 0);
        }
        assert!(map.len() <= 3 * 100 + LEN_MIN, "{}", map.len());
        assert!((0..100).all(|n| map.contains_key(&(n * 100))));
    }
}
