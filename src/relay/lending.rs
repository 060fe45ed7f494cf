//! SQL that speaks of the client's prepared statements by name: DEALLOCATE, EXECUTE, PREPARE.
//!
//! Servers know shared statements by names of ours. What such SQL names is *lent* to the server
//! under the client's own name, ahead of it in the same write, and taken back behind it. So the text
//! goes on as it came, and everything that PostgreSQL says of it is true. Who only needs the name to
//! be there gets an empty statement.

use super::{Relay, RelayError, Rest, TxStatus, from_client::Step};
use crate::{
    net::SMALL_BYTES,
    sql::{self, Use},
    upstream::{Change, Closing, Expect, Making, Name, Reply, Statement, StatementId, Suspicion},
    wire::{HEADER_BYTES, Header, frontend, read},
};
use std::{collections::VecDeque, sync::Arc};

/// An empty statement: query, NUL and no parameter types.
const EMPTY: &[u8] = b"\0\0\0";

/// Statements that run one another; more than this, PostgreSQL's stack has an end.
const CHAIN_MAX: usize = 32;

/// Most of its own statements that a client finds in `pg_prepared_statements`.
const SHOWN_MAX: usize = 1000;

/// A name that no client gives, for what is to be refused as a name in use.
const NAME_IN_USE: &[u8] = b"pgusher: name in use";

/// What of the client's names is on the server, and what becomes of them.
#[derive(Default)]
pub(super) struct Lending {
    /// On the server under the client's names, until the batch ends; with the statement's number, 0
    /// for an empty one.
    lent: Vec<(Name, StatementId)>,
    /// Portals whose statements speak of names.
    portals: Vec<(Box<[u8]>, Vec<Use<'static>>)>,
    /// What the commands that run now deallocate, in their order.
    deallocating: VecDeque<Box<[u8]>>,
    /// What of a Query's could not be lent, and PostgreSQL's error.
    failed: Vec<(Name, Box<[u8]>)>,
    /// The client's next message waits until the last one is answered, without a Sync.
    pub(super) barrier: bool,
}

impl Lending {
    /// Whether an Execute may be one that speaks of names.
    #[inline]
    pub(super) fn has_portals(&self) -> bool {
        !self.portals.is_empty()
    }

    /// Forgets a portal that is made anew.
    #[inline]
    pub(super) fn forget_portal(&mut self, portal: &[u8]) {
        if !self.portals.is_empty() {
            self.portals.retain(|(known, _)| **known != *portal);
        }
    }

    fn begin_commands(&mut self, uses: &[Use<'_>]) {
        self.deallocating.clear();
        for one in uses {
            if let Use::Deallocate(name) = one {
                self.deallocating.push_back((**name).into());
            }
        }
    }
}

/// What a text does with prepared statements; nothing is allocated for those that do nothing.
pub(super) fn uses_in(text: &[u8]) -> Vec<Use<'static>> {
    if !sql::may_use_statements(text) {
        return Vec::new();
    }
    sql::uses(text).map(Use::into_owned).collect()
}

/// The text of a statement's tail.
pub(super) fn text_of(tail: &[u8]) -> &[u8] {
    read::cstr(tail).map_or(tail, |(text, _)| text)
}

/// The number of the shared statement that servers know by this name.
fn id_of(name: &[u8]) -> Option<StatementId> {
    let hex = name.strip_prefix(b"pgu_")?;
    u64::from_str_radix(str::from_utf8(hex).ok()?, 16).ok()
}

impl Relay<'_> {
    /// Notes that a Query drops the unnamed statement.
    pub(super) fn drop_unnamed(&mut self) -> Change {
        let change = Change {
            made: self.client.unnamed.clear(),
            before: self.server.unnamed,
        };
        self.server.unnamed = change.made;
        self.unnamed_segment = self.segment;
        change
    }

