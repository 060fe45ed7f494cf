//! What a text asks for, as far as the text alone tells.

use super::{
    Catalogue, Reason, Transaction, Verdict,
    command::{TEXT_BYTES_MAX, command},
    names::Names,
    walk::Walk,
};
use crate::sql;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
};

/// What a text asks for. Made once per text; what it means for a database, [`Intent::verdict`] tells.
#[derive(Debug)]
pub struct Intent {
    asks: Asks,
    /// What a catalogue last said: its generation, and the reason in the lowest byte.
    last: AtomicU64,
}

#[derive(Debug)]
enum Asks {
    /// Nothing that a catalogue would change.
    Settled(Verdict),
    /// Reads, with these names.
    Read(Names),
}

impl Intent {
    /// Reads a text as PostgreSQL would. It is the whole of a Query, or the query of a Parse; a NUL
    /// may end it. Letters beyond ASCII are taken for UTF-8: in another `client_encoding` such a text
    /// isn't to be given here.
    ///
    /// Never fails, takes time linear in the text and a bounded stack: what can't be told is the
    /// primary's.
    pub fn of(text: &[u8]) -> Self {
        let text = text.strip_suffix(b"\0").unwrap_or(text);
        Self::new(match command(text) {
            Some(verdict) => Asks::Settled(verdict),
            None => asks(text).unwrap_or_else(Asks::Settled),
        })
    }

    fn new(asks: Asks) -> Self {
        Self {
            asks,
            last: AtomicU64::new(0),
        }
    }

    /// The same for a text of which this is known already.
    pub(super) fn settled(verdict: Verdict) -> Self {
        Self::new(Asks::Settled(verdict))
    }

    /// Where it may run in the database of a catalogue. What that said is kept until its next
    /// generation: one load of an atomic in the steady state.
    #[inline]
    pub fn verdict(&self, catalogue: &Catalogue) -> Verdict {
        match &self.asks {
            Asks::Settled(verdict) => *verdict,
            Asks::Read(names) => Verdict::of(self.reason(names, catalogue)),
        }
    }

    fn reason(&self, names: &Names, catalogue: &Catalogue) -> Reason {
        let last = self.last.load(Ordering::Relaxed);
        let [number, ..] = last.to_le_bytes();
        let generation = catalogue.generation();
        if last >> 8 == generation
            && let Some(reason) = Reason::from_number(number)
        {
            return reason;
        }
        let reason = catalogue.reason(names);
        let now = generation << 8 | u64::from(reason as u8);
        self.last.store(now, Ordering::Relaxed);
        reason
    }

    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.asks {
                Asks::Settled(_) => 0,
                Asks::Read(names) => names.bytes(),
            }
    }
}

/// What a text asks for whose first word doesn't tell.
fn asks(text: &[u8]) -> Result<Asks, Verdict> {
    let primary = |reason| Verdict::primary(reason, Transaction::None);
    if text.len() > TEXT_BYTES_MAX {
        return Err(Verdict::primary(Reason::TooLong, Transaction::Unknown));
    }
    let Ok(shown) = std::str::from_utf8(text) else {
        return Err(Verdict::primary(Reason::Encoding, Transaction::Unknown));
    };
    if is_ambiguous(text) {
        return Err(Verdict::primary(Reason::Backslash, Transaction::Unknown));
    }
    // The parser is C behind a young crate: should its wrapper panic, the text is not understood.
    let parsed = catch_unwind(AssertUnwindSafe(|| read(shown)));
    parsed.unwrap_or_else(|_panic| Err(primary(Reason::Construct)))
}

fn read(text: &str) -> Result<Asks, Verdict> {
    let Ok(parsed) = pg_raw_parse::parse(text) else {
        return Err(Verdict::primary(Reason::Syntax, Transaction::None));
    };
    let count = parsed.stmts().count();
    if count == 0 {
        return Err(Verdict::primary(Reason::Empty, Transaction::None));
    }
    let mut walk = Walk::default();
    for statement in parsed.stmts() {
        walk.take(statement).map_err(|reason| {
            if count == 1 {
                Verdict::primary(reason, Transaction::None)
            } else {
                Verdict::primary(Reason::Several, Transaction::Unknown)
            }
        })?;
    }
    Ok(Asks::Read(walk.into_found().into_names()))
}

/// Whether its tokens depend on `standard_conforming_strings`, which the client may turn off.
fn is_ambiguous(text: &[u8]) -> bool {
    memchr::memchr(b'\\', text).is_some()
        && !sql::tokens(text).eq(sql::tokens(text).with_backslashes())
}
