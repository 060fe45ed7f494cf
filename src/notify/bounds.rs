//! How much a hub holds and how long it waits.

use std::time::Duration;

/// Bounds of a hub. The defaults suit every tenant; tests make them small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Channels of one session.
    pub channels_per_session_max: usize,
    /// Channels of all sessions together.
    pub channels_max: usize,
    /// Notifications that wait for one session.
    pub queued_count_max: usize,
    /// Bytes of the notifications that wait for one session.
    pub queued_bytes_max: usize,
    /// Requests of sessions that wait for the listener.
    pub requests_max: usize,
    /// Longest that a request waits, and that PostgreSQL may be silent when asked.
    pub deadline: Duration,
    /// After a request was given up for want of a connection others are refused at once for so long.
    pub respite: Duration,
    /// An idle connection is asked whether it lives after this.
    pub check_interval: Duration,
    /// The connection is closed when nobody has listened for this long.
    pub idle_timeout: Duration,
    /// Longest pause before the next attempt to connect; the first comes almost at once.
    pub pause_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            channels_per_session_max: 1000,
            channels_max: 10_000,
            queued_count_max: 4096,
            queued_bytes_max: 1024 * 1024,
            requests_max: 10_000,
            deadline: Duration::from_secs(10),
            respite: Duration::from_secs(30),
            check_interval: Duration::from_secs(30),
            idle_timeout: Duration::from_mins(1),
            pause_max: Duration::from_secs(5),
        }
    }
}
