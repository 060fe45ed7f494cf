//! Whether the registry answers, and since when it does not.

use super::RegistryError;
use crate::telemetry::names;
use parking_lot::Mutex;
use std::time::{Duration, SystemTime};

/// Whether the registry answers. Only its listener says so: a look-up that fails decides nothing
/// for others.
#[derive(Debug, Default)]
pub(super) struct Link(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    down_since: Option<SystemTime>,
    /// When everything was surely known.
    contact: Option<SystemTime>,
}

impl Link {
    /// It answers.
    pub(super) fn up(&self) {
        let mut state = self.0.lock();
        state.contact = Some(SystemTime::now());
        metrics::gauge!(names::REGISTRY_UP).set(1.0);
        if let Some(since) = state.down_since.take() {
            let seconds = since.elapsed().unwrap_or_default().as_secs();
            tracing::info!(seconds, "the registry answers again");
        }
    }

    /// It does not. Said once.
    pub(super) fn down(&self, error: &RegistryError) {
        let mut state = self.0.lock();
        metrics::gauge!(names::REGISTRY_UP).set(0.0);
        if state.down_since.is_some() {
            return;
        }
        let since = SystemTime::now();
        state.down_since = Some(since);
        let since = humantime::format_rfc3339_seconds(since);
        let error = chain(error);
        tracing::error!(%since, error, "the registry does not answer; tenants are served as they were last known");
    }

    pub(super) fn is_down(&self) -> bool {
        self.0.lock().down_since.is_some()
    }

    /// A file tells what was known at that time.
    pub(super) fn remember(&self, as_of: SystemTime) {
        self.0.lock().contact.get_or_insert(as_of);
    }

    /// When everything was surely known.
    pub(super) fn contact(&self) -> Option<SystemTime> {
        self.0.lock().contact
    }

    /// Whether what was known then may still be served.
    pub(super) fn is_within(&self, stale_max: Duration) -> bool {
        let contact = self.contact();
        contact.is_some_and(|contact| contact.elapsed().unwrap_or_default() <= stale_max)
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_is_served_for_its_time() {
        let link = Link::default();
        let day = Duration::from_hours(24);
        assert!(!link.is_within(day), "nothing was ever known");
        link.remember(SystemTime::now() - 2 * day);
        assert!(!link.is_within(day));
        assert!(link.is_within(3 * day));
        link.down(&RegistryError::Url);
        assert!(link.is_down());
        link.up();
        assert!(!link.is_down());
        assert!(link.is_within(day));
    }
}
