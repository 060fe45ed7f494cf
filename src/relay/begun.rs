//! A transaction that has begun and in which nothing has run yet: `SET TRANSACTION` may still say that
//! it belongs to another server, and that one then begins it.
//!
//! Nobody can tell: it has taken no snapshot, no number and no lock. Only its time of beginning
//! (`now()`) becomes a later one.

use super::{End, Reading, Relay, from_client::Step};
use crate::{
    routing::{Catalogue, Mode, Transaction},
    upstream::{Expect, TxStatus},
    wire::{HEADER_BYTES, Header, frontend, peek, read, tag::frontend as tag},
};

/// A longer text is not repeated elsewhere: its transaction stays where it is.
const TEXT_BYTES_MAX: usize = 512;

/// Nor is more than this, of all that has run.
const SQL_BYTES_MAX: usize = 2048;

/// What has run of a transaction that nothing has run in.
#[derive(Debug, Default)]
pub struct Begun {
    /// What has been answered of it: its beginning, and each `SET TRANSACTION` but the last.
    sql: String,
    /// What is being asked of it, and is not answered yet.
    next: String,
    mode: Mode,
    /// Whether it only reads where it doesn't say.
    reads_by_default: bool,
    /// Whether any of it would fail on a standby.
    is_primarys: bool,
    phase: Phase,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It is over, or something has run in it.
    #[default]
    Over,
    /// What is asked of it is on its way.
    Asked,
    /// That was sent: the next message is looked at.
    Sent,
    /// Another server is to begin it.
    Moves,
}

impl Begun {
    /// Another message is the first of a transaction, or of none.
    #[inline]
    pub fn forget(&mut self) {
        self.phase = Phase::Over;
    }

    /// A message is nothing but this beginning. Does nothing for one that is not worth it, nor for a batch
    /// of the extended protocol: what else is in that would have to be repeated, too.
    pub fn begin(&mut self, batch: &[u8], mode: Mode, reads_by_default: bool) {
        let Some(text) = text_of(batch) else {
            return;
        };
        self.sql.clear();
        self.sql.push_str(text);
        self.next.clear();
        (self.mode, self.reads_by_default) = (mode, reads_by_default);
        self.is_primarys = is_primarys(mode);
        self.phase = Phase::Asked;
    }

    /// What was asked last is asked again, of another server.
    pub fn ask_again(&mut self) {
        match self.phase {
            Phase::Over => {}
            // The beginning itself.
            _ if self.next.is_empty() => self.phase = Phase::Asked,
            _ => self.phase = Phase::Moves,
        }
    }

    /// The next relay is another server's, which is to begin it.
    pub fn moves(&mut self) {
        self.phase = Phase::Moves;
    }

    /// Whether more was asked of it than its beginning. Where no server is lent, that is because another
    /// one was to go on with it.
    pub fn was_asked_more(&self) -> bool {
        self.phase != Phase::Over && !self.next.is_empty()
    }

    /// Whether it only reads, as far as it has said, and nothing that it has asked for is what no
    /// standby has.
    pub fn is_read(&self) -> bool {
        self.mode.read_only.unwrap_or(self.reads_by_default) && !self.is_primarys
    }

    /// More is asked of it: `SET TRANSACTION`. `false` when that is more than can be repeated.
    fn ask(&mut self, text: &str, mode: Mode) -> bool {
        if self.sql.len() + self.next.len() > SQL_BYTES_MAX {
            return false;
        }
        if !self.next.is_empty() {
            // Behind a comment, too.
            self.sql.push_str("\n;");
            self.sql.push_str(&self.next);
        }
        self.next.clear();
        self.next.push_str(text);
        self.mode.read_only = mode.read_only.or(self.mode.read_only);
        self.is_primarys |= is_primarys(mode);
        true
    }
}

fn is_primarys(mode: Mode) -> bool {
    mode.read_only == Some(false) || mode.serializable == Some(true)
}

/// The text of a Query that is here whole, where it is short and plain.
fn text_of(message: &[u8]) -> Option<&str> {
    let header = peek(message).ok().flatten()?;
    let body = message.get(HEADER_BYTES..header.message_bytes)?;
    if header.tag != tag::QUERY {
        return None;
    }
    let (text, _) = read::cstr(body)?;
    let text = str::from_utf8(text).ok()?;
    (text.len() <= TEXT_BYTES_MAX && text.is_ascii()).then_some(text)
}

