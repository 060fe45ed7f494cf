//! One sweep over all sessions instead of a timer per statement.
//!
//! PostgreSQL's own timeouts are the tenant's to change in SQL; these are not. A statement over
//! its time is cancelled first; when the cancel is swallowed, the connection is ended.

use super::{Activity, Order, SessionHandle, Sessions, handle::unix_ms};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

/// How often timeouts are checked, and the resolution of the sessions' clock.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// How long a cancelled statement may take to end.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// Sweeps until the process ends.
///
/// # Cancel safety
/// Cancel safe.
pub async fn run(sessions: Arc<Sessions>) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let now_ms = sessions.tick();
        let unix_ms = unix_ms(SystemTime::now());
        sessions.for_each(|handle| {
            if handle.has_expired(unix_ms) {
                handle.give(Order::Expired);
            }
            check(handle, now_ms);
        });
    }
}

fn check(handle: &Arc<SessionHandle>, now_ms: u64) {
    let tenant = handle.tenant.load();
    let timeouts = &tenant.timeouts;
    let state = handle.state();
    let over = |since_ms: u64, limit: Option<Duration>| {
        limit.is_some_and(|limit| now_ms.saturating_sub(since_ms) > limit.as_millis() as u64)
    };
    if let Some(since_ms) = handle.transaction_since_ms()
        && over(since_ms, timeouts.transaction)
    {
        handle.give(Order::TransactionTimeout);
    }
    let holds_server = matches!(
        state.activity,
        Activity::Active | Activity::IdleInTransaction
    );
    if let Some(since_ms) = handle.stall.since_ms()
        && holds_server
        && over(since_ms, timeouts.client_write)
    {
        handle.give(Order::ClientWriteTimeout);
    }
    match state.activity {
        Activity::Idle if over(state.since_ms, timeouts.client_idle) => {
            handle.give(Order::ClientIdleTimeout);
        }
        Activity::IdleInTransaction if over(state.since_ms, timeouts.idle_transaction) => {
            handle.give(Order::IdleTransactionTimeout);
        }
        Activity::Active if over(state.since_ms, timeouts.query) => {
            if !handle.is_query_overdue() {
                cancel_overdue(handle);
            } else if over(
                state.since_ms,
                timeouts.query.map(|limit| limit + CANCEL_GRACE),
            ) {
                handle.give(Order::QueryTimeout);
            }
        }
        _ => {}
    }
}

fn cancel_overdue(handle: &Arc<SessionHandle>) {
    let Some(in_flight) = handle.begin_cancel() else {
        return;
    };
    handle.mark_query_overdue();
    tokio::spawn(async move {
        if let Err(error) = in_flight.deliver().await {
            tracing::warn!(%error, "an overdue statement could not be cancelled");
        }
    });
}
