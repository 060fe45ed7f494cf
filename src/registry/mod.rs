//! The system of record: tenants, keys, clusters, configuration and events in PostgreSQL.
//!
//! Rows are written by use cases (`control`) and read by the data plane's directory. What is secret
//! is sealed before it comes here ([`crate::crypto`]). Migrations are in `migrations/`, applied by
//! [`Registry::migrate`] under PostgreSQL's advisory lock, so that several starts at once are one.

mod assemble;
mod changed;
mod changes;
mod clusters;
mod directory;
mod error;
mod event;
mod events;
mod freshness;
mod keyring;
mod keys;
mod known;
mod link;
mod load;
mod rows;
mod slot_keys;
mod snapshot;
mod tenants;

pub use assemble::{
    Assembled, cluster_of, slot_key_of, slot_key_purpose, tenant_in_slots, tenant_of,
};
pub use changed::Changed;
pub use clusters::{
    cluster, clusters, insert_cluster, set_addresses, set_cluster_holes, set_replicas,
};
pub use directory::RegistryDirectory;
pub use error::RegistryError;
pub use event::{Changes, NewEvent, append};
pub use events::{EventRow, last_event_at, newest_events, oldest_events};
pub use keys::{KeyEnd, end_key, insert_key, keys, lock_key};
pub use rows::{ClusterRow, KeyRow, SlotKeyRow, TenantRow};
pub use slot_keys::slot_key;
pub use tenants::{
    TenantSeed, change_tenant, delete_tenant, insert_tenant, lock_tenant, set_tenant_passwords,
    tenant, tenants, unfinished_tenants,
};

use crate::{config, crypto::Keyring};
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, PgPool,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{str::FromStr as _, sync::Arc, time::Duration};

/// How long a connection to the registry may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

static MIGRATIONS: Migrator = sqlx::migrate!("src/registry/migrations");

/// The system of record. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    /// Connections to it.
    pub pool: PgPool,
    /// What opens its secrets.
    pub keyring: Arc<Keyring>,
}

impl Registry {
    /// Prepares connections; the first use makes one.
    ///
    /// # Errors
    /// [`RegistryError::Url`] when the URL can't be read.
    pub fn new(config: &config::Registry, keyring: Arc<Keyring>) -> Result<Self, RegistryError> {
        let options = options(config)?;
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(CONNECT_TIME_MAX)
            .connect_lazy_with(options);
        Ok(Self { pool, keyring })
    }

    /// Creates what is missing, and brings it up to date. Several at once wait for each other.
    ///
    /// # Errors
    /// [`RegistryError::Migrate`]; what was applied before stays.
    ///
    /// # Cancel safety
    /// Cancel safe: each migration is a transaction.
    pub async fn migrate(&self) -> Result<(), RegistryError> {
        match MIGRATIONS.run(&self.pool).await {
            Err(MigrateError::Execute(sqlx::Error::PoolTimedOut)) => Err(self.why_not().await),
            done => Ok(done?),
        }
    }

    /// The pool tries until its time is up, and does not say what kept it from a connection.
    async fn why_not(&self) -> RegistryError {
        let options = self.pool.connect_options();
        let connecting = PgConnection::connect_with(&options);
        let reason = match tokio::time::timeout(CONNECT_TIME_MAX, connecting).await {
            Ok(Ok(_)) => return sqlx::Error::PoolTimedOut.into(),
            Ok(Err(sqlx::Error::Io(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        let address = options.get_socket().map_or_else(
            || format!("{}:{}", options.get_host(), options.get_port()),
            |folder| folder.display().to_string(),
        );
        RegistryError::Unreachable { address, reason }
    }
}

/// The version that [`Registry::migrate`] brings a registry to.
pub fn version() -> i64 {
    let versions = MIGRATIONS.iter().map(|migration| migration.version);
    versions.max().unwrap_or(0)
}

/// How to connect, for the pool and for who listens.
///
/// # Errors
/// [`RegistryError::Url`]. The message has no part of the URL: it holds a password.
pub fn options(config: &config::Registry) -> Result<PgConnectOptions, RegistryError> {
    let options = PgConnectOptions::from_str(config.url.expose());
    let options = options.map_err(|_error| RegistryError::Url)?;
    // SQL is not logged, not even when it is slow.
    Ok(options
        .application_name("pgusher")
        .disable_statement_logging())
}
