//! The keys of `[pgbouncer]`: what is asked for is taken over, what is left is told.

use super::{super::ini::Spot, Entry, Notes, reasons::REASONS};
use std::{collections::BTreeMap, time::Duration};

/// The longest time that `proxy.toml` takes.
const TIME_MAX: Duration = Duration::from_hours(8760);

struct Given {
    value: String,
    spot: Spot,
    is_used: bool,
}

/// `[pgbouncer]`. A key that comes twice has what comes last.
#[derive(Default)]
pub(super) struct Globals(BTreeMap<String, Given>);

impl Globals {
    pub(super) fn add(&mut self, entry: Entry) {
        let given = Given {
            value: entry.value,
            spot: entry.spot,
            is_used: false,
        };
        self.0.insert(entry.key, given);
    }

    /// The value of a key that will be taken over, or told about by who asks.
    pub(super) fn get(&mut self, key: &str) -> Option<(String, Spot)> {
        let given = self.0.get_mut(key)?;
        given.is_used = true;
        Some((given.value.clone(), given.spot.clone()))
    }

    pub(super) fn number(&mut self, key: &str, default: u64, notes: &mut Notes) -> u64 {
        let Some((value, spot)) = self.get(key) else {
            return default;
        };
        value.parse().unwrap_or_else(|_| {
            let text = format!("not taken over: it is no number; {default} was written");
            notes.at(&spot, key, text);
            default
        })
    }

    /// A time in seconds, with or without a fraction.
    pub(super) fn time(&mut self, key: &str, default: u64, notes: &mut Notes) -> Duration {
        let default = Duration::from_secs(default);
        let Some((value, spot)) = self.get(key) else {
            return default;
        };
        let seconds = value.parse().ok();
        let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        match time {
            Some(time) if time <= TIME_MAX => time,
            Some(_) => {
                notes.at(&spot, key, "it is longer than a year; a year was written");
                TIME_MAX
            }
            None => {
                notes.at(&spot, key, "not taken over: it is no time in seconds");
                default
            }
        }
    }

    /// Tells every key that nobody asked for.
    pub(super) fn tell_rest(&self, notes: &mut Notes) {
        for (key, given) in self.0.iter().filter(|(_, given)| !given.is_used) {
            let reason = REASONS.iter().find(|(known, _)| known == key);
            let unknown = "not taken over: pgusher does not know what it means";
            notes.at(
                &given.spot,
                key,
                reason.map_or(unknown, |(_, reason)| reason),
            );
        }
    }
}
