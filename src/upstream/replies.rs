//! What a server was asked and has not answered: the queue that tells a reply's meaning.
//!
//! Every request that goes to the server leaves an [`Expect`]; every message that comes back is
//! held against the front of the queue, which says whether the client sees it. This is how
//! injected messages are answered without the client knowing, how replies that we make ourselves
//! keep their place, and how we know that nothing is outstanding.
//!
//! After an error the server skips everything up to the next Sync; so does the queue.
//! While it copies in, the server ignores Sync; so does the queue.
//! Reference: <https://www.postgresql.org/docs/current/protocol-flow.html>.

use super::StatementId;
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

/// One request without its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Parse; with the shared statement that it makes, if it is one.
    Parse(Reply, Option<StatementId>),
    /// Bind.
    Bind,
    /// Describe.
    Describe,
    /// Execute.
    Execute,
    /// Close; with the shared statement that it removes, if it is one.
    Close(Reply, Option<StatementId>),
    /// `ParseComplete` that we say ourselves.
    SayParseComplete,
    /// `CloseComplete` that we say ourselves.
    SayCloseComplete,
    /// A request that we know must fail, with the error that the client gets instead.
    Doomed(Arc<[u8]>),
    /// Sync.
    Sync,
    /// Query.
    Query,
    /// `FunctionCall`.
    FunctionCall,
    /// A Query of our own: nothing of its answer is seen, errors neither.
    Injected,
    /// `CopyDone` or `CopyFail`, which is answered by nothing of its own.
    CopyEnd,
}

impl Expect {
    fn ends_with_ready(&self) -> bool {
        matches!(
            self,
            Self::Sync | Self::Query | Self::FunctionCall | Self::Injected
        )
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
#[derive(Debug, Default)]
pub struct Replies {
    queue: VecDeque<Expect>,
    /// The server waits for copy data, and no end of it was sent yet.
    copy_in_open: bool,
    injected_failed: bool,
    lost: Vec<Lost>,
}

/// A side effect on the server that an error kept from happening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The statement was not made.
    Parse(StatementId),
    /// The statement was not removed.
    Close(StatementId),
}

impl Replies {
    /// Whether everything was answered.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many requests are outstanding.
    pub fn count(&self) -> usize {
        self.queue.len()
    }

    /// Whether the server waits for copy data.
    pub fn is_copy_in(&self) -> bool {
        self.copy_in_open
    }

    /// Whether what comes now belongs to a Query of our own.
    #[inline]
    pub fn is_injected(&self) -> bool {
        self.queue.front() == Some(&Expect::Injected)
    }

    /// Whether the last request sent is one that a Sync must follow.
    pub fn needs_sync(&self) -> bool {
        self.queue
            .back()
            .is_some_and(|last| !last.ends_with_ready() && *last != Expect::CopyEnd)
    }

    /// Notes a request that goes to the server.
    #[inline]
    pub fn push(&mut self, expect: Expect) {
        match expect {
            Expect::Sync if self.copy_in_open => return,
            Expect::CopyEnd if self.queue.is_empty() => return,
            Expect::CopyEnd => self.copy_in_open = false,
            _ => {}
        }
        self.queue.push_back(expect);
    }

    /// The reply that we say ourselves now, if it is its turn.
    #[inline]
    pub fn own_turn(&mut self) -> Option<&'static [u8]> {
        let bytes = match self.queue.front()? {
            Expect::SayParseComplete => backend::PARSE_COMPLETE,
            Expect::SayCloseComplete => backend::CLOSE_COMPLETE,
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
            tag::BIND_COMPLETE => self.answered(|e| *e == Expect::Bind),
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

    /// Side effects that errors kept from happening since the last call.
    pub fn take_lost(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.lost)
    }

    /// Whether [`Replies::take_lost`] would return any.
    pub fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    fn seen(&self) -> Verdict {
        match self.queue.front() {
            Some(Expect::Injected) => Verdict::Swallow,
            Some(_) => Verdict::Forward,
            None => Verdict::Unexpected,
        }
    }

    fn answered(&mut self, is_it: impl Fn(&Expect) -> bool) -> Verdict {
        match self.queue.front() {
            Some(front) if is_it(front) => {
                self.queue.pop_front();
                Verdict::Forward
            }
            Some(Expect::Injected) => Verdict::Swallow,
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
            Some(Expect::Query | Expect::FunctionCall) => Verdict::Forward,
            Some(Expect::Injected) => Verdict::Swallow,
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
        if self.queue.front() == Some(&Expect::Describe) {
            self.queue.pop_front();
            return Verdict::Forward;
        }
        self.seen()
    }

    fn ready(&mut self) -> Verdict {
        let verdict = match self.queue.pop_front() {
            Some(Expect::Injected) => Verdict::Swallow,
            Some(front) if front.ends_with_ready() => Verdict::Forward,
            _ => return Verdict::Unexpected,
        };
        self.copy_in_open = false;
        self.pass_copy_end();
        verdict
    }

    fn failed(&mut self) -> Verdict {
        let verdict = match self.queue.front() {
            Some(Expect::Injected) => {
                self.injected_failed = true;
                Verdict::Swallow
            }
            Some(Expect::Doomed(instead)) => Verdict::Replace(Arc::clone(instead)),
            // A fatal error of the server itself may come at any time.
            _ => Verdict::Forward,
        };
        self.copy_in_open = false;
        while self
            .queue
            .front()
            .is_some_and(|front| !front.ends_with_ready())
        {
            match self.queue.pop_front() {
                Some(Expect::Parse(_, Some(id))) => self.lost.push(Lost::Parse(id)),
                Some(Expect::Close(_, Some(id))) => self.lost.push(Lost::Close(id)),
                _ => {}
            }
        }
        verdict
    }

    /// The server now waits for data. It ignores the Syncs that it meets before the end of it.
    fn copy_in(&mut self) -> Verdict {
        let mut ended = false;
        let mut front = true;
        self.queue.retain(|expect| {
            ended |= *expect == Expect::CopyEnd;
            let ignored = !front && !ended && *expect == Expect::Sync;
            front = false;
            !ignored
        });
        self.copy_in_open = !ended;
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
