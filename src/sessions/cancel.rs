//! CancelRequest: reaches the statement that the client runs, or no statement at all.
//!
//! The server that a cancel is sent to can't be given to another client before PostgreSQL has
//! closed the cancel's socket: by then the signal is with the backend.

use super::{Order, Sessions};
use crate::wire::CancelKey;

/// What became of a cancel request. The client is told nothing in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// Nobody has this key.
    Unknown,
    /// The session held no server: if it waited for one, it waits no more.
    NotRunning,
    /// PostgreSQL has it.
    Delivered,
    /// PostgreSQL could not be reached.
    Failed,
}

impl CancelOutcome {
    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NotRunning => "not_running",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

/// Cancels what the session with this key does.
///
/// # Cancel safety
/// Dropping the future may or may not have sent the request; the server is reusable again.
pub async fn cancel(sessions: &Sessions, key: &CancelKey) -> CancelOutcome {
    let Some(handle) = sessions.find(key) else {
        return CancelOutcome::Unknown;
    };
    // It may hold a server that runs nothing meanwhile.
    if handle.awaited.is_any() {
        handle.give(Order::CancelWait);
        return CancelOutcome::NotRunning;
    }
    let Some(in_flight) = handle.begin_cancel() else {
        if handle.state().activity == super::Activity::Waiting {
            handle.give(Order::CancelWait);
        }
        return CancelOutcome::NotRunning;
    };
    match in_flight.deliver().await {
        Ok(()) => CancelOutcome::Delivered,
        Err(error) => {
            tracing::warn!(%error, "a cancel could not be delivered");
            CancelOutcome::Failed
        }
    }
}
