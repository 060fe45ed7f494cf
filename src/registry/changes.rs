//! Following the registry: what it tells of, whether it answers, and the copy on disk.

use super::{
    RegistryError,
    directory::{Inner, beside},
    link::chain,
    load, snapshot,
};
use serde::Deserialize;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

/// What changes are told on.
const CHANNEL: &str = "pgusher_changes";

/// At a start: how long the registry may take to answer before the snapshot is used.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(3);

/// Later: how long a connection may take, and the pause behind one that failed.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// How often it is asked whether it is there, and whether something changed that nobody told of:
/// behind a pooler no notification comes.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
const POLL_TIME_MAX: Duration = Duration::from_secs(5);

/// Pause before the snapshot is written, so that many changes are one.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(2);

/// The snapshot says at least so often that nothing changed.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_mins(10);

/// What a notification says.
#[derive(Debug, Deserialize)]
struct Message {
    tenant: Option<String>,
    cluster: Option<String>,
    plan: Option<String>,
    generation: Option<i64>,
}

/// Follows the registry for ever. `ready` is set once it has answered or did not in time.
///
/// # Cancel safety
/// Cancel safe.
pub(super) async fn follow(
    inner: Arc<Inner>,
    options: PgConnectOptions,
    ready: watch::Sender<bool>,
) {
    // Not one of the registry's own connections: those are all for look-ups.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECT_TIME_MAX)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(options);
    let mut time_max = FIRST_ANSWER_MAX;
    loop {
        let connected = timeout(time_max, connect(&inner, &pool)).await;
        match connected.unwrap_or(Err(RegistryError::Database(sqlx::Error::PoolTimedOut))) {
            Ok(listener) => {
                // In this order: who is asked from here on is told of what comes behind.
                inner.lose();
                inner.link.up();
                let _load = beside(load_until_done(Arc::clone(&inner)));
                ready.send_replace(true);
                let error = listen(&inner, listener).await;
                tracing::warn!(error, "the registry's connection for changes is lost");
                inner.lose();
            }
            Err(error) => {
                tracing::debug!(error = chain(&error), "the registry can't be followed yet");
                inner.link.down(&error);
                if !*ready.borrow() {
                    read_snapshot(&inner).await;
                    ready.send_replace(true);
                }
                sleep(RETRY_PAUSE).await;
            }
        }
        time_max = CONNECT_TIME_MAX;
    }
}

async fn connect(inner: &Inner, pool: &sqlx::PgPool) -> Result<PgListener, RegistryError> {
    let mut listener = PgListener::connect_with(pool).await?;
    // Dropped and made anew instead: then everything is looked at again.
    listener.eager_reconnect(false);
    if let Err(error) = inner.registry.migrate().await {
        if error.is_unavailable() {
            return Err(error);
        }
        let error = chain(&error);
        tracing::error!(error, "the registry can't be brought up to date");
    }
    if let Err(error @ RegistryError::OtherKeys(_)) = inner.registry.check_keyring().await {
        let error = chain(&error);
        tracing::error!(error, "no tenant of the registry can be served");
    }
    listener.listen(CHANNEL).await?;
    inner.load_clusters().await?;
    inner.load_plans().await?;
    Ok(listener)
}

async fn load_until_done(inner: Arc<Inner>) {
    while let Err(error) = inner.load_all().await {
        let error = chain(&error);
        tracing::warn!(error, "the registry can't be read through; trying again");
        sleep(RETRY_PAUSE).await;
    }
}

/// Listens until the connection is lost; says why.
async fn listen(inner: &Arc<Inner>, mut listener: PgListener) -> String {
    let mut poll = Poll::default();
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            told = listener.try_recv() => match told {
                Ok(Some(notification)) => {
                    match take(inner, notification.payload()).await {
                        Ok(generation) => poll.told = poll.told.max(generation),
                        // Everything is looked at again.
                        Err(error) => return chain(&error),
                    }
                }
                Ok(None) => return "it was closed".to_owned(),
                Err(error) => return chain(&error),
            },
            _ = ticks.tick() => {
                // Not through the pool: in a storm of look-ups changes would wait behind them.
                let last = timeout(POLL_TIME_MAX, load::generation(&mut listener)).await;
                match last.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                    Ok(last) => {
                        inner.link.up();
                        if poll.has_missed(last) {
                            tracing::warn!("changes in the registry were not told of; does a pooler stand before it?");
                            inner.lose();
                            if let Err(error) = inner.load_all().await {
                                return chain(&error);
                            }
                        }
                    }
                    Err(error) => {
                        let error = RegistryError::from(error);
                        inner.link.down(&error);
                        return chain(&error);
                    }
                }
            }
        }
    }
}

