//! Transactions of tenants whose cluster has replicas: what was written is noted before the client
//! hears of it, and what a replica says is kept back until it is known to be good.
//!
//! A read goes to a replica as one Query, or as one batch up to its Sync; what follows is looked at
//! anew. As long as the client has been told nothing of the answer, another server can give it.

use super::{Relay, RelayError};
use crate::{
    pool::ReplicaPool,
    topology::{Lent, Lsn, Position},
    upstream::{Expect, TxStatus},
    wire::{Header, frontend, read, tag::backend as tag},
};
use std::{sync::Arc, time::Duration};

/// Asks a replica how far it is. Before the read's own snapshot, so that it sees at least that.
const POSITION: &str = "SELECT pg_catalog.pg_last_wal_replay_lsn()";

/// More of an answer is not kept back.
const KEPT_BYTES_MAX: usize = 16 * 1024;

/// A replica that has begun with what it should not have done gets so long to end by itself.
const SETTLE_TIMEOUT: Duration = Duration::from_millis(20);

/// Longest answer to [`POSITION`].
const POSITION_BYTES_MAX: usize = 64;

/// What a relay is to do about replicas.
#[derive(Debug, Default)]
pub enum Reading {
    /// Nothing: the tenant has none.
    #[default]
    Unsplit,
    /// It is on the primary and may write.
    Writes(Marks),
    /// It is a read on the primary. What follows is looked at anew.
    Kept,
    /// It is on a replica.
    Replica {
        /// Which.
        pool: Arc<ReplicaPool>,
        /// The read that it has now.
        lent: Lent,
        /// What it must have replayed, where that is not known.
        wanted: Option<Lsn>,
        /// Whether another server may answer instead.
        is_movable: bool,
        /// Whether it is one statement: what comes behind its first row can't be refused any more.
        is_single: bool,
    },
}

/// Where it is noted that something was written.
#[derive(Debug, Clone)]
pub struct Marks {
    /// For the tenant.
    pub tenant: Arc<Position>,
    /// For the session.
    pub session: Option<Arc<Position>>,
}

impl Marks {
    /// Notes it.
    pub fn wrote(&self) {
        self.tenant.wrote();
        if let Some(session) = &self.session {
            session.wrote();
        }
    }
}

impl Reading {
    /// Whether it ends behind its first message or batch.
    pub(super) fn is_one_at_a_time(&self) -> bool {
        matches!(self, Self::Kept | Self::Replica { .. })
    }
}

/// Why a read that has begun on a replica goes to the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It writes after all (25006), or does something else that no standby can.
    ReadOnly,
    /// What it looked at was removed by replay.
    Conflict,
    /// The replica has not replayed what the read must see.
    Behind,
    /// The replica was lost.
    Lost,
}

impl Moved {
    /// As metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::Conflict => "conflict",
            Self::Behind => "behind",
            Self::Lost => "lost",
        }
    }

    fn by(body: &[u8]) -> Option<Self> {
        if matches!(read::error_field(body, b'V'), Some(b"FATAL" | b"PANIC")) {
            return Some(Self::Lost);
        }
        match read::error_field(body, b'C')? {
            b"25006" | b"0A000" | b"55000" => Some(Self::ReadOnly),
            b"40001" | b"40P01" => Some(Self::Conflict),
            _ => None,
        }
    }
}

/// What of an answer is kept back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Held {
    /// Nothing.
    #[default]
    No,
    /// All of it, so far.
    Yes,
    /// All of it, until the next write: what came together is looked at together.
    Due,
    /// All of it, and it is of no use.
    Spoiled(Moved),
}

