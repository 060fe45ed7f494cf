//! Prepared statements: names rewritten, what a server lacks parsed first.

use super::{
    NO_SUCH_STATEMENT, Relay, RelayError, Rest, from_client::Step, names::CARRIED_BYTES_MAX, traces,
};
use crate::{
    net::SMALL_BYTES,
    upstream::{Expect, Making, Reply, Statement, Suspicion},
    wire::{HEADER_BYTES, Header, Refusal, SqlState, frontend, read, tag::frontend as tag},
};
use std::sync::Arc;

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
        if !self.prepare_for(suspicion) {
            return Ok(Step::MustWait);
        }
        if is_unnamed {
            self.parse_unnamed(header)
        } else {
            self.parse_named(header)
        }
    }

    fn parse_too_long(&mut self, header: Header, is_unnamed: bool) -> Step {
        if is_unnamed {
            // Not all of it is seen: it may leave anything.
            self.server.suspicion |= Suspicion::DYNAMIC;
            self.server.unnamed = self.client.unnamed.replace(None);
            self.unnamed_segment = self.segment;
            self.forward(header, Expect::Parse(Reply::Forward, Making::Unnamed));
        } else {
            let refusal = Refusal::error(SqlState::TOO_LARGE, "the named statement is too long")
                .with_detail(
                    "In transaction mode a named statement may have 1 MiB; use an unnamed one.",
                );
            self.doom(header, &refusal);
        }
        Step::Done
    }

    fn parse_unnamed(&mut self, header: Header) -> Result<Step, RelayError> {
        let message = self
            .client
            .to_server
            .unscanned()
            .get(HEADER_BYTES..header.message_bytes);
        let tail = message.unwrap_or_default().get(1..).unwrap_or_default();
        let Some((text, _)) = read::cstr(tail) else {
            return Err(RelayError::ClientMalformed(header.tag));
        };
        self.barrier_at_sync |= traces::forgets_statements(text);
        self.resets.extend(traces::resets(text));
        self.server.unnamed = self.client.unnamed.replace(Some(tail));
        self.unnamed_segment = self.segment;
        let forgets = traces::forgets_statements(text).then(|| text.to_vec());
        if let Some(sql) = forgets.and_then(|text| self.deallocation(&text)) {
            self.client.to_server.skip(header.message_bytes);
            let tail = [sql.as_bytes(), b"\0\0\0"].concat();
            frontend::parse(self.client.to_server.insertion(), b"", &tail);
            self.server
                .replies
                .push(Expect::Parse(Reply::Forward, Making::Unnamed));
            return Ok(Step::Done);
        }
        self.forward(header, Expect::Parse(Reply::Forward, Making::Unnamed));
        Ok(Step::Done)
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
            let refusal = duplicate(name);
            self.doom(header, &refusal);
            return Ok(Step::Done);
        }
        if !self.client.names.has_room_for(header.message_bytes) {
            let refusal = Refusal::error(SqlState::TOO_LARGE, "too many prepared statements");
            self.doom(header, &refusal);
            return Ok(Step::Done);
        }
        let statement =
            self.pool
                .statements
                .intern(self.client.settings.plan_context(), tail, |text| {
                    self.suspects(text)
                });
        let name: Box<[u8]> = name.into();
        // If this is lost to an error, what comes behind the Sync must know.
        self.barrier_at_sync = true;
        self.client.names.insert(&name, Arc::clone(&statement));
        self.client.to_server.skip(header.message_bytes);
        if self.server.prepared.touch(statement.id()) {
            self.server.replies.push(Expect::SayParseComplete(name));
        } else {
            self.make_on_server(&statement, (Reply::Forward, Some(name)));
        }
        Ok(Step::Done)
    }

    /// Parses a shared statement on the server, ahead of the unscanned bytes.
    pub(super) fn make_on_server(
        &mut self,
        statement: &Statement,
        (reply, name): (Reply, Option<Box<[u8]>>),
    ) {
        self.barrier_at_sync = true;
        self.server.suspicion |= statement.suspicion().without(Suspicion::HINTS);
        let out = self.client.to_server.insertion();
        if let Some(evicted) = self
            .server
            .prepared
            .insert(statement.id(), self.prepared_max)
        {
            frontend::close_statement(out, format!("pgu_{evicted:x}").as_bytes());
            self.server
                .replies
                .push(Expect::Close(Reply::Swallow, Some(evicted)));
        }
        frontend::parse(out, statement.name(), statement.tail());
        self.server
            .replies
            .push(Expect::Parse(reply, Making::Shared(statement.id(), name)));
    }

    pub(super) fn bind(&mut self, header: Header) -> Result<Step, RelayError> {
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
            return Ok(self.bind_unnamed(header));
        }
        let Some(statement) = self.client.names.get(name) else {
            let refusal = unknown(name);
            self.doom(header, &refusal);
            return Ok(Step::Done);
        };
        let names_bytes = portal.len() + 1 + name.len() + 1;
        let statement = Arc::clone(statement);
        let suspicion = statement.suspicion();
        if suspicion.intersects(Suspicion::SETTINGS) {
            self.pool.note_customs(traces::customs(body));
        }
        if !self.prepare_for(suspicion) {
            return Ok(Step::MustWait);
        }
        if !self.server.prepared.touch(statement.id()) {
            self.make_on_server(&statement, (Reply::Swallow, None));
        }
        self.rewrite_bind(header, names_bytes);
        self.server.replies.push(Expect::Bind);
        Ok(Step::Done)
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

    /// Whether the unnamed statement's Parse stands in an earlier segment that is not answered
    /// yet: an error there would leave another client's statement in its place.
    fn unnamed_is_uncertain(&mut self) -> bool {
        let is_uncertain = self.unnamed_segment != self.segment && self.server.replies.owes_ready();
        self.barrier |= is_uncertain;
        is_uncertain
    }

    fn bind_unnamed(&mut self, header: Header) -> Step {
        if self.unnamed_is_uncertain() {
            return Step::MustWait;
        }
        if !self.place_unnamed() {
            let refusal = Refusal::error(
                SqlState::UNKNOWN_STATEMENT,
                "unnamed prepared statement does not exist",
            );
            self.doom(header, &refusal);
            return Step::Done;
        }
        self.forward(header, Expect::Bind);
        Step::Done
    }

    /// Makes sure that the server's unnamed statement is this client's; whether it has one.
    fn place_unnamed(&mut self) -> bool {
        let unnamed = &self.client.unnamed;
        if unnamed.serial_here() != 0 && self.server.unnamed == unnamed.serial_here() {
            return true;
        }
        if unnamed.serial() == 0 {
            return false;
        }
        self.server.suspicion |= self.suspects(unnamed.tail()).without(Suspicion::HINTS);
        frontend::parse(self.client.to_server.insertion(), b"", unnamed.tail());
        self.server
            .replies
            .push(Expect::Parse(Reply::Swallow, Making::Unnamed));
        self.server.unnamed = unnamed.serial();
        self.unnamed_segment = self.segment;
        true
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
                let name: Box<[u8]> = name.into();
                self.barrier_at_sync = true;
                let closed = self.client.names.remove(&name);
                self.client.to_server.skip(header.message_bytes);
                self.server
                    .replies
                    .push(Expect::SayCloseComplete(name, closed));
            }
            (tag::CLOSE, b'S', true) => {
                self.client.unnamed.clear();
                self.server.unnamed = 0;
                self.forward(header, Expect::Close(Reply::Forward, None));
            }
            (tag::CLOSE, ..) => self.forward(header, Expect::Close(Reply::Forward, None)),
            _ => self.forward(header, Expect::Describe),
        }
        Ok(Step::Done)
    }

    fn describe_unnamed(&mut self, header: Header) -> Step {
        if self.unnamed_is_uncertain() {
            return Step::MustWait;
        }
        if self.place_unnamed() {
            self.forward(header, Expect::Describe);
        } else {
            let refusal = Refusal::error(
                SqlState::UNKNOWN_STATEMENT,
                "unnamed prepared statement does not exist",
            );
            self.doom(header, &refusal);
        }
        Step::Done
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
        let Some(statement) = self.client.names.get(name).map(Arc::clone) else {
            let refusal = unknown(name);
            self.doom(header, &refusal);
            return Step::Done;
        };
        if !self.server.prepared.touch(statement.id()) {
            self.make_on_server(&statement, (Reply::Swallow, None));
        }
        self.client.to_server.skip(header.message_bytes);
        frontend::describe_statement(self.client.to_server.insertion(), statement.name());
        self.server.replies.push(Expect::Describe);
        Step::Done
    }

    /// Drops a message and has the server fail in its place, with the error that we word.
    fn doom(&mut self, header: Header, refusal: &Refusal) {
        frontend::describe_statement(self.client.to_server.insertion(), NO_SUCH_STATEMENT);
        self.server
            .replies
            .push(Expect::Doomed(refusal.encode().into()));
        self.pass(header.message_bytes, Rest::Drop);
    }
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn duplicate(name: &[u8]) -> Refusal {
    let message = format!("prepared statement \"{}\" already exists", shown(name));
    Refusal::error(SqlState::DUPLICATE_STATEMENT, message)
}

fn unknown(name: &[u8]) -> Refusal {
    let message = format!("prepared statement \"{}\" does not exist", shown(name));
    Refusal::error(SqlState::UNKNOWN_STATEMENT, message)
}
