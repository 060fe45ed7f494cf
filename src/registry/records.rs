//! All tenants, keys and clusters as rows: what the sealed copy on disk holds.

use super::{ClusterRow, KeyRow, Registry, RegistryError, TenantRow, directory::id_of};
use crate::crypto::{Keyring, OpenError, Purpose, Sealed};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// What the file is sealed for.
const PURPOSE: Purpose<'_> = Purpose {
    owner: "proxy",
    what: "snapshot",
};

/// Why the copy on disk is of no use.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It can't be read or written.
    #[error("the registry's snapshot can't be read or written")]
    Io(#[from] io::Error),
    /// It can't be opened.
    #[error("the registry's snapshot can't be opened")]
    Open(#[from] OpenError),
    /// It can't be sealed.
    #[error("the registry's snapshot can't be sealed")]
    Seal(#[from] crate::crypto::SealError),
    /// It is of another version.
    #[error("the registry's snapshot was written by another version")]
    Form(#[from] serde_json::Error),
}

/// Everything that is needed to serve. Passwords are sealed in it, and it is sealed as a whole.
#[derive(Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// All clusters.
    pub clusters: Vec<ClusterRow>,
    /// All tenants.
    pub tenants: Vec<TenantRow>,
    /// All their keys.
    pub keys: Vec<KeyRow>,
}

impl Snapshot {
    /// Reads it all from the registry.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn take(registry: &Registry) -> Result<Self, RegistryError> {
        let mut tx = registry.pool.begin().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            .execute(&mut *tx)
            .await?;
        let clusters = super::clusters(&mut tx).await?;
        let tenants = "SELECT * FROM pgusher.tenant WHERE status IN ('active', 'suspended')";
        let tenants = sqlx::query_as(tenants).fetch_all(&mut *tx).await?;
        let keys = "SELECT * FROM pgusher.api_key WHERE status = 'active'";
        let keys = sqlx::query_as(keys).fetch_all(&mut *tx).await?;
        Ok(Self {
            clusters,
            tenants,
            keys,
        })
    }

    /// Writes it, whole and at once, readable by us alone. Blocks.
    ///
    /// # Errors
    /// [`SnapshotError`]; what was there stays.
    pub fn write(&self, path: &Path, keyring: &Keyring) -> Result<(), SnapshotError> {
        let sealed = keyring.seal(PURPOSE, &serde_json::to_vec(self)?)?;
        let new = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&sealed)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        Ok(())
    }

    /// Reads it. Blocks.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn read(path: &Path, keyring: &Keyring) -> Result<Self, SnapshotError> {
        let opened = keyring.open(PURPOSE, Sealed(&fs::read(path)?))?;
        Ok(serde_json::from_slice(&opened)?)
    }
}

/// Tenants with their keys, by id.
#[derive(Debug)]
pub(super) struct Records(HashMap<Box<str>, (TenantRow, Vec<KeyRow>)>);

impl From<Snapshot> for Records {
    fn from(snapshot: Snapshot) -> Self {
        let tenants = snapshot.tenants.into_iter();
        let mut records: HashMap<_, _> = tenants
            .map(|row| (id_of(&row), (row, Vec::new())))
            .collect();
        for key in snapshot.keys {
            if let Some((_, keys)) = records.get_mut(key.tenant.as_str()) {
                keys.push(key);
            }
        }
        Self(records)
    }
}

impl Records {
    /// The tenant of this id and its keys.
    pub(super) fn tenant(&self, id: &str) -> Option<(&TenantRow, &[KeyRow])> {
        self.0.get(id).map(|(row, keys)| (row, keys.as_slice()))
    }
}
