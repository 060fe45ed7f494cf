//! LISTEN and NOTIFY of a client whose channels are with the pool's [`crate::notify::Hub`].

use super::{Client, Relay, RelayError, Rest, from_server::SHORT_BYTES_MAX};
use crate::{
    notify::{Channels, Event, is_marker},
    upstream::{LISTENS, Verdict},
    wire::{HEADER_BYTES, Header, Refusal, SqlState, backend, read},
};
use std::{
    fmt::Write as _,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// How long a client waits for what it has sent itself.
const FENCE_TIMEOUT: Duration = Duration::from_secs(2);

/// A wait until the hub has heard everything that was committed.
pub(super) enum Fence {
    /// None was begun.
    None,
    /// It goes on; whether all was heard.
    Waiting(Pin<Box<dyn Future<Output = bool> + Send + Sync>>),
    /// It is over.
    Passed {
        /// Whether everything was heard: the hub may have lost its connection.
        is_whole: bool,
    },
}

impl Fence {
    fn new(client: &Client) -> Self {
        let (Some(hub), Some(subscription)) = (&client.hub, &client.subscription) else {
            return Self::Passed { is_whole: false };
        };
        let (hub, subscription) = (Arc::clone(hub), Arc::clone(subscription));
        Self::Waiting(Box::pin(async move {
            let fence = tokio::time::timeout(FENCE_TIMEOUT, hub.fence(&subscription));
            matches!(fence.await, Ok(Ok(())))
        }))
    }

    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting(_))
    }

    /// Waits; whether it is just over.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let Self::Waiting(wait) = self else {
            return false;
        };
        let Poll::Ready(is_whole) = wait.as_mut().poll(cx) else {
            return false;
        };
        *self = Self::Passed { is_whole };
        true
    }
}