    /// What commands do in the end: an EXECUTE does what the client's statement of that name does.
    fn done_by(&self, uses: Vec<Use<'static>>) -> Vec<Use<'static>> {
        let run = |one: &Use<'_>| {
            let Use::Execute(name) = one else {
                return None;
            };
            let statement = self.client.names.get(name)?;
            statement.uses_names().then(|| Arc::clone(statement))
        };
        let done = |mut one: Use<'static>| {
            for _ in 0..CHAIN_MAX {
                let next = run(&one).and_then(|run| uses_in(text_of(run.tail())).pop());
                match next {
                    Some(next) => one = next,
                    None => break,
                }
            }
            one
        };
        uses.into_iter().map(done).collect()
    }

    /// Puts what a Query speaks of on the server; returns what must be taken back behind it.
    pub(super) fn lend_to_query(&mut self, uses: &[Use<'static>]) -> Vec<Name> {
        let done = self.done_by(uses.to_vec());
        self.barrier |= done.iter().any(Use::changes_names);
        self.lending.begin_commands(&done);
        if self.server.replies.needs_sync() {
            // A Sync of ours would end what the client has begun.
            self.server.is_dirty |= !self.lending.lent.is_empty();
            return Vec::new();
        }
        let mut lent: Vec<Name> = Vec::new();
        if self.hide(uses) {
            self.client.to_server.insert(frontend::SYNC);
            self.server.replies.push(Expect::OwnSync);
        }
        for (name, statement) in self.named_by(uses) {
            let out = self.client.to_server.insertion();
            frontend::parse(
                out,
                &name,
                statement.as_ref().map_or(EMPTY, |one| one.tail()),
            );
            out.extend_from_slice(frontend::SYNC);
            let replies = &mut self.server.replies;
            let making = Making::LentAlone(Arc::clone(&name));
            replies.push(Expect::Parse(Reply::Swallow, making));
            replies.push(Expect::OwnSync);
            lent.push(name);
        }
        // What the text may prepare anew is not ours to take back.
        let is_made = |name: &Name| {
            let mut is_gone = false;
            done.iter().any(|one| {
                is_gone |= match one {
                    Use::Deallocate(gone) => **gone == **name,
                    Use::DeallocateAll => true,
                    _ => false,
                };
                is_gone && matches!(one, Use::Prepare(made) if **made == **name)
            })
        };
        lent.retain(|name| !is_made(name));
        lent
    }

    /// Takes shared statements from the server that SQL would meet by names of ours: whoever speaks of
    /// one of those names, or asks for all, must not find what another client has prepared. Whether
    /// there were any.
    fn hide(&mut self, uses: &[Use<'_>]) -> bool {
        let mut ids: Vec<StatementId> = Vec::new();
        for one in uses {
            match one {
                Use::Look => ids.extend(self.server.prepared.ids()),
                _ => ids.extend(one.name().and_then(id_of)),
            }
        }
        let mut has_hidden = false;
        for id in ids {
            let Some(bytes) = self.server.prepared.remove(id) else {
                continue;
            };
            let out = self.client.to_server.insertion();
            frontend::close_statement(out, format!("pgu_{id:x}").as_bytes());
            let closing = Closing::Shared(id, bytes);
            let replies = &mut self.server.replies;
            replies.push(Expect::Close(Reply::Swallow, closing));
            has_hidden = true;
        }
        has_hidden
    }

    /// What could not be lent to a Query: the command that needs it does not find it, and has the
    /// error that PostgreSQL would have had.
    pub(super) fn note_not_lent(&mut self, name: Name, error: &[u8]) {
        // In a transaction that has failed before nothing can be made; whether the command ends that
        // first, it says itself.
        if self.server.status != TxStatus::Failed {
            self.lending.failed.push((name, error.into()));
        }
    }

    /// The error that the client is told instead of this one, as something could not be lent.
    pub(super) fn why_not_lent(&self, error: &[u8]) -> Option<&[u8]> {
        if self.lending.failed.is_empty() {
            return None;
        }
        let shows = |name: &[u8]| memchr::memmem::find(error, name).is_some();
        let mut failed = self.lending.failed.iter();
        let (_, why) = match read::error_field(error, b'C') {
            // The failure was the transaction's.
            Some(b"25P02") => failed.next(),
            Some(b"26000") => failed.find(|(name, _)| shows(name)),
            _ => None,
        }?;
        Some(why)
    }

    /// The Query is over.
    #[inline]
    pub(super) fn forget_not_lent(&mut self) {
        self.lending.failed.clear();
    }

    /// Takes back what a Query was lent, behind it.
    pub(super) fn take_back(&mut self, lent: &[Name]) {
        if lent.is_empty() {
            return;
        }
        for name in lent {
            self.unlend(name);
        }
        self.client.to_server.insert(frontend::SYNC);
        self.server.replies.push(Expect::OwnSync);
    }

    /// Takes back what a batch was lent, behind its Sync.
    #[inline]
    pub(super) fn take_back_at_sync(&mut self) {
        if !self.lending.lent.is_empty() {
            let lent = std::mem::take(&mut self.lending.lent);
            let names: Vec<Name> = lent.into_iter().map(|(name, _)| name).collect();
            self.take_back(&names);
        }
    }

    /// Lends a name in the middle of a batch: a statement by its number and tail, or an empty one.
    fn lend(&mut self, name: &Name, statement: Option<(StatementId, &[u8])>) {
        let (id, tail) = statement.unwrap_or((0, EMPTY));
        let lent = self.lending.lent.iter().position(|(lent, _)| lent == name);
        if let Some(lent) = lent {
            let (_, known) = self.lending.lent.swap_remove(lent);
            if statement.is_none() || known == id {
                self.lending.lent.push((Arc::clone(name), known));
                return;
            }
            self.unlend(name);
        }
        frontend::parse(self.client.to_server.insertion(), name, tail);
        self.server
            .replies
            .push(Expect::Parse(Reply::Swallow, Making::Lent));
        self.lending.lent.push((Arc::clone(name), id));
    }

    fn unlend(&mut self, name: &[u8]) {
        frontend::close_statement(self.client.to_server.insertion(), name);
        self.server
            .replies
            .push(Expect::Close(Reply::Swallow, Closing::Other));
    }

    /// Before a Parse of a name that SQL may have prepared: if it has, PostgreSQL refuses this, unless
    /// the text itself is what it refuses first.
    pub(super) fn try_name(&mut self, name: &Name, statement: &Statement) {
        if !self.lending.lent.iter().any(|(lent, _)| lent == name) {
            self.lend(name, Some((statement.id(), statement.tail())));
            self.lending.lent.pop();
            self.unlend(name);
        }
    }

    fn lend_for(&mut self, uses: &[Use<'_>]) {
        if self.server.status == TxStatus::Failed && self.server.replies.is_settled() {
            // None of it runs in a failed transaction, which nothing may have ended yet.
            return;
        }
        for (name, statement) in self.named_by(uses) {
            self.lend(&name, statement.as_ref().map(|one| (one.id(), one.tail())));
        }
    }

    /// All of the client's statements with their texts.
    fn all_named(&self) -> Vec<(Name, Option<Arc<Statement>>)> {
        let all = self.client.names.in_order().into_iter().take(SHOWN_MAX);
        all.map(|(name, statement)| (Arc::clone(name), Some(Arc::clone(statement))))
            .collect()
    }

    /// The client's statements that are spoken of: with their texts if they are to run, and then
    /// also what those speak of.
    fn named_by(&mut self, uses: &[Use<'_>]) -> Vec<(Name, Option<Arc<Statement>>)> {
        let mut found: Vec<(Name, Option<Arc<Statement>>)> = Vec::new();
        if uses.contains(&Use::Look) {
            found = self.all_named();
        }
        let mut todo: Vec<Use<'_>> = uses.to_vec();
        while let Some(one) = todo.pop() {
            let known = one.name().and_then(|name| self.client.names.entry(name));
            let Some((name, statement)) = known else {
                continue;
            };
            let at = found.iter().position(|(found, _)| found == name);
            let at = at.unwrap_or_else(|| {
                found.push((Arc::clone(name), None));
                found.len() - 1
            });
            let Some((_, text @ None)) = found.get_mut(at) else {
                continue;
            };
            if matches!(one, Use::Execute(_)) {
                *text = Some(Arc::clone(statement));
                let hints = Suspicion::OWN | Suspicion::NUMBERS;
                self.server.suspicion |= statement.suspicion().without(hints);
                if statement.uses_names() {
                    todo.extend(uses_in(text_of(statement.tail())));
                }
            }
        }
        found
    }

    /// Before a Parse: PostgreSQL looks for what `EXECUTE` runs already then.
    pub(super) fn lend_to_parse(&mut self, tail: &[u8]) {
        let mut uses = uses_in(text_of(tail));
        uses.retain(|one| !one.changes_names());
        self.hide(&uses);
        self.lend_for(&uses);
    }

    /// Before a Bind of a statement of this text.
    pub(super) fn lend_to_bind(&mut self, portal: &[u8], tail: &[u8]) {
        if self.server.replies.is_settled() && self.server.status == TxStatus::Idle {
            self.lending.portals.clear();
        }
        let uses = uses_in(text_of(tail));
        self.hide(&uses);
        self.lend_for(&uses);
        if !uses.is_empty() {
            self.lending.portals.push((portal.into(), uses));
        }
    }

    /// Before a Bind of the statement of this name.
    pub(super) fn lend_to_bind_of(&mut self, portal: &[u8], name: &[u8]) {
        if let Some(statement) = self.client.names.get(name).map(Arc::clone)
            && statement.uses_names()
        {
            self.lend_to_bind(portal, statement.tail());
        }
    }

    /// An Execute, when there are portals whose statements speak of names: what it does is known
    /// before the client's next message is looked at.
    pub(super) fn execute_with_names(&mut self, header: Header) -> Result<Step, RelayError> {
        if !self.has(header.message_bytes.min(SMALL_BYTES)) {
            return Ok(Step::NeedsMore);
        }
        let body = self.client.to_server.unscanned().get(HEADER_BYTES..);
        let (portal, _) =
            read::cstr(body.unwrap_or_default()).ok_or(RelayError::ClientMalformed(header.tag))?;
        let known = self.lending.portals.iter();
        let uses = known
            .rev()
            .find(|(known, _)| **known == *portal)
            .map(|(_, uses)| uses.clone());
        let uses = uses.unwrap_or_default();
        self.lend_for(&uses);
        let done = self.done_by(uses);
        self.lending.begin_commands(&done);
        self.count_query();
        self.forward(header, Expect::Execute);
        if done.iter().any(Use::changes_names) && self.client.rest == Rest::None {
            self.client.to_server.insert(frontend::FLUSH);
            self.lending.barrier = true;
        }
        Ok(Step::Done)
    }

    /// Has PostgreSQL refuse a Parse of a name in use, or say what else is wrong with it.
    pub(super) fn parse_used(&mut self, header: Header, name: Name, tail: &[u8]) {
        self.client.to_server.skip(header.message_bytes);
        self.lend(&NAME_IN_USE.into(), None);
        frontend::parse(self.client.to_server.insertion(), NAME_IN_USE, tail);
        self.server
            .replies
            .push(Expect::Parse(Reply::Forward, Making::Used(name)));
    }

    /// A DEALLOCATE of one name has run.
    pub(super) fn deallocated(&mut self) {
        let Some(name) = self.lending.deallocating.pop_front() else {
            return;
        };
        let name = sql::clipped(&name);
        self.lending.lent.retain(|(lent, _)| **lent != *name);
        let is_known = self.client.names.remove(name).is_some();
        // Whoever deallocates a name of ours by itself takes it from everybody.
        if !is_known && let Some(id) = id_of(name) {
            self.server.prepared.remove(id);
        }
    }

    /// A `DEALLOCATE ALL` or `DISCARD ALL` has run.
    pub(super) fn deallocated_all(&mut self) {
        let replies = &self.server.replies;
        self.client.names.retain(|name| replies.will_name(name));
        self.server.prepared.clear();
        self.lending.lent.clear();
    }
}
