//! What servers report of settings, and what the client is told of it.

use super::{Relay, resets};
use crate::{
    upstream::{Settings, Verdict},
    wire::{Header, backend, read},
};
use std::sync::Arc;

/// Parameters that are reported and can't be set.
const NOT_SETTABLE: [&str; 6] = [
    "is_superuser",
    "session_authorization",
    "in_hot_standby",
    "server_version",
    "server_encoding",
    "integer_datetimes",
];

impl Relay<'_> {
    /// A ParameterStatus: a setting of the client's now, unless PostgreSQL has read its configuration
    /// again.
    pub(super) fn parameter_changed(&mut self, header: Header) -> Verdict {
        if self.server.replies.is_injected() {
            return Verdict::Swallow;
        }
        let body = self.body(header);
        // What is too long or not UTF-8 to be carried is told all the same.
        let Some((name, value)) = read::parameter_status(body) else {
            return Verdict::Forward;
        };
        if NOT_SETTABLE.contains(&name) {
            return Verdict::Forward;
        }
        let may_change = self.may_change_settings
            || self.sets_session
            || self.server.is_dirty
            || !self.server.suspicion.is_empty();
        if !may_change {
            // No command of the client's did it: PostgreSQL has read its configuration again.
            self.server.is_outdated = true;
            self.pool.forget_welcome();
            return Verdict::Forward;
        }
        let changed = (self.client.welcome.value(name) != Some(value)).then_some(value);
        if self.is_reset(name, value) {
            self.server.applied = Arc::new(self.server.applied.with(name, None));
            return Verdict::Swallow;
        }
        let own = Arc::new(self.client.settings.with(name, changed));
        self.server.applied = if Arc::ptr_eq(&self.server.applied, &self.client.settings) {
            Arc::clone(&own)
        } else {
            Arc::new(self.server.applied.with(name, changed))
        };
        self.client.settings = own;
        Verdict::Forward
    }

    /// What the client reset returns to what it said at startup, and not to what the pool starts
    /// with. Its next message finds that on its server; the client is told now.
    pub(super) fn return_to_startup(&mut self) {
        let done = std::mem::take(&mut self.resets);
        let is_unsure = std::mem::take(&mut self.resets_are_unsure);
        let startup = Arc::clone(&self.client.startup);
        let mut own = Settings::clone(&self.client.settings);
        let mut applied = Settings::clone(&self.server.applied);
        let reset = |name: &str| resets::is_reset(&done, name);
        for (name, value) in startup.iter().filter(|(name, _)| reset(name)) {
            self.client.has_reset |= name.contains('.');
            let usual = self.client.welcome.value(name);
            let is_told = usual.is_some();
            // What PostgreSQL tells, it has told; of others, the inventory behind the transaction.
            let stands = is_told && applied.value(name).is_some_and(|now| usual != Some(now));
            if stands || !is_told && is_unsure {
                continue;
            }
            applied = applied.with(name, None);
            if is_told && own.value(name) != Some(value) {
                backend::parameter_status(self.client.to_client.insertion(), name, value);
            }
            own = own.with(name, Some(value));
        }
        if own != *self.client.settings || applied != *self.server.applied {
            self.client.settings = Arc::new(own);
            self.server.applied = Arc::new(applied);
        }
    }

    /// Whether a value that the server reports is only the pool's, where the client's own reset
    /// returns to another.
    fn is_reset(&self, name: &str, value: &str) -> bool {
        self.client.startup.value(name).is_some()
            && self.client.welcome.value(name) == Some(value)
            && resets::is_reset(&self.resets, name)
    }
}