/// Takes a notification; its generation. An error when what it tells of can't be read.
async fn take(inner: &Arc<Inner>, payload: &str) -> Result<i64, RegistryError> {
    let Ok(message) = serde_json::from_str::<Message>(payload) else {
        tracing::warn!("a notification of the registry can't be read");
        return Ok(0);
    };
    if let Some(id) = &message.tenant
        && inner.tell_tenant(id)
        && let Err(error) = inner.load_all().await
    {
        tracing::warn!(error = chain(&error), "the registry can't be read through");
    }
    if message.cluster.is_some() {
        inner.load_clusters().await?;
        inner.gathered.clusters();
    }
    if message.plan.is_some() {
        inner.load_plans().await?;
    }
    Ok(message.generation.unwrap_or_default())
}

/// Finds changes that nobody told of.
#[derive(Debug, Default)]
struct Poll {
    /// The highest number that was told, or seen to.
    told: i64,
    /// What the last poll saw, if any.
    seen: Option<i64>,
}

impl Poll {
    /// Whether a change was made that was not told of since the last poll. A number may be taken
    /// long before its change is told of, and one whose transaction failed never is: so each
    /// number counts once, a poll late.
    fn has_missed(&mut self, last: i64) -> bool {
        let seen = *self.seen.get_or_insert(last);
        self.seen = Some(last);
        if self.told == 0 {
            // The first one: all was read just before.
            self.told = last;
        }
        let is_missed = seen > self.told;
        self.told = self.told.max(seen);
        is_missed
    }
}

async fn read_snapshot(inner: &Arc<Inner>) {
    let Some(path) = inner.snapshot.clone() else {
        return;
    };
    let registry = inner.registry.clone();
    let shown = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || snapshot::read(&path, &registry.keyring)).await;
    match read {
        Ok(Ok(snapshot)) => {
            let as_of = humantime::format_rfc3339_seconds(snapshot.as_of);
            let tenants = snapshot.tenants.len();
            tracing::warn!(path = shown, %as_of, tenants, "serving from the snapshot");
            inner.remember(snapshot);
        }
        Ok(Err(error)) => {
            let error = chain(&error);
            tracing::error!(path = shown, error, "the snapshot can't be used");
        }
        Err(error) => tracing::error!(%error, "the snapshot was not read"),
    }
}

/// Writes the snapshot some time after changes, for ever.
///
/// # Cancel safety
/// Cancel safe: the file is the old one or the new one.
pub(super) async fn write_snapshots(inner: Arc<Inner>) {
    let Some(path) = inner.snapshot.clone() else {
        return;
    };
    let age_max = SNAPSHOT_AGE_MAX
        .min(inner.stale_max / 4)
        .max(SNAPSHOT_PAUSE);
    loop {
        drop(timeout(age_max, inner.is_dirty.notified()).await);
        sleep(SNAPSHOT_PAUSE).await;
        if inner.link.is_down() || !inner.known.is_complete() {
            continue;
        }
        let (copied, path) = (Arc::clone(&inner), path.clone());
        let shown = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || match copied.picture() {
            Some(picture) => snapshot::write(&path, &copied.registry.keyring, &picture),
            None => Ok(()),
        });
        if let Ok(Err(error)) = written.await {
            let error = chain(&error);
            tracing::error!(path = shown, error, "the snapshot can't be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_is_not_told_of_is_found_once_and_a_poll_late() {
        let mut poll = Poll::default();
        assert!(!poll.has_missed(5), "all was read just before");
        assert!(!poll.has_missed(7), "it may be told of yet");
        assert!(poll.has_missed(7));
        assert!(!poll.has_missed(7));
        assert!(!poll.has_missed(8));
        poll.told = 8;
        assert!(!poll.has_missed(8), "it was told of");
    }
}