impl Relay<'_> {
    /// Has the server listen to what its client listens to, before a text that may change that: so
    /// PostgreSQL's own rules decide what is left of it. `false` when the message must wait first.
    pub(super) fn listen_again(&mut self) -> bool {
        if self.client.subscription.is_none() || self.client.listens != 0 {
            return true;
        }
        self.say_first(|relay| {
            let subscription = relay.client.subscription.as_ref()?;
            relay.client.listens_next += 1;
            relay.client.listens = relay.client.listens_next;
            let mut sql = format!(
                "SELECT pg_catalog.set_config('{LISTENS}','{}',false)",
                relay.client.listens
            );
            relay
                .client
                .push_listens(&mut sql, &subscription.channels());
            Some(sql)
        })
    }

    /// Before a client that listens sends a notification: what others have sent through its server
    /// must be heard, so that its own can be told from theirs. `false` while it is not.
    pub(super) fn knows_own(&mut self) -> bool {
        let session = self.client.handle.key.pid;
        let Some(subscription) = &self.client.subscription else {
            return true;
        };
        if self.server.notifies_for == session {
            return true;
        }
        match self.others {
            Fence::None => {
                self.others = Fence::new(self.client);
                false
            }
            Fence::Waiting(_) => false,
            Fence::Passed { is_whole } => {
                if is_whole {
                    self.server.notifies_for = session;
                    self.client.own_since = subscription.next_number();
                }
                true
            }
        }
    }

    /// How much of a notification must be here: the sender, the channel and what tells a marker, or all
    /// of it where it may have to be kept.
    pub(super) fn wanted_of_notification(&self, header: Header) -> usize {
        const FRONT: usize = HEADER_BYTES + 4 + 64 + 32;
        let is_foreign = self.client.subscription.is_some() && !self.client.takes_utf8();
        // PostgreSQL sends none that is longer.
        let wanted = if is_foreign { SHORT_BYTES_MAX } else { FRONT };
        header.message_bytes.min(wanted)
    }

    /// A notification of the server's. PostgreSQL delivers those of every session of the database, so
    /// where tenants share one, only the tenant's own server connections are listened to.
    pub(super) fn notified(&mut self, header: Header) -> Verdict {
        let bytes = self.client.to_client.unscanned();
        let bytes = bytes.get(HEADER_BYTES..header.message_bytes.min(bytes.len()));
        let bytes = bytes.unwrap_or_default();
        let (Some(pid), Some((channel, payload))) = (
            read::u32_at_front(bytes),
            bytes.get(4..).and_then(read::cstr),
        ) else {
            return Verdict::Swallow;
        };
        if !self.pool.hears(pid) || is_marker(channel, payload) {
            return Verdict::Swallow;
        }
        let subscription = self.client.subscription.as_ref();
        if subscription.is_some() && !channel.is_ascii() && !self.client.takes_utf8() {
            let message = self
                .client
                .to_client
                .unscanned()
                .get(..header.message_bytes);
            let message = message.unwrap_or_default().to_vec();
            self.client.undecided.extend_from_slice(&message);
            return Verdict::Swallow;
        }
        let name = std::str::from_utf8(channel);
        let by_hub = subscription.is_some_and(|s| name.is_ok_and(|name| s.hears(name)));
        if by_hub {
            let is_own = pid == self.client.server_pid;
            if is_own && !self.told.iter().any(|told| **told == *channel) {
                self.told.push(channel.into());
            }
            return Verdict::Swallow;
        }
        Verdict::Forward
    }

    /// Passes a notification on, the client's own with the process id that it knows as its own.
    pub(super) fn pass_notification(&mut self, header: Header) -> Rest {
        const FRONT: usize = HEADER_BYTES + 4;
        let (server, own) = (self.client.server_pid, self.client.handle.key.pid);
        let bytes = self.client.to_client.unscanned().get(HEADER_BYTES..);
        if read::u32_at_front(bytes.unwrap_or_default()) != Some(server) {
            return Rest::Forward(header.message_bytes);
        }
        self.client.to_client.rewrite_front(FRONT, |front, out| {
            out.extend_from_slice(front.get(..HEADER_BYTES).unwrap_or_default());
            out.extend_from_slice(&own.to_be_bytes());
        });
        Rest::Forward(header.message_bytes - FRONT)
    }

    /// Before a transaction's end is told: what the client has sent itself must be here. `false`
    /// while it is not.
    pub(super) fn has_heard_itself(&mut self) -> bool {
        if !self.notifies || self.client.subscription.is_none() {
            return true;
        }
        if matches!(self.fence, Fence::None) {
            self.fence = Fence::new(self.client);
        }
        !self.fence.is_waiting()
    }

    /// Waits for the hub; whether it has just caught up.
    pub(super) fn poll_fence(&mut self, cx: &mut Context<'_>) -> bool {
        let has_caught_up = self.fence.poll(cx);
        has_caught_up | self.others.poll(cx)
    }

    /// Passes on what the hub has heard until the end of a transaction, before that is told. Where a
    /// channel may have been left nothing is heard until it is known which ([`Self::hear`]), but for
    /// the client's own notifications that its server has told, too: they are heard in any case.
    pub(super) fn hear_before_ready(&mut self) -> Result<(), RelayError> {
        let told = std::mem::take(&mut self.told);
        let Some(subscription) = self.client.subscription.clone() else {
            return Ok(());
        };
        let client = &mut *self.client;
        if !client.takes_utf8() {
            return Ok(());
        }
        let holds_back = client.may_have_left || client.has_discarded;
        let knows_own = self.server.notifies_for == client.handle.key.pid;
        let (server, own_since) = (client.server_pid, client.own_since);
        let is_own = |number: u64, event: &Event| {
            let notification = event.notification();
            knows_own && number >= own_since && notification.is_some_and(|n| n.pid == server)
        };
        let is_told = |event: &Event| {
            let notification = event.notification();
            notification.is_some_and(|n| told.iter().any(|channel| **channel == *n.channel))
        };
        while let Some((number, event)) = subscription
            .first(|number, event| !holds_back || is_own(number, event) && is_told(event))
        {
            let is_own = is_own(number, &event);
            client
                .take_event(event, is_own)
                .map_err(RelayError::Lagged)?;
        }
        Ok(())
    }

    /// Passes on what the hub has heard, outside a transaction; whether there was anything.
    pub(super) fn hear(&mut self, cx: &Context<'_>) -> Result<bool, RelayError> {
        // After a command that may have left a channel nothing is heard until it is known which.
        let may_have_left = self.client.listens != 0 || self.client.has_discarded;
        if self.client.subscription.is_none() || !self.is_settled() || may_have_left {
            return Ok(false);
        }
        self.client.hear(cx).map_err(RelayError::Lagged)
    }
}

