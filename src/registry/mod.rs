//! The system of record: tenants, keys, clusters, configuration and events in PostgreSQL.
//!
//! Rows are written by use cases (`control`) and read by the data plane's directory. What is secret
//! is sealed before it comes here ([`crate::crypto`]). Migrations are in `migrations/`, applied by
//! [`Registry::migrate`] under PostgreSQL's advisory lock, so that several starts at once are one.

mod assemble;
mod changed;
mod changes;
mod clusters;
mod connect;
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
mod months;
mod pauses;
mod plans;
mod rows;
mod slot_keys;
mod snapshot;
mod storage;
mod tenants;
mod usage;
mod uses;

pub use assemble::{
    Assembled, cluster_of, slot_key_of, slot_key_purpose, storage_limit, tenant_in_slots,
    tenant_of, watch_of,
};
pub use changed::Changed;
pub use clusters::{
    change_standbys, cluster, clusters, insert_cluster, lock_cluster, set_addresses,
    set_cluster_holes, set_cluster_profile, set_pause, set_replicas,
};
pub use connect::{Pauses, is_full};
pub use directory::RegistryDirectory;
pub use error::RegistryError;
pub use event::{Changes, NewEvent, append};
pub use events::{EventRow, begun_with_templates, last_event_at, newest_events, oldest_events};
pub use keys::{KeyEnd, change_key, end_key, insert_key, keys, keys_after, lock_key};
pub use plans::{lock_plan, plans, put_plan, remove_plan, tenants_with_plan};
pub use rows::{ClusterRow, KeyRow, SlotKeyRow, TenantRow};
pub use slot_keys::slot_key;
pub use storage::{Measured, Told, lock_storage, set_fullness, tell_tenants, write_storage};
pub use tenants::{
    TenantSeed, change_tenant, delete_tenant, insert_tenant, lock_tenant, set_tenant_passwords,
    tenant, tenants, tenants_roles, tenants_with_other_holes, unfinished_tenants,
};
pub use usage::{Keeping, write_usage};
pub use uses::write_uses;

use crate::{config, crypto::Keyring};
use sqlx::{
    ConnectOptions as _, Connection as _, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{borrow::Cow, str::FromStr as _, sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long a connection to the registry may take, for who serves others meanwhile.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// For a command, which has nothing else to do: many at once wait for each other.
const COMMAND_PATIENCE: Duration = Duration::from_mins(1);

/// Connections of a command: one for what it does, and one beside it.
const COMMAND_CONNECTIONS: u32 = 2;

static MIGRATIONS: Migrator = sqlx::migrate!("src/registry/migrations");

/// Which migrations are applied. It is named with its schema: where a name alone is looked for and
/// made depends on the login, and is another place as soon as there is a schema of the login's name.
const APPLIED: &str = "pgusher._sqlx_migrations";

/// Makes the schema, and brings that table there from where earlier versions made it.
const HOME: &str = include_str!("home.sql");

/// The system of record. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    /// Connections to it.
    pub pool: PgPool,
    /// What opens its secrets.
    pub keyring: Arc<Keyring>,
    /// How long it is waited for a connection while PostgreSQL has no place.
    patience: Duration,
}

impl Registry {
    /// Prepares connections; the first use makes one.
    ///
    /// # Errors
    /// [`RegistryError::Url`] when the URL can't be read.
    pub fn new(config: &config::Registry, keyring: Arc<Keyring>) -> Result<Self, RegistryError> {
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(CONNECT_TIME_MAX)
            .connect_lazy_with(options(config)?);
        Ok(Self {
            pool,
            keyring,
            patience: CONNECT_TIME_MAX,
        })
    }

    /// The same for a command among many: it waits longer, and keeps no connection that it does not
    /// use right now, as others wait for it.
    ///
    /// # Errors
    /// As [`Registry::new`].
    pub fn for_command(
        config: &config::Registry,
        keyring: Arc<Keyring>,
    ) -> Result<Self, RegistryError> {
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections.min(COMMAND_CONNECTIONS))
            .acquire_timeout(COMMAND_PATIENCE)
            .after_release(|_db, _meta| Box::pin(async { Ok(false) }))
            .connect_lazy_with(options(config)?);
        Ok(Self {
            pool,
            keyring,
            patience: COMMAND_PATIENCE,
        })
    }

    /// Creates what is missing, and brings it up to date. Several at once wait for each other.
    ///
    /// # Errors
    /// [`RegistryError::Migrate`], what was applied before stays; or as [`Registry::connect`].
    ///
    /// # Cancel safety
    /// Cancel safe: each migration is a transaction.
    pub async fn migrate(&self) -> Result<(), RegistryError> {
        let mut db = self.connect(self.patience).await?;
        sqlx::raw_sql(HOME).execute(&mut db).await?;
        let mut migrations = Migrator {
            migrations: Cow::Borrowed(&MIGRATIONS.migrations),
            ..Migrator::DEFAULT
        };
        migrations.dangerous_set_table_name(APPLIED);
        migrations.run_direct(None, &mut db, false).await?;
        timeout(CONNECT_TIME_MAX, db.close()).await.ok();
        Ok(())
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
