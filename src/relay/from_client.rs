//! What a client sends: forwarded in place, noted in the queue of replies, names rewritten.

use super::{
    Farewell, NO_SUCH_STATEMENT, Relay, RelayError, Rest, names::CARRIED_BYTES_MAX, traces,
};
use crate::{
    net::SMALL_BYTES,
    sessions::{Activity, Counters},
    tenant::PoolMode,
    upstream::{Expect, Making, Reply, Statement, TxStatus},
    wire::{HEADER_BYTES, Header, Refusal, SqlState, frontend, peek, read, tag::frontend as tag},
};
use std::{
    sync::Arc,
    task::{Context, Poll},
};

/// Longest Parse of a named statement: it must be here whole to be shared.
const NAMED_PARSE_BYTES_MAX: usize = 1024 * 1024;

/// Longest Describe or Close, and longest names in a Bind.
const NAMES_BYTES_MAX: usize = SMALL_BYTES;

/// Requests without an answer; more wait.
const OUTSTANDING_MAX: usize = 4096;

/// Whether a message was dealt with, or must wait for more bytes or for answers.
enum Step {
    Done,
    NeedsMore,
    MustWait,
}

impl Relay<'_> {
    /// Reads from the client while there is room, looks at what came, sends it on.
    pub(super) fn pump_client(&mut self, cx: &mut Context<'_>) -> Result<bool, RelayError> {
        let mut progress = false;
        loop {
            let is_starved = self.scan_client()?;
            let unsent = self.client.to_server.unsent();
            let sent = self.client.to_server.poll_send(&mut self.server.stream, cx);
            progress |= self.client.to_server.unsent() < unsent;
            match sent {
                Poll::Ready(Ok(())) => {}
                // The server may have said why; its last words are still to be read.
                Poll::Ready(Err(_)) => self.client.to_server.clear(),
                Poll::Pending => return Ok(progress),
            }
            if !is_starved && !self.must_wait() && self.left.is_none() {
                continue;
            }
            let may_read = is_starved && self.left.is_none() && !self.client_is_gone;
            if !may_read || !self.client.to_server.has_room() {
                return Ok(progress);
            }
            match self.client.to_server.poll_fill(&mut self.client.stream, cx) {
                Poll::Ready(Ok(0)) => {
                    self.left = Some(Farewell::Closed);
                    return Ok(true);
                }
                Poll::Ready(Ok(count)) => {
                    Counters::add(&self.client.handle.counters.client_bytes, count as u64);
                    progress = true;
                }
                Poll::Ready(Err(error)) => return Err(RelayError::Client(error)),
                Poll::Pending => return Ok(progress),
            }
        }
    }

    /// Looks at what came; whether more bytes are needed to go on.
    fn scan_client(&mut self) -> Result<bool, RelayError> {
        while self.left.is_none() && !self.client.to_server.is_congested() {
            if !self.pass_client_rest() {
                return Ok(true);
            }
            if self.must_wait() {
                return Ok(false);
            }
            let Some(header) = peek(self.client.to_server.unscanned())? else {
                return Ok(true);
            };
            if self.restores_settings() {
                return Ok(false);
            }
            match self.client_message(header)? {
                Step::Done => self.has_begun = true,
                Step::NeedsMore => return Ok(true),
                Step::MustWait => return Ok(false),
            }
        }
        Ok(false)
    }

    /// In session mode: puts settings back that the client's own RESET took from the server.
    fn restores_settings(&mut self) -> bool {
        let differs = !Arc::ptr_eq(&self.client.settings, &self.server.applied);
        if differs && self.server.status == TxStatus::Idle && self.server.replies.is_settled() {
            self.apply_settings();
        }
        self.barrier
    }

    /// Whether the next message must wait for answers.
    fn must_wait(&mut self) -> bool {
        if self.barrier && !self.server.replies.owes_ready() {
            self.barrier = false;
        }
        let is_long = self.server.replies.count() > OUTSTANDING_MAX;
        if is_long && !self.is_flushed {
            // Without a Sync or Flush of the client's, the server would keep its answers.
            self.client.to_server.insert(frontend::FLUSH);
        }
        self.is_flushed = is_long;
        self.barrier || is_long
    }

    /// Passes what is left of the last message; whether all of it is through.
    fn pass_client_rest(&mut self) -> bool {
        let flow = &mut self.client.to_server;
        let here = flow.unscanned().len();
        self.client.rest = match self.client.rest {
            Rest::None => return true,
            Rest::Forward(left) => {
                flow.approve(left.min(here));
                if left > here {
                    Rest::Forward(left - here)
                } else {
                    Rest::None
                }
            }
            Rest::Drop(left) => {
                flow.skip(left.min(here));
                if left > here {
                    Rest::Drop(left - here)
                } else {
                    Rest::None
                }
            }
        };
        self.client.rest == Rest::None
    }

    fn client_message(&mut self, header: Header) -> Result<Step, RelayError> {
        let shared = self.mode != PoolMode::Session;
        match header.tag {
            tag::BIND if shared => return self.bind(header),
            tag::PARSE if shared => return self.parse(header),
            tag::DESCRIBE | tag::CLOSE if shared => return self.describe_or_close(header),
            tag::EXECUTE => {
                self.count_query();
                self.forward(header, Expect::Execute);
            }
            tag::SYNC => {
                // If the new statement is lost to an error, what comes next must know.
                self.barrier |= std::mem::take(&mut self.barrier_at_sync);
                self.segment += 1;
                self.forward(header, Expect::Sync);
            }
            tag::QUERY => return Ok(self.query(header)),
            tag::BIND => self.forward(header, Expect::Bind),
            tag::PARSE => self.forward(header, Expect::Parse(Reply::Forward, Making::Private)),
            tag::DESCRIBE => self.forward(header, Expect::Describe),
            tag::CLOSE => self.forward(header, Expect::Close(Reply::Forward, None)),
            tag::COPY_DATA | tag::FLUSH => self.pass(header.message_bytes, Rest::Forward),
            tag::COPY_DONE | tag::COPY_FAIL => self.forward(header, Expect::CopyEnd),
            tag::FUNCTION_CALL => {
                self.count_query();
                self.forward(header, Expect::FunctionCall);
            }
            tag::TERMINATE => {
                self.client.to_server.skip(HEADER_BYTES);
                self.left = Some(Farewell::Said);
            }
            other => return Err(RelayError::ClientMessage(other)),
        }
        Ok(Step::Done)
    }

    fn query(&mut self, header: Header) -> Step {
        if self.mode != PoolMode::Session {
            if !self.has(header.message_bytes.min(SMALL_BYTES)) {
                return Step::NeedsMore;
            }
            let text = self.client.to_server.unscanned();
            let text = text.get(HEADER_BYTES..header.message_bytes.min(text.len()));
            let text = text.unwrap_or_default();
            let is_whole = text.len() + HEADER_BYTES == header.message_bytes;
            self.resets.extend(traces::resets(text));
            let forgets = traces::forgets_statements(text).then(|| text.to_vec());
            if let Some(sql) = forgets.and_then(|text| self.deallocation(&text)) {
                self.client.to_server.skip(header.message_bytes);
                frontend::query(self.client.to_server.insertion(), &sql);
                self.count_query();
                self.server.replies.push(Expect::Query);
                return Step::Done;
            }
            let text = self.client.to_server.unscanned();
            let text = text.get(HEADER_BYTES..header.message_bytes.min(text.len()));
            let text = text.unwrap_or_default();
            self.server.is_dirty |= !is_whole || traces::leaves_state(text);
            self.barrier |= traces::forgets_statements(text);
            self.client.unnamed.clear();
            self.server.unnamed = 0;
        }
        self.count_query();
        self.forward(header, Expect::Query);
        Step::Done
    }

    /// DEALLOCATE of a statement that the client knows by a name of its own, in the server's words:
    /// the shared statement goes from this server, the name from the client.
    fn deallocation(&mut self, text: &[u8]) -> Option<String> {
        let is_certain = self.server.replies.is_settled() && self.server.status != TxStatus::Failed;
        let name = traces::deallocated_name(text).filter(|_| is_certain)?;
        let statement = self.client.names.remove(name.as_bytes())?;
        if !self.server.prepared.touch(statement.id()) {
            self.make_on_server(&statement, (Reply::Swallow, None));
        }
        self.server.prepared.remove(statement.id());
        Some(format!(
            "DEALLOCATE {}",
            String::from_utf8_lossy(statement.name())
        ))
    }

    fn count_query(&self) {
        Counters::add(&self.client.handle.counters.queries, 1);
        // What is sent behind a running statement does not extend its time.
        if self.client.handle.state().activity != Activity::Active {
            self.client.handle.enter(Activity::Active);
            self.client.handle.continue_transaction();
        }
    }

    fn forward(&mut self, header: Header, expect: Expect) {
        self.server.replies.push(expect);
        self.pass(header.message_bytes, Rest::Forward);
    }

    /// Passes a message, as much of it as is here.
    fn pass(&mut self, message_bytes: usize, rest: impl Fn(usize) -> Rest) {
        self.client.rest = rest(message_bytes);
        self.pass_client_rest();
    }

    /// Whether the first `wanted` bytes of a message are here; makes room for them if not.
    fn has(&mut self, wanted: usize) -> bool {
        if self.client.to_server.unscanned().len() >= wanted {
            return true;
        }
        self.client.to_server.make_room_for_message(wanted);
        false
    }

    fn parse(&mut self, header: Header) -> Result<Step, RelayError> {
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
        if is_unnamed {
            self.parse_unnamed(header)
        } else {
            self.parse_named(header)
        }
    }

    fn parse_too_long(&mut self, header: Header, is_unnamed: bool) -> Step {
        if is_unnamed {
            self.server.is_dirty = true;
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
        self.server.is_dirty |= traces::leaves_state(text);
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
        let statement = self.pool.statements.intern(
            self.client.settings.plan_context(),
            tail,
            traces::leaves_state,
        );
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
    fn make_on_server(&mut self, statement: &Statement, (reply, name): (Reply, Option<Box<[u8]>>)) {
        self.barrier_at_sync = true;
        self.server.is_dirty |= statement.leaves_state();
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

    fn bind(&mut self, header: Header) -> Result<Step, RelayError> {
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
        self.server.is_dirty |= statement.leaves_state();
        if !self.server.prepared.touch(statement.id()) {
            let statement = Arc::clone(statement);
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
        self.server.is_dirty |= traces::leaves_state(unnamed.tail());
        frontend::parse(self.client.to_server.insertion(), b"", unnamed.tail());
        self.server
            .replies
            .push(Expect::Parse(Reply::Swallow, Making::Unnamed));
        self.server.unnamed = unnamed.serial();
        self.unnamed_segment = self.segment;
        true
    }

    fn describe_or_close(&mut self, header: Header) -> Result<Step, RelayError> {
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
