//! Channels that a transaction listens to move from its server to the pool's hub.

use super::session::Session;
use crate::{
    notify::{Channels, Cut, MARKER_CHANNEL, Notification, Subscription, is_marker},
    upstream::{AskError, Inventory, Server},
    wire::{HEADER_BYTES, Refusal, SqlState, peek, tag::backend as tag},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Channels that one session may listen to.
const CHANNELS_MAX: usize = 1000;

/// Between two looks for the marker that a server must have heard: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// Why channels can't be moved.
pub(super) enum MoveError {
    /// The server can only be closed.
    Server(AskError),
    /// The client can't stay.
    Client(Refusal),
}

impl From<AskError> for MoveError {
    fn from(error: AskError) -> Self {
        Self::Server(error)
    }
}

impl Session {
    /// Has the hub listen to what the server was found to listen to, and the server to nothing.
    /// Between the two no notification is lost, and none is told twice.
    ///
    /// # Cancel safety
    /// Not cancel safe: drop the server when the future is dropped.
    pub(super) async fn move_channels(
        &mut self,
        server: &mut Server,
        found: &mut Inventory,
    ) -> Result<(), MoveError> {
        let mark = std::mem::take(&mut self.client.listens);
        let has_discarded = std::mem::take(&mut self.client.has_discarded);
        self.client.may_have_left = false;
        let old = self
            .client
            .subscription
            .as_ref()
            .map(|s| s.channels())
            .unwrap_or_default();
        let Some(heard) = found.channels.take() else {
            self.pass_on(&found.asides, &old, None);
            return Ok(());
        };
        let heard: Channels = heard.into_iter().collect();
        self.pass_on(&found.asides, &old, None);
        // Without the mark the server does not speak for the channels that are with the hub.
        let is_whole = old.is_empty() || has_discarded || mark != 0 && found.listens == Some(mark);
        let mut wanted = if is_whole {
            heard.clone()
        } else {
            &old | &heard
        };
        if wanted != old {
            self.listen_to(server, &old, &wanted).await?;
        }
        if !heard.is_empty() || wanted != old {
            let rest = server.overhear("UNLISTEN *", TIMEOUT).await?;
            // All is the hub's now.
            wanted.insert(MARKER_CHANNEL.into());
            self.pass_on(&rest, &wanted, None);
        }
        Ok(())
    }

    async fn listen_to(
        &mut self,
        server: &mut Server,
        old: &Channels,
        wanted: &Channels,
    ) -> Result<(), MoveError> {
        if wanted.is_empty() {
            (self.client.subscription, self.client.hub) = (None, None);
            return Ok(());
        }
        if wanted.len() > CHANNELS_MAX {
            let refusal = Refusal::fatal(
                SqlState::QUOTA,
                format!("a session may listen to {CHANNELS_MAX} channels"),
            );
            return Err(MoveError::Client(refusal));
        }
        let sql = format!("LISTEN {MARKER_CHANNEL}");
        let asides = server.overhear(&sql, TIMEOUT).await?;
        let mut not_by_server = old.clone();
        if !wanted.contains(MARKER_CHANNEL) {
            not_by_server.insert(MARKER_CHANNEL.into());
        }
        self.pass_on(&asides, &not_by_server, None);
        let hub = self.client.hub.insert(Arc::clone(self.pool.hub()));
        let subscription = &mut self.client.subscription;
        let subscription = subscription.get_or_insert_with(|| {
            self.client.own_since = 0;
            hub.subscribe()
        });
        let subscription: Arc<Subscription> = Arc::clone(subscription);
        let cut = hub.set_channels(&subscription, wanted).await;
        match cut {
            Ok(Some(cut)) => self.pass_on_to(server, &not_by_server, &cut).await,
            Ok(None) => Ok(()),
            Err(error) => Err(self.could_not_listen(&error)),
        }
    }

    /// Gives the client what its server says up to the cut.
    async fn pass_on_to(
        &mut self,
        server: &mut Server,
        by_hub: &Channels,
        cut: &Cut,
    ) -> Result<(), MoveError> {
        let began = Instant::now();
        let mut pause = PAUSES.0;
        loop {
            let asides = server.overhear("", TIMEOUT).await?;
            if self.pass_on(&asides, by_hub, Some(cut)) {
                return Ok(());
            }
            if began.elapsed() >= TIMEOUT {
                // Another database, or not PostgreSQL: what is told here and there can't be matched.
                return Err(self.could_not_listen(&"the server did not hear the listener's marker"));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn could_not_listen(&self, why: &dyn std::fmt::Display) -> MoveError {
        tracing::warn!(tenant = %self.pool.tenant(), error = %why, "a session could not listen");
        let refusal = Refusal::fatal(
            SqlState::CONNECTION_FAILURE,
            "the session's channels could not be listened to",
        );
        MoveError::Client(refusal.with_detail(why.to_string()))
    }

    /// Gives the client what its server said, but for notifications that the hub brings and those
    /// behind the cut; whether the cut is there.
    pub(super) fn pass_on(&mut self, asides: &[u8], by_hub: &Channels, cut: Option<&Cut>) -> bool {
        let mut rest = asides;
        let mut is_behind = false;
        while let Ok(Some(header)) = peek(rest)
            && let Some((message, behind)) = rest.split_at_checked(header.message_bytes)
        {
            rest = behind;
            if header.tag != tag::NOTIFICATION {
                self.client.to_client.insert(message);
                continue;
            }
            let body = message.get(HEADER_BYTES..).unwrap_or_default();
            let Some(notification) = Notification::read(body) else {
                continue;
            };
            is_behind |= cut.is_some_and(|cut| cut.is(&notification));
            let channel = std::str::from_utf8(notification.channel).unwrap_or_default();
            let is_wanted = !by_hub.contains(channel) && self.pool.hears(notification.pid);
            let is_marker = is_marker(notification.channel, notification.payload);
            if is_wanted && !is_behind && !is_marker {
                self.client.tell(message, notification.pid);
            }
        }
        is_behind
    }
}
