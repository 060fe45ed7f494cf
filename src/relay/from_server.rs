//! What a server answers: held against the queue, forwarded in place.

use super::{Reading, Relay, RelayError, Rest, TURN_BYTES, listening::Fence, refuse, shapes, tags};
use crate::{
    net::SMALL_BYTES,
    sessions::Activity,
    tenant::PoolMode,
    upstream::{Lost, Settings, Suspicion, TxStatus, Verdict},
    usage::Counters,
    wire::{HEADER_BYTES, Header, Refusal, SqlState, frontend, peek, read, tag::backend as tag},
};
use std::{
    task::{Context, Poll},
    time::Instant,
};

/// First words of command tags after which settings may have changed.
const CHANGES: [&[u8]; 6] = [
    b"SET",
    b"RESET",
    b"DISCARD",
    b"ROLLBACK",
    b"COMMIT",
    b"RELEASE",
];

/// Command tags of what [`super::resets::resets`] reads from a text.
const PLAIN: [&[u8]; 3] = [b"SET\0", b"RESET", b"DISCARD"];

/// What a slot says that has lost its tenant (`ctl.unbound`).
const UNBOUND: &[u8] = b"PU002";

/// How often a pinned server is asked whether it must stay so, where no text tells.
const PINNED_ASK_INTERVAL_MS: u64 = 1000;

/// Longest ParameterStatus or CommandComplete.
pub(super) const SHORT_BYTES_MAX: usize = SMALL_BYTES;

