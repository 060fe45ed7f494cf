//! LISTEN and NOTIFY of a client whose channels are with the pool's [`crate::notify::Hub`].

use super::{Client, Relay, RelayError};
use crate::{
    notify::Event,
    upstream::LISTENS,
    wire::{HEADER_BYTES, Refusal, SqlState, backend, read},
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
    /// It goes on.
    Waiting(Pin<Box<dyn Future<Output = ()> + Send + Sync>>),
    /// It is over.
    Passed,
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
            for channel in subscription.channels() {
                // Writing to a String can't fail.
                write!(sql, ";LISTEN \"{}\"", channel.replace('"', "\"\"")).ok();
            }
            Some(sql)
        })
    }

    /// Whether the hub brings this notification, too.
    pub(super) fn comes_by_hub(&self) -> bool {
        let Some(subscription) = &self.client.subscription else {
            return false;
        };
        let body = self.client.to_client.unscanned().get(HEADER_BYTES + 4..);
        let channel = body.and_then(read::cstr).map(|(channel, _)| channel);
        channel
            .and_then(|channel| std::str::from_utf8(channel).ok())
            .is_some_and(|channel| subscription.hears(channel))
    }

    /// Before a transaction's end is told: what the client has sent itself must be here. `false`
    /// while it is not.
    pub(super) fn has_heard_itself(&mut self) -> bool {
        let (Some(hub), Some(subscription), true) =
            (&self.client.hub, &self.client.subscription, self.notifies)
        else {
            return true;
        };
        if matches!(self.fence, Fence::None) {
            let (hub, subscription) = (Arc::clone(hub), Arc::clone(subscription));
            self.fence = Fence::Waiting(Box::pin(async move {
                tokio::time::timeout(FENCE_TIMEOUT, hub.fence(&subscription))
                    .await
                    .ok();
            }));
        }
        matches!(self.fence, Fence::Passed)
    }

    /// Waits for the hub; whether it has just caught up.
    pub(super) fn poll_fence(&mut self, cx: &mut Context<'_>) -> bool {
        let Fence::Waiting(wait) = &mut self.fence else {
            return false;
        };
        let is_over = wait.as_mut().poll(cx).is_ready();
        if is_over {
            self.fence = Fence::Passed;
        }
        is_over
    }

    /// Passes on what the hub has heard, outside a transaction; whether there was anything.
    pub(super) fn hear(&mut self, cx: &Context<'_>) -> Result<bool, RelayError> {
        // After a text that may have left a channel nothing is heard until it is known which.
        let may_have_left = self.client.listens != 0;
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
        while !self.to_client.is_congested()
            && let Some(subscription) = &self.subscription
            && let Poll::Ready(event) = subscription.poll_next(cx)
        {
            self.take_event(event)?;
            has_heard = true;
        }
        Ok(has_heard)
    }

    /// Takes everything that the hub has heard until now.
    pub(super) fn hear_all(&mut self) -> Result<(), Box<Refusal>> {
        while let Some(event) = self.subscription.as_ref().and_then(|s| s.try_next()) {
            self.take_event(event)?;
        }
        Ok(())
    }

    fn take_event(&mut self, event: Event) -> Result<(), Box<Refusal>> {
        match event {
            Event::Notification(message) => self.to_client.insert(&message),
            Event::Interrupted => backend::warning(
                self.to_client.insertion(),
                "the connection that listens for this session was lost and is back; \
                 notifications may have been missed",
            ),
            Event::Lagged => return Err(self.lagged()),
        }
        Ok(())
    }

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
