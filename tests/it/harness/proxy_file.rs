//! A `proxy.toml` in the making.

use super::{
    place::{Place, ROLE_PASSWORD},
    postgres::Endpoint,
    scram,
};
use toml::{Table, Value};

/// The API key of every tenant that names none.
pub const KEY: &str = "pgu_k1_the-secret-of-the-tests";

/// When a server goes back to its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// When the client leaves.
    Session,
    /// At the end of a transaction.
    Transaction,
    /// After a statement.
    Statement,
}

impl Mode {
    /// The name in `proxy.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
            Self::Statement => "statement",
        }
    }
}

/// An API key and what it may do.
#[derive(Clone)]
pub struct Key {
    secret: String,
    table: Table,
}

impl Key {
    /// A key without limits.
    pub fn new(secret: &str) -> Self {
        Self {
            secret: secret.to_owned(),
            table: Table::new(),
        }
    }

    /// Sets a field.
    pub fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.table.insert(name.to_owned(), value.into());
        self
    }

    fn render(&self, salt: &[u8]) -> Value {
        let mut table = self.table.clone();
        let verifier = scram::verifier(&self.secret, salt);
        table.entry("verifier").or_insert(Value::String(verifier));
        Value::Table(table)
    }
}

/// A `[[tenants]]` entry.
#[derive(Clone)]
pub struct Tenant {
    /// Its id.
    pub id: String,
    /// Where its data is.
    pub place: Place,
    keys: Vec<Key>,
    table: Table,
}

impl Tenant {
    /// A tenant in this place, in transaction mode with a pool of four.
    pub fn new(id: &str, place: &Place) -> Self {
        let mut table = Table::new();
        table.insert("id".into(), id.into());
        table.insert("cluster".into(), "main".into());
        table.insert("database".into(), place.database_name().into());
        table.insert("role".into(), place.role().into());
        table.insert("password".into(), ROLE_PASSWORD.into());
        let tier = if place.schema_name().is_some() {
            "schema"
        } else {
            "database"
        };
        table.insert("tier".into(), tier.into());
        if let Some(schema) = place.schema_name() {
            table.insert("schema".into(), schema.into());
        }
        let tenant = Self {
            id: id.to_owned(),
            place: place.clone(),
            keys: Vec::new(),
            table,
        };
        tenant.mode(Mode::Transaction).pool_size(4)
    }

    /// Sets a field.
    pub fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.table.insert(name.to_owned(), value.into());
        self
    }

    /// Leaves a field out.
    pub fn without(mut self, name: &str) -> Self {
        self.table.remove(name);
        self
    }

    /// Sets `pool_mode`.
    pub fn mode(self, mode: Mode) -> Self {
        self.set("pool_mode", mode.name())
    }

    /// Sets `pool_size`.
    pub fn pool_size(self, servers: u32) -> Self {
        self.set("pool_size", servers)
    }

    /// Adds a key. Without any, the tenant has [`KEY`].
    pub fn key(mut self, key: Key) -> Self {
        self.keys.push(key);
        self
    }

    /// Sets `settings`.
    pub fn settings(self, settings: &[(&str, &str)]) -> Self {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), Value::from(*value));
        self.set("settings", settings.iter().map(pair).collect::<Table>())
    }

    fn render(&self) -> Value {
        let mut table = self.table.clone();
        let salt = scram::salt(&self.id);
        let default = [Key::new(KEY)];
        let keys = if self.keys.is_empty() {
            &default[..]
        } else {
            &self.keys
        };
        let keys: Vec<_> = keys.iter().map(|key| key.render(&salt)).collect();
        table.insert("keys".into(), keys.into());
        Value::Table(table)
    }
}

/// The whole file.
#[derive(Clone)]
pub struct ProxyFile {
    /// `[proxy]`.
    pub proxy: Table,
    /// `[admin]`.
    pub admin: Table,
    /// `[registry]`.
    pub registry: Table,
    /// `[usage]`.
    pub usage: Table,
    /// `[secrets]`.
    pub secrets: Table,
    /// The first `[[clusters]]` entry.
    pub cluster: Table,
    /// The other `[[clusters]]` entries.
    pub other_clusters: Vec<Table>,
    /// `[[plans]]`.
    pub plans: Vec<Table>,
    /// `[[tenants]]`.
    pub tenants: Vec<Tenant>,
}

impl ProxyFile {
    /// For tenants in this PostgreSQL.
    pub fn new(endpoint: &Endpoint, tenants: Vec<Tenant>) -> Self {
        let mut cluster = Table::new();
        cluster.insert("name".into(), "main".into());
        cluster.insert("primary".into(), endpoint.url().into());
        Self {
            proxy: Table::new(),
            admin: Table::new(),
            registry: Table::new(),
            usage: Table::new(),
            secrets: Table::new(),
            cluster,
            other_clusters: Vec::new(),
            plans: Vec::new(),
            tenants,
        }
    }

    /// Without tenants and clusters.
    pub fn bare() -> Self {
        Self {
            proxy: Table::new(),
            admin: Table::new(),
            registry: Table::new(),
            usage: Table::new(),
            secrets: Table::new(),
            cluster: Table::new(),
            other_clusters: Vec::new(),
            plans: Vec::new(),
            tenants: Vec::new(),
        }
    }

    /// Sets a field of `[proxy]`.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.proxy.insert(name.to_owned(), value.into());
    }

    /// Sets a field of the cluster.
    pub fn set_cluster(&mut self, name: &str, value: impl Into<Value>) {
        self.cluster.insert(name.to_owned(), value.into());
    }

    /// The tenant with this id.
    pub fn tenant(&mut self, id: &str) -> &mut Tenant {
        let mut tenants = self.tenants.iter_mut();
        tenants
            .find(|tenant| tenant.id == id)
            .expect("a tenant of the file")
    }

    /// Changes a field of a tenant.
    pub fn set_tenant(&mut self, id: &str, name: &str, value: impl Into<Value>) {
        self.tenant(id).table.insert(name.to_owned(), value.into());
    }

    /// The text.
    pub fn render(&self) -> String {
        let mut file = Table::new();
        file.insert("proxy".into(), self.proxy.clone().into());
        if !self.admin.is_empty() {
            file.insert("admin".into(), self.admin.clone().into());
        }
        let tables = [
            ("registry", &self.registry),
            ("usage", &self.usage),
            ("secrets", &self.secrets),
        ];
        for (name, table) in tables {
            if !table.is_empty() {
                file.insert(name.into(), table.clone().into());
            }
        }
        let own = Some(&self.cluster).filter(|cluster| !cluster.is_empty());
        let clusters = own.into_iter().chain(&self.other_clusters);
        let clusters: Vec<_> = clusters
            .map(|cluster| Value::from(cluster.clone()))
            .collect();
        file.insert("clusters".into(), clusters.into());
        if !self.plans.is_empty() {
            let plans: Vec<_> = self.plans.iter().cloned().map(Value::from).collect();
            file.insert("plans".into(), plans.into());
        }
        let tenants: Vec<_> = self.tenants.iter().map(Tenant::render).collect();
        file.insert("tenants".into(), tenants.into());
        toml::to_string(&file).expect("a table is TOML")
    }
}