impl Relay<'_> {
    /// Reads from the server while there is room, looks at what came, sends it on.
    pub(super) fn pump_server(&mut self, cx: &mut Context<'_>) -> Result<bool, RelayError> {
        let mut progress = false;
        loop {
            self.scan_server()?;
            progress |= self.send_to_client(cx)?;
            let stalled = !self.client.to_client.is_sent();
            let is_full = stalled && !self.client.to_client.has_room();
            if self.is_at_boundary() || is_full || !self.may_read(TURN_BYTES) {
                return Ok(progress);
            }
            match self.client.to_client.poll_fill(&mut self.server.stream, cx) {
                Poll::Ready(Ok(0)) => return Err(self.server_gone()),
                Poll::Ready(Ok(count)) => {
                    Counters::add(&self.client.handle.counters.server_bytes, count as u64);
                    self.note_read(count);
                    progress = true;
                }
                Poll::Ready(Err(error)) if self.server_explained => {
                    tracing::debug!(%error, "server connection ended");
                    return Err(self.server_gone());
                }
                Poll::Ready(Err(error)) => return Err(RelayError::Server(error)),
                Poll::Pending => return Ok(progress),
            }
        }
    }

    fn server_gone(&mut self) -> RelayError {
        if self.server.replies.take_injected_failed() {
            return RelayError::Settings { is_unsent: false };
        }
        RelayError::ServerGone {
            explained: self.server_explained,
        }
    }

    /// Sends what waits; whether anything went.
    fn send_to_client(&mut self, cx: &mut Context<'_>) -> Result<bool, RelayError> {
        if self.client_is_gone {
            self.client.to_client.drop_unsent();
            return Ok(false);
        }
        if self.holds_back() {
            return Ok(false);
        }
        let unsent = self.client.to_client.unsent();
        let polled = self.client.to_client.poll_send(&mut self.client.stream, cx);
        let has_taken = self.client.to_client.unsent() < unsent;
        let handle = &self.client.handle;
        match polled {
            Poll::Ready(Ok(())) => handle.stall.ends(),
            Poll::Ready(Err(error)) => return Err(RelayError::Client(error)),
            Poll::Pending => handle.stall.goes_on(has_taken, handle.now_ms()),
        }
        Ok(has_taken)
    }

    fn scan_server(&mut self) -> Result<(), RelayError> {
        while self.pass_server_rest() {
            while !self.client.to_client.is_congested()
                && let Some(own) = self.server.replies.own_turn()
            {
                self.client.to_client.insert(own);
            }
            if self.client.to_client.is_congested() {
                return Ok(());
            }
            let peeked = peek(self.client.to_client.unscanned());
            let Some(header) = peeked.map_err(|_error| RelayError::OutOfStep)? else {
                return Ok(());
            };
            if !self.server_message(header)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Passes what is left of the last message; whether all of it is through.
    fn pass_server_rest(&mut self) -> bool {
        self.client.from_server_rest = self
            .client
            .from_server_rest
            .pass(&mut self.client.to_client);
        self.client.from_server_rest == Rest::None
    }

    /// Deals with one message; `false` when more of it must be here first.
    fn server_message(&mut self, header: Header) -> Result<bool, RelayError> {
        let wanted = match header.tag {
            tag::READY | tag::COMMAND_COMPLETE => header.message_bytes,
            tag::ERROR | tag::PARAMETER_STATUS if header.message_bytes <= SHORT_BYTES_MAX => {
                header.message_bytes
            }
            tag::NOTIFICATION => self.wanted_of_notification(header),
            tag::ROW_DESCRIPTION if self.can_note_columns(header) => header.message_bytes,
            _ => HEADER_BYTES,
        };
        if self.client.to_client.unscanned().len() < wanted {
            if wanted > SHORT_BYTES_MAX {
                return Err(RelayError::OutOfStep);
            }
            self.client.to_client.make_room_for_message(wanted);
            return Ok(false);
        }
        if !self.look_at_read(header) {
            return Ok(false);
        }
        if self.is_farewell(header) {
            self.server.is_outdated = true;
            self.client.from_server_rest = Rest::Drop(header.message_bytes);
            return Ok(true);
        }
        self.note_written(header);
        let verdict = match header.tag {
            tag::PARAMETER_STATUS => self.parameter_changed(header),
            tag::NOTICE => self.noticed(),
            tag::NOTIFICATION => self.notified(header),
            tag::COMMAND_COMPLETE => {
                self.note_command(header);
                // The next statement has its own time, and its own errors.
                self.client.handle.enter(Activity::Active);
                self.client.handle.take_query_overdue();
                self.server.replies.observe(header.tag)
            }
            tag::READY if !self.may_be_ready() => return Ok(false),
            tag::READY => self.ready(header)?,
            tag::ERROR => self.error(header),
            tag::ROW_DESCRIPTION | tag::NO_DATA => self.described(header),
            tag => self.server.replies.observe(tag),
        };
        self.client.from_server_rest = match verdict {
            Verdict::Forward if header.tag == tag::NOTIFICATION => self.pass_notification(header),
            Verdict::Forward => Rest::Forward(header.message_bytes),
            Verdict::Swallow => Rest::Drop(header.message_bytes),
            Verdict::Replace(instead) => {
                self.client.to_client.insert(&instead);
                Rest::Drop(header.message_bytes)
            }
            Verdict::Unexpected => return Err(RelayError::OutOfStep),
        };
        Ok(true)
    }

    /// Whether a `RowDescription` tells what is to be remembered, and is short enough.
    fn can_note_columns(&self, header: Header) -> bool {
        header.message_bytes <= SHORT_BYTES_MAX && self.wants_columns()
    }

    fn described(&mut self, header: Header) -> Verdict {
        if self.can_note_columns(header) {
            let columns = shapes::columns(self.body(header));
            self.note_columns(columns);
        }
        self.server.replies.observe(header.tag)
    }

    /// A notice. What belongs to our own commands is not the client's.
    fn noticed(&self) -> Verdict {
        if self.server.replies.is_injected() {
            Verdict::Swallow
        } else {
            Verdict::Forward
        }
    }

    pub(super) fn body(&self, header: Header) -> &[u8] {
        let bytes = self.client.to_client.unscanned();
        bytes
            .get(HEADER_BYTES..header.message_bytes)
            .unwrap_or_default()
    }

    /// Whether the end of what runs may be told: not before the client has heard what it sent itself.
    fn may_be_ready(&mut self) -> bool {
        let is_own = self.server.replies.is_injected();
        let is_idle = self.client.to_client.unscanned().get(HEADER_BYTES) == Some(&b'I');
        is_own || !is_idle || self.has_heard_itself()
    }

    fn ready(&mut self, header: Header) -> Result<Verdict, RelayError> {
        let status = self
            .body(header)
            .first()
            .copied()
            .and_then(TxStatus::from_byte);
        let status = status.ok_or(RelayError::OutOfStep)?;
        let verdict = self.server.replies.observe(header.tag);
        self.server.status = status;
        self.may_change_settings = false;
        if self.may_unbind && !self.server.replies.owes_ready() {
            // To be bound to the same tenant again changes nothing.
            self.may_unbind = false;
            self.server.unbind();
        }
        if self.listens_in_vain {
            let refusal = refuse::no_listening().into_fatal();
            return Err(RelayError::NotAvailable(Box::new(refusal)));
        }
        let has_reset = !self.resets.is_empty() && verdict == Verdict::Forward;
        if has_reset && !self.server.replies.owes_ready() {
            self.return_to_startup();
        }
        self.client.handle.take_query_overdue();
        if verdict == Verdict::Swallow {
            if !self.server.replies.is_injected() {
                self.configured();
            }
        } else {
            self.forget_not_lent();
        }
        if self.server.replies.take_injected_failed() {
            // Only where the guard was not on yet does the server live on.
            return Err(RelayError::Settings {
                is_unsent: self.barrier,
            });
        }
        if self.server.replies.has_lost() {
            self.settle_lost();
        }
        if self.server.replies.is_settled() {
            self.client.unnamed.settle();
        }
        if status == TxStatus::Idle {
            self.note_functions();
            if std::mem::take(&mut self.changes_shapes) {
                // Others see it from now on.
                self.pool.note_change_of_shapes();
            }
        }
        if status == TxStatus::Idle && verdict == Verdict::Forward {
            self.hear_before_ready()?;
        }
        self.enter_behind(status, verdict)
    }

    /// What the session does from now on, in the eyes of others.
    fn enter_behind(&mut self, status: TxStatus, verdict: Verdict) -> Result<Verdict, RelayError> {
        if status == TxStatus::Idle && verdict == Verdict::Forward {
            self.warn_of_storage();
        }
        let handle = &self.client.handle;
        if status == TxStatus::Idle {
            if verdict == Verdict::Forward {
                (self.notifies, self.fence) = (false, Fence::None);
                handle.end_transaction();
                if self.is_kept() || !self.server.replies.is_empty() {
                    // The server does not go back behind it.
                    handle.counters.measure(Instant::now());
                }
                if matches!(self.reading, Reading::Replica { .. }) {
                    Counters::add(&handle.counters.replica_transactions, 1);
                }
                let is_old = handle.now_ms() >= self.asked_ms + PINNED_ASK_INTERVAL_MS;
                if !self.pinned.is_empty() && is_old {
                    self.server.suspicion |= self.pinned;
                }
            }
            if self.server.replies.is_empty() {
                handle.enter(Activity::Idle);
            } else {
                handle.begin_transaction();
                handle.enter(Activity::Active);
            }
        } else if self.mode == PoolMode::Statement {
            return Err(RelayError::TransactionBlock);
        } else if self.server.replies.is_empty() {
            handle.enter(Activity::IdleInTransaction);
        }
        Ok(verdict)
    }

    /// The client's settings are on the server: a cancel that came meanwhile may go there now.
    fn configured(&self) {
        let Some(cancel) = self.client.handle.configured() else {
            return;
        };
        tokio::spawn(async move {
            if let Err(error) = cancel.deliver().await {
                tracing::warn!(%error, "a cancel could not be delivered");
            }
        });
    }

    fn settle_lost(&mut self) {
        for lost in self.server.settle_lost() {
            match lost {
                Lost::Unnamed(change) => self.client.unnamed.take_back(change.made),
                Lost::UnnamedFailed(change) => self.client.unnamed.refuse(change.made),
                Lost::Name(name) => drop(self.client.names.remove(&name)),
                Lost::KeptName(name, statement) => self.client.names.insert(name, statement),
                // The server's own.
                Lost::Parse(_)
                | Lost::Close(..)
                | Lost::UnnamedCopy(_)
                | Lost::UnnamedCopyFailed(_) => {}
            }
        }
    }

    fn error(&mut self, header: Header) -> Verdict {
        let named = self.server.replies.named().cloned();
        let lent = self.server.replies.lent_alone().cloned();
        let verdict = self.server.replies.observe(tag::ERROR);
        self.count_error(header, &verdict);
        if let Some(lent) = lent {
            let body = self.body(header).to_vec();
            self.note_not_lent(lent, &body);
        }
        if self.server.replies.is_empty() {
            // Nothing was asked: the server's last words.
            self.server_explained = true;
        }
        if verdict != Verdict::Forward {
            return verdict;
        }
        let severity = read::error_field(self.body(header), b'V');
        self.server_explained |= matches!(severity, Some(b"FATAL" | b"PANIC"));
        if self.client.handle.take_query_overdue() {
            let refusal = Refusal::error(
                SqlState::CANCELED,
                "canceling statement due to query_timeout",
            );
            return Verdict::Replace(refusal.encode().into());
        }
        if let Some(refusal) = self.worded_when_full(self.body(header)) {
            return Verdict::Replace(refusal.encode().into());
        }
        self.resets.clear();
        let body = self.body(header);
        if read::error_field(body, b'C') == Some(UNBOUND) {
            self.server.unbind();
        }
        let body = self.body(header);
        // Whoever is told no number has none to keep, unless it has taken one itself.
        let has_no_number = read::error_field(body, b'C') == Some(b"55000");
        if has_no_number && !self.client.takes_numbers {
            self.server.suspicion = self.server.suspicion.without(Suspicion::SEQUENCES);
        }
        let body = self.body(header);
        if let Some(why) = self.why_not_lent(body) {
            let mut message = Vec::with_capacity(HEADER_BYTES + why.len());
            frontend::message(&mut message, tag::ERROR, &[why]);
            return Verdict::Replace(message.into());
        }
        let is_stale_plan = read::error_field(body, b'C') == Some(b"0A000")
            && read::error_field(body, b'R') == Some(b"RevalidateCachedQuery");
        let reworded = with_client_name(body, named.as_deref());
        if is_stale_plan {
            // It stays what it is to those who have it; who prepares the same text now has another.
            self.pool.note_change_of_shapes();
        }
        reworded.map_or(Verdict::Forward, |message| Verdict::Replace(message.into()))
    }

    /// Counts what the client is told, once.
    fn count_error(&self, header: Header, verdict: &Verdict) {
        let told = match verdict {
            Verdict::Replace(instead) => instead.get(HEADER_BYTES..).unwrap_or_default(),
            Verdict::Forward => self.body(header),
            Verdict::Swallow | Verdict::Unexpected => return,
        };
        if self.spoiled().is_none() && !self.client_is_gone {
            let code = read::error_field(told, b'C').unwrap_or_default();
            self.client.handle.counters.count_error(code);
        }
    }

    /// What a transaction did to functions counts from its end on; and what was done to them while it
    /// ran, its texts were not looked at for.
    fn note_functions(&mut self) {
        if self.server.suspicion.intersects(Suspicion::FUNCTIONS) {
            self.pool.forget_survey();
        }
        let changes = self.pool.function_changes();
        self.server.is_unsurveyed |= self.function_changes != changes;
        self.function_changes = changes;
    }

    /// Notes what a command may have left on the server.
    fn note_command(&mut self, header: Header) {
        if self.server.replies.is_injected() {
            return;
        }
        let tag = self.body(header);
        self.client.handle.counters.count_rows(tag);

        let is_plain = self.resets.is_empty() || PLAIN.iter().any(|word| tag.starts_with(word));
        // Leaving a transaction undoes what was set in it.
        let may_change_settings = CHANGES.iter().any(|word| tag.starts_with(word));
        let known = tags::Known {
            pinned: self.pinned,
            names_nothing: self.server.suspicion.is_empty()
                && !self.server.is_unsurveyed
                && self.function_changes == self.pool.function_changes(),
            sets_session: self.sets_session,
        };
        let left = tags::left_by(tag, known);
        let changes_shapes = tags::may_change_shapes(tag);
        let may_leave_channels = self.client.listens != 0 && tags::may_leave_channels(tag);
        let takes_numbers = tag.starts_with(b"INSERT");
        let forgets_settings = tag.starts_with(b"DISCARD ALL");
        let listens_in_vain = self.server.binding.is_some() && tag == b"LISTEN\0";
        let unbinds = forgets_settings || tag.starts_with(b"RESET");
        let forgets_names = forgets_settings || tag.starts_with(b"DEALLOCATE ALL");
        let deallocates = tag.starts_with(b"DEALLOCATE\0");

        let is_harmless = super::places::is_harmless(tag);

        self.course.ran(is_harmless);
        self.resets_are_unsure |= !is_plain;
        self.may_change_settings |= may_change_settings;
        if left.intersects(Suspicion::FUNCTIONS) {
            self.pool.forget_survey();
        }
        if changes_shapes {
            self.changes_shapes = true;
            self.pool.note_change_of_shapes();
        }
        self.server.suspicion |= left;
        self.client.may_have_left |= may_leave_channels;
        self.client.takes_numbers |= takes_numbers;
        if unbinds {
            self.server.unbind();
        }
        self.listens_in_vain |= listens_in_vain;
        if takes_numbers && self.client.asks_for_numbers {
            self.server.suspicion |= Suspicion::SEQUENCES;
        }
        if self.mode == PoolMode::Session {
            return;
        }
        if forgets_settings {
            self.server.applied = Settings::none();
            self.server.suspicion |= Suspicion::CHANNELS;
            self.client.has_discarded = true;
        }
        if forgets_names {
            self.deallocated_all();
        } else if deallocates {
            self.deallocated();
        }
    }
}

/// The error with the client's name where it shows a name of ours; `None` when it shows none.
fn with_client_name(body: &[u8], name: Option<&[u8]>) -> Option<Vec<u8>> {
    let name = name?;
    let at = memchr::memmem::find(body, b"\"pgu")? + 1;
    let length = memchr::memchr(b'"', body.get(at..)?)?;
    let reworded = [body.get(..at)?, name, body.get(at + length..)?].concat();
    let mut message = Vec::with_capacity(HEADER_BYTES + reworded.len());
    frontend::message(&mut message, tag::ERROR, &[&reworded]);
    Some(message)
}
