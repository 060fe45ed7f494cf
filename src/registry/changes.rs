//! Hearing of changes in the registry.

use super::{Registry, RegistryDirectory, RegistryError};
use serde::Deserialize;
use sqlx::postgres::PgListener;
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

const CHANNEL: &str = "pgusher_changes";
/// Between two attempts to listen.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often the last number is asked for, should a notification never come: behind a pooler, say.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// How long a question may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// What the triggers tell.
#[derive(Deserialize)]
struct Told {
    tenant: Option<String>,
    cluster: Option<String>,
    generation: i64,
}

/// Listens for ever, through every loss of the registry. After a loss everything is read again, as
/// something may have been missed.
///
/// # Cancel safety
/// Cancel safe.
pub async fn listen(directory: Arc<RegistryDirectory>) {
    loop {
        let error = hear(&directory).await.err();
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        tracing::warn!(%error, "changes in the registry are not heard");
        sleep(RETRY_AFTER).await;
    }
}

/// Returns when the connection is lost.
async fn hear(directory: &RegistryDirectory) -> Result<(), RegistryError> {
    let registry = directory.registry();
    let mut listener = PgListener::connect_with(&registry.pool).await?;
    // Reconnecting is ours: what was missed meanwhile must be read again.
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    directory.read_clusters().await?;
    directory.answered();
    directory.anything_changed();
    let mut last = last_generation(registry).await?;
    loop {
        match timeout(ASK_EVERY, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => {
                last = take(directory, notification.payload(), last).await?;
            }
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(error.into()),
            Err(_elapsed) => {
                let now = timeout(ANSWER_TIME_MAX, last_generation(registry)).await;
                let now = now.map_err(|_elapsed| sqlx::Error::PoolTimedOut)??;
                if now > last {
                    // A number is taken before its notification comes: give it the time.
                    let heard = timeout(RETRY_AFTER, listener.try_recv()).await;
                    match heard {
                        Ok(Ok(Some(notification))) => {
                            last = take(directory, notification.payload(), last).await?;
                        }
                        Ok(_) => return Ok(()),
                        Err(_elapsed) => {
                            last = now;
                            directory.read_clusters().await?;
                            directory.anything_changed();
                        }
                    }
                }
            }
        }
    }
}

/// Takes a change over; the highest number heard.
async fn take(
    directory: &RegistryDirectory,
    payload: &str,
    last: i64,
) -> Result<i64, RegistryError> {
    let Ok(told) = serde_json::from_str::<Told>(payload) else {
        // Anybody who may connect to the registry can notify.
        tracing::debug!("a notification of another form");
        return Ok(last);
    };
    if let Some(id) = &told.tenant {
        directory.tenant_changed(id, told.generation);
    }
    if told.cluster.is_some() {
        directory.read_clusters().await?;
        directory.anything_changed();
    }
    Ok(last.max(told.generation))
}

async fn last_generation(registry: &Registry) -> Result<i64, RegistryError> {
    let query = sqlx::query_scalar("SELECT last_value FROM pgusher.generation");
    Ok(query.fetch_one(&registry.pool).await?)
}
