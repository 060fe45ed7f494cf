//! What a server was asked and has not answered: the queue that tells a reply's meaning.
//!
//! Every request that goes to the server leaves an [`Expect`]; every message that comes back is
//! held against the front of the queue, which says whether the client sees it. This is how
//! injected messages are answered without the client knowing, how replies that we make ourselves
//! keep their place, and how we know that nothing is outstanding.
//!
//! After an error in the extended protocol the server skips everything up to the next Sync, Query
//! included; so does the queue, and what was skipped is taken back ([`Lost`]).
//! While it copies in, the server ignores Sync; so does the queue.
//! Reference: <https://www.postgresql.org/docs/current/protocol-flow.html>.

use super::{Statement, StatementId};
use crate::wire::{backend, tag::backend as tag};
use std::{collections::VecDeque, sync::Arc};

/// Whether the client sees the reply to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// It asked for it.
    Forward,
    /// We asked for it.
    Swallow,
}

/// A client's own name of a statement.
pub type Name = Arc<[u8]>;

/// A change of the unnamed statement, by serial numbers of what clients make of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// What it is now; 0 where nobody keeps account.
    pub made: u64,
    /// What the server had before.
    pub before: u64,
}

/// What a Parse makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Making {
    /// A statement of a client that has the server for itself.
    Private,
    /// The unnamed statement.
    Unnamed(Change),
    /// A shared statement; with the client's name for it, when the client asked for it.
    Shared(StatementId, Option<Name>),
    /// Under the client's own name, what SQL of its may speak of; a Sync of our own follows at once,
    /// so that what can't be made takes nothing with it.
    LentAlone(Name),
    /// The same in the middle of the client's own requests.
    Lent,
    /// Nothing: the client has this name in use already, and PostgreSQL is to say so.
    Used(Name),
}

/// What a Close removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// A portal, or what nobody keeps account of.
    Other,
    /// The unnamed statement.
    Unnamed(Change),
    /// A shared statement of so many bytes.
    Shared(StatementId, u32),
}

/// One request without its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Parse.
    Parse(Reply, Making),
    /// Bind; with the client's name of the statement, if a shared one stands for it.
    Bind(Option<Name>),
    /// Describe; likewise.
    Describe(Option<Name>),
    /// A Describe of our own, for what the statement returns.
    Check(Arc<Statement>),
    /// Execute.
    Execute,
    /// Close.
    Close(Reply, Closing),
    /// `ParseComplete` that we say ourselves, for this client name.
    SayParseComplete(Name),
    /// `CloseComplete` that we say ourselves, for this client name and what it stood for.
    SayCloseComplete(Name, Option<Arc<Statement>>),
    /// A request that we know must fail, with the error that the client gets instead.
    Doomed(Arc<[u8]>),
    /// Sync.
    Sync,
    /// A Sync of our own.
    OwnSync,
    /// Query; it removes the unnamed statement.
    Query(Change),
    /// `FunctionCall`.
    FunctionCall,
    /// A Query of our own: nothing of its answer is seen, errors neither.
    Injected,
    /// A Query of our own for how far a replica is; of its answer nothing is seen either.
    Position,
    /// `CopyDone` or `CopyFail`, which is answered by nothing of its own.
    CopyEnd,
}

impl Expect {
    fn ends_with_ready(&self) -> bool {
        matches!(
            self,
            Self::Sync
                | Self::OwnSync
                | Self::Query(_)
                | Self::FunctionCall
                | Self::Injected
                | Self::Position
        )
    }
    fn is_sync(&self) -> bool {
        matches!(self, Self::Sync | Self::OwnSync)
    }
    /// Whether it is part of a sequence that a Sync must end.
    fn awaits_sync(&self) -> bool {
        !self.ends_with_ready() && *self != Self::CopyEnd
    }
}

/// What becomes of a message from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The client gets it.
    Forward,
    /// The client doesn't.
    Swallow,
    /// The client gets this instead.
    Replace(Arc<[u8]>),
    /// It answers nothing that was asked: the connection can't be trusted any more.
    Unexpected,
}

