//! What sessions ask of the listener, and the queries that answer many of them at once.

use super::{
    Bounds, Cut, HubError, MARKER_CHANNEL,
    channel::Channel,
    queue::Queue,
    registry::{Registry, SubscriptionId},
};
use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    sync::Arc,
};
use tokio::sync::oneshot;

/// A batch whose LISTENs have grown to so many takes no further request.
const LISTENS_MAX: usize = 1000;

/// Requests of one batch.
const REQUESTS_MAX: usize = 1000;

/// What a session asked for, and where it waits.
pub(super) struct Request {
    wish: Wish,
    answer: oneshot::Sender<Result<Cut, HubError>>,
    /// A batch with it was refused: it must not take others down with it again.
    is_alone: bool,
}

/// What a session asks for.
pub(super) enum Wish {
    /// To have exactly these channels.
    Channels {
        id: SubscriptionId,
        queue: Arc<Queue>,
        channels: BTreeSet<Channel>,
    },
    /// To know when everything from before has come.
    Fence,
}

impl Wish {
    fn channels(&self) -> impl Iterator<Item = &Channel> {
        match self {
            Self::Channels { channels, .. } => Some(channels),
            Self::Fence => None,
        }
        .into_iter()
        .flatten()
    }
}

impl Request {
    pub(super) fn new(wish: Wish, answer: oneshot::Sender<Result<Cut, HubError>>) -> Self {
        Self {
            wish,
            answer,
            is_alone: false,
        }
    }

    /// Whether somebody waits for the answer.
    pub(super) fn is_awaited(&self) -> bool {
        !self.answer.is_closed()
    }

    /// It did not go.
    pub(super) fn refuse(self, error: HubError) {
        // Who does not wait any more needs no answer.
        drop(self.answer.send(Err(error)));
    }

    /// The marker came: what was asked for is so from here on, unless nobody waits for it.
    fn grant(self, cut: &Cut, registry: &mut Registry) {
        let Wish::Channels {
            id,
            queue,
            channels,
        } = self.wish
        else {
            drop(self.answer.send(Ok(cut.clone())));
            return;
        };
        if self.answer.is_closed() {
            registry.abandon(channels.into_iter().collect());
            return;
        }
        let before = registry.channels_of(id);
        registry.set(id, &queue, &channels);
        if self.answer.send(Ok(cut.clone())).is_err() {
            registry.keep(id, &before);
        }
    }
}

/// One query on its way and what depends on it. All of it is one transaction.
#[derive(Default)]
pub(super) struct Batch {
    requests: Vec<Request>,
    listens: BTreeSet<Channel>,
    unlistens: BTreeSet<Channel>,
    cut: Option<Cut>,
    is_marked: bool,
    is_answered: bool,
    /// Whether it is the first of a connection.
    pub(super) is_first: bool,
    /// What PostgreSQL said against it.
    pub(super) refused: Option<HubError>,
}

impl Batch {
    /// The first of a connection: listens to everything that somebody has.
    pub(super) fn first(registry: &mut Registry) -> Self {
        let mut listens: BTreeSet<_> = registry.channels().cloned().collect();
        listens.extend(Channel::new(MARKER_CHANNEL.as_bytes()).ok());
        registry.take_abandoned();
        Self {
            listens,
            is_first: true,
            ..Self::default()
        }
    }

    /// What waits, as far as it fits into one batch; `None` when nothing does.
    pub(super) fn next(
        requests: &mut VecDeque<Request>,
        registry: &mut Registry,
        (listened, bounds): (&HashSet<Channel>, &Bounds),
    ) -> Option<Self> {
        let mut batch = Self::default();
        while let Some(request) = requests.pop_front() {
            if !request.is_awaited() {
                continue;
            }
            let is_first = batch.requests.is_empty();
            let is_full = batch.requests.len() >= REQUESTS_MAX
                || batch.listens.len() >= LISTENS_MAX
                || batch.requests.iter().any(|request| request.is_alone);
            if !is_first && (is_full || request.is_alone) {
                requests.push_front(request);
                break;
            }
            batch.add(request, listened, bounds.channels_max);
        }
        let is_unwanted = |channel: &Channel| {
            listened.contains(channel)
                && channel.as_str() != MARKER_CHANNEL
                && !batch.wants(channel)
        };
        let abandoned = registry.take_abandoned().into_iter();
        batch.unlistens = abandoned.filter(is_unwanted).collect();
        (!batch.requests.is_empty() || !batch.unlistens.is_empty()).then_some(batch)
    }

