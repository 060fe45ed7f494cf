//! `[defaults]` and `[[tenants]]`.

use super::{
    super::{ids::Ids, userlist::User},
    Clusters, Database, Globals, ImportError, Move, Notes, Toml,
    database::{PerUser, TIMEOUTS},
    key::{self, Key},
    proxy::CLIENTS_MAX,
};
use crate::tenant::{PoolMode, Secret, Tier};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

/// Most servers that a pool can have in `proxy.toml`.
const POOL_MAX: u64 = 10_000;

/// What holds for every tenant that says nothing else: PgBouncer's defaults, which are not ours.
pub(super) struct Defaults {
    pool_mode: PoolMode,
    pool_size: u64,
    min_pool_size: u64,
    max_clients: u64,
    max_servers: u64,
    max_user_servers: u64,
    max_user_clients: u64,
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
            let delay = times
                .iter_mut()
                .find(|(key, _)| *key == "server_check_delay");
            delay
                .into_iter()
                .for_each(|(_, time)| *time = Duration::ZERO);
        } else {
            let text = "not taken over: pgusher asks with an empty query";
            notes.at(&spot, "server_check_query", text);
        }
    }
    times
}

/// A tenant in the making. Not printable: it has a password.
pub(super) struct Tenant {
    id: String,
    cluster: String,
    tier: Tier,
    database: String,
    role: String,
    password: Option<Secret>,
    texts: Vec<(&'static str, String)>,
    numbers: Vec<(&'static str, u64)>,
    times: BTreeMap<&'static str, Duration>,
    settings: BTreeMap<String, String>,
    keys: Vec<Key>,
    from: String,
}

impl Tenant {
    pub(super) fn write(&self, toml: &mut Toml) {
        toml.section("[[tenants]]");
        toml.comment(&self.from);
        toml.text("id", &self.id);
        toml.text("cluster", &self.cluster);
        toml.text("tier", self.tier.as_str());
        toml.text("database", &self.database);
        toml.text("role", &self.role);
        match &self.password {
            Some(password) => toml.text("password", password.expose()),
            None => toml.comment(
                "its password was not in the files: password, password_env or password_file",
            ),
        }
        self.texts
            .iter()
            .for_each(|(key, text)| toml.text(key, text));
        self.numbers
            .iter()
            .for_each(|(key, number)| toml.number(key, *number));
        self.times
            .iter()
            .for_each(|(key, time)| toml.time(key, *time));
        if !self.settings.is_empty() {
            let pair = |(name, value): (&String, &String)| (name.clone(), value.as_str().into());
            let table: toml::Table = self.settings.iter().map(pair).collect();
            toml.value("settings", toml::Value::Table(table));
        }
        toml.line("keys = [");
        self.keys.iter().for_each(|key| key.write(toml));
        toml.line("]");
    }
}

/// Makes the tenants of databases.
pub(super) struct Maker<'a> {
    pub(super) tier: Tier,
    pub(super) defaults: &'a Defaults,
    pub(super) users: &'a [User],
    pub(super) per_user: &'a HashMap<String, PerUser>,
    pub(super) ids: Ids<'a>,
    pub(super) clusters: &'a mut Clusters,
    /// Where clients connect.
    pub(super) address: String,
    pub(super) notes: &'a mut Notes,
    pub(super) moves: Vec<Move>,
    pub(super) tenants: Vec<Tenant>,
}

impl Maker<'_> {
    /// The tenants of one database: one, or one for each user.
    pub(super) fn database(&mut self, database: &Database) -> Result<(), ImportError> {
        let subject = format!("[databases] {}", database.name);
        let at = (subject.as_str(), &database.spot);
        let host = database.host.as_deref();
        let address = self.clusters.address(host, database.port, at, self.notes);
        let Some(address) = address else {
            return Ok(());
        };
        let users: Vec<&User> = self.users.iter().collect();
        if let Some(role) = &database.user {
            let mut keys = key::keys(&users)?;
            if keys.is_empty() {
                // Nobody is known: the one who logs in upstream gets a key.
                keys = key::keys(&[&nobody(role)])?;
            }
            let cluster = self.clusters.of(&address);
            let known = users.iter().find(|user| user.name == *role);
            let password = database.password.clone();
            let password = password.or_else(|| known?.password().cloned());
            return self.tenant(database, &database.name, (role, password), cluster, keys);
        }
        if users.is_empty() {
            let text = "not taken over: it has no user, and no auth_file says who could log in; add the tenant by hand";
            self.notes.at(&database.spot, &subject, text);
            return Ok(());
        }
        if users.len() > 1 {
            let text = format!(
                "PgBouncer lets all {} users in, each as its own role: a tenant was made for each; take out those that nobody uses",
                users.len()
            );
            self.notes.at(&database.spot, &subject, text);
        }
        for user in &users {
            let cluster = self.clusters.of(&address);
            let name = match users.len() {
                1 => database.name.clone(),
                _ => format!("{}-{}", database.name, user.name),
            };
            let keys = key::keys(&[user])?;
            let login = (user.name.as_str(), user.password().cloned());
            self.tenant(database, &name, login, cluster, keys)?;
        }
        Ok(())
    }