/// The queue.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts about the server that don't exclude each other"
)]
#[derive(Debug, Default)]
pub struct Replies {
    queue: VecDeque<Expect>,
    /// The server waits for copy data, and no end of it was sent yet.
    copy_in_open: bool,
    /// Extended messages were sent, and no Sync behind them.
    unsynced: bool,
    /// The server skips everything up to a Sync that was not sent yet.
    skipping: bool,
    injected_failed: bool,
    lost: Vec<Lost>,
}

/// A side effect that an error kept from happening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// The server does not have the statement.
    Parse(StatementId),
    /// The server still has the statement of so many bytes.
    Close(StatementId, u32),
    /// The unnamed statement was not changed.
    Unnamed(Change),
    /// The server's unnamed statement was not made to be the client's.
    UnnamedCopy(Change),
    /// A Parse of the unnamed statement failed: there is none now.
    UnnamedFailed(Change),
    /// Making the server's unnamed statement the client's failed: the server has none now.
    UnnamedCopyFailed(Change),
    /// The client's name was not given.
    Name(Name),
    /// The client's name was not taken away from the statement.
    KeptName(Name, Arc<Statement>),
}

impl Replies {
    /// Whether everything was answered.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether everything was answered and no Sync is owed: only then does the last ReadyForQuery
    /// still say what state the server is in.
    #[inline]
    pub fn is_settled(&self) -> bool {
        self.queue.is_empty() && !self.unsynced
    }

    /// Whether a request that ReadyForQuery answers is outstanding. What comes behind the last one
    /// may stay unanswered until a Sync or Flush.
    pub fn owes_ready(&self) -> bool {
        self.queue.iter().any(Expect::ends_with_ready)
    }

    /// How many requests are outstanding.
    #[inline]
    pub fn count(&self) -> usize {
        self.queue.len()
    }

    /// Whether the server waits for copy data.
    pub fn is_copy_in(&self) -> bool {
        self.copy_in_open
    }

    /// Whether extended messages were sent and no Sync behind them.
    pub fn needs_sync(&self) -> bool {
        self.unsynced
    }

    /// Whether what comes now belongs to a Query of our own.
    #[inline]
    pub fn is_injected(&self) -> bool {
        matches!(
            self.queue.front(),
            Some(Expect::Injected | Expect::Position)
        )
    }

    /// Whether what comes now tells how far a replica is.
    #[inline]
    pub fn is_position(&self) -> bool {
        self.queue.front() == Some(&Expect::Position)
    }

    /// The client's name that the request speaks of which is answered now, if a shared statement
    /// stands for it.
    pub fn named(&self) -> Option<&Name> {
        match self.queue.front()? {
            Expect::Bind(name)
            | Expect::Describe(name)
            | Expect::Parse(_, Making::Shared(_, name)) => name.as_ref(),
            Expect::Parse(_, Making::Used(name)) => Some(name),
            _ => None,
        }
    }

    /// The name under which a statement is lent that is answered now, ahead of a Query.
    pub fn lent_alone(&self) -> Option<&Name> {
        match self.queue.front()? {
            Expect::Parse(_, Making::LentAlone(name)) => Some(name),
            _ => None,
        }
    }

    /// The request that is answered now.
    #[inline]
    pub fn front(&self) -> Option<&Expect> {
        self.queue.front()
    }

    /// Whether a request that is not answered yet gives this name to a statement.
    pub fn will_name(&self, wanted: &[u8]) -> bool {
        self.queue.iter().any(|expect| match expect {
            Expect::Parse(_, Making::Shared(_, Some(name))) | Expect::SayParseComplete(name) => {
                **name == *wanted
            }
            _ => false,
        })
    }

