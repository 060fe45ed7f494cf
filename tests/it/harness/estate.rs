//! An operator's desk with a cluster that tenants are made in.

use super::{Client, Postgres, office::Office, proxy::PROGRAM};
use pgusher::{
    config::Config,
    control::{Actor, Control},
    registry::Registry,
};
use serde_json::Value;
use std::{
    process::{Child, Command, Stdio},
    sync::{Arc, OnceLock},
};

/// The cluster of all estates of this process. Estates share it as registries of one company would:
/// all names in it are random.
pub fn ground() -> &'static Postgres {
    static GROUND: OnceLock<Postgres> = OnceLock::new();
    GROUND.get_or_init(Postgres::start)
}

/// An office whose registry knows a cluster, `main`.
pub struct Estate {
    pub office: Office,
}

impl Estate {
    /// A registry of its own, and the common cluster.
    pub fn new() -> Self {
        let office = Office::new(Postgres::shared().endpoint());
        let estate = Self { office };
        estate.add_cluster("main", &[]);
        estate
    }

    /// Adds the common cluster under a name.
    pub fn add_cluster(&self, name: &str, options: &[&str]) {
        self.office.add_cluster(name, ground().endpoint(), options);
    }

    /// Makes a tenant; what is printed.
    pub fn create(&self, id: &str, tier: &str) -> Value {
        self.office.json(&["tenant", "create", id, "--tier", tier])
    }

    /// What a command prints that fails.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let run = self.office.run(arguments);
        assert!(!run.is_success, "{arguments:?}: {}", run.out);
        run.err
    }

    /// Starts a command and does not wait for it.
    pub fn start(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .current_dir(self.office.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// A superuser in the registry.
    pub fn registry(&self) -> Client {
        self.office.admin()
    }

    /// A field of a tenant's row; "" for NULL, and when there is none.
    pub fn field(&self, id: &str, column: &str) -> String {
        let sql = format!(
            "select coalesce((select {column}::text from pgusher.tenant where id = '{id}'), '')"
        );
        self.registry().value(&sql)
    }

    /// The kinds of a tenant's events, in order.
    pub fn events(&self, id: &str) -> Vec<String> {
        let history = self.office.json(&["tenant", "history", id]);
        let events = history.as_array().unwrap().iter();
        events
            .map(|event| event["kind"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The use cases themselves, over the same registry.
    pub async fn control(&self) -> (Control, Actor) {
        let config = Config::load(&self.office.path().join("proxy.toml")).unwrap();
        let keyring = Arc::new(config.master_key.as_ref().unwrap().load().unwrap());
        let registry = Registry::new(config.registry.as_ref().unwrap(), keyring).unwrap();
        registry.migrate().await.unwrap();
        (Control::new(registry, &config), Actor::operator())
    }
}

/// How many things in the common cluster have a token in their name.
pub fn traces(token: &str) -> String {
    assert_eq!(token.len(), 20, "{token:?} is no token");
    let mut admin = ground().admin();
    let mut count: i64 = admin
        .value(&format!(
            "select (select count(*) from pg_roles where rolname like '%{token}') + \
             (select count(*) from pg_database where datname like '%{token}')"
        ))
        .parse()
        .unwrap();
    for database in ["pgusher_schemas", "pgusher_rows"] {
        let there = admin.value(&format!(
            "select count(*) from pg_database where datname = '{database}'"
        ));
        if there == "1" {
            let mut admin = ground().endpoint().admin_of(database);
            let sql = format!("select count(*) from pg_namespace where nspname like '%{token}'");
            count += admin.value(&sql).parse::<i64>().unwrap();
        }
    }
    count.to_string()
}
