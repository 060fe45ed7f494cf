//! The listener of one pool, and the order of what it is asked.

use super::{
    Channels, Subscription,
    link::{Link, Said},
};
use crate::upstream::{Server, UpstreamError};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    fmt::Write as _,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::{Notify, oneshot};

/// Where markers are sent.
pub const MARKER_CHANNEL: &str = "pgusher";

/// How long a question may wait for the listener.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// The connection is closed when nobody has listened for so long.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// Between tries to connect: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Holds a server connection.
pub trait Lender: Send {
    /// The connection.
    fn server(&mut self) -> &mut Server;
}

/// Makes the listener's connection.
pub type Dial = Box<
    dyn Fn() -> Pin<Box<dyn Future<Output = Result<Box<dyn Lender>, UpstreamError>> + Send>>
        + Send
        + Sync,
>;

/// Why channels could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// There is no connection to listen with.
    #[error("the listener's connection can't be had")]
    Unavailable,
    /// PostgreSQL refused.
    #[error("the listener was refused: {0}")]
    Refused(String),
}

/// The place in PostgreSQL's stream of notifications from which on a subscription hears of new
/// channels: behind this notification on [`MARKER_CHANNEL`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Who sent it.
    pub pid: u32,
    /// What it says.
    pub payload: Box<str>,
}

/// A question to the listener.
struct Command {
    number: u64,
    /// Who is to hear of which channels behind the marker.
    joins: Option<(Weak<Subscription>, Channels)>,
    answer: oneshot::Sender<Result<Cut, HubError>>,
}

#[derive(Default)]
struct Shared {
    subscribers: Vec<Weak<Subscription>>,
    commands: VecDeque<Command>,
    next_number: u64,
    is_running: bool,
}

/// The listener of one pool: no connection until somebody listens.
pub struct Hub {
    shared: Mutex<Shared>,
    /// The process id of its backend.
    pid: AtomicU32,
    asked: Notify,
    dial: Dial,
    hears: Box<dyn Fn(u32) -> bool + Send + Sync>,
}

impl Hub {
    /// A hub that makes its connection by `dial` and takes notifications of those backends for which
    /// `hears` is true.
    pub fn new(dial: Dial, hears: Box<dyn Fn(u32) -> bool + Send + Sync>) -> Arc<Self> {
        Arc::new(Self {
            shared: Mutex::default(),
            pid: AtomicU32::new(0),
            asked: Notify::new(),
            dial,
            hears,
        })
    }

    /// Has the subscription hear of exactly these channels: of new ones from the cut on.
    ///
    /// # Errors
    /// [`HubError`]; new channels are not heard of then.
    ///
    /// # Cancel safety
    /// When dropped, new channels may or may not be heard of.
    pub async fn set_channels(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
        channels: &Channels,
    ) -> Result<Cut, HubError> {
        subscription.keep_only(channels);
        let added = channels - &subscription.channels();
        self.shared.lock().join(subscription);
        self.ask(Some((Arc::downgrade(subscription), added))).await
    }

