//! The shared listener of one pool, as sessions see it.

use super::{
    Bounds, Channels, Cut, HubError, Subscription,
    batch::{Request, Wish},
    channel::Channel,
    listener,
    message::MarkerPrefix,
    registry::{Registry, SubscriptionId},
};
use crate::upstream::{Server, UpstreamError};
use parking_lot::Mutex;
use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Instant,
};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

/// Holds a server connection, and what is kept as long as it (its place in a budget).
pub trait Lender: Send {
    /// The connection: logged in, idle.
    fn server(&mut self) -> &mut Server;
}

impl Lender for Server {
    fn server(&mut self) -> &mut Server {
        self
    }
}

/// Makes the listener's connection. It must not keep the hub alive.
pub type Dial = Box<
    dyn Fn() -> Pin<Box<dyn Future<Output = Result<Box<dyn Lender>, UpstreamError>> + Send>>
        + Send
        + Sync,
>;

/// Whether the tenant hears notifications of the server process with this pid.
pub type Hears = Box<dyn Fn(u32) -> bool + Send + Sync>;

/// The shared listener of one pool. It holds no connection until somebody listens, and gives it up
/// when nobody has listened for a while. It ends when it and all its subscriptions are dropped.
pub struct Hub(Arc<Inner>);

/// What hub and subscriptions hold, and the listener's task does not: with it the task ends.
pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What sessions and the listener's task share.
pub(super) struct Shared {
    pub(super) dial: Dial,
    pub(super) hears: Hears,
    pub(super) bounds: Bounds,
    pub(super) markers: MarkerPrefix,
    pub(super) state: Mutex<State>,
    /// Tells the task that there is something to do.
    pub(super) wake: Notify,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) registry: Registry,
    pub(super) requests: VecDeque<Request>,
    /// Why the last connection, or the last attempt at one, failed.
    pub(super) failure: Option<HubError>,
    /// Whether there is a connection that listens.
    pub(super) is_connected: bool,
    /// When a request was given up for want of a connection; `None` since there was one.
    gave_up_at: Option<Instant>,
    /// Whether the listener's task runs.
    pub(super) is_running: bool,
    /// How often what connections are made from has changed.
    pub(super) dialled_for: u64,
    next_id: u64,
}

impl Hub {
    /// A hub without a connection. `dial` makes one when it is needed; only notifications of the
    /// processes for which `hears` says so are delivered.
    pub fn new(dial: Dial, hears: Hears, bounds: Bounds) -> Self {
        Self(Arc::new(Inner {
            shared: Arc::new(Shared {
                dial,
                hears,
                bounds,
                markers: MarkerPrefix::random(),
                state: Mutex::default(),
                wake: Notify::new(),
            }),
            stop: CancellationToken::new(),
        }))
    }

    /// What `dial` makes is another one from now on: a connection that is here is replaced, and who
    /// listens is told as when it is lost.
    pub fn redial(&self) {
        self.0.shared.state.lock().dialled_for += 1;
        self.0.shared.wake.notify_one();
    }

    /// A session's subscription, without channels.
    pub fn subscribe(&self) -> Arc<Subscription> {
        let mut state = self.0.shared.state.lock();
        state.next_id += 1;
        let id = SubscriptionId(state.next_id);
        drop(state);
        Arc::new(Subscription::new(id, Arc::clone(&self.0)))
    }

