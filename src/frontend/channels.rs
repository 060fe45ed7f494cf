//! Channels that a transaction listens to move from its server to the pool's hub.

use super::session::Session;
use crate::{
    notify::{Channels, Cut, Event, MARKER_CHANNEL, Notification, Subscription, is_marker},
    upstream::{AskError, Inventory, Server, Suspicion},
    wire::{HEADER_BYTES, Refusal, SqlState, peek, tag::backend},
};
use std::{
    collections::BTreeSet,
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
    /// Between the two no notification is lost, and none is told twice. A client that does not
    /// understand what the hub hears stays with its server, and so does one for which the hub can't
    /// listen: where its server is kept for that already (`is_kept`), until the hub has a connection.
    ///
    /// # Cancel safety
    /// Not cancel safe: drop the server when the future is dropped.
    pub(super) async fn move_channels(
        &mut self,
        server: &mut Server,
        found: &mut Inventory,
        is_kept: bool,
    ) -> Result<(), MoveError> {
        let mark = std::mem::take(&mut self.client.listens);
        let has_discarded = std::mem::take(&mut self.client.has_discarded);
        self.client.may_have_left = false;
        let subscription = self.client.subscription.as_ref();
        let old = subscription.map(|s| s.channels()).unwrap_or_default();
        self.pass_on(&found.asides, &old);
        let heard: Option<Channels> = found.channels.take().map(|c| c.into_iter().collect());
        // Without the mark the server does not speak for the channels that are with the hub.
        let is_whole = old.is_empty() || has_discarded || mark != 0 && found.listens == Some(mark);
        let mut wanted = match &heard {
            Some(heard) if is_whole => heard.clone(),
            Some(heard) => &old | heard,
            None => old.clone(),
        };
        if !self.client.takes_utf8() && !wanted.is_empty() {
            found.fixed |= Suspicion::CHANNELS;
            return self.take_back(server, &old, &wanted).await;
        }
        self.client.undecided = Vec::new();
        let must_stay = is_kept && !self.pool.hub().is_connected();
        if wanted != old && (must_stay || !self.listen_to(server, &old, &wanted).await?) {
            found.fixed |= Suspicion::CHANNELS;
            return Ok(());
        }
        if heard.is_some_and(|heard| !heard.is_empty()) || wanted != old {
            let rest = server.overhear("UNLISTEN *", TIMEOUT).await?;
            // All is the hub's now.
            wanted.insert(MARKER_CHANNEL.into());
            self.pass_on(&rest, &wanted);
        }
        Ok(())
    }

    /// Has the hub listen to what the client wants, too; whether it can.
    async fn listen_to(
        &mut self,
        server: &mut Server,
        old: &Channels,
        wanted: &Channels,
    ) -> Result<bool, MoveError> {
        if wanted.is_empty() {
            (self.client.subscription, self.client.hub) = (None, None);
            return Ok(true);
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
        self.pass_on(&asides, &not_by_server);
        let hub = self.client.hub.insert(Arc::clone(self.pool.hub()));
        let subscription = &mut self.client.subscription;
        let subscription = subscription.get_or_insert_with(|| {
            self.client.own_since = 0;
            hub.subscribe()
        });
        let subscription: Arc<Subscription> = Arc::clone(subscription);
        match hub.set_channels(&subscription, wanted).await {
            Ok(Some(cut)) => {
                let names = names(&not_by_server);
                let behind = self.pass_on_to(server, &names, &cut).await?;
                self.pass_on(&behind, &(&not_by_server | wanted));
                Ok(true)
            }
            Ok(None) => Ok(true),
            Err(error) => {
                tracing::warn!(tenant = %self.pool.tenant(), %error, "a session listens on its own server");
                if subscription.channels().is_empty() {
                    (self.client.subscription, self.client.hub) = (None, None);
                }
                self.unlisten_marker(server, &not_by_server).await?;
                Ok(false)
            }
        }
    }

    /// The server stops to listen to markers, unless the client listens to their channel.
    async fn unlisten_marker(
        &mut self,
        server: &mut Server,
        not_by_server: &Channels,
    ) -> Result<(), MoveError> {
        if not_by_server.contains(MARKER_CHANNEL) {
            let sql = format!("UNLISTEN {MARKER_CHANNEL}");
            let asides = server.overhear(&sql, TIMEOUT).await?;
            self.pass_on(&asides, not_by_server);
        }
        Ok(())
    }

    /// Has the server listen to what the client wants, and the hub to nothing of it any more.
    async fn take_back(
        &mut self,
        server: &mut Server,
        old: &Channels,
        wanted: &Channels,
    ) -> Result<(), MoveError> {
        let (Some(hub), Some(subscription)) =
            (self.client.hub.clone(), self.client.subscription.clone())
        else {
            return Ok(());
        };
        let mut sql = format!("LISTEN {MARKER_CHANNEL}");
        self.client.push_listens(&mut sql, wanted);
        let asides = server.overhear(&sql, TIMEOUT).await?;
        let mut by_hub = Names::from([MARKER_CHANNEL.as_bytes().into()]);
        let mut undecided = std::mem::take(&mut self.client.undecided);
        undecided.extend_from_slice(&asides);
        for channel in old {
            let encoding = self.client.encoding();
            let texts = [channel.as_bytes(), b""];
            let texts = server.convert(texts, encoding, &mut undecided).await?;
            // A name that the encoding lacks the server can't tell.
            by_hub.extend(texts.map(|[name, _]| name.into()));
        }
        self.tell_all(&undecided, &by_hub);
        let cut = async {
            hub.set_channels(&subscription, &(old & wanted)).await?;
            hub.hand_back(&subscription).await
        };
        let cut = cut.await.map_err(|error| self.could_not_listen(&error))?;
        let mut behind = self.pass_on_to(server, &by_hub, &cut).await?;
        self.hear_rest(server, &subscription, &mut behind).await?;
        (self.client.subscription, self.client.hub) = (None, None);
        let marker = Channels::from([MARKER_CHANNEL.into()]);
        let not_by_server = &marker - wanted;
        self.tell_all(&behind, &names(&not_by_server));
        self.unlisten_marker(server, &not_by_server).await
    }

    /// Takes what the hub has heard until the client's encoding was changed. What the server says
    /// meanwhile goes behind it.
    async fn hear_rest(
        &mut self,
        server: &mut Server,
        subscription: &Subscription,
        behind: &mut Vec<u8>,
    ) -> Result<(), MoveError> {
        while let Some(event) = subscription.try_next() {
            let foreign = event.notification().filter(|n| !n.is_ascii());
            let converted = match foreign {
                None => event,
                Some(told) => {
                    let texts = [told.channel, told.payload];
                    let encoding = self.client.encoding();
                    let texts = server.convert(texts, encoding, behind).await?;
                    let [channel, payload] = texts.ok_or_else(not_in_encoding)?;
                    Event::Notification(told.with(&channel, &payload))
                }
            };
            let taken = self.client.take_event(converted, false);
            taken.map_err(|refusal| MoveError::Client(*refusal))?;
        }
        Ok(())
    }

    /// Gives the client what its server says up to the cut; what came behind it.
    async fn pass_on_to(
        &mut self,
        server: &mut Server,
        by_hub: &Names,
        cut: &Cut,
    ) -> Result<Vec<u8>, MoveError> {
        let began = Instant::now();
        let mut pause = PAUSES.0;
        loop {
            let asides = server.overhear("", TIMEOUT).await?;
            let at = position(&asides, cut);
            let (before, behind) = asides.split_at(at.unwrap_or(asides.len()));
            self.tell_all(before, by_hub);
            if at.is_some() {
                return Ok(behind.to_vec());
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

    /// Gives the client what its server said, but for notifications of these channels. What can't be
    /// told from theirs, as it is in another encoding, is kept until it can.
    pub(super) fn pass_on(&mut self, asides: &[u8], by_hub: &Channels) {
        let is_foreign = self.client.subscription.is_some() && !self.client.takes_utf8();
        let names = names(by_hub);
        if !is_foreign {
            return self.tell_all(asides, &names);
        }
        for message in messages(asides) {
            match read(message) {
                Some(told) if !told.channel.is_ascii() => {
                    self.client.undecided.extend_from_slice(message);
                }
                _ => self.tell_all(message, &names),
            }
        }
    }

    /// Gives the client what its server said, but for notifications of channels of these names.
    fn tell_all(&mut self, asides: &[u8], by_hub: &Names) {
        for message in messages(asides) {
            let Some(told) = read(message) else {
                self.client.to_client.insert(message);
                continue;
            };
            let is_wanted = !by_hub.contains(told.channel) && self.pool.hears(told.pid);
            if is_wanted && !is_marker(told.channel, told.payload) {
                self.client.tell(message, told.pid);
            }
        }
    }
}

/// Names of channels in the encoding that a server speaks.
type Names = BTreeSet<Box<[u8]>>;

fn names(channels: &Channels) -> Names {
    let names = channels.iter().map(|channel| channel.as_bytes().into());
    names.collect()
}

fn not_in_encoding() -> MoveError {
    MoveError::Client(Refusal::fatal(
        SqlState::UNSUPPORTED,
        "a notification can't be told in the session's client_encoding",
    ))
}

/// Where the cut is: its marker is in front of what is behind.
fn position(asides: &[u8], cut: &Cut) -> Option<usize> {
    let mut at = 0;
    for message in messages(asides) {
        if read(message).is_some_and(|told| cut.is(&told)) {
            return Some(at);
        }
        at += message.len();
    }
    None
}

/// The notification that a message is.
fn read(message: &[u8]) -> Option<Notification<'_>> {
    let (header, body) = message.split_at_checked(HEADER_BYTES)?;
    Notification::read(body).filter(|_| header.first() == Some(&backend::NOTIFICATION))
}

fn messages(asides: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = asides;
    std::iter::from_fn(move || {
        let header = peek(rest).ok().flatten()?;
        let (message, behind) = rest.split_at_checked(header.message_bytes)?;
        rest = behind;
        Some(message)
    })
}