    /// Notes a request that goes to the server.
    #[inline]
    pub fn push(&mut self, expect: Expect) {
        match expect {
            Expect::Sync | Expect::OwnSync if self.copy_in_open => return,
            Expect::Sync | Expect::OwnSync => {
                self.unsynced = false;
                self.skipping = false;
            }
            _ if self.skipping => return self.lose(expect),
            Expect::CopyEnd if self.queue.is_empty() => return,
            Expect::CopyEnd => self.copy_in_open = false,
            _ => self.unsynced = expect.awaits_sync(),
        }
        self.queue.push_back(expect);
    }

    /// The reply that we say ourselves now, if it is its turn.
    #[inline]
    pub fn own_turn(&mut self) -> Option<&'static [u8]> {
        let bytes = match self.queue.front()? {
            Expect::SayParseComplete(_) => backend::PARSE_COMPLETE,
            Expect::SayCloseComplete(..) => backend::CLOSE_COMPLETE,
            _ => return None,
        };
        self.queue.pop_front();
        Some(bytes)
    }

    /// Holds a message from the server against the queue.
    #[inline]
    pub fn observe(&mut self, message: u8) -> Verdict {
        match message {
            tag::READY => self.ready(),
            tag::BIND_COMPLETE => self.bound(),
            tag::COMMAND_COMPLETE | tag::EMPTY_QUERY | tag::PORTAL_SUSPENDED => self.executed(),
            tag::PARSE_COMPLETE | tag::CLOSE_COMPLETE => self.parsed_or_closed(),
            tag::ROW_DESCRIPTION | tag::NO_DATA => self.described(),
            tag::ERROR => self.failed(),
            tag::COPY_IN => self.copy_in(),
            _ => self.seen(),
        }
    }

    /// Whether an injected Query has failed since the last call.
    pub fn take_injected_failed(&mut self) -> bool {
        std::mem::take(&mut self.injected_failed)
    }

    /// Side effects that errors kept from happening since the last call, in order. Undo them from
    /// the last to the first.
    pub fn take_lost(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.lost)
    }

    /// Whether [`Replies::take_lost`] would return any.
    pub fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    fn seen(&self) -> Verdict {
        match self.queue.front() {
            Some(Expect::Injected | Expect::Position | Expect::Check(_)) => Verdict::Swallow,
            Some(_) => Verdict::Forward,
            None => Verdict::Unexpected,
        }
    }

    fn bound(&mut self) -> Verdict {
        match self.queue.front() {
            Some(Expect::Bind(_)) => {
                self.queue.pop_front();
                Verdict::Forward
            }
            _ => Verdict::Unexpected,
        }
    }

    fn executed(&mut self) -> Verdict {
        match self.queue.front() {
            Some(Expect::Execute) => {
                self.queue.pop_front();
                self.pass_copy_end();
                Verdict::Forward
            }
            Some(Expect::Query(_)) => {
                // A copy of this statement is over; the next statement may copy again.
                while self.queue.get(1) == Some(&Expect::CopyEnd) {
                    self.queue.remove(1);
                }
                Verdict::Forward
            }
            Some(Expect::FunctionCall) => Verdict::Forward,
            Some(Expect::Injected | Expect::Position) => Verdict::Swallow,
            _ => Verdict::Unexpected,
        }
    }

    fn parsed_or_closed(&mut self) -> Verdict {
        match self.queue.front() {
            Some(Expect::Parse(reply, _) | Expect::Close(reply, _)) => {
                let reply = *reply;
                self.queue.pop_front();
                if reply == Reply::Forward {
                    Verdict::Forward
                } else {
                    Verdict::Swallow
                }
            }
            _ => Verdict::Unexpected,
        }
    }

    fn described(&mut self) -> Verdict {
        let verdict = match self.queue.front() {
            Some(Expect::Describe(_)) => Verdict::Forward,
            Some(Expect::Check(_)) => Verdict::Swallow,
            _ => return self.seen(),
        };
        self.queue.pop_front();
        verdict
    }

    fn ready(&mut self) -> Verdict {
        let verdict = match self.queue.pop_front() {
            Some(Expect::Injected | Expect::Position | Expect::OwnSync) => Verdict::Swallow,
            Some(front) if front.ends_with_ready() => Verdict::Forward,
            _ => return Verdict::Unexpected,
        };
        self.copy_in_open = false;
        self.pass_copy_end();
        verdict
    }

    fn failed(&mut self) -> Verdict {
        self.copy_in_open = false;
        let verdict = match self.queue.front() {
            Some(Expect::Injected) => {
                self.injected_failed = true;
                return Verdict::Swallow;
            }
            Some(Expect::Position) => return Verdict::Swallow,
            // ReadyForQuery follows by itself; or it is a fatal error that nobody asked for.
            None
            | Some(Expect::Query(_) | Expect::FunctionCall | Expect::Sync | Expect::OwnSync) => {
                return Verdict::Forward;
            }
            Some(Expect::Doomed(instead)) => Verdict::Replace(Arc::clone(instead)),
            Some(Expect::Parse(_, Making::LentAlone(_))) => Verdict::Swallow,
            Some(_) => Verdict::Forward,
        };
        if let Some(failed) = self.queue.pop_front() {
            self.fail(failed);
        }
        self.skip_to_sync();
        verdict
    }

    /// Forgets what the server skips: everything up to a Sync, which may still be to come.
    fn skip_to_sync(&mut self) {
        while self.queue.front().is_some_and(|front| !front.is_sync()) {
            if let Some(skipped) = self.queue.pop_front() {
                self.lose(skipped);
            }
        }
        if self.queue.is_empty() {
            self.skipping = true;
            self.unsynced = true;
        }
    }

    /// Takes back what a request did not do that has failed.
    fn fail(&mut self, expect: Expect) {
        match expect {
            // PostgreSQL drops the old one before it looks at the new one's text.
            Expect::Parse(Reply::Forward, Making::Unnamed(change)) => {
                self.lost.push(Lost::UnnamedFailed(change));
            }
            Expect::Parse(Reply::Swallow, Making::Unnamed(change)) => {
                self.lost.push(Lost::UnnamedCopyFailed(change));
            }
            other => self.lose(other),
        }
    }

    /// Takes back what a request would have done that was skipped.
    fn lose(&mut self, expect: Expect) {
        match expect {
            Expect::Parse(Reply::Swallow, Making::Unnamed(change)) => {
                self.lost.push(Lost::UnnamedCopy(change));
            }
            Expect::Parse(Reply::Forward, Making::Unnamed(change))
            | Expect::Close(_, Closing::Unnamed(change))
            | Expect::Query(change) => self.lost.push(Lost::Unnamed(change)),
            Expect::Parse(_, Making::Shared(id, name)) => {
                self.lost.push(Lost::Parse(id));
                self.lost.extend(name.map(Lost::Name));
            }
            Expect::Close(_, Closing::Shared(id, bytes)) => self.lost.push(Lost::Close(id, bytes)),
            Expect::SayParseComplete(name) => self.lost.push(Lost::Name(name)),
            Expect::SayCloseComplete(name, Some(statement)) => {
                self.lost.push(Lost::KeptName(name, statement));
            }
            _ => {}
        }
    }

    /// The server now waits for data. It ignores a Sync that it meets before any; whatever else it
    /// meets is an error to it, and is lost.
    fn copy_in(&mut self) -> Verdict {
        let is_extended = self.queue.front().is_some_and(Expect::awaits_sync);
        while self.queue.get(1).is_some_and(Expect::is_sync) {
            self.queue.remove(1);
        }
        self.copy_in_open = self.queue.len() == 1;
        if is_extended && !self.queue.iter().any(Expect::is_sync) {
            self.unsynced = true;
        }
        if !is_extended
            && self
                .queue
                .get(1)
                .is_some_and(|next| *next != Expect::CopyEnd)
        {
            // The server takes it for broken copy data.
            if let Some(eaten) = self.queue.remove(1) {
                self.lose(eaten);
            }
        }
        self.seen()
    }

    fn pass_copy_end(&mut self) {
        while self.queue.front() == Some(&Expect::CopyEnd) {
            self.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