    fn add(&mut self, request: Request, listened: &HashSet<Channel>, channels_max: usize) {
        let is_new =
            |channel: &&Channel| !listened.contains(*channel) && !self.listens.contains(*channel);
        let new: Vec<_> = request.wish.channels().filter(is_new).cloned().collect();
        // The channel of the markers is one too.
        if listened.len() + self.listens.len() + new.len() > channels_max + 1 {
            request.refuse(HubError::TooManyChannels { max: channels_max });
            return;
        }
        self.listens.extend(new);
        self.requests.push(request);
    }

    fn wants(&self, channel: &Channel) -> bool {
        let mut wishes = self.requests.iter().map(|request| &request.wish);
        wishes.any(|wish| wish.channels().any(|wanted| wanted == channel))
    }

    /// Whether it ends with a marker.
    pub(super) fn needs_marker(&self) -> bool {
        self.is_first || !self.requests.is_empty()
    }

    /// The query. A batch that changes and marks nothing is an empty one: a sign of life.
    pub(super) fn sql(&mut self, cut: Option<Cut>) -> String {
        let mut sql = String::new();
        for (verb, channels) in [("UNLISTEN ", &self.unlistens), ("LISTEN ", &self.listens)] {
            for channel in channels {
                sql.push_str(verb);
                channel.quote_into(&mut sql);
                sql.push(';');
            }
        }
        if let Some(cut) = &cut {
            // The payload is letters, digits, a colon and points.
            sql.push_str("NOTIFY \"");
            sql.push_str(MARKER_CHANNEL);
            sql.push_str("\",'");
            sql.push_str(&cut.payload);
            sql.push('\'');
        }
        self.cut = cut;
        sql
    }

    /// The marker that it waits for.
    pub(super) fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref()
    }

    /// The marker came: grants everything that was asked for.
    pub(super) fn mark(&mut self, registry: &mut Registry) {
        let Some(cut) = &self.cut else {
            return;
        };
        self.is_marked = true;
        for request in self.requests.drain(..) {
            request.grant(cut, registry);
        }
    }

    /// PostgreSQL is done with it and has not refused it.
    pub(super) fn answer(&mut self, listened: &mut HashSet<Channel>) {
        self.is_answered = true;
        for channel in &self.unlistens {
            listened.remove(channel);
        }
        listened.extend(self.listens.iter().cloned());
    }

    /// Whether nothing of it is still to come.
    pub(super) fn is_over(&self) -> bool {
        self.is_answered && (self.is_marked || self.cut.is_none())
    }

    /// PostgreSQL is done with it and has refused it: nothing of it has happened. One request is
    /// refused for that, several are tried again one by one.
    pub(super) fn give_up(
        mut self,
        error: &HubError,
        requests: &mut VecDeque<Request>,
        registry: &mut Registry,
    ) {
        registry.abandon(std::mem::take(&mut self.unlistens).into_iter().collect());
        if self.requests.len() == 1 {
            for request in self.requests {
                request.refuse(error.clone());
            }
            return;
        }
        for request in &mut self.requests {
            request.is_alone = true;
        }
        self.put_back(requests);
    }

    /// The connection is gone: the requests wait for the next one.
    pub(super) fn put_back(self, requests: &mut VecDeque<Request>) {
        for request in self.requests.into_iter().rev() {
            requests.push_front(request);
        }
    }
}