    /// Waits until everything that was committed before is in the queues of subscriptions.
    ///
    /// # Errors
    /// [`HubError`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn fence(self: Arc<Self>) -> Result<(), HubError> {
        self.ask(None).await.map(drop)
    }

    /// Whether this backend is the listener's own.
    pub fn is_own(&self, pid: u32) -> bool {
        self.pid.load(Relaxed) == pid
    }

    async fn ask(
        self: &Arc<Self>,
        joins: Option<(Weak<Subscription>, Channels)>,
    ) -> Result<Cut, HubError> {
        let (answer, answered) = oneshot::channel();
        {
            let mut shared = self.shared.lock();
            shared.next_number += 1;
            let number = shared.next_number;
            shared.commands.push_back(Command {
                number,
                joins,
                answer,
            });
            if !std::mem::replace(&mut shared.is_running, true) {
                tokio::spawn(Arc::clone(self).run());
            }
        }
        self.asked.notify_one();
        match tokio::time::timeout(ASK_TIMEOUT, answered).await {
            Ok(Ok(answer)) => answer,
            _ => Err(HubError::Unavailable),
        }
    }

    /// Listens until nobody has for a while.
    async fn run(self: Arc<Self>) {
        let mut is_first = true;
        while let Some(link) = self.connect(&mut is_first).await {
            match self.serve(link).await {
                Ok(()) => return,
                Err(error) => tracing::info!(%error, "the listener's connection was lost"),
            }
        }
    }

    /// A connection that listens to everything that is wanted; `None` when nobody wants any more.
    async fn connect(&self, is_first: &mut bool) -> Option<Link> {
        let mut pause = RETRY.0;
        loop {
            if self.rests() {
                return None;
            }
            match self.try_connect().await {
                Ok(link) => {
                    if !std::mem::take(is_first) {
                        self.each(Subscription::interrupt);
                    }
                    return Some(link);
                }
                Err(error) => tracing::warn!(%error, "the listener could not connect"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// What subscriptions hear of.
    fn wanted(&self) -> Channels {
        let mut channels = Channels::new();
        self.each(|subscription| channels.extend(subscription.channels()));
        channels
    }

    async fn try_connect(&self) -> Result<Link, UpstreamError> {
        let mut link = Link::new((self.dial)().await?);
        link.channels = self.wanted();
        let channels = link.channels.iter().map(|channel| &**channel);
        let mut sql = String::from("SET client_encoding TO 'UTF8'");
        for channel in channels.chain([MARKER_CHANNEL]) {
            push(&mut sql, "LISTEN", channel);
        }
        link.ask(&sql).await?;
        loop {
            match link.next().await? {
                Said::Ready => return Ok(link),
                Said::Refused(words) => {
                    tracing::warn!(words, "the listener was refused");
                    return Err(UpstreamError::Protocol);
                }
                _ => {}
            }
        }
    }

    /// Answers questions and hands notifications out; ends when nobody has listened for a while.
    async fn serve(&self, mut link: Link) -> Result<(), UpstreamError> {
        let pid = link.pid();
        self.pid.store(pid, Relaxed);
        let mut asked: Option<Command> = None;
        let mut refused = None;
        loop {
            if asked.is_none() {
                asked = self.shared.lock().commands.pop_front();
                if let Some(command) = &asked {
                    let sql = command.sql(&mut link.channels, &self.wanted());
                    link.ask(&sql).await?;
                }
            }
            let said = tokio::select! {
                said = link.next() => said?,
                () = self.asked.notified(), if asked.is_none() => continue,
                () = tokio::time::sleep(IDLE_TIMEOUT) => {
                    if self.rests() {
                        return Ok(());
                    }
                    continue;
                }
            };
            match said {
                Said::Notification {
                    pid: from,
                    channel,
                    payload,
                    ..
                } if from == pid && channel == MARKER_CHANNEL => {
                    if let Some(command) = asked.as_ref().filter(|c| *c.payload() == *payload) {
                        command.join();
                    }
                }
                Said::Notification {
                    pid: from,
                    channel,
                    message,
                    ..
                } => {
                    if (self.hears)(from) {
                        self.each(|subscription| subscription.tell(&channel, &message));
                    }
                }
                Said::Ready => {
                    if let Some(command) = asked.take() {
                        command.answer(pid, refused.take());
                    }
                }
                Said::Refused(words) => {
                    // What it would have listened to is not known any more.
                    link.channels.clear();
                    refused = Some(words);
                }
                Said::Nothing => {}
            }
        }
    }

    fn each(&self, mut act: impl FnMut(&Subscription)) {
        let subscribers: Vec<_> = {
            let mut shared = self.shared.lock();
            shared.subscribers.retain(|one| one.strong_count() > 0);
            shared
                .subscribers
                .iter()
                .filter_map(Weak::upgrade)
                .collect()
        };
        for subscriber in subscribers {
            act(&subscriber);
        }
    }

    /// Whether there is nothing to do any more; then the next question begins anew.
    fn rests(&self) -> bool {
        let mut shared = self.shared.lock();
        shared.subscribers.retain(|one| one.strong_count() > 0);
        let rests = shared.subscribers.is_empty() && shared.commands.is_empty();
        shared.is_running = !rests;
        rests
    }
}

impl Shared {
    fn join(&mut self, subscription: &Arc<Subscription>) {
        self.subscribers.retain(|one| one.strong_count() > 0);
        let is_known = |one: &Weak<_>| one.as_ptr() == Arc::as_ptr(subscription);
        if !self.subscribers.iter().any(is_known) {
            self.subscribers.push(Arc::downgrade(subscription));
        }
    }
}

impl Command {
    fn payload(&self) -> Vec<u8> {
        self.number.to_string().into_bytes()
    }

    /// Listens to what is new, to nothing that nobody wants, and sends the marker, all in one
    /// transaction.
    fn sql(&self, heard: &mut Channels, wanted: &Channels) -> String {
        let mut sql = String::from("SELECT");
        let joins = self.joins.iter().flat_map(|(_, channels)| channels);
        let needed: Channels = wanted.iter().chain(joins).cloned().collect();
        for channel in needed.difference(heard) {
            push(&mut sql, "LISTEN", channel);
        }
        for channel in heard
            .difference(&needed)
            .filter(|c| ***c != *MARKER_CHANNEL)
        {
            push(&mut sql, "UNLISTEN", channel);
        }
        *heard = needed;
        push(&mut sql, "NOTIFY", MARKER_CHANNEL);
        // Writing to a String can't fail.
        write!(sql, ",'{}'", self.number).ok();
        sql
    }

    fn join(&self) {
        if let Some((subscription, channels)) = &self.joins
            && let Some(subscription) = subscription.upgrade()
        {
            subscription.add(channels.iter().cloned());
        }
    }

    fn answer(self, pid: u32, refused: Option<String>) {
        let payload = self.number.to_string().into();
        let answer = match refused {
            Some(words) => Err(HubError::Refused(words)),
            None => Ok(Cut { pid, payload }),
        };
        // Who asked may have gone.
        self.answer.send(answer).ok();
    }
}

/// Appends a command about a channel, behind what there is.
fn push(sql: &mut String, command: &str, channel: &str) {
    let channel = channel.replace('"', "\"\"");
    // Writing to a String can't fail.
    write!(sql, ";{command} \"{channel}\"").ok();
}
