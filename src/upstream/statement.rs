//! Prepared statements that clients of one pool share.

use super::Suspicion;
use crate::{
    routing::{Intent, Space},
    sql,
};
use parking_lot::Mutex;
use std::{
    borrow::Borrow,
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
};

/// The number of a shared statement, unique in its pool and never used again.
pub type StatementId = u64;

/// A statement: its text and parameter types, as the client's Parse had them.
#[derive(Debug)]
pub struct Statement {
    id: StatementId,
    name: Box<[u8]>,
    /// Eight bytes of plan context, then query, NUL, and parameter types.
    key: Box<[u8]>,
    /// Bits of what its text makes suspicious; a new survey of functions may change them.
    suspicion: AtomicU16,
    uses_names: bool,
    told: OnceLock<Told>,
    intent: OnceLock<Arc<Intent>>,
    space: OnceLock<Space>,
}

/// What a client was told that a statement returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// How often what statements return may have changed by then.
    pub shapes: u64,
    /// Names and types of the columns, hashed.
    pub columns: u64,
}

impl PartialEq for Statement {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Statement {}

impl Statement {
    /// Its number.
    pub fn id(&self) -> StatementId {
        self.id
    }

    /// Its name on servers.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// What it may leave on its server.
    #[inline]
    pub fn suspicion(&self) -> Suspicion {
        Suspicion::from_bits(self.suspicion.load(Ordering::Relaxed))
    }

    /// Whether its text may speak of prepared statements by name.
    #[inline]
    pub fn uses_names(&self) -> bool {
        self.uses_names
    }

    /// The columns that clients were told; `None` when nobody has asked.
    #[inline]
    pub fn told(&self) -> Option<&Told> {
        self.told.get()
    }

    /// Notes what a client was told. The first time counts: a statement's columns never change.
    pub fn tell(&self, told: Told) {
        self.told.get_or_init(|| told);
    }

    /// What its text asks for, read once.
    pub fn intent(&self, read: impl FnOnce(&[u8]) -> Arc<Intent>) -> &Arc<Intent> {
        self.intent.get_or_init(|| read(self.text()))
    }

    /// What its text does to the storage of its tenant, read once.
    pub fn space(&self, read: impl FnOnce(&[u8]) -> Space) -> Space {
        *self.space.get_or_init(|| read(self.text()))
    }

    /// The query.
    pub fn text(&self) -> &[u8] {
        let tail = self.tail();
        let end = memchr::memchr(0, tail);
        tail.get(..end.unwrap_or(tail.len())).unwrap_or_default()
    }

    /// Bytes that it counts on a server.
    pub fn bytes(&self) -> u32 {
        self.key.len() as u32
    }

    /// Query, NUL and parameter types.
    pub fn tail(&self) -> &[u8] {
        self.key.get(8..).unwrap_or_default()
    }
}

struct ByKey(Arc<Statement>);

impl Borrow<[u8]> for ByKey {
    fn borrow(&self) -> &[u8] {
        &self.0.key
    }
}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

/// All statements of a pool that some client holds.
///
/// The lock is taken at a client's first Parse of a name, never per Bind.
#[derive(Default)]
pub struct Statements {
    shared: Mutex<Shared>,
    next_id: AtomicU64,
}

#[derive(Default)]
struct Shared {
    set: HashSet<ByKey>,
    sweep_at: usize,
}

/// Below this many statements nothing is swept.
const SWEEP_MIN: usize = 1024;

impl Statements {
    /// The statement of this text and context, made when it is new.
    pub fn intern(
        &self,
        context: u64,
        tail: &[u8],
        suspects: impl FnOnce(&[u8]) -> Suspicion,
    ) -> Arc<Statement> {
        let mut key = Vec::with_capacity(8 + tail.len());
        key.extend(context.to_be_bytes());
        key.extend_from_slice(tail);
        let mut shared = self.shared.lock();
        if let Some(found) = shared.set.get(key.as_slice()) {
            return Arc::clone(&found.0);
        }
        shared.sweep();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("pgu_{id:x}").into_bytes().into();
        let statement = Arc::new(Statement {
            id,
            name,
            key: key.into(),
            suspicion: AtomicU16::new(suspects(tail).bits()),
            uses_names: sql::may_use_statements(tail),
            told: OnceLock::new(),
            intent: OnceLock::new(),
            space: OnceLock::new(),
        });
        shared.set.insert(ByKey(Arc::clone(&statement)));
        statement
    }

    /// A context of which nobody knows what it is: no other statement is in it.
    pub fn unknown_context(&self) -> u64 {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let mut hasher = DefaultHasher::new();
        ("unknown context", number).hash(&mut hasher);
        hasher.finish()
    }

    /// Looks at all statements again: what is known of functions has changed.
    pub fn suspect_again(&self, suspects: impl Fn(&[u8]) -> Suspicion) {
        for entry in &self.shared.lock().set {
            let suspicion = suspects(entry.0.tail());
            entry.0.suspicion.store(suspicion.bits(), Ordering::Relaxed);
        }
    }

    /// How many statements are known.
    pub fn count(&self) -> usize {
        self.shared.lock().set.len()
    }
}

impl Shared {
    /// Forgets what no client holds, whenever the set has doubled.
    fn sweep(&mut self) {
        if self.set.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.set.retain(|entry| Arc::strong_count(&entry.0) > 1);
            self.sweep_at = self.set.len() * 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_in_the_same_context_is_one_statement() {
        let statements = Statements::default();
        let one = statements.intern(0, b"select 1\0\0\0", |_| Suspicion::NONE);
        assert_eq!(
            statements
                .intern(0, b"select 1\0\0\0", |_| Suspicion::NONE)
                .id(),
            one.id()
        );
        assert_ne!(
            statements
                .intern(1, b"select 1\0\0\0", |_| Suspicion::NONE)
                .id(),
            one.id()
        );
        assert_ne!(
            statements
                .intern(0, b"select 1\0\0\x01", |_| Suspicion::NONE)
                .id(),
            one.id()
        );
        assert_eq!(one.tail(), b"select 1\0\0\0");
    }

    #[test]
    fn statements_that_nobody_holds_are_forgotten() {
        let statements = Statements::default();
        for n in 0..SWEEP_MIN * 4 {
            statements.intern(0, n.to_string().as_bytes(), |_| Suspicion::NONE);
        }
        assert!(statements.count() <= SWEEP_MIN + 1);
    }
}
