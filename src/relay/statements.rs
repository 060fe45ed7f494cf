//! Prepared statements: names rewritten, what a server lacks parsed first.

use super::{
    NO_SUCH_STATEMENT, Names, Relay, RelayError, Rest, TxStatus,
    from_client::Step,
    lending::{text_of, uses_in},
    sets,
    unnamed::CARRIED_BYTES_MAX,
};
use crate::{
    net::SMALL_BYTES,
    sql,
    upstream::{Closing, Expect, Making, Name, Reply, Statement, Suspicion},
    wire::{HEADER_BYTES, Header, Refusal, SqlState, frontend, read, tag::frontend as tag},
};
use std::sync::{Arc, atomic::Ordering::Relaxed};

/// Longest Parse of a named statement: it must be here whole to be shared.
const NAMED_PARSE_BYTES_MAX: usize = 1024 * 1024;

/// Longest Describe or Close, and longest names in a Bind.
const NAMES_BYTES_MAX: usize = SMALL_BYTES;

impl Relay<'_> {
    pub(super) fn parse(&mut self, header: Header) -> Result<Step, RelayError> {
        // The name decides whether the whole message is needed: a name ends within the first bytes.
        let first = header.message_bytes.min(NAMES_BYTES_MAX);
        if !self.has(first) {
            return Ok(Step::NeedsMore);
        }
        let body = self
            .client
            .to_server
            .unscanned()
            .get(HEADER_BYTES..first)
            .unwrap_or_default();
        let (name, _) = read::cstr(body).ok_or(RelayError::ClientMalformed(header.tag))?;
        let is_unnamed = name.is_empty();
        let whole_max = if is_unnamed {
            CARRIED_BYTES_MAX
        } else {
            NAMED_PARSE_BYTES_MAX
        };
        if header.message_bytes > whole_max {
            return Ok(self.parse_too_long(header, is_unnamed));
        }
        if !self.has(header.message_bytes) {
            return Ok(Step::NeedsMore);
        }
        let text = self.client.to_server.unscanned();
        let text = text.get(HEADER_BYTES..header.message_bytes);
        let text = text.and_then(read::cstr).map_or(&[][..], |(_, text)| text);
        let suspicion = self.suspects(text);
        if let Some(refusal) = self.refusal_for(text, suspicion) {
            self.doom(header, &refusal);
            return Ok(Step::Done);
        }
        if self.is_full() {
            let space = self.space_of(text);
            if !self.parse_when_full(space) {
                return Ok(Step::MustWait);
            }
        }
        if !self.prepare_for(suspicion) {
            return Ok(Step::MustWait);
        }
        if is_unnamed {
            self.parse_unnamed(header, suspicion)
        } else {
            self.parse_named(header)
        }
    }

    fn parse_too_long(&mut self, header: Header, is_unnamed: bool) -> Step {
        if is_unnamed && self.beginning_takes(header) {
            let refusal = self.refusal_when_full();
            self.doom(header, &refusal);
        } else if is_unnamed {
            self.parse_unnamed_unseen(header);
        } else {
            let refusal = Refusal::error(SqlState::TOO_LARGE, "the named statement is too long")
                .with_detail(
                    "In transaction mode a named statement may have 1 MiB; use an unnamed one.",
                );
            self.doom(header, &refusal);
        }
        Step::Done
    }

    fn parse_named(&mut self, header: Header) -> Result<Step, RelayError> {
        let message = self
            .client
            .to_server
            .unscanned()
            .get(HEADER_BYTES..header.message_bytes);
        let malformed = RelayError::ClientMalformed(header.tag);
        let Some((name, tail)) = read::cstr(message.unwrap_or_default()) else {
            return Err(malformed);
        };
        if memchr::memchr(0, tail).is_none() {
            return Err(malformed);
        }
        if self.client.names.get(name).is_some() {
            let (name, tail) = (Name::from(name), tail.to_vec());
            self.parse_used(header, name, &tail);
            return Ok(Step::Done);
        }
        if !self.client.names.has_room_for(header.message_bytes) {
            let refusal = Refusal::error(SqlState::TOO_LARGE, "too many prepared statements");
            self.doom(header, &refusal);
            return Ok(Step::Done);
        }
        let path = if self.may_change_path.load(Relaxed) {
            // What it is now is known behind the transaction.
            self.pool.statements.unknown_context()
        } else {
            self.client.settings.plan_context()
        };
        let context = path ^ self.context_of_names(tail) ^ self.pool.shapes().rotate_right(16);
        let statement = self
            .pool
            .statements
            .intern(context, tail, |text| self.suspects(text));
        // If this is lost to an error, what comes behind the Sync must know.
        self.barrier_at_sync = true;
        let name = Names::key(name);
        self.client.to_server.skip(header.message_bytes);
        if statement.uses_names() {
            self.lend_to_parse(statement.tail());
        }
        if self.may_have_prepared_by_sql() && !name.starts_with(b"pgu") {
            self.try_name(&name, &statement);
        }
        self.client
            .names
            .insert(Arc::clone(&name), Arc::clone(&statement));
        // PostgreSQL refuses nearly every Parse in a failed transaction: then it must be asked.
        let is_certain =
            self.server.status != TxStatus::Failed && !self.server.replies.owes_ready();
        if !self.server.prepared.touch(statement.id()) {
            self.make_on_server(&statement, (Reply::Forward, Some(name)));
        } else if is_certain {
            self.server.replies.push(Expect::SayParseComplete(name));
        } else {
            self.close_on_server(&statement);
            self.make_on_server(&statement, (Reply::Forward, Some(name)));
        }
        Ok(Step::Done)
    }

    /// What a text means depends on what it runs by name: the statements of two clients may be the
    /// same only if those are.
    fn context_of_names(&self, tail: &[u8]) -> u64 {
        let named = |one: &sql::Use<'_>| {
            let statement = self.client.names.get(one.name()?)?;
            Some(statement.id().wrapping_mul(0x9e37_79b9_7f4a_7c15))
        };
        let uses = uses_in(text_of(tail));
        let runs = uses.iter().filter(|one| !one.changes_names());
        runs.filter_map(named).fold(0, |all, one| all ^ one)
    }

    /// Takes a shared statement from the server.
    pub(super) fn close_on_server(&mut self, statement: &Statement) {
        self.server.prepared.remove(statement.id());
        frontend::close_statement(self.client.to_server.insertion(), statement.name());
        let closing = Closing::Shared(statement.id(), statement.bytes());
        self.server
            .replies
            .push(Expect::Close(Reply::Swallow, closing));
    }

    /// Parses a shared statement on the server, ahead of the unscanned bytes.
    pub(super) fn make_on_server(
        &mut self,
        statement: &Statement,
        (reply, name): (Reply, Option<Name>),
    ) {
        self.barrier_at_sync = true;
        self.server.suspicion |= statement.suspicion().without(Suspicion::HINTS);
        let out = self.client.to_server.insertion();
        let server = &mut *self.server;
        let bytes = statement.bytes();
        while let Some((evicted, bytes)) =
            server.prepared.evict_for(bytes as usize, self.prepared_max)
        {
            frontend::close_statement(out, format!("pgu_{evicted:x}").as_bytes());
            let closing = Closing::Shared(evicted, bytes);
            server.replies.push(Expect::Close(Reply::Swallow, closing));
        }
        server.prepared.restore(statement.id(), bytes);
        frontend::parse(out, statement.name(), statement.tail());
        self.server
            .replies
            .push(Expect::Parse(reply, Making::Shared(statement.id(), name)));
    }

    pub(super) fn bind(&mut self, header: Header) -> Result<Step, RelayError> {
        if self.is_full()
            && let Some(step) = self.bind_named_when_full(header)
        {
            return Ok(step);
        }
        let first = header.message_bytes.min(NAMES_BYTES_MAX);
        let here = self
            .client
            .to_server
            .unscanned()
            .len()
            .min(header.message_bytes);
        let body = self
            .client
            .to_server
            .unscanned()
            .get(HEADER_BYTES..here)
            .unwrap_or_default();
        let names = read::cstr(body).and_then(|(portal, rest)| Some((portal, read::cstr(rest)?.0)));
        let Some((portal, name)) = names else {
            return if here >= first {
                Err(RelayError::ClientMalformed(header.tag))
            } else {
                self.client.to_server.make_room_for_message(first);
                Ok(Step::NeedsMore)
            };
        };
        if name.is_empty() {
            self.lending.forget_portal(portal);
            return Ok(self.bind_unnamed(header));
        }
        let Some((kept, statement)) = self.client.names.entry(name) else {
            let name = name.to_vec();
            self.unknown_name(header, &name, Expect::Bind(None));
            return Ok(Step::Done);
        };
        let said = as_said(name, kept);
        let (id, uses_names) = (statement.id(), statement.uses_names());
        let names_bytes = portal.len() + 1 + name.len() + 1;
        let suspicion = statement.suspicion();
        if suspicion.intersects(Suspicion::SETTINGS) {
            self.note_path(text_of(statement.tail()));
            let hides = self.note_values(body);
            self.server.suspicion |= hides;
        }
        self.note_path_of(suspicion);
        if !self.prepare_for(suspicion) {
            return Ok(Step::MustWait);
        }
        if (!self.server.prepared.touch(id) || self.changed.is_some())
            && let Some(step) = self.check_columns(header, &said)
        {
            return Ok(step);
        }
        if uses_names || self.lending.has_portals() {
            let portal = self.portal_of_bind();
            self.lending.forget_portal(&portal);
            self.lend_to_bind_of(&portal, &said);
        }
        if !self.server.prepared.touch(id)
            && let Some(statement) = self.client.names.get(&said).map(Arc::clone)
        {
            self.make_on_server(&statement, (Reply::Swallow, None));
        }
        self.rewrite_bind(header, names_bytes);
        self.server.replies.push(Expect::Bind(Some(said)));
        Ok(Step::Done)
    }

    /// Notes what bound values may name of settings; says whether there may be others.
    pub(super) fn note_values(&self, values: &[u8]) -> Suspicion {
        self.note_path(values);
        self.pool.note_customs(sets::customs(values));
        if sets::may_hide_a_name(values) {
            Suspicion::UNSEEN
        } else {
            Suspicion::NONE
        }
    }

    /// Makes sure that the server has a shared statement.
    fn place(&mut self, statement: &Statement) {
        if !self.server.prepared.touch(statement.id()) {
            self.make_on_server(statement, (Reply::Swallow, None));
        }
    }

    /// A message about a name that the client has not given by a Parse: it is refused, or SQL of the
    /// client's has prepared it, and the server knows it by the same name.
    fn unknown_name(&mut self, header: Header, name: &[u8], expect: Expect) {
        if self.may_have_prepared_by_sql() && !name.starts_with(b"pgu") {
            self.forward(header, expect);
        } else {
            self.doom(header, &unknown(name));
        }
    }

    fn may_have_prepared_by_sql(&self) -> bool {
        let kinds = self.pinned | self.server.suspicion;
        kinds.intersects(Suspicion::STATEMENTS)
    }

    /// Puts the shared name in place of the client's; the rest of the Bind goes on as it is.
    fn rewrite_bind(&mut self, header: Header, names_bytes: usize) {
        let names = &self.client.names;
        self.client
            .to_server
            .rewrite_front(HEADER_BYTES + names_bytes, |front, out| {
                let Some((portal, rest)) =
                    read::cstr(front.get(HEADER_BYTES..).unwrap_or_default())
                else {
                    return;
                };
                let Some((name, _)) = read::cstr(rest) else {
                    return;
                };
                let Some(statement) = names.get(name) else {
                    return;
                };
                let length = header.message_bytes - 1 - name.len() + statement.name().len();
                out.push(tag::BIND);
                out.extend_from_slice(&(length as u32).to_be_bytes());
                out.extend_from_slice(portal);
                out.push(0);
                out.extend_from_slice(statement.name());
                out.push(0);
            });
        self.pass(
            header.message_bytes - HEADER_BYTES - names_bytes,
            Rest::Forward,
        );
    }

    /// The portal of the Bind that is looked at.
    pub(super) fn portal_of_bind(&self) -> Vec<u8> {
        let body = self.client.to_server.unscanned().get(HEADER_BYTES..);
        let portal = body.and_then(read::cstr).map(|(portal, _)| portal);
        portal.unwrap_or_default().to_vec()
    }

    pub(super) fn describe_or_close(&mut self, header: Header) -> Result<Step, RelayError> {
        if header.message_bytes > NAMES_BYTES_MAX {
            return Err(RelayError::ClientMalformed(header.tag));
        }
        if !self.has(header.message_bytes) {
            return Ok(Step::NeedsMore);
        }
        let message = self
            .client
            .to_server
            .unscanned()
            .get(HEADER_BYTES..header.message_bytes);
        let (kind, rest) = message
            .and_then(<[u8]>::split_first)
            .ok_or(RelayError::ClientMalformed(header.tag))?;
        let (name, _) = read::cstr(rest).ok_or(RelayError::ClientMalformed(header.tag))?;
        match (header.tag, kind, name.is_empty()) {
            (tag::DESCRIBE, b'S', true) => return Ok(self.describe_unnamed(header)),
            (tag::DESCRIBE, b'S', false) => return Ok(self.describe_named(header)),
            (tag::CLOSE, b'S', false) => {
                let name = Names::key(name);
                self.close_named(header, name);
            }
            (tag::CLOSE, b'S', true) => {
                let closing = Closing::Unnamed(self.drop_unnamed());
                self.forward(header, Expect::Close(Reply::Forward, closing));
            }
            (tag::CLOSE, ..) => {
                self.forward(header, Expect::Close(Reply::Forward, Closing::Other));
            }
            _ => self.forward(header, Expect::Describe(None)),
        }
        Ok(Step::Done)
    }

    fn close_named(&mut self, header: Header, name: Name) {
        let closed = self.client.names.remove(&name);
        if closed.is_none() && self.may_have_prepared_by_sql() && !name.starts_with(b"pgu") {
            return self.forward(header, Expect::Close(Reply::Forward, Closing::Other));
        }
        self.barrier_at_sync = true;
        self.client.to_server.skip(header.message_bytes);
        self.server
            .replies
            .push(Expect::SayCloseComplete(name, closed));
    }

    fn describe_named(&mut self, header: Header) -> Step {
        let message = self
            .client
            .to_server
            .unscanned()
            .get(HEADER_BYTES + 1..header.message_bytes);
        let Some((name, _)) = read::cstr(message.unwrap_or_default()) else {
            return Step::Done;
        };
        let Some((kept, statement)) = self.client.names.entry(name) else {
            let name = name.to_vec();
            self.unknown_name(header, &name, Expect::Describe(None));
            return Step::Done;
        };
        let (said, statement) = (as_said(name, kept), Arc::clone(statement));
        if statement.uses_names() {
            self.lend_to_parse(statement.tail());
        }
        self.place(&statement);
        self.client.to_server.skip(header.message_bytes);
        frontend::describe_statement(self.client.to_server.insertion(), statement.name());
        self.server.replies.push(Expect::Describe(Some(said)));
        Step::Done
    }

    /// Drops a message and has the server fail in its place, with the error that we word.
    pub(super) fn doom(&mut self, header: Header, refusal: &Refusal) {
        self.fail_with(refusal.encode());
        self.pass(header.message_bytes, Rest::Drop);
    }

    /// Has the server fail; the client gets this error.
    pub(super) fn fail_with(&mut self, error: Vec<u8>) {
        frontend::describe_statement(self.client.to_server.insertion(), NO_SUCH_STATEMENT);
        self.server.replies.push(Expect::Doomed(error.into()));
    }
}

/// The name as the client said it, which may be longer than it is kept.
fn as_said(said: &[u8], kept: &Name) -> Name {
    if said.len() == kept.len() {
        Arc::clone(kept)
    } else {
        said.into()
    }
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn unknown(name: &[u8]) -> Refusal {
    let message = format!("prepared statement \"{}\" does not exist", shown(name));
    Refusal::error(SqlState::UNKNOWN_STATEMENT, message)
}