    /// Makes these the channels of a subscription. Channels that are not among them are dropped at
    /// once, and what waits of them: PostgreSQL, too, delivers nothing of a channel after the
    /// transaction that left it. Notifications of the new ones are delivered from behind the returned [`Cut`] on;
    /// `None` when none is new: then there is nothing to wait for.
    ///
    /// The session's server must listen to the new channels and to [`super::MARKER_CHANNEL`]
    /// already when this is called: then it sees the cut too.
    ///
    /// # Errors
    /// [`HubError`], at most after [`Bounds::deadline`], at once for [`Bounds::respite`] after a
    /// request was given up for want of a connection; the subscription has none of the new channels
    /// then.
    ///
    /// # Cancel safety
    /// The channels to be dropped are dropped; whether the new ones were added is left open.
    pub async fn set_channels(
        &self,
        subscription: &Arc<Subscription>,
        channels: &Channels,
    ) -> Result<Option<Cut>, HubError> {
        debug_assert!(subscription.is_of(&self.0), "another hub's subscription");
        let shared = &self.0.shared;
        let max = shared.bounds.channels_per_session_max;
        let named = channels.iter().map(|name| Channel::new(name.as_bytes()));
        let channels: BTreeSet<_> = named.collect::<Result<_, _>>()?;
        let has_all = {
            let registry = &mut shared.state.lock().registry;
            let before = registry.channels_of(subscription.id);
            if !before.is_subset(&channels) {
                registry.keep(subscription.id, &channels);
                let queue = &subscription.queue;
                queue.forget(|channel| before.contains(channel) && !channels.contains(channel));
            }
            registry.channels_of(subscription.id) == channels
        };
        shared.wake.notify_one();
        if has_all {
            return Ok(None);
        }
        if channels.len() > max {
            return Err(HubError::TooManyChannels { max });
        }
        let wish = Wish::Channels {
            id: subscription.id,
            queue: Arc::clone(&subscription.queue),
            channels,
        };
        self.ask(wish).await.map(Some)
    }

    /// Takes all channels away behind the returned [`Cut`]: what comes before it is delivered, and is
    /// in the queue when this returns.
    ///
    /// The session's server must listen to the channels and to [`super::MARKER_CHANNEL`] already when
    /// this is called: then it sees the cut too.
    ///
    /// # Errors
    /// [`HubError`], at most after [`Bounds::deadline`]; the channels stay then.
    ///
    /// # Cancel safety
    /// Whether the channels were taken away is left open.
    pub async fn hand_back(&self, subscription: &Arc<Subscription>) -> Result<Cut, HubError> {
        debug_assert!(subscription.is_of(&self.0), "another hub's subscription");
        let wish = Wish::Channels {
            id: subscription.id,
            queue: Arc::clone(&subscription.queue),
            channels: BTreeSet::new(),
        };
        self.ask(wish).await
    }

    /// Waits until everything that was committed before the call is in the subscription's queue.
    ///
    /// # Errors
    /// [`HubError`], at most after [`Bounds::deadline`]; at once when the listener has no connection
    /// and could not make one: that may take long, and something is missing then anyway.
    ///
    /// # Cancel safety
    /// Cancel safe: it only waits.
    pub async fn fence(&self, subscription: &Subscription) -> Result<(), HubError> {
        debug_assert!(subscription.is_of(&self.0), "another hub's subscription");
        {
            let state = self.0.shared.state.lock();
            if !state.registry.has_any(subscription.id) {
                return Ok(());
            }
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
        }
        self.ask(Wish::Fence).await.map(drop)
    }

    /// Whether there is a connection that listens.
    pub fn is_connected(&self) -> bool {
        self.0.shared.state.lock().is_connected
    }

    async fn ask(&self, wish: Wish) -> Result<Cut, HubError> {
        let shared = &self.0.shared;
        let (answer, answered) = oneshot::channel();
        {
            let mut state = shared.state.lock();
            let at = state.gave_up_at.filter(|_| !state.is_connected);
            if at.is_some_and(|at| at.elapsed() < shared.bounds.respite) {
                return Err(state.failure.clone().unwrap_or(HubError::Timeout));
            }
            if state.requests.len() >= shared.bounds.requests_max {
                return Err(HubError::Busy);
            }
            state.requests.push_back(Request::new(wish, answer));
            if !state.is_running {
                state.is_running = true;
                let stop = self.0.stop.clone();
                tokio::spawn(stop.run_until_cancelled_owned(listener::run(Arc::clone(shared))));
            }
        }
        shared.wake.notify_one();
        let answer = match tokio::time::timeout(shared.bounds.deadline, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_task_gone)) => Err(HubError::Lost),
            Err(_elapsed) => {
                let failure = shared.state.lock().failure.clone();
                Err(failure.unwrap_or(HubError::Timeout))
            }
        };
        let mut state = shared.state.lock();
        let has_given_up = answer.is_err() && !state.is_connected;
        state.gave_up_at = has_given_up.then(Instant::now);
        answer
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").finish_non_exhaustive()
    }
}
