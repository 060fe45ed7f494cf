//! What a client sends: forwarded in place, noted in the queue of replies, names rewritten.

use super::{
    Farewell, Relay, RelayError, Rest, TURN_BYTES, full::Judged, lending::uses_in, places::Passage,
    refuse, traces,
};
use crate::{
    net::SMALL_BYTES,
    sessions::Activity,
    tenant::PoolMode,
    upstream::{Change, Closing, Expect, Making, Reply, Suspicion, TxStatus},
    usage::Counters,
    wire::{HEADER_BYTES, Header, Refusal, frontend, peek, read, tag::frontend as tag},
};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

/// Requests without an answer; more wait.
const OUTSTANDING_MAX: usize = 4096;

/// So often a message that need not wait is looked at again before others have their turn.
const IDLE_ROUNDS_MAX: u32 = 8;

/// Whether a message was dealt with, or must wait for more bytes or for answers.
pub(super) enum Step {
    Done,
    NeedsMore,
    MustWait,
}

impl Relay<'_> {
    /// Reads from the client while there is room, looks at what came, sends it on.
    pub(super) fn pump_client(&mut self, cx: &mut Context<'_>) -> Result<bool, RelayError> {
        let (mut progress, mut idle_rounds) = (false, 0);
        loop {
            let scanned = self.client.to_server.scanned();
            let is_starved = self.scan_client()?;
            let unsent = self.client.to_server.unsent();
            let sent = self.client.to_server.poll_send(&mut self.server.stream, cx);
            progress |= self.client.to_server.unsent() < unsent;
            match sent {
                Poll::Ready(Ok(())) => {}
                // The server may have said why; its last words are still to be read.
                Poll::Ready(Err(_)) => self.client.to_server.drop_unsent(),
                Poll::Pending => return Ok(progress),
            }
            if !is_starved && !self.must_wait() && self.left.is_none() {
                let has_moved = self.client.to_server.scanned() != scanned || unsent > 0;
                idle_rounds = if has_moved { 0 } else { idle_rounds + 1 };
                if idle_rounds < IDLE_ROUNDS_MAX {
                    continue;
                }
                // Whatever it is, it must not cost the others their thread.
                cx.waker().wake_by_ref();
                return Ok(progress);
            }
            // Who waits for its turn may leave.
            let may_read =
                (is_starved || self.is_queued()) && self.left.is_none() && !self.client_is_gone;
            if !may_read || !self.client.to_server.has_room() {
                return Ok(progress);
            }
            // What the server says has its part of the turn.
            if !self.may_read(TURN_BYTES / 2) {
                return Ok(progress);
            }
            match self.client.to_server.poll_fill(&mut self.client.stream, cx) {
                Poll::Ready(Ok(0)) => {
                    self.left = Some(Farewell::Closed);
                    return Ok(true);
                }
                Poll::Ready(Ok(count)) => {
                    Counters::add(&self.client.handle.counters.client_bytes, count as u64);
                    self.note_read(count);
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
            if self.awaits_end(header) || self.is_kept() && self.owes_toll(header) {
                return Ok(false);
            }
            match self.passage(header) {
                Passage::Go => {}
                Passage::Wait => return Ok(false),
                Passage::NeedsMore => return Ok(true),
            }
            if self.restores_settings() {
                return Ok(false);
            }
            match self.client_message(header)? {
                Step::Done => {
                    self.has_begun = true;
                    self.note_sent();
                    self.has_read_only |= self.server.reads_only;
                }
                Step::NeedsMore => return Ok(true),
                Step::MustWait => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Puts settings back that the client's own RESET took from the server. In a transaction that is
    /// part of it, as the reset was.
    fn restores_settings(&mut self) -> bool {
        let is_bound = self.server.binding.as_ref().is_none_or(|b| b.is_bound);
        let differs = !is_bound || !Arc::ptr_eq(&self.client.settings, &self.server.applied);
        if differs && self.server.replies.is_settled() {
            match self.server.status {
                TxStatus::Idle => self.apply_settings(),
                TxStatus::Open => self.restore_in_transaction(),
                TxStatus::Failed => {}
            }
        }
        self.is_barred()
    }

    fn restore_in_transaction(&mut self) {
        let mut sql = self.server.missing_binding().unwrap_or_default();
        let settings = self.server.applied.sql_towards(&self.client.settings);
        if !sql.is_empty() && !settings.is_empty() {
            sql.push(';');
        }
        sql += &settings;
        if !sql.is_empty() {
            frontend::query(self.client.to_server.insertion(), &sql);
            self.server.replies.push(Expect::Injected);
            self.server.unnamed = 0;
        }
        self.server.applied = Arc::clone(&self.client.settings);
    }

    /// Whether the barrier holds: the end of what a server copies in comes behind the client's data.
    fn is_barred(&self) -> bool {
        self.barrier && !self.server.replies.is_copy_in()
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
        if self.lending.barrier && self.server.replies.is_empty() {
            self.lending.barrier = false;
        }
        self.is_queued()
            || self.must_yield()
            || self.is_barred()
            || self.lending.barrier
            || is_long
            || self.others.is_waiting()
            || self.elsewhere.is_some()
    }

    /// Whether the client waits for its turn.
    fn is_queued(&self) -> bool {
        self.toll.is_some() || self.queued.is_some()
    }

    /// Passes what is left of the last message; whether all of it is through.
    fn pass_client_rest(&mut self) -> bool {
        self.client.rest = self.client.rest.pass(&mut self.client.to_server);
        self.client.rest == Rest::None
    }

    fn client_message(&mut self, header: Header) -> Result<Step, RelayError> {
        if let Some(step) = self.reconsider(header) {
            return Ok(step);
        }
        let shared = self.mode != PoolMode::Session;
        if !shared && let Some(step) = self.private_message(header) {
            return Ok(step);
        }
        if !shared && matches!(header.tag, tag::QUERY | tag::PARSE) {
            if self.pool.uses_slots() && !self.has(header.message_bytes.min(SMALL_BYTES)) {
                return Ok(Step::NeedsMore);
            }
            let bytes = self.client.to_server.unscanned();
            let here = header.message_bytes.min(bytes.len());
            if traces::names_own(bytes.get(..here).unwrap_or_default()) && !self.tell_own() {
                return Ok(Step::MustWait);
            }
            if self.pool.uses_slots() {
                return Ok(self.text_for_slot(header));
            }
        }
        match header.tag {
            tag::BIND if shared => return self.bind(header),
            tag::PARSE if shared => return self.parse(header),
            tag::DESCRIBE | tag::CLOSE if shared => return self.describe_or_close(header),
            tag::EXECUTE if self.lending.has_portals() => return self.execute_with_names(header),
            tag::EXECUTE => {
                self.count_query();
                self.forward(header, Expect::Execute);
            }
            tag::SYNC => {
                // If the new statement is lost to an error, what comes next must know.
                self.barrier |= std::mem::take(&mut self.barrier_at_sync);
                self.segment += 1;
                self.forward(header, Expect::Sync);
                self.take_back_at_sync();
                self.close_batch();
            }
            tag::QUERY => {
                let step = self.query(header);
                if matches!(step, Step::Done) {
                    self.close_batch();
                }
                return Ok(step);
            }
            tag::BIND => self.forward(header, Expect::Bind(None)),
            tag::PARSE => self.forward(header, Expect::Parse(Reply::Forward, Making::Private)),
            tag::DESCRIBE => self.forward(header, Expect::Describe(None)),
            tag::CLOSE => self.forward(header, Expect::Close(Reply::Forward, Closing::Other)),
            tag::COPY_DATA | tag::FLUSH => self.pass(header.message_bytes, Rest::Forward),
            tag::COPY_DONE | tag::COPY_FAIL => self.forward(header, Expect::CopyEnd),
            tag::FUNCTION_CALL => {
                if !self.has(HEADER_BYTES + 4) {
                    return Ok(Step::NeedsMore);
                }
                if !self.may_call(header) {
                    return Ok(Step::Done);
                }
                self.suspect_function();
                self.count_query();
                self.forward(header, Expect::FunctionCall);
                self.close_batch();
            }
            tag::TERMINATE => {
                self.client.to_server.skip(HEADER_BYTES);
                self.left = Some(Farewell::Said);
            }
            other => return Err(RelayError::ClientMessage(other)),
        }
        Ok(Step::Done)
    }

    /// A Query or Parse of a session that has a slot to itself. What it resets, as far as it is here, has
    /// to be put back in session mode, too: a slot does not start with what its client said at startup,
    /// nor with its tenant.
    fn text_for_slot(&mut self, header: Header) -> Step {
        let bytes = self.client.to_server.unscanned();
        let here = header.message_bytes.min(bytes.len());
        let text = bytes.get(HEADER_BYTES..here).unwrap_or_default();
        let is_parse = header.tag == tag::PARSE;
        let text = if is_parse {
            // Behind the name.
            read::cstr(text).map_or(&[][..], |(_, rest)| rest)
        } else {
            text
        };
        let text = read::cstr(text).map_or(text, |(text, _)| text);
        let (resets, unbinds) = (super::resets::resets(text), self.may_unbind(text));
        if let Some(refusal) = self.refusal_of_listening(text, traces::suspects(text)) {
            if is_parse {
                self.doom(header, &refusal);
            } else {
                self.fail_query(header, &refusal, Change::default());
            }
            return Step::Done;
        }
        self.resets.extend(resets);
        self.note_unbinding(unbinds, is_parse);
        if is_parse {
            self.forward(header, Expect::Parse(Reply::Forward, Making::Private));
        } else {
            self.count_query();
            self.forward(header, Expect::Query(Change::default()));
        }
        Step::Done
    }

    /// Whether a text may take a slot's tenant away, by itself or in a block.
    pub(super) fn may_unbind(&self, text: &[u8]) -> bool {
        self.pool.uses_slots() && super::resets::names_reset(text)
    }

    /// What may take a slot's tenant away is waited for, and what the client has sent behind it finds its
    /// tenant again: behind the Sync, where it is only parsed now.
    pub(super) fn note_unbinding(&mut self, may_unbind: bool, is_parse: bool) {
        self.may_unbind |= may_unbind;
        self.barrier |= may_unbind && !is_parse;
        self.barrier_at_sync |= may_unbind && is_parse;
    }

    /// Has PostgreSQL raise an error in place of a Query.
    pub(super) fn fail_query(&mut self, header: Header, refusal: &Refusal, change: Change) {
        let sql = refuse::raising(refusal);
        frontend::query(self.client.to_server.insertion(), &sql);
        self.count_query();
        self.server.replies.push(Expect::Query(change));
        self.pass(header.message_bytes, Rest::Drop);
    }

    /// A function that is called by its number may leave anything, but for those of large objects
    /// (`pg_proc.dat` of PostgreSQL), which is what drivers call that way.
    fn suspect_function(&mut self) {
        const LARGE_OBJECTS: [u32; 14] = [
            715, 764, 767, 952, 953, 954, 955, 956, 957, 958, 964, 1004, 3170, 3171,
        ];
        let bytes = self.client.to_server.unscanned().get(HEADER_BYTES..);
        let function = read::u32_at_front(bytes.unwrap_or_default());
        if self.mode != PoolMode::Session
            && function.is_none_or(|function| !LARGE_OBJECTS.contains(&function))
        {
            self.server.suspicion |= Suspicion::DYNAMIC;
        }
    }

    fn query(&mut self, header: Header) -> Step {
        if self.mode != PoolMode::Session {
            if !self.has_text(header) {
                return Step::NeedsMore;
            }
            let text = self.client.to_server.unscanned();
            let text = text.get(HEADER_BYTES..header.message_bytes.min(text.len()));
            let text = text.unwrap_or_default();
            let is_whole = text.len() + HEADER_BYTES == header.message_bytes;
            let suspicion = self.suspects(text);
            if let Some(refusal) = self.refusal_for(text, suspicion) {
                let change = self.drop_unnamed();
                self.fail_query(header, &refusal, change);
                return Step::Done;
            }
            if self.is_full() {
                let space = self.space_of(text);
                match self.judge(space) {
                    Judged::Runs => {}
                    Judged::Waits => return Step::MustWait,
                    Judged::Refused(refusal) => {
                        let change = self.drop_unnamed();
                        self.fail_query(header, &refusal, change);
                        return Step::Done;
                    }
                }
            }
            if !self.prepare_for(suspicion) {
                return Step::MustWait;
            }
            let text = self.client.to_server.unscanned();
            let text = text.get(HEADER_BYTES..header.message_bytes.min(text.len()));
            let text = text.unwrap_or_default();
            let (resets, unbinds) = (super::resets::resets(text), self.may_unbind(text));
            if !is_whole {
                self.server.suspicion |= Suspicion::DYNAMIC;
            }
            let uses = if is_whole { uses_in(text) } else { Vec::new() };
            self.resets.extend(resets);
            self.note_unbinding(unbinds, false);
            // What a text does that is not here whole is known when it is done.
            self.barrier |= !is_whole;
            let change = self.drop_unnamed();
            let lent = self.lend_to_query(&uses);
            self.count_query();
            self.forward(header, Expect::Query(change));
            self.take_back(&lent);
            return Step::Done;
        }
        self.count_query();
        self.forward(header, Expect::Query(Change::default()));
        Step::Done
    }

    /// What a statement of this text may leave on its server.
    pub(super) fn suspects(&self, text: &[u8]) -> Suspicion {
        let suspicion = traces::suspects_with(text, &self.pool.survey());
        if suspicion.intersects(Suspicion::SETTINGS) || super::sets::may_set(text) {
            self.note_path(text);
            self.pool.note_customs(super::sets::customs(text));
        } else if suspicion.intersects(Suspicion::SETS) {
            // For the transaction alone.
            self.note_path(text);
            self.note_path_of(suspicion);
        }
        suspicion
    }

    /// Notes whether a text, or the values of a Bind, may change the path by which names are found.
    pub(super) fn note_path(&self, text: &[u8]) {
        if super::sets::names_path(text) {
            self.may_change_path.store(true, Relaxed);
        }
    }

    /// Notes what a statement may change of the path for its transaction alone, by a name that is no
    /// constant.
    pub(super) fn note_path_of(&self, suspicion: Suspicion) {
        let by_name = Suspicion::SETS | Suspicion::TEMP;
        if suspicion.and(by_name) == by_name {
            self.may_change_path.store(true, Relaxed);
        }
    }

    /// Notes what a message may leave, and prepares the server for it. `false` when it must wait for
    /// answers first.
    pub(super) fn prepare_for(&mut self, suspicion: Suspicion) -> bool {
        if suspicion.intersects(Suspicion::NOTIFIES) && !self.knows_own() {
            return false;
        }
        if !self.pool.survey().is_known() {
            self.server.is_unsurveyed = true;
        }
        if suspicion.intersects(Suspicion::OWN) && !self.tell_own() {
            return false;
        }
        if suspicion.intersects(Suspicion::SEQUENCES) {
            self.client.asks_for_numbers = true;
            if !self.forget_numbers() {
                return false;
            }
        }
        if suspicion.intersects(Suspicion::NUMBERS) {
            self.client.takes_numbers = true;
            if self.client.asks_for_numbers || self.pool.uses_sequences() {
                // It will ask for this number, or may.
                self.server.suspicion |= Suspicion::SEQUENCES;
            }
        }
        if suspicion.intersects(Suspicion::CHANNELS) && !self.listen_again() {
            return false;
        }
        self.sets_session |= suspicion.intersects(Suspicion::SETS);
        self.notifies |= suspicion.intersects(Suspicion::NOTIFIES);
        self.server.suspicion |= suspicion.without(Suspicion::HINTS);
        true
    }

    pub(super) fn count_query(&self) {
        Counters::add(&self.client.handle.counters.queries, 1);
        // What is sent behind a running statement does not extend its time.
        if self.client.handle.state().activity != Activity::Active {
            self.client.handle.enter(Activity::Active);
            self.client.handle.continue_transaction();
        }
    }

    pub(super) fn forward(&mut self, header: Header, expect: Expect) {
        self.server.replies.push(expect);
        self.pass(header.message_bytes, Rest::Forward);
    }

    /// Passes a message, as much of it as is here.
    pub(super) fn pass(&mut self, message_bytes: usize, rest: impl Fn(usize) -> Rest) {
        self.client.rest = rest(message_bytes);
        self.pass_client_rest();
    }

    /// Whether the first `wanted` bytes of a message are here; makes room for them if not.
    pub(super) fn has(&mut self, wanted: usize) -> bool {
        if self.client.to_server.unscanned().len() >= wanted {
            return true;
        }
        self.client.to_server.make_room_for_message(wanted);
        false
    }
}
