//! `[defaults]`: what PgBouncer does where a database says nothing, which is not what we do.

use super::{Globals, Notes, Toml, proxy::CLIENTS_MAX};
use crate::tenant::PoolMode;
use std::time::Duration;

/// Most servers that a pool can have in `proxy.toml`.
pub(super) const POOL_MAX: u64 = 10_000;

/// What holds for every tenant that says nothing else: PgBouncer's defaults, which are not ours.
pub(super) struct Defaults {
    pool_mode: PoolMode,
    pub(super) pool_size: u64,
    pub(super) min_pool_size: u64,
    pub(super) max_clients: u64,
    pub(super) max_servers: u64,
    pub(super) max_user_servers: u64,
    pub(super) max_user_clients: u64,
    max_prepared_statements: u64,
    times: Vec<(&'static str, Duration)>,
}

impl Defaults {
    pub(super) fn of(globals: &mut Globals, notes: &mut Notes) -> Self {
        let mut defaults = Self {
            pool_mode: pool_mode(globals, notes),
            pool_size: globals.number("default_pool_size", 20, notes),
            min_pool_size: globals.number("min_pool_size", 0, notes),
            max_clients: globals.number("max_db_client_connections", 0, notes),
            max_servers: globals.number("max_db_connections", 0, notes),
            max_user_servers: globals.number("max_user_connections", 0, notes),
            max_user_clients: globals.number("max_user_client_connections", 0, notes),
            max_prepared_statements: globals.number("max_prepared_statements", 200, notes),
            times: Vec::new(),
        };
        if defaults.max_clients == 0 {
            // No limit of its own: that of the whole process.
            defaults.max_clients = globals.number("max_client_conn", 100, notes);
        }
        defaults.max_clients = defaults.max_clients.clamp(1, CLIENTS_MAX);
        if defaults.pool_size == 0 {
            notes.say(
                "default_pool_size",
                "0 (no limit): pgusher needs one; what clients there can be was written",
            );
            defaults.pool_size = defaults.max_clients;
        }
        defaults.pool_size = defaults.pool_size.min(POOL_MAX);
        if defaults.max_prepared_statements == 0 {
            notes.say(
                "max_prepared_statements",
                "0: pgusher always follows prepared statements; 200 was written",
            );
            defaults.max_prepared_statements = 200;
        }
        defaults.max_prepared_statements = defaults.max_prepared_statements.min(100_000);
        for key in ["reserve_pool_size", "reserve_pool_timeout"] {
            if let Some((_, spot)) = globals.get(key) {
                let text =
                    "not taken over: pgusher has no reserve; make pool_size larger if it is needed";
                notes.at(&spot, key, text);
            }
        }
        defaults.times = times(globals, notes);
        defaults
    }

    pub(super) fn write(&self, toml: &mut Toml) {
        toml.section("[defaults]");
        toml.text("pool_mode", self.pool_mode.as_str());
        toml.number("pool_size", self.pool_size);
        toml.number("min_pool_size", self.min_pool_size.min(self.pool_size));
        toml.number("max_client_connections", self.max_clients);
        toml.number("max_prepared_statements", self.max_prepared_statements);
        for (key, time) in &self.times {
            toml.time(key, *time);
        }
    }
}

fn pool_mode(globals: &mut Globals, notes: &mut Notes) -> PoolMode {
    let Some((value, spot)) = globals.get("pool_mode") else {
        return PoolMode::Session;
    };
    value.parse().unwrap_or_else(|_| {
        notes.at(
            &spot,
            "pool_mode",
            "not taken over: it is no pool mode; session was written",
        );
        PoolMode::Session
    })
}

fn times(globals: &mut Globals, notes: &mut Notes) -> Vec<(&'static str, Duration)> {
    let mut times = Vec::new();
    for (key, default) in [
        ("server_idle_timeout", 600),
        ("server_lifetime", 3600),
        ("server_check_delay", 30),
        ("query_wait_timeout", 120),
        ("query_timeout", 0),
        ("transaction_timeout", 0),
        ("idle_transaction_timeout", 0),
        ("client_idle_timeout", 0),
    ] {
        let mut time = globals.time(key, default, notes);
        if time.is_zero() && key == "server_lifetime" {
            notes.say(
                key,
                "0 (a server is used once): 1 s was written, the shortest time",
            );
            time = Duration::from_secs(1);
        }
        if time.is_zero() && key == "server_check_delay" {
            notes.say(key, "0 (always asked): 1 ms was written, the shortest time");
            time = Duration::from_millis(1);
        }
        times.push((key, time));
    }
    if let Some((query, spot)) = globals.get("server_check_query") {
        if query.is_empty() {
            let delay = |one: &&mut (&str, Duration)| one.0 == "server_check_delay";
            if let Some((_, time)) = times.iter_mut().find(delay) {
                *time = Duration::ZERO;
            }
        } else {
            let text = "not taken over: pgusher asks with an empty query";
            notes.at(&spot, "server_check_query", text);
        }
    }
    times
}