    fn tenant(
        &mut self,
        database: &Database,
        name: &str,
        (role, password): (&str, Option<Secret>),
        cluster: String,
        mut keys: Vec<Key>,
    ) -> Result<(), ImportError> {
        let mut from = format!("database {:?}", database.name);
        if database.user.is_none() {
            from.push_str(&format!(", user {role:?}"));
        }
        let id = self.ids.take(name, &from)?.to_string();
        if password.is_none() {
            let text = "its password at PostgreSQL is not in the files (PgBouncer passes a SCRAM login on, or is trusted); give its tenants password, password_env or password_file, unless PostgreSQL trusts pgusher";
            self.notes.once(&format!("role {role:?}"), text);
        }
        self.limit_keys(&mut keys);
        let times = self.times(database, &id, &keys);
        let (texts, numbers, servers) = self.pool(database, role, &id);
        self.clusters.add_servers(&cluster, servers);
        let mut tenant = Tenant {
            id,
            cluster,
            tier: self.tier,
            database: database.dbname.clone(),
            role: role.to_owned(),
            password,
            texts,
            numbers,
            times,
            settings: database.settings.clone(),
            keys,
            from,
        };
        let zone = database.time_zone.clone();
        tenant.texts.extend(zone.map(|zone| ("time_zone", zone)));
        self.tell_moves(database, &tenant);
        self.tenants.push(tenant);
        Ok(())
    }

    /// Mode and sizes that differ from the defaults, and how many servers the pool may have.
    fn pool(
        &mut self,
        database: &Database,
        role: &str,
        id: &str,
    ) -> (Vec<(&'static str, String)>, Vec<(&'static str, u64)>, u64) {
        let user = self.per_user.get(role);
        let mut texts = Vec::new();
        let mode = user.and_then(|user| user.pool_mode).or(database.pool_mode);
        texts.extend(mode.map(|mode| ("pool_mode", mode.as_str().to_owned())));
        let subject = format!("tenant {id:?}");
        let given = user.and_then(|user| user.pool_size).or(database.pool_size);
        let clients = database.max_clients.filter(|max| *max > 0);
        let mut size = given.unwrap_or(self.defaults.pool_size);
        if size == 0 {
            size = clients.unwrap_or(self.defaults.max_clients);
            self.notes.at(&database.spot, &subject, "pool_size = 0 (no limit): pgusher needs one; what clients there can be was written");
        }
        let of_database = database.max_servers.unwrap_or(self.defaults.max_servers);
        let of_user = user.and_then(|user| user.max_servers);
        let of_user = of_user.unwrap_or(self.defaults.max_user_servers);
        for (key, max, is_shared) in [
            (
                "max_db_connections",
                of_database,
                database.user.is_none() && self.users.len() > 1,
            ),
            ("max_user_connections", of_user, true),
        ] {
            if max > 0 && max < size {
                size = max;
            }
            if max > 0 && is_shared {
                let text = format!(
                    "{max} limits several pools together; here it limits each tenant's pool alone (pool_size)"
                );
                let whose = if key == "max_db_connections" {
                    &database.name
                } else {
                    role
                };
                self.notes.once(&format!("{key} of {whose:?}"), &text);
            }
        }
        size = size.clamp(1, POOL_MAX);
        let mut numbers = Vec::new();
        if size != self.defaults.pool_size {
            numbers.push(("pool_size", size));
        }
        let min = database
            .min_pool_size
            .unwrap_or(self.defaults.min_pool_size);
        if min > size {
            let text =
                format!("min_pool_size = {min} is more than the pool has; {size} was written");
            self.notes.at(&database.spot, &subject, text);
        }
        if min.min(size) != self.defaults.min_pool_size {
            numbers.push(("min_pool_size", min.min(size)));
        }
        numbers.extend(clients.map(|max| ("max_client_connections", max.min(CLIENTS_MAX))));
        (texts, numbers, size)
    }

    /// A user's own count of clients holds for all databases; a key's for its tenant.
    fn limit_keys(&self, keys: &mut [Key]) {
        for key in keys {
            let own = self
                .per_user
                .get(&key.user)
                .and_then(|user| user.max_clients);
            let max = own.unwrap_or(self.defaults.max_user_clients);
            key.max_clients = (max > 0).then_some(max.min(CLIENTS_MAX));
        }
    }

    fn times(
        &mut self,
        database: &Database,
        id: &str,
        keys: &[Key],
    ) -> BTreeMap<&'static str, Duration> {
        let mut times = BTreeMap::new();
        times.extend(
            database
                .server_lifetime
                .map(|time| ("server_lifetime", time)),
        );
        times.extend(
            database
                .query_wait_timeout
                .map(|time| ("query_wait_timeout", time)),
        );
        for key in keys {
            let Some(user) = self.per_user.get(&key.user) else {
                continue;
            };
            let own = TIMEOUTS
                .iter()
                .filter_map(|name| Some((*name, *user.timeouts.get(name)?)));
            if let [_] = keys {
                times.extend(own);
                continue;
            }
            for (name, _) in own {
                let text = format!(
                    "not taken over for tenant {id:?}: it has several keys, and {name} is the tenant's"
                );
                self.notes
                    .at(&user.spot, &format!("[users] {}: {name}", key.user), text);
            }
        }
        times
    }

    fn tell_moves(&mut self, database: &Database, tenant: &Tenant) {
        for key in &tenant.keys {
            let of = |user: &str, name: &str| {
                let (user, name) = (escaped(user), escaped(name));
                format!("postgres://{user}:<password>@{}/{name}", self.address)
            };
            if let Some(why) = key.why_new {
                let text = format!("new keys were made, see the table: {why}");
                self.notes.once(&format!("user {:?}", key.user), &text);
            }
            self.moves.push(Move {
                tenant: tenant.id.clone(),
                database: database.name.clone(),
                user: key.user.clone(),
                old_url: of(&key.user, &database.name),
                new_url: of(&tenant.id, &tenant.id),
                new_key: key.new.clone(),
            });
        }
    }
}

/// A user of whom nothing is known.
fn nobody(name: &str) -> User {
    User {
        name: name.to_owned(),
        proof: super::super::userlist::Proof::None,
    }
}

/// For a URL.
fn escaped(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
