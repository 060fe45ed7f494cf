//! Requests about a client's unnamed statement: it is parsed again on a server that lacks it.

use super::{Relay, RelayError, from_client::Step, resets};
use crate::{
    sql,
    upstream::{Change, Expect, Making, Reply, Suspicion},
    wire::{HEADER_BYTES, Header, Refusal, SqlState, frontend, read},
};

/// What was seen of the unnamed statement's text in this lease.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Noted {
    serial: u64,
    speaks_of_names: bool,
    /// It may set what its parameters name.
    may_set: bool,
}

impl Relay<'_> {
    pub(super) fn parse_unnamed(
        &mut self,
        header: Header,
        suspicion: Suspicion,
    ) -> Result<Step, RelayError> {
        let message = self
            .client
            .to_server
            .unscanned()
            .get(HEADER_BYTES..header.message_bytes);
        let tail = message.unwrap_or_default().get(1..).unwrap_or_default();
        let Some((text, _)) = read::cstr(tail) else {
            return Err(RelayError::ClientMalformed(header.tag));
        };
        let (resets, unbinds) = (resets::resets(text), self.may_unbind(text));
        let speaks_of_names = sql::may_use_statements(text).then(|| text.to_vec());
        let made = self.client.unnamed.replace(Some(tail));
        self.unnamed_noted = Noted {
            serial: made,
            speaks_of_names: speaks_of_names.is_some(),
            may_set: suspicion.intersects(Suspicion::SETTINGS),
        };
        self.resets.extend(resets);
        self.note_unbinding(unbinds, true);
        if let Some(text) = speaks_of_names {
            self.barrier_at_sync = true;
            self.lend_to_parse(&text);
        }
        self.forward_parse(header, made);
        Ok(Step::Done)
    }

    /// One that is too long to be here whole: it may leave anything, and is not carried.
    pub(super) fn parse_unnamed_unseen(&mut self, header: Header) {
        self.server.suspicion |= Suspicion::DYNAMIC;
        let made = self.client.unnamed.replace(None);
        self.unnamed_noted = Noted {
            serial: made,
            speaks_of_names: false,
            may_set: true,
        };
        self.forward_parse(header, made);
    }

    fn forward_parse(&mut self, header: Header, made: u64) {
        let making = Making::Unnamed(self.unnamed_on_server(made));
        self.forward(header, Expect::Parse(Reply::Forward, making));
    }

    /// Notes that the server's unnamed statement is this client's from here on.
    fn unnamed_on_server(&mut self, made: u64) -> Change {
        let before = std::mem::replace(&mut self.server.unnamed, made);
        self.unnamed_segment = self.segment;
        Change { made, before }
    }

    /// Whether the unnamed statement's Parse stands in an earlier segment that is not answered
    /// yet: an error there would leave another client's statement in its place.
    fn unnamed_is_uncertain(&mut self) -> bool {
        let replies = &self.server.replies;
        let is_uncertain =
            self.unnamed_segment != self.segment && replies.owes_ready() && !replies.is_copy_in();
        self.barrier |= is_uncertain;
        is_uncertain
    }

    pub(super) fn bind_unnamed(&mut self, header: Header) -> Step {
        if self.unnamed_is_uncertain() {
            return Step::MustWait;
        }
        if self.is_full() {
            let tail = self.client.unnamed.tail();
            let text = read::cstr(tail).map_or(tail, |(text, _)| text);
            let space = self.space_of(text);
            if let Some(step) = self.bind_when_full(header, space) {
                return step;
            }
        }
        if !self.note_unnamed() {
            return Step::MustWait;
        }
        if self.unnamed_noted.may_set {
            let bytes = self.client.to_server.unscanned();
            let here = header.message_bytes.min(bytes.len());
            let bytes = bytes.get(HEADER_BYTES..here).unwrap_or_default();
            let mut hides = self.note_values(bytes);
            if here < header.message_bytes {
                hides |= Suspicion::UNSEEN;
            }
            self.server.suspicion |= hides;
        }
        if self.unnamed_noted.speaks_of_names {
            let portal = self.portal_of_bind();
            let tail = self.client.unnamed.tail().to_vec();
            self.lend_to_bind(&portal, &tail);
        }
        if self.place_unnamed() {
            self.forward(header, Expect::Bind(None));
        } else {
            self.doom_unnamed(header);
        }
        Step::Done
    }

    /// Looks at the text of an unnamed statement that was not parsed in this lease, once. `false` when
    /// its Bind must wait.
    fn note_unnamed(&mut self) -> bool {
        let serial = self.client.unnamed.serial();
        if self.unnamed_noted.serial == serial {
            return true;
        }
        let tail = self.client.unnamed.tail();
        let speaks_of_names = sql::may_use_statements(tail);
        let suspicion = if tail.is_empty() {
            Suspicion::DYNAMIC
        } else {
            self.suspects(tail)
        };
        self.unnamed_noted = Noted {
            serial,
            speaks_of_names,
            may_set: suspicion.intersects(Suspicion::SETTINGS),
        };
        let may_go_on = self.prepare_for(suspicion);
        if !may_go_on {
            self.unnamed_noted = Noted::default();
        }
        may_go_on
    }

    fn doom_unnamed(&mut self, header: Header) {
        let refusal = Refusal::error(
            SqlState::UNKNOWN_STATEMENT,
            "unnamed prepared statement does not exist",
        );
        self.doom(header, &refusal);
    }

    /// Makes sure that the server's unnamed statement is this client's; whether it has one.
    fn place_unnamed(&mut self) -> bool {
        let unnamed = &self.client.unnamed;
        let serial = unnamed.serial();
        if serial == 0 {
            return false;
        }
        if self.server.unnamed == serial {
            return true;
        }
        if unnamed.tail().is_empty() {
            return false;
        }
        self.server.suspicion |= self.suspects(unnamed.tail()).without(Suspicion::HINTS);
        frontend::parse(self.client.to_server.insertion(), b"", unnamed.tail());
        let making = Making::Unnamed(self.unnamed_on_server(serial));
        self.server
            .replies
            .push(Expect::Parse(Reply::Swallow, making));
        true
    }

    pub(super) fn describe_unnamed(&mut self, header: Header) -> Step {
        if self.unnamed_is_uncertain() {
            return Step::MustWait;
        }
        if sql::may_use_statements(self.client.unnamed.tail()) {
            let tail = self.client.unnamed.tail().to_vec();
            self.lend_to_parse(&tail);
        }
        if self.place_unnamed() {
            self.forward(header, Expect::Describe(None));
        } else {
            self.doom_unnamed(header);
        }
        Step::Done
    }
}
