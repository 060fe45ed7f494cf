//! Intents of texts that come again.

use super::{Catalogue, Intent, Verdict, command::command};
use moka::sync::Cache;
use std::sync::Arc;

/// As many texts are kept.
const TEXTS_MAX: u64 = 10_000;

/// A text counts as many bytes at least, so that so many texts fill the cache.
const TEXT_BYTES_MIN: u32 = 256;

/// The intents of one upstream's texts, by their bytes. Bounded by 10,000 short texts or
/// 2.5 MB of long ones; what is asked for often stays.
///
/// One for each tenant that has replicas, so that nobody pushes out another's.
#[derive(Debug, Clone)]
pub struct Intents {
    kept: Cache<Box<[u8]>, Arc<Intent>, foldhash::fast::RandomState>,
}

impl Default for Intents {
    fn default() -> Self {
        Self::new()
    }
}

impl Intents {
    /// An empty one.
    #[allow(
        clippy::borrowed_box,
        reason = "the cache hands its keys out as they are"
    )]
    pub fn new() -> Self {
        let kept = Cache::builder()
            .max_capacity(TEXTS_MAX * u64::from(TEXT_BYTES_MIN))
            .weigher(|text: &Box<[u8]>, intent: &Arc<Intent>| {
                let bytes = u32::try_from(text.len() + intent.bytes()).unwrap_or(u32::MAX);
                bytes.max(TEXT_BYTES_MIN)
            })
            .build_with_hasher(foldhash::fast::RandomState::default());
        Self { kept }
    }

    /// Where the text of a Query may run. Parses it at most once; texts whose first word tells aren't
    /// kept.
    pub fn verdict(&self, text: &[u8], catalogue: &Catalogue) -> Verdict {
        match command(text) {
            Some(verdict) => verdict,
            None => self.read(text).verdict(catalogue),
        }
    }

    /// What the query of a Parse asks for: to be kept with the prepared statement, so that each Bind
    /// costs [`Intent::verdict`] alone.
    pub fn intent(&self, text: &[u8]) -> Arc<Intent> {
        match command(text) {
            Some(verdict) => Arc::new(Intent::settled(verdict)),
            None => self.read(text),
        }
    }

    fn read(&self, text: &[u8]) -> Arc<Intent> {
        let text = text.strip_suffix(b"\0").unwrap_or(text);
        if let Some(known) = self.kept.get(text) {
            return known;
        }
        let intent = Arc::new(Intent::of(text));
        self.kept.insert(text.into(), Arc::clone(&intent));
        intent
    }

    /// How many texts are kept, about.
    pub fn len(&self) -> u64 {
        self.kept.run_pending_tasks();
        self.kept.entry_count()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
