//! `[databases]` and `[users]`.

use super::{
    super::ini::{self, Spot},
    Entry, ImportError, Notes, connect_query,
};
use crate::tenant::{PoolMode, Secret};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

/// A name that PgBouncer keeps for its console.
const CONSOLE: &str = "pgbouncer";
/// A year, the longest time that `proxy.toml` takes.
const TIME_MAX: u64 = 365 * 24 * 3600;

/// One of `[databases]`. Not printable: it may have a password.
#[derive(Clone)]
pub(super) struct Database {
    pub(super) name: String,
    pub(super) spot: Spot,
    pub(super) host: Option<String>,
    pub(super) port: u16,
    pub(super) dbname: String,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) pool_size: Option<u64>,
    pub(super) min_pool_size: Option<u64>,
    pub(super) pool_mode: Option<PoolMode>,
    pub(super) max_servers: Option<u64>,
    pub(super) max_clients: Option<u64>,
    pub(super) query_wait_timeout: Option<Duration>,
    pub(super) server_lifetime: Option<Duration>,
    pub(super) time_zone: Option<String>,
    pub(super) settings: BTreeMap<String, String>,
}

/// One of `[users]`.
pub(super) struct PerUser {
    pub(super) spot: Spot,
    pub(super) pool_size: Option<u64>,
    pub(super) pool_mode: Option<PoolMode>,
    pub(super) max_servers: Option<u64>,
    pub(super) max_clients: Option<u64>,
    /// By their names here and in `proxy.toml`.
    pub(super) timeouts: BTreeMap<&'static str, Duration>,
}

/// All databases that have a name, those behind `*` among them.
pub(super) fn all(
    entries: BTreeMap<String, Entry>,
    behind_star: &[String],
    notes: &mut Notes,
) -> Result<Vec<Database>, ImportError> {
    let mut databases = Vec::with_capacity(entries.len());
    let mut star = None;
    for (name, entry) in entries {
        if name == CONSOLE {
            notes.at(
                &entry.spot,
                CONSOLE,
                "not taken over: the name is the console's",
            );
        } else if name == "*" {
            star = Some(Database::read("*", &entry, notes)?);
        } else {
            databases.push(Database::read(&name, &entry, notes)?);
        }
    }
    let Some(star) = star else {
        return match behind_star.first() {
            Some(name) => Err(ImportError::Refused(format!(
                "there is no entry * that would serve the database {name:?}"
            ))),
            None => Ok(databases),
        };
    };
    if behind_star.is_empty() {
        notes.at(
            &star.spot,
            "*",
            "not taken over: pgusher serves tenants that it knows; name the databases that are reached this way: --database NAME",
        );
    }
    for name in behind_star {
        if databases.iter().any(|known| known.name == *name) {
            continue;
        }
        let mut database = star.clone();
        database.name.clone_from(name);
        if star.dbname == "*" {
            database.dbname.clone_from(name);
        }
        databases.push(database);
    }
    Ok(databases)
}

/// All of `[users]`.
pub(super) fn users(
    entries: HashMap<String, Entry>,
    notes: &mut Notes,
) -> Result<HashMap<String, PerUser>, ImportError> {
    let read = |(name, entry): (String, Entry)| {
        let user = PerUser::read(&name, &entry, notes)?;
        Ok((name, user))
    };
    entries.into_iter().map(read).collect()
}

impl Database {
    fn read(name: &str, entry: &Entry, notes: &mut Notes) -> Result<Self, ImportError> {
        let mut database = Self {
            name: name.to_owned(),
            spot: entry.spot.clone(),
            host: None,
            port: 5432,
            dbname: name.to_owned(),
            user: None,
            password: None,
            pool_size: None,
            min_pool_size: None,
            pool_mode: None,
            max_servers: None,
            max_clients: None,
            query_wait_timeout: None,
            server_lifetime: None,
            time_zone: None,
            settings: BTreeMap::new(),
        };
        for (key, value) in pairs(entry)? {
            let what = format!("[databases] {name}: {key}");
            database.set(&key, value, &what, notes);
        }
        Ok(database)
    }

