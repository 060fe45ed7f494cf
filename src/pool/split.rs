//! What a pool knows of its tenant's statements, where reads are split: what texts ask for, and what
//! the names in them are.

use super::replicas::Kept;
use crate::routing::{Builtins, Catalogue, Intents, Reason, Sight, Target};
use arc_swap::{ArcSwap, Guard};
use metrics::Counter;
use moka::sync::Cache;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

/// What comes with PostgreSQL, of as many versions (and rights to see it) as are remembered.
const BUILTINS_MAX: u64 = 64;

/// What only the session knows, as metrics name it.
const OWN: [&str; 4] = ["hint", "pinned", "incomplete", "session_mode"];

/// Why a transaction goes where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its texts say so.
    Text(Reason),
    /// It is a read, and the replicas say so.
    Kept(Kept),
    /// The client has asked for it.
    Hint,
    /// What the session is told must not be taken back with an answer.
    Pinned,
    /// It isn't here whole.
    Incomplete,
    /// The session keeps its server.
    SessionMode,
}

impl Why {
    fn index(self) -> usize {
        let own = Reason::ALL.len() + Kept::ALL.len();
        match self {
            Self::Text(reason) => reason as usize - 1,
            Self::Kept(kept) => Reason::ALL.len() + kept as usize,
            Self::Hint => own,
            Self::Pinned => own + 1,
            Self::Incomplete => own + 2,
            Self::SessionMode => own + 3,
        }
    }

    fn names() -> impl Iterator<Item = &'static str> {
        let texts = Reason::ALL.iter().map(|one| one.as_str());
        let kept = Kept::ALL.iter().map(|one| one.as_str());
        texts.chain(kept).chain(OWN)
    }
}

/// What comes with PostgreSQL, by a server's version and what may be seen of it. All pools share it.
#[derive(Debug, Clone)]
pub(super) struct KnownBuiltins(Cache<(Box<str>, Sight), Arc<Builtins>>);

impl Default for KnownBuiltins {
    fn default() -> Self {
        Self(Cache::new(BUILTINS_MAX))
    }
}

/// What is known of a tenant's statements.
#[derive(Debug)]
pub struct Split {
    intents: Intents,
    catalogue: ArcSwap<Catalogue>,
    /// How often definitions had changed when the catalogue was read.
    read_at: AtomicU64,
    is_known: AtomicBool,
    is_old: AtomicBool,
    is_being_read: AtomicBool,
    /// For the primary, for replicas.
    counts: [Box<[Counter]>; 2],
    generation: AtomicU64,
    builtins: KnownBuiltins,
}

impl Split {
    pub(super) fn new(builtins: KnownBuiltins) -> Self {
        Self {
            intents: Intents::new(),
            catalogue: ArcSwap::from_pointee(Catalogue::unknown()),
            read_at: AtomicU64::new(0),
            is_known: AtomicBool::new(false),
            is_old: AtomicBool::new(false),
            is_being_read: AtomicBool::new(false),
            counts: ["primary", "replica"].map(|target| {
                let counters = Why::names().map(|reason| {
                    metrics::counter!("pgusher_routed_total", "target" => target, "reason" => reason)
                });
                counters.collect()
            }),
            generation: AtomicU64::new(0),
            builtins,
        }
    }

    /// What texts ask for.
    pub fn intents(&self) -> &Intents {
        &self.intents
    }

    /// What names are; nothing is known where definitions have changed since it was read.
    pub fn catalogue(&self, changes: u64) -> Option<Guard<Arc<Catalogue>>> {
        let is_true = self.is_known.load(Relaxed) && self.read_at.load(Relaxed) == changes;
        is_true.then(|| self.catalogue.load())
    }

    /// Whether it should be read (again).
    pub fn is_due(&self, changes: u64) -> bool {
        let is_known = self.is_known.load(Relaxed) && !self.is_old.load(Relaxed);
        !is_known || self.read_at.load(Relaxed) != changes
    }

    /// It is to be read again, and holds until then.
    pub fn age(&self) {
        self.is_old.store(true, Relaxed);
    }

    /// Takes it upon the caller to read it, if nobody else does.
    pub fn claim(&self) -> bool {
        !self.is_being_read.swap(true, Relaxed)
    }

    /// Nobody reads it any more.
    pub fn unclaim(&self) {
        self.is_being_read.store(false, Relaxed);
    }

    /// Counts where a transaction went, and why.
    #[inline]
    pub fn count(&self, target: Target, why: Why) {
        let [primary, replica] = &self.counts;
        let counts = match target {
            Target::Primary => primary,
            Target::Replica => replica,
        };
        if let Some(counter) = counts.get(why.index()) {
            counter.increment(1);
        }
    }

    /// The number of the catalogue that is read next.
    pub fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Relaxed) + 1
    }

    /// Takes over what was read when definitions had changed so often.
    pub fn learn(&self, catalogue: Catalogue, changes: u64) {
        self.catalogue.store(Arc::new(catalogue));
        self.read_at.store(changes, Relaxed);
        self.is_known.store(true, Relaxed);
        self.is_old.store(false, Relaxed);
    }

    /// What comes with PostgreSQL, where it is known.
    pub fn builtins(&self, version: &str, sight: Sight) -> Option<Arc<Builtins>> {
        self.builtins.0.get(&(version.into(), sight))
    }

    /// Remembers it.
    pub fn learn_builtins(&self, version: &str, sight: Sight, builtins: &Arc<Builtins>) {
        let key = (version.into(), sight);
        self.builtins.0.insert(key, Arc::clone(builtins));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_under_its_name() {
        let names: Vec<_> = Why::names().collect();
        assert_eq!(names.len(), Why::SessionMode.index() + 1);
        for reason in Reason::ALL {
            assert_eq!(names[Why::Text(reason).index()], reason.as_str());
        }
        for kept in Kept::ALL {
            assert_eq!(names[Why::Kept(kept).index()], kept.as_str());
        }
        assert_eq!(names[Why::Hint.index()], "hint");
        assert_eq!(names[Why::SessionMode.index()], "session_mode");
    }

    #[test]
    fn a_catalogue_holds_until_definitions_change() {
        let split = Split::new(KnownBuiltins::default());
        assert!(split.is_due(0) && split.catalogue(0).is_none());
        split.learn(Catalogue::unknown(), 0);
        assert!(!split.is_due(0) && split.catalogue(0).is_some());
        split.age();
        assert!(split.is_due(0) && split.catalogue(0).is_some());
        split.learn(Catalogue::unknown(), 0);
        assert!(split.is_due(1) && split.catalogue(1).is_none());
        assert!(split.claim() && !split.claim());
        split.unclaim();
        assert!(split.claim());
    }
}
