//! A registry of the test's own, and what stands in it.

use super::{
    Client, Connect, Place, Postgres, Proxy, ProxyFile, eventually, place::ROLE_PASSWORD,
    postgres::Endpoint, proxy::Builder, proxy_file::KEY, scram,
};
use pgusher::crypto::{Keyring, Purpose};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A database for a registry, which the first proxy makes one, and the key to its secrets.
pub struct Books {
    registry: Endpoint,
    database: String,
    keyring: Keyring,
    /// The master key, as its file has it.
    pub master_key: String,
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("'\\x{}'", digits.concat())
}

fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Relaxed)
}

/// A word that no other tenant has.
fn token(number: u32) -> String {
    let letters = format!("{number:020}");
    letters
        .bytes()
        .map(|digit| char::from(digit - b'0' + b'a'))
        .collect()
}

impl Books {
    /// In this PostgreSQL.
    pub fn new(postgres: &Postgres) -> Self {
        let database = format!("books_{}", next());
        let mut admin = postgres.admin();
        admin.exec(&format!("create database {database}"));
        let line = Keyring::new_line(1).unwrap();
        Self {
            registry: postgres.endpoint().clone(),
            database,
            keyring: Keyring::parse(line.expose()).unwrap(),
            master_key: line.expose().to_owned(),
        }
    }

    /// The URL, as a superuser.
    pub fn url(&self) -> String {
        let port = self.registry.port();
        format!("postgres://admin@127.0.0.1:{port}/{}", self.database)
    }

    /// A proxy that knows nothing but the registry.
    pub fn proxy(&self) -> Builder {
        Proxy::with(ProxyFile::bare()).registry(&self.url(), &self.master_key)
    }

    /// A superuser's connection to the registry.
    pub fn admin(&self) -> Client {
        self.registry.admin_of(&self.database)
    }

    /// Enters the cluster `main`.
    pub fn add_cluster(&self, endpoint: &Endpoint) {
        let url = endpoint.url();
        self.admin().exec(&format!(
            "insert into pgusher.cluster (name, primary_url, admin_role) values ('main', '{url}', 'admin')"
        ));
    }

    /// Enters an active tenant in this place, with the usual key, whose id is the tenant's.
    pub fn add(&self, id: &str, place: &Place) {
        let sql = self.row(id, place.database_name(), place.role());
        let key = key_row(id, id, KEY);
        self.admin().exec(&format!("begin; {sql}; {key}; commit"));
    }

    /// Returns when a proxy has heard of all that was entered: what it loads from then on it need not ask
    /// for again.
    pub fn are_heard_by(&self, proxy: &Proxy) {
        let marker = format!("marker{}", next());
        let connect = Connect::to(proxy.address()).user(&marker).password(KEY);
        // That there is none is remembered until it hears of one.
        assert_eq!(connect.refused().code(), "28P01");
        self.add(&marker, &Postgres::shared().place());
        eventually("the proxy has heard", || connect.try_login().is_ok());
    }

    /// Enters many tenants who have no place, and tells nobody.
    pub fn add_many(&self, count: u32) {
        let mut admin = self.admin();
        admin.exec("set session_replication_role = replica");
        let key = key_row("%", "%", KEY);
        for batch in 0..count / 500 {
            let row = |number: u32| {
                let id = format!("many{}", batch * 500 + number);
                let row = self.row(&id, "shared", &id);
                format!("{row}; {};", key.replace('%', &id))
            };
            let rows: Vec<_> = (0..500).map(row).collect();
            admin.exec(&format!("begin; {} commit", rows.concat()));
        }
    }

    /// Enters a key.
    pub fn add_key(&self, tenant: &str, id: &str, secret: &str) {
        self.admin().exec(&key_row(tenant, id, secret));
    }

    fn row(&self, id: &str, database: &str, role: &str) -> String {
        let owner = format!("tenant:{id}");
        let purpose = Purpose {
            owner: &owner,
            what: "password",
        };
        let password = self.keyring.seal(purpose, ROLE_PASSWORD.as_bytes());
        format!(
            "insert into pgusher.tenant (id, name, tier, status, cluster, database_name, token, role, password, scram_salt) \
             values ('{id}', '{id}', 'database', 'active', 'main', '{database}', '{}', '{role}', {}, {})",
            token(next()),
            hex(&password.unwrap()),
            hex(&scram::salt("books")),
        )
    }
}

fn key_row(tenant: &str, id: &str, secret: &str) -> String {
    let verifier = scram::verifier(secret, &scram::salt("books"));
    format!(
        "insert into pgusher.api_key (id, tenant, verifier) values ('{id}', '{tenant}', '{verifier}')"
    )
}
