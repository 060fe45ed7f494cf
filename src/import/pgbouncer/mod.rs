//! `pgbouncer.ini` and its `auth_file` become a `proxy.toml`.
//!
//! PgBouncer knows databases and users, and a pool for each pair of them; a tenant has one role that
//! writes. A database with a forced user is therefore one tenant, and all users of the `auth_file`
//! become its keys. A database without one is a tenant for each user: each keeps its own role.

mod cluster;
mod connect_query;
mod database;
mod defaults;
mod global;
mod key;
mod proxy;
mod reasons;
mod tenant;
mod write;

use super::{
    ImportError, Note,
    ids::Ids,
    ini::{self, Entry},
    note::Notes,
    userlist::{self, User},
};
use crate::{
    config::{Config, ConfigError},
    tenant::{Secret, Tier},
};
use cluster::Clusters;
use database::Database;
use global::Globals;
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};
use tenant::Maker;
use write::Toml;

/// What is to be imported.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The ini file.
    pub file: PathBuf,
    /// The `auth_file`, in place of the one that the ini names.
    pub userlist: Option<PathBuf>,
    /// Of all tenants.
    pub tier: Tier,
    /// Databases that clients reach through the entry `*`.
    pub databases: Vec<String>,
    /// Tenant ids for names that should have another than the usual one.
    pub ids: BTreeMap<String, String>,
}

/// A `DATABASE_URL` before and after. The password stands in neither.
#[derive(Debug, Clone)]
pub struct Move {
    /// The tenant's id.
    pub tenant: String,
    /// PgBouncer's database.
    pub database: String,
    /// PgBouncer's user.
    pub user: String,
    /// With `<password>` where it stands.
    pub old_url: String,
    /// With `<password>` where the key belongs.
    pub new_url: String,
    /// A key that was made for it, because the old password can't be used. To be shown once.
    pub new_key: Option<Secret>,
}

/// What came of it.
#[derive(Debug)]
pub struct Imported {
    /// The text of `proxy.toml`. It holds the upstream passwords that the files held.
    pub toml: Secret,
    /// What was not taken over, or otherwise.
    pub notes: Vec<Note>,
    /// Every login there was.
    pub moves: Vec<Move>,
}

/// The sections of the files.
struct Sections {
    globals: Globals,
    databases: BTreeMap<String, Entry>,
    users: HashMap<String, Entry>,
}

/// Reads the files and says what `proxy.toml` they amount to. Blocks on files.
///
/// # Errors
/// [`ImportError`]: a file that can't be read, a connection string that is none, two names that
/// become one id.
pub fn import(wanted: &Wanted) -> Result<Imported, ImportError> {
    let mut notes = Notes::default();
    let mut sections = Sections::of(ini::read(&wanted.file)?, &mut notes);
    let users = users(wanted, &mut sections.globals, &mut notes)?;
    let proxy = proxy::proxy(&mut sections.globals, &wanted.file, &mut notes);
    let tls = cluster::Tls::of(&mut sections.globals, &wanted.file, &mut notes);
    let mut clusters = Clusters::new(tls, &mut sections.globals, &mut notes);
    let defaults = defaults::Defaults::of(&mut sections.globals, &mut notes);
    let per_user = database::users(sections.users, &mut notes)?;
    let databases = database::all(sections.databases, &wanted.databases, &mut notes)?;
    let mut maker = Maker {
        tier: wanted.tier,
        defaults: &defaults,
        users: &users,
        per_user: &per_user,
        ids: Ids::new(&wanted.ids),
        clusters: &mut clusters,
        address: proxy.address.clone(),
        notes: &mut notes,
        moves: Vec::new(),
        tenants: Vec::new(),
    };
    for database in &databases {
        maker.database(database)?;
    }
    let (tenants, moves) = (maker.tenants, maker.moves);
    clusters.tell(&mut notes);
    sections.globals.tell_rest(&mut notes);
    let mut toml = Toml::new(&wanted.file);
    proxy.write(&mut toml);
    defaults.write(&mut toml);
    clusters.write(&mut toml);
    for tenant in &tenants {
        tenant.write(&mut toml);
    }
    let toml = Secret::new(toml.finish());
    if let Err(ConfigError::Invalid { problems, .. }) = Config::parse(toml.expose(), Path::new(""))
    {
        for problem in problems {
            notes.say("proxy.toml", format!("to be put right by hand: {problem}"));
        }
    }
    Ok(Imported {
        toml,
        notes: notes.0,
        moves,
    })
}

impl Sections {
    fn of(entries: Vec<Entry>, notes: &mut Notes) -> Self {
        let mut sections = Self {
            globals: Globals::default(),
            databases: BTreeMap::new(),
            users: HashMap::new(),
        };
        for entry in entries {
            match entry.section.as_str() {
                "pgbouncer" => sections.globals.add(entry),
                "databases" => {
                    sections.databases.insert(entry.key.clone(), entry);
                }
                "users" => {
                    sections.users.insert(entry.key.clone(), entry);
                }
                "peers" => notes.at(
                    &entry.spot,
                    &format!("[peers] {}", entry.key),
                    "not taken over: pgusher does not pass cancel requests on to other processes",
                ),
                other => notes.at(
                    &entry.spot,
                    &format!("[{other}] {}", entry.key),
                    "not taken over: PgBouncer has no such section",
                ),
            }
        }
        sections
    }
}

/// The users of the `auth_file`; none where there is no file.
fn users(
    wanted: &Wanted,
    globals: &mut Globals,
    notes: &mut Notes,
) -> Result<Vec<User>, ImportError> {
    let named = globals.get("auth_file").map(|(value, spot)| {
        let path = ini::locate(Path::new(&value), &spot.file);
        (path, spot)
    });
    let path = match (&wanted.userlist, named) {
        (Some(path), _) => path.clone(),
        (None, Some((path, _))) if !path.as_os_str().is_empty() => path,
        _ => {
            notes.say("auth_file", "not set: there are no users to take over");
            return Ok(Vec::new());
        }
    };
    match userlist::read(&path) {
        Err(ImportError::Read { path, source }) => Err(ImportError::Userlist { path, source }),
        read => read,
    }
}
