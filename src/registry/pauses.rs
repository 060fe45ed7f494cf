//! Clusters whose pause is over, though nobody changes them.

use super::directory::Inner;
use std::{sync::Arc, time::Duration};
use time::OffsetDateTime;
use tokio::time::timeout;

/// Ends the pauses of clusters when their time is over, for ever: whether the registry answers then
/// or not.
///
/// # Cancel safety
/// Cancel safe.
pub(super) async fn end(inner: Arc<Inner>) {
    loop {
        let Some(at) = inner.next_end_of_pause() else {
            inner.has_pauses.notified().await;
            continue;
        };
        let left = at - OffsetDateTime::now_utc();
        let left = Duration::try_from(left).unwrap_or_default();
        let changed = timeout(left, inner.has_pauses.notified()).await;
        if changed.is_err() {
            inner.take_clusters_again();
        }
    }
}