    fn set(&mut self, key: &str, value: String, what: &str, notes: &mut Notes) {
        let spot = self.spot.clone();
        let mut told = Told {
            spot: &spot,
            what,
            notes,
        };
        match key {
            "host" => self.host = Some(value),
            "port" => match value.parse() {
                Ok(port) if port > 0 => self.port = port,
                _ => told.say("not taken over: it is no port; 5432 was written"),
            },
            "dbname" => self.dbname = value,
            "user" => self.user = Some(value),
            "password" => self.password = Some(Secret::new(value)),
            "pool_size" => self.pool_size = told.number(&value),
            "min_pool_size" => self.min_pool_size = told.number(&value),
            "pool_mode" => self.pool_mode = told.mode(&value),
            "max_db_connections" => self.max_servers = told.number(&value),
            "max_db_client_connections" => self.max_clients = told.number(&value),
            "query_wait_timeout" => self.query_wait_timeout = told.seconds(&value),
            // 0 stands for the global one.
            "server_lifetime" => {
                self.server_lifetime = told.seconds(&value).filter(|time| !time.is_zero());
            }
            "timezone" => self.time_zone = Some(value),
            "client_encoding" | "application_name" => {
                self.settings.insert(key.to_owned(), value);
            }
            "datestyle" => {
                self.settings.insert("DateStyle".to_owned(), value);
            }
            "connect_query" => match connect_query::settings(&value) {
                Some(settings) => {
                    told.say("it only sets things: they were written as settings");
                    self.settings.extend(settings);
                }
                None => told.say("not taken over: pgusher runs nothing when it connects; see \"settings\", or ALTER ROLE … SET"),
            },
            "reserve_pool" | "reserve_pool_size" => {
                told.say("not taken over: pgusher has no reserve; make pool_size larger if it is needed");
            }
            "load_balance_hosts" => told.say("not taken over: a cluster has one primary"),
            "auth_user" | "auth_query" | "auth_dbname" => told.say(
                "not taken over: users that are not in the auth_file have no key; make each one: pgusher key create",
            ),
            _ => told.say("not taken over: pgusher does not know what it means"),
        }
    }
}

impl PerUser {
    fn read(name: &str, entry: &Entry, notes: &mut Notes) -> Result<Self, ImportError> {
        let mut user = Self {
            spot: entry.spot.clone(),
            pool_size: None,
            pool_mode: None,
            max_servers: None,
            max_clients: None,
            timeouts: BTreeMap::new(),
        };
        for (key, value) in pairs(entry)? {
            let what = format!("[users] {name}: {key}");
            let mut told = Told {
                spot: &entry.spot,
                what: &what,
                notes,
            };
            let known = TIMEOUTS.iter().find(|known| **known == key);
            match key.as_str() {
                "pool_size" => user.pool_size = told.number(&value),
                "pool_mode" => user.pool_mode = told.mode(&value),
                "max_user_connections" => user.max_servers = told.number(&value),
                "max_user_client_connections" => user.max_clients = told.number(&value),
                "reserve_pool_size" => {
                    told.say("not taken over: pgusher has no reserve; make pool_size larger if it is needed");
                }
                _ => match known {
                    Some(known) => {
                        let time = told.seconds(&value);
                        // 0 stands for the global one, except for the wait.
                        let time =
                            time.filter(|time| !time.is_zero() || key == "query_wait_timeout");
                        user.timeouts.extend(time.map(|time| (*known, time)));
                    }
                    None => told.say("not taken over: pgusher does not know what it means"),
                },
            }
        }
        Ok(user)
    }
}

/// Timeouts that a user can have, named alike there and here.
pub(super) const TIMEOUTS: [&str; 5] = [
    "query_timeout",
    "query_wait_timeout",
    "idle_transaction_timeout",
    "transaction_timeout",
    "client_idle_timeout",
];

fn pairs(entry: &Entry) -> Result<Vec<(String, String)>, ImportError> {
    ini::pairs(&entry.value).map_err(|problem| ImportError::Syntax {
        spot: entry.spot.to_string(),
        problem,
    })
}

/// Values of one key, and what is told when they are none.
struct Told<'a> {
    spot: &'a Spot,
    what: &'a str,
    notes: &'a mut Notes,
}

impl Told<'_> {
    fn say(&mut self, text: &str) {
        self.notes.at(self.spot, self.what, text);
    }

    /// A count; a negative one stands for none given.
    fn number(&mut self, value: &str) -> Option<u64> {
        if let Ok(number) = value.parse::<i64>() {
            u64::try_from(number).ok()
        } else {
            self.say("not taken over: it is no number");
            None
        }
    }

    fn seconds(&mut self, value: &str) -> Option<Duration> {
        let seconds = self.number(value)?;
        if seconds > TIME_MAX {
            self.say("it is longer than a year; a year was written");
        }
        Some(Duration::from_secs(seconds.min(TIME_MAX)))
    }

    fn mode(&mut self, value: &str) -> Option<PoolMode> {
        let mode = value.parse().ok();
        if mode.is_none() {
            self.say("not taken over: it is no pool mode");
        }
        mode
    }
}