impl Client {
    /// Whether it takes its notifications in time; else its task is woken when it does not any more.
    /// To be asked wherever it may wait: inside a transaction, before a socket that takes no bytes.
    ///
    /// # Errors
    /// What the client is told when it took too little for too long.
    #[inline]
    pub fn keeps_up(&self, cx: &Context<'_>) -> Result<(), Box<Refusal>> {
        match &self.subscription {
            Some(subscription) if subscription.poll_lagged(cx).is_ready() => Err(self.lagged()),
            _ => Ok(()),
        }
    }

    /// Takes what the hub has heard, as much as there is room for; whether there was anything.
    ///
    /// # Errors
    /// What the client is told when it took too little for too long.
    pub fn hear(&mut self, cx: &Context<'_>) -> Result<bool, Box<Refusal>> {
        let mut has_heard = false;
        // Until its channels are with its server, nothing is told that it does not understand.
        if self.subscription.is_none() || !self.takes_utf8() {
            return Ok(false);
        }
        while !self.to_client.is_congested()
            && let Some(subscription) = &self.subscription
            && let Poll::Ready(event) = subscription.poll_next(cx)
        {
            self.take_event(event, false)?;
            has_heard = true;
        }
        Ok(has_heard)
    }

    /// Appends a LISTEN for each channel, behind what there is. It is ASCII, so that it means the same
    /// in whatever `client_encoding` the server has; but for a database that does not know what its
    /// text is, which takes it as it is.
    pub fn push_listens(&self, sql: &mut String, channels: &Channels) {
        let is_raw = self.welcome.value("server_encoding") == Some("SQL_ASCII");
        for channel in channels {
            sql.push_str(if is_raw { ";LISTEN \"" } else { ";LISTEN U&\"" });
            for c in channel.chars() {
                match c {
                    '"' => sql.push_str("\"\""),
                    '\\' if !is_raw => sql.push_str("\\\\"),
                    // Writing to a String can't fail.
                    c if !c.is_ascii() && !is_raw => {
                        write!(sql, "\\+{:06x}", u32::from(c)).ok();
                    }
                    c => sql.push(c),
                }
            }
            sql.push('"');
        }
    }

    /// Gives it a notification that its server told. Its own has the process id that it knows.
    pub fn tell(&mut self, message: &[u8], sender: u32) {
        self.tell_from(message, sender == self.server_pid);
    }

    fn tell_from(&mut self, message: &[u8], is_own: bool) {
        let own = self.handle.key.pid.to_be_bytes();
        let out = self.to_client.insertion();
        let (tag, rest) = message.split_at(HEADER_BYTES.min(message.len()));
        out.extend_from_slice(tag);
        out.extend_from_slice(if is_own {
            &own
        } else {
            rest.get(..4).unwrap_or_default()
        });
        out.extend_from_slice(rest.get(4..).unwrap_or_default());
    }

    /// Takes an event that the hub has heard.
    ///
    /// # Errors
    /// What the client is told when it took too little for too long.
    pub fn take_event(&mut self, event: Event, is_own: bool) -> Result<(), Box<Refusal>> {
        match event {
            Event::Notification(message) => self.tell_from(&message, is_own),
            Event::Interrupted => backend::warning(
                self.to_client.insertion(),
                "the connection that listens for this session was lost and is back; \
                 notifications may have been missed",
            ),
            Event::Lagged => return Err(self.lagged()),
        }
        Ok(())
    }

    #[expect(
        clippy::unnecessary_box_returns,
        reason = "it is returned as an error, and rare"
    )]
    fn lagged(&self) -> Box<Refusal> {
        metrics::counter!("pgusher_listeners_lagged_total").increment(1);
        let tenant = self.handle.tenant.load();
        tracing::info!(tenant = %tenant.id, "a session does not take its notifications");
        let refusal = Refusal::fatal(
            SqlState::QUOTA,
            "too many notifications wait for this session",
        );
        Box::new(refusal.with_detail(
            "Notifications that a session does not read are kept up to 4096, or 1 MiB.",
        ))
    }
}