/// Whether a text begins with `SET`.
fn sets(text: &str) -> bool {
    let word = text.trim_ascii_start().get(..3);
    word.is_some_and(|word| word.eq_ignore_ascii_case("set"))
}

impl Relay<'_> {
    /// Has a server begin what has begun on another.
    pub(super) fn begin_elsewhere(&mut self) {
        let begun = &mut self.client.begun;
        if begun.phase != Phase::Moves {
            return;
        }
        begun.phase = Phase::Asked;
        frontend::query(self.client.to_server.insertion(), &begun.sql);
        self.server.replies.push(Expect::Injected);
        self.server.unnamed = 0;
        self.client.handle.configure();
        // Outside of a transaction nothing of the client's may run.
        self.barrier = true;
    }

    /// After a message that ends a batch.
    #[inline]
    pub(super) fn sent_batch(&mut self) {
        if self.client.begun.phase == Phase::Asked {
            self.client.begun.phase = Phase::Sent;
        }
    }

    /// Looks whether a message says that the transaction belongs elsewhere. `None` when it goes on here.
    #[inline]
    pub(super) fn reconsider(&mut self, header: Header) -> Option<Step> {
        if self.client.begun.phase != Phase::Sent {
            return None;
        }
        self.client.begun.phase = Phase::Over;
        self.reconsider_text(header)
    }

    fn reconsider_text(&mut self, header: Header) -> Option<Step> {
        if self.server.status != TxStatus::Open || !self.server.replies.is_settled() {
            return None;
        }
        let text = text_of(self.client.to_server.unscanned())?;
        if !sets(text) {
            return None;
        }
        let intents = self.pool.split().intents();
        let verdict = intents.verdict(text.as_bytes(), &Catalogue::unknown());
        let Transaction::Set(mode) = verdict.transaction else {
            return None;
        };
        if mode == Mode::default() {
            return None;
        }
        if !self.client.begun.ask(text, mode) {
            return None;
        }
        self.client.begun.phase = Phase::Asked;
        let is_here = matches!(self.reading, Reading::Replica { .. });
        if self.client.begun.is_read() == is_here {
            return None;
        }
        self.elsewhere = Some(header.message_bytes);
        Some(Step::MustWait)
    }

    pub(super) fn goes_elsewhere(&self) -> Option<End> {
        self.elsewhere.map(End::Elsewhere)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        frontend::query(&mut out, text);
        out
    }

    const READ_ONLY: Mode = Mode {
        read_only: Some(true),
        serializable: None,
    };

    #[test]
    fn what_is_asked_later_counts() {
        let mut begun = Begun::default();
        begun.begin(&query("begin"), Mode::default(), false);
        assert!(!begun.is_read() && !begun.was_asked_more());
        begun.ask("set transaction read only", READ_ONLY);
        assert!(begun.is_read() && begun.was_asked_more());
        assert_eq!(begun.sql, "begin", "what is on its way is not repeated");
        let serializable = Mode {
            read_only: None,
            serializable: Some(true),
        };
        begun.ask("set transaction isolation level serializable", serializable);
        assert!(!begun.is_read());
        assert_eq!(begun.sql, "begin\n;set transaction read only");
    }

    #[test]
    fn only_short_beginnings_are_repeated() {
        let mut begun = Begun::default();
        let long = format!("begin {}", " ".repeat(TEXT_BYTES_MAX));
        for text in [&long, "begin /* ä */"] {
            begun.begin(&query(text), READ_ONLY, false);
            assert_eq!(begun.phase, Phase::Over, "{text}");
        }
        begun.begin(&query("begin"), READ_ONLY, false);
        assert_eq!(begun.phase, Phase::Asked);
    }

    #[test]
    fn a_batch_of_the_extended_protocol_is_not_repeated() {
        let mut bytes = Vec::new();
        frontend::parse(&mut bytes, b"", b"begin\0\0\0");
        bytes.extend_from_slice(frontend::SYNC);
        let mut begun = Begun::default();
        begun.begin(&bytes, READ_ONLY, false);
        assert_eq!(begun.phase, Phase::Over);
        assert_eq!(text_of(&query("begin")), Some("begin"));
        assert_eq!(text_of(&query("begin")[..7]), None);
    }

    #[test]
    fn what_is_repeated_has_an_end() {
        let mut begun = Begun::default();
        begun.begin(&query("begin"), Mode::default(), false);
        let long = format!("set transaction read only{}", " ".repeat(400));
        let count = (0..100).take_while(|_| begun.ask(&long, READ_ONLY)).count();
        assert!((2..10).contains(&count), "{count}");
    }
}
