//! `[[tenants]]`.

use super::{
    super::{ids::Ids, userlist::User},
    Clusters, Database, ImportError, Move, Notes, Toml,
    database::{PerUser, TIMEOUTS},
    defaults::{Defaults, POOL_MAX},
    key::{self, Key},
    proxy::CLIENTS_MAX,
};
use crate::tenant::{PoolMode, Secret, Tier};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

/// A tenant in the making. Not printable: it has a password.
pub(super) struct Tenant {
    id: String,
    cluster: String,
    tier: Tier,
    database: String,
    role: String,
    password: Option<Secret>,
    pool: Pool,
    time_zone: Option<String>,
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
        if let Some(mode) = self.pool.mode {
            toml.text("pool_mode", mode);
        }
        for (key, number) in &self.pool.numbers {
            toml.number(key, *number);
        }
        for (key, time) in &self.times {
            toml.time(key, *time);
        }
        if let Some(zone) = &self.time_zone {
            toml.text("time_zone", zone);
        }
        if !self.settings.is_empty() {
            let pair = |(name, value): (&String, &String)| (name.clone(), value.as_str().into());
            let table: toml::Table = self.settings.iter().map(pair).collect();
            toml.value("settings", &toml::Value::Table(table));
        }
        toml.line("keys = [");
        for key in &self.keys {
            key.write(toml);
        }
        toml.line("]");
    }
}

/// What of a tenant's pool differs from the defaults.
struct Pool {
    mode: Option<&'static str>,
    numbers: Vec<(&'static str, u64)>,
    /// How many servers it may have.
    servers: u64,
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
            from = format!("{from}, user {role:?}");
        }
        let id = self.ids.take(name, &from)?.to_string();
        if password.is_none() {
            let text = "its password at PostgreSQL is not in the files (PgBouncer passes a SCRAM login on, or is trusted); give its tenants password, password_env or password_file, unless PostgreSQL trusts pgusher";
            self.notes.once(&format!("role {role:?}"), text);
        }
        self.limit_keys(&mut keys);
        let times = self.times(database, &id, &keys);
        let pool = self.pool(database, role, &id);
        self.clusters.add_servers(&cluster, pool.servers);
        let tenant = Tenant {
            id,
            cluster,
            tier: self.tier,
            database: database.dbname.clone(),
            role: role.to_owned(),
            password,
            pool,
            time_zone: database.time_zone.clone(),
            times,
            settings: database.settings.clone(),
            keys,
            from,
        };
        self.tell_moves(database, &tenant);
        self.tenants.push(tenant);
        Ok(())
    }

    fn pool(&mut self, database: &Database, role: &str, id: &str) -> Pool {
        let user = self.per_user.get(role);
        let mode = user.and_then(|user| user.pool_mode).or(database.pool_mode);
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
        Pool {
            mode: mode.map(PoolMode::as_str),
            numbers,
            servers: size,
        }
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
            let hex = |digit: u8| char::from_digit(u32::from(digit), 16).unwrap_or('0');
            out.push('%');
            out.extend([byte >> 4, byte & 15].map(|digit| hex(digit).to_ascii_uppercase()));
        }
    }
    out
}
