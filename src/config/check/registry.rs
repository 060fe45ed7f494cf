//! `[registry]`, `[secrets]` and `[templates]`.

use super::{Check, Checked, login::Source};
use crate::{
    config::{Registry, error::Fault, location::At, raw, units::Period},
    crypto::KeySource,
};
use std::{path::PathBuf, time::Duration};

const STALE_MAX: Duration = Duration::from_hours(24);
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);
const LOCK_WATCH_INTERVAL: Duration = Duration::from_millis(100);
const LOCK_WATCH_PENALTY: Duration = Duration::from_secs(10);

/// What is given, or what it is otherwise; zero is allowed.
fn or(given: Option<Period>, default: Duration) -> Duration {
    given.map_or(default, |Period(time)| time)
}

impl Check<'_> {
    pub(super) fn registry(&mut self, registry: &raw::Registry) -> Checked<Option<Registry>> {
        let at = At::top("registry");
        let source = Source {
            names: ["url", "url_env", "url_file"],
            inline: registry.url.as_ref(),
            variable: registry.url_env.as_deref(),
            file: registry.url_file.as_deref(),
        };
        let url = self.password(at, &source);
        let connections = self.number(
            at.key("max_connections"),
            registry.max_connections,
            8,
            1..=100,
        );
        let stale_max = self.period(at.key("stale_max"), registry.stale_max, STALE_MAX);
        let unless_off = |time: Duration| Some(time).filter(|time| !time.is_zero());
        let Some(url) = url? else {
            let unused = [
                ("max_connections", registry.max_connections.is_some()),
                ("stale_max", registry.stale_max.is_some()),
                ("snapshot", registry.snapshot.is_some()),
                ("sweep_interval", registry.sweep_interval.is_some()),
                (
                    "lock_watch_interval",
                    registry.lock_watch_interval.is_some(),
                ),
                ("lock_watch_penalty", registry.lock_watch_penalty.is_some()),
            ];
            for (key, _) in unused.into_iter().filter(|(_, is_given)| *is_given) {
                self.note(at.key(key), Fault::Needs("url"));
            }
            return Ok(None);
        };
        let text = url.expose();
        if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
            return self.problem(
                at.key("url"),
                Fault::Missing("write \"postgres://user:password@host:port/database\""),
            );
        }
        Ok(Some(Registry {
            url,
            max_connections: connections?,
            stale_max: stale_max?,
            snapshot: registry
                .snapshot
                .as_ref()
                .map(|path| self.directory.join(path)),
            sweep_interval: unless_off(or(registry.sweep_interval, SWEEP_INTERVAL)),
            lock_watch_interval: unless_off(or(registry.lock_watch_interval, LOCK_WATCH_INTERVAL)),
            lock_watch_penalty: or(registry.lock_watch_penalty, LOCK_WATCH_PENALTY),
        }))
    }

    /// Where the master keys come from: one way, and needed for a registry.
    pub(super) fn master_key(
        &mut self,
        secrets: &raw::Secrets,
        is_needed: bool,
    ) -> Checked<Option<KeySource>> {
        let at = At::top("secrets");
        let file = secrets.master_key_file.as_ref();
        let file = file.map(|path| KeySource::File(self.directory.join(path)));
        let variable = secrets.master_key_env.clone().map(KeySource::Environment);
        let command = secrets.master_key_command.as_ref();
        let command = command.map(|text| KeySource::Command(text.0.expose().to_owned()));
        match (file, variable, command) {
            (None, None, None) if is_needed => self.problem(
                at.key("master_key_file"),
                Fault::Missing(
                    "the registry needs a master key: give master_key_file, master_key_env or master_key_command; `pgusher secrets key` makes one",
                ),
            ),
            (Some(_), Some(_), _) => {
                self.problem(at.key("master_key_env"), Fault::Excludes("master_key_file"))
            }
            (Some(_), None, Some(_)) => {
                self.problem(at.key("master_key_command"), Fault::Excludes("master_key_file"))
            }
            (None, Some(_), Some(_)) => {
                self.problem(at.key("master_key_command"), Fault::Excludes("master_key_env"))
            }
            (file, variable, command) => Ok(file.or(variable).or(command)),
        }
    }

    pub(super) fn templates(&mut self, templates: &raw::Templates) -> Checked<Option<PathBuf>> {
        let Some(directory) = &templates.directory else {
            return Ok(None);
        };
        let path = self.directory.join(directory);
        if path.is_dir() {
            return Ok(Some(path));
        }
        let at = At::top("templates");
        let source = std::io::Error::from(std::io::ErrorKind::NotADirectory);
        self.problem(at.key("directory"), Fault::File { path, source })
    }
}
