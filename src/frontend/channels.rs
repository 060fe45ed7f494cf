//! Channels that a transaction listens to move from its server to the pool's hub.

use super::session::Session;
use crate::{
    notify::{Channels, Cut, MARKER_CHANNEL, Notification, Subscription},
    upstream::{AskError, Inventory, Server},
    wire::{HEADER_BYTES, Refusal, SqlState, peek, tag::backend as tag},
};
use std::{sync::Arc, time::Duration};

/// How long a server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Channels that one session may listen to.
const CHANNELS_MAX: usize = 1000;

/// So often a server is asked for the marker that it must have heard.
const LOOKS_MAX: usize = 50;

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
        let wanted = if is_whole {
            heard.clone()
        } else {
            &old | &heard
        };
        if wanted != old {
            self.listen_to(server, &old, &wanted).await?;
        }
        if !heard.is_empty() || wanted != old {
            let rest = server.overhear("UNLISTEN *", TIMEOUT).await?;
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
        self.pass_on(&asides, old, None);
        let hub = self.client.hub.insert(Arc::clone(self.pool.hub()));
        let subscription = &mut self.client.subscription;
        let subscription = subscription.get_or_insert_with(|| hub.subscribe());
        let subscription: Arc<Subscription> = Arc::clone(subscription);
        let cut = hub.set_channels(&subscription, wanted).await;
        let cut = cut.map_err(|error| {
            tracing::warn!(tenant = %self.pool.tenant(), %error, "a session could not listen");
            let refusal = Refusal::fatal(
                SqlState::CONNECTION_FAILURE,
                "the session's channels could not be listened to",
            );
            MoveError::Client(refusal.with_detail(error.to_string()))
        })?;
        let Some(cut) = cut else {
            return Ok(());
        };
        for _ in 0..LOOKS_MAX {
            let asides = server.overhear("", TIMEOUT).await?;
            if self.pass_on(&asides, old, Some(&cut)) {
                break;
            }
        }
        Ok(())
    }

    /// Gives the client what its server said, but for notifications that the hub brings and those
    /// behind the cut; whether the cut is there.
    pub(super) fn pass_on(&mut self, asides: &[u8], by_hub: &Channels, cut: Option<&Cut>) -> bool {
        let mut rest = asides;
        while let Ok(Some(header)) = peek(rest)
            && let Some((message, behind)) = rest.split_at_checked(header.message_bytes)
        {
            rest = behind;
            let body = message.get(HEADER_BYTES..).unwrap_or_default();
            let notification = (header.tag == tag::NOTIFICATION).then(|| Notification::read(body));
            match notification {
                None => self.client.to_client.insert(message),
                Some(None) => {}
                Some(Some(notification)) => {
                    if cut.is_some_and(|cut| cut.is(&notification)) {
                        return true;
                    }
                    let channel = std::str::from_utf8(notification.channel).unwrap_or_default();
                    let is_wanted = !by_hub.contains(channel) && self.pool.hears(notification.pid);
                    if is_wanted && !self.pool.hub().is_marker(&notification) {
                        self.client.to_client.insert(message);
                    }
                }
            }
        }
        false
    }
}
