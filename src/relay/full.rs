//! A tenant whose storage is full: its sessions may read and free space, and are refused what adds (25006).
//!
//! Texts are judged by PostgreSQL's grammar ([`space`]), a prepared statement when it is bound. What a text
//! doesn't say, functions that write, PostgreSQL refuses: outside of a transaction block what only reads runs
//! in a transaction that is read-only, by `default_transaction_read_only`, which is put back behind it. In a
//! transaction block nothing is read-only, so that what was read may be deleted.
//!
//! While nobody is full this costs one relaxed load for each message with a text.

use super::{Relay, from_client::Step};
use crate::{
    net::SMALL_BYTES,
    routing::{Space, space},
    sql,
    tenant::Fullness,
    upstream::{Change, Expect, Statement, TxStatus},
    wire::{
        HEADER_BYTES, Header, Refusal, SqlState, backend, frontend, read, tag::frontend as tag,
    },
};
use std::collections::HashMap;

/// Of a longer text only the beginning is looked at.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Names that are remembered of a session that has its server to itself.
const NAMES_MAX: usize = 10_000;

/// What transactions are by default.
const READ_ONLY: &str = "default_transaction_read_only";

/// Functions of large objects that add nothing (`pg_proc.dat` of PostgreSQL): open, close, read, seek, tell,
/// unlink, truncate.
const FUNCTIONS: [u32; 10] = [952, 953, 954, 956, 958, 964, 1004, 3170, 3171, 3172];

/// What the statements do that a session with a server to itself has prepared, by its own names.
#[derive(Debug, Default)]
pub struct Spaces(HashMap<Box<[u8]>, Space>);

impl Spaces {
    fn note(&mut self, name: &[u8], space: Space) {
        if let Some(known) = self.0.get_mut(name) {
            *known = space;
        } else if self.0.len() < NAMES_MAX {
            self.0.insert(name.into(), space);
        }
    }
}

/// Whether a statement may run now.
pub(super) enum Judged {
    /// It may.
    Runs,
    /// When what was sent is answered.
    Waits,
    /// It may not.
    Refused(Refusal),
}