impl Relay<'_> {
    /// Begins a read on a replica.
    pub(super) fn begin_reading(&mut self) {
        let Reading::Replica {
            wanted, is_movable, ..
        } = self.reading
        else {
            return;
        };
        if *is_movable {
            self.held = Held::Yes;
        }
        if wanted.is_some() {
            frontend::query(self.client.to_server.insertion(), POSITION);
            self.server.replies.push(Expect::Position);
            self.server.unnamed = 0;
            // A cancel is for the read.
            self.client.handle.configure();
        }
    }

    /// Whether all of the answer is kept back, so that another server may give it.
    pub fn is_unheard(&self) -> bool {
        self.held != Held::No
    }

    /// Whether nothing may be sent to the client now. What is due goes from here on.
    pub(super) fn holds_back(&mut self) -> bool {
        if self.held == Held::Due {
            self.held = Held::No;
        }
        self.is_unheard()
    }

    pub(super) fn spoiled(&self) -> Option<Moved> {
        match self.held {
            Held::Spoiled(moved) => Some(moved),
            Held::No | Held::Yes | Held::Due => None,
        }
    }

    /// After a message that ends a batch: what follows waits for its end.
    #[inline]
    pub(super) fn close_batch(&mut self) {
        self.barrier |= self.reading.is_one_at_a_time();
        self.sent_batch();
    }

    /// Looks at a message of a replica's before anything becomes of it. `false` when more of it must be
    /// here first.
    pub(super) fn look_at_read(&mut self, header: Header) -> bool {
        if self.server.replies.is_injected() {
            return self.look_at_position(header);
        }
        let is_due = match self.held {
            Held::Yes => false,
            Held::Due => true,
            Held::No | Held::Spoiled(_) => return true,
        };
        let is_single = !matches!(
            self.reading,
            Reading::Replica {
                is_single: false,
                ..
            }
        );
        if self.client.to_client.unsent() + header.message_bytes > KEPT_BYTES_MAX {
            self.held = Held::Due;
            return true;
        }
        match header.tag {
            // It is answered, whatever comes behind.
            tag::READY => self.held = Held::No,
            tag::PARSE_COMPLETE
            | tag::BIND_COMPLETE
            | tag::CLOSE_COMPLETE
            | tag::ROW_DESCRIPTION
            | tag::NO_DATA
            | tag::PARAMETER_DESCRIPTION
            | tag::PARAMETER_STATUS
            | tag::NOTICE => {}
            tag::DATA_ROW | tag::COMMAND_COMPLETE | tag::EMPTY_QUERY if !is_single => {}
            tag::ERROR => {
                if self.client.to_client.unscanned().len() < header.message_bytes
                    && header.message_bytes <= super::from_server::SHORT_BYTES_MAX
                {
                    self.client
                        .to_client
                        .make_room_for_message(header.message_bytes);
                    return false;
                }
                self.held = Moved::by(self.body(header)).map_or(Held::Due, Held::Spoiled);
            }
            _ if is_due => {}
            _ => self.held = Held::Due,
        }
        true
    }

    fn look_at_position(&mut self, header: Header) -> bool {
        if !self.server.replies.is_position() {
            return true;
        }
        let Reading::Replica {
            pool,
            lent,
            wanted: Some(wanted),
            ..
        } = self.reading
        else {
            return true;
        };
        match header.tag {
            tag::DATA_ROW if header.message_bytes <= POSITION_BYTES_MAX => {
                if self.client.to_client.unscanned().len() < header.message_bytes {
                    self.client
                        .to_client
                        .make_room_for_message(header.message_bytes);
                    return false;
                }
                // Behind the count of columns and the length.
                let text = self.body(header).get(6..).unwrap_or_default();
                let found = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
                let found: Lsn = found.unwrap_or_default();
                let is_behind = found < *wanted;
                lent.has_replayed(found);
                pool.note_position(is_behind);
                if is_behind && self.held == Held::Yes {
                    self.held = Held::Spoiled(Moved::Behind);
                }
            }
            // It may not be asked, for one.
            tag::ERROR => {
                let is_whole = self.client.to_client.unscanned().len() >= header.message_bytes;
                if !is_whole && header.message_bytes <= super::from_server::SHORT_BYTES_MAX {
                    let wanted = header.message_bytes;
                    self.client.to_client.make_room_for_message(wanted);
                    return false;
                }
                if read::error_field(self.body(header), b'C') == Some(b"42501") {
                    pool.note_mute();
                }
                pool.note_position(true);
                if self.held == Held::Yes {
                    self.held = Held::Spoiled(Moved::Behind);
                }
            }
            _ => {}
        }
        true
    }

    /// Whether this is what a replica says when it goes, behind an answer that is whole: it is nobody's.
    pub(super) fn is_farewell(&self, header: Header) -> bool {
        header.tag == tag::ERROR
            && matches!(self.reading, Reading::Replica { .. })
            && self.server.status == TxStatus::Idle
            && self.server.replies.is_settled()
    }

    /// Brings a replica to an end whose answer is of no use. Whether it can be used again; a transaction
    /// may still be open on it.
    ///
    /// # Cancel safety
    /// Not cancel safe: close the server when the future is dropped.
    pub async fn abandon(&mut self) -> bool {
        self.client_is_gone = true;
        self.held = Held::No;
        let settled = tokio::time::timeout(SETTLE_TIMEOUT, self.run_to_settled()).await;
        if matches!(settled, Ok(Ok(()))) {
            return true;
        }
        let identity = Arc::clone(self.server.identity());
        tokio::spawn(async move {
            if let Err(error) = identity.begin_cancel().deliver().await {
                tracing::debug!(%error, "a read that went elsewhere could not be cancelled");
            }
        });
        false
    }

    /// Notes a commit before the client hears of it: behind a command outside of a transaction, behind
    /// COMMIT, and behind whatever ends with ReadyForQuery.
    #[inline]
    pub(super) fn note_written(&self, header: Header) {
        let Reading::Writes(marks) = self.reading else {
            return;
        };
        let has_committed = match header.tag {
            tag::COMMAND_COMPLETE => {
                let tag = self.body(header);
                let begins = tag.starts_with(b"BEGIN") || tag.starts_with(b"START TRANSACTION");
                self.server.status == TxStatus::Idle && !begins || tag.starts_with(b"COMMIT")
            }
            tag::READY => self.body(header).first() == Some(&b'I'),
            _ => false,
        };
        if has_committed {
            marks.wrote();
        }
    }
}

impl RelayError {
    /// Whether only the server was at fault, so that a read may go elsewhere.
    pub fn is_loss(&self) -> bool {
        use crate::sessions::Order;
        matches!(
            self,
            Self::Server(_)
                | Self::ServerGone { .. }
                | Self::OutOfStep
                | Self::Settings { .. }
                | Self::Ordered(Order::ReplicaLost)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(severity: &str, code: &str) -> Vec<u8> {
        format!("S{severity}\0V{severity}\0C{code}\0Mtext\0\0").into_bytes()
    }

    #[test]
    fn what_only_a_standby_refuses_goes_to_the_primary() {
        for (code, moved) in [
            ("25006", Some(Moved::ReadOnly)),
            ("0A000", Some(Moved::ReadOnly)),
            ("40001", Some(Moved::Conflict)),
            ("42P01", None),
            ("57014", None),
        ] {
            assert_eq!(Moved::by(&error("ERROR", code)), moved, "{code}");
        }
        assert_eq!(Moved::by(&error("FATAL", "57P01")), Some(Moved::Lost));
        assert_eq!(Moved::by(b""), None);
    }
}