impl Relay<'_> {
    /// Whether the tenant's storage is full, and the session one that might add to it.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.client.handle.fullness() == Fullness::Full
    }

    /// Whether so much of a message is here as is needed to look at its text.
    pub(super) fn has_text(&mut self, header: Header) -> bool {
        let wanted = if self.is_full() {
            TEXT_BYTES_MAX
        } else {
            SMALL_BYTES
        };
        self.has(header.message_bytes.min(wanted))
    }

    /// What becomes of a statement of a tenant that is full.
    pub(super) fn judge(&mut self, space: Space) -> Judged {
        let replies = &self.server.replies;
        if space == Space::Runs && replies.owes_ready() && !replies.is_copy_in() {
            self.barrier = true;
            return Judged::Waits;
        }
        let is_unknown = space == Space::Runs && self.server.status != TxStatus::Idle;
        if space == Space::Takes || is_unknown {
            return Judged::Refused(self.refusal_when_full());
        }
        if self.begin_when_full(space != Space::Frees) {
            Judged::Runs
        } else {
            Judged::Waits
        }
    }

    /// What a text does, also one that runs by name what the client has prepared.
    pub(super) fn space_of(&self, text: &[u8]) -> Space {
        let text = text.get(..TEXT_BYTES_MAX).unwrap_or(text);
        match space(text) {
            Space::Runs => self.space_of_named(text),
            space => space,
        }
    }

    fn space_of_named(&self, text: &[u8]) -> Space {
        let uses = sql::uses(text);
        let names = uses.filter(|one| !one.changes_names());
        let spaces = names.map(|one| {
            let statement = one.name().and_then(|name| self.client.names.get(name));
            statement.map_or(Space::Runs, |statement| space_of_shared(statement))
        });
        spaces.reduce(Space::and).unwrap_or(Space::Runs)
    }

    /// Has the transaction that begins now, if one does, only read; or not. `false` when the message must
    /// wait for answers first.
    pub(super) fn begin_when_full(&mut self, reads: bool) -> bool {
        let is_known_to_read = self.reading.is_one_at_a_time();
        let replies = &self.server.replies;
        let is_within = replies.needs_sync() || replies.is_copy_in();
        if self.server.reads_only == reads || is_known_to_read || is_within {
            return true;
        }
        if self.server.replies.owes_ready() {
            self.barrier = true;
            return false;
        }
        if self.server.status == TxStatus::Idle {
            self.set_reads_only(reads);
        }
        true
    }

    fn set_reads_only(&mut self, reads: bool) {
        let own = self.server.applied.value(READ_ONLY);
        let value = match own {
            _ if reads => "'on'".to_owned(),
            Some(own) => sql::quoted_literal(own),
            None => "NULL".to_owned(),
        };
        let text = format!("SELECT pg_catalog.set_config('{READ_ONLY}', {value}, false)");
        frontend::query(self.client.to_server.insertion(), &text);
        self.server.replies.push(Expect::Injected);
        self.server.unnamed = 0;
        self.client.handle.configure();
        self.server.reads_only = reads;
        self.has_read_only = false;
    }

    /// Lets the server's transactions write again, once the one that only read is over. Whether it had to.
    pub(super) fn end_reads_only(&mut self) -> bool {
        if !self.server.reads_only || !self.has_read_only || !self.is_settled() {
            return false;
        }
        self.set_reads_only(false);
        true
    }

    /// A Bind of a statement whose text is known. `None` when it may go on.
    pub(super) fn bind_when_full(&mut self, header: Header, space: Space) -> Option<Step> {
        match self.judge(space) {
            Judged::Runs => None,
            Judged::Waits => Some(Step::MustWait),
            Judged::Refused(refusal) => {
                self.doom(header, &refusal);
                Some(Step::Done)
            }
        }
    }

    /// A Bind of a statement that the client has given a name, where that is one. `None` when it may go on.
    pub(super) fn bind_named_when_full(&mut self, header: Header) -> Option<Step> {
        let bytes = self.client.to_server.unscanned().get(HEADER_BYTES..)?;
        let (name, _) = read::cstr(bytes).and_then(|(_portal, rest)| read::cstr(rest))?;
        let statement = self.client.names.get(name)?;
        let space = match space_of_shared(statement) {
            Space::Runs => self.space_of_named(statement.text()),
            space => space,
        };
        self.bind_when_full(header, space)
    }

    /// A Parse: it is refused when it is bound, as PostgreSQL would. `false` when it must wait.
    pub(super) fn parse_when_full(&mut self, space: Space) -> bool {
        self.begin_when_full(matches!(space, Space::Reads | Space::Runs))
    }

    /// Whether an unnamed Parse that is too long to be carried begins with what adds, and the tenant is full.
    pub(super) fn beginning_takes(&self, header: Header) -> bool {
        let bytes = self.client.to_server.unscanned();
        let here = header.message_bytes.min(bytes.len());
        // Behind the empty name.
        let text = bytes.get(HEADER_BYTES + 1..here).unwrap_or_default();
        self.is_full() && self.space_of(text) == Space::Takes
    }

    /// Whether a function may be called by its number; else that is answered.
    pub(super) fn may_call(&mut self, header: Header) -> bool {
        if !self.is_full() {
            return true;
        }
        let bytes = self.client.to_server.unscanned().get(HEADER_BYTES..);
        let function = read::u32_at_front(bytes.unwrap_or_default());
        if function.is_some_and(|function| FUNCTIONS.contains(&function)) {
            return true;
        }
        let refusal = self.refusal_when_full();
        self.fail_query(header, &refusal, Change::default());
        false
    }

    /// A message of a session that has its server to itself, where the tenant's storage is limited. `None`
    /// when it goes on as it is.
    pub(super) fn private_message(&mut self, header: Header) -> Option<Step> {
        let has_names = matches!(header.tag, tag::QUERY | tag::PARSE | tag::BIND | tag::CLOSE);
        if !has_names || self.client.handle.fullness() == Fullness::Unlimited {
            return None;
        }
        if !self.has_text(header) {
            return Some(Step::NeedsMore);
        }
        let bytes = self.client.to_server.unscanned();
        let here = header.message_bytes.min(bytes.len());
        let body = bytes.get(HEADER_BYTES..here).unwrap_or_default();
        match header.tag {
            tag::QUERY if self.is_full() => {
                let space = self.space_of(body);
                match self.judge(space) {
                    Judged::Runs => None,
                    Judged::Waits => Some(Step::MustWait),
                    Judged::Refused(refusal) => {
                        self.fail_query(header, &refusal, Change::default());
                        Some(Step::Done)
                    }
                }
            }
            tag::PARSE => {
                let (name, text) = read::cstr(body)?;
                let (text, _) = read::cstr(text).unwrap_or((text, &[]));
                if name.is_empty() && !self.is_full() {
                    // It will hardly be bound when it is.
                    self.client.spaces.0.remove(&b""[..]);
                    return None;
                }
                let space = self.space_of(text);
                let name = Box::<[u8]>::from(name);
                if self.is_full() && !self.parse_when_full(space) {
                    return Some(Step::MustWait);
                }
                self.client.spaces.note(&name, space);
                None
            }
            tag::BIND if self.is_full() => {
                let (name, _) = read::cstr(body).and_then(|(_portal, rest)| read::cstr(rest))?;
                let space = self.client.spaces.0.get(name).copied()?;
                self.bind_when_full(header, space)
            }
            tag::CLOSE => {
                let name = body.strip_prefix(b"S").and_then(read::cstr)?.0;
                let name = Box::<[u8]>::from(name);
                self.client.spaces.0.remove(&name);
                None
            }
            _ => None,
        }
    }

    /// What the client is told in place of what would add.
    pub(super) fn refusal_when_full(&self) -> Refusal {
        let tenant = self.client.handle.tenant.load();
        let (used, limit) = (tenant.storage_used, tenant.limits.max_storage_bytes);
        let limit = limit.map_or(0, std::num::NonZeroU64::get);
        let used = used.unwrap_or_default();
        Refusal::error(
            SqlState::READ_ONLY,
            format!(
                "the tenant's storage is full: max_storage_bytes, {limit}, is reached ({used} used)"
            ),
        )
        .with_hint(
            "Reading goes on. DELETE, TRUNCATE and DROP free space, and VACUUM FULL what was deleted; \
             a full tenant is measured again every 30 s.",
        )
    }

    /// What PostgreSQL refuses as it would write, in our words. `None`: that is not because of us.
    pub(super) fn worded_when_full(&self, error: &[u8]) -> Option<Refusal> {
        let is_ours = self.server.reads_only && read::error_field(error, b'C') == Some(b"25006");
        if !is_ours {
            return None;
        }
        let said = read::error_field(error, b'M').unwrap_or_default();
        let said = String::from_utf8_lossy(said).into_owned();
        Some(self.refusal_when_full().with_detail(said))
    }

    /// Tells a session once that its tenant comes near its limit: ahead of ReadyForQuery.
    pub(super) fn warn_of_storage(&mut self) {
        if self.client.is_warned || self.client.handle.fullness() < Fullness::Near {
            return;
        }
        self.client.is_warned = true;
        let text = {
            let tenant = self.client.handle.tenant.load();
            let limit = tenant.limits.max_storage_bytes;
            let limit = limit.map_or(0, std::num::NonZeroU64::get);
            let used = tenant.storage_used.unwrap_or_default();
            let percent = u128::from(used) * 100 / u128::from(limit.max(1));
            format!(
                "the tenant has used {percent} % of its storage: {used} bytes of max_storage_bytes, {limit}; \
                 with all of it used only reading, deleting and dropping go on"
            )
        };
        backend::notice(self.client.to_client.insertion(), &text);
    }
}

/// What a statement that is shared does.
pub(super) fn space_of_shared(statement: &Statement) -> Space {
    statement.space(|text| space(text.get(..TEXT_BYTES_MAX).unwrap_or(text)))
}
