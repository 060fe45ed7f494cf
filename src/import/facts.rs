//! What is known of a tenant that is to be written to the registry.

use crate::{
    crypto::{Keyring, Purpose, Sealed},
    registry::TenantRow,
    tenant::{Secret, Tier},
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A login role and its password.
pub(super) struct Role {
    pub(super) name: String,
    pub(super) password: Option<Secret>,
}

/// A tenant as another system knew it. Not printable: it has passwords.
pub(super) struct Facts {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) tier: Tier,
    pub(super) status: &'static str,
    pub(super) owner_email: Option<String>,
    pub(super) cluster: String,
    pub(super) database: String,
    pub(super) schema: Option<String>,
    pub(super) role: Role,
    pub(super) read_only: Option<Role>,
    pub(super) pool_size: Option<i32>,
    pub(super) min_pool_size: Option<i32>,
    /// Milliseconds.
    pub(super) server_idle_timeout: Option<i64>,
    /// Milliseconds.
    pub(super) query_wait_timeout: Option<i64>,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) time_zone: Option<String>,
    pub(super) auto_update: bool,
    pub(super) metadata: Value,
    /// Where it was before, for the table: no password.
    pub(super) old_url: String,
}

impl Facts {
    /// In which facts a tenant of the registry differs. Passwords are compared, never told.
    pub(super) fn differences(&self, row: &TenantRow, keyring: &Keyring) -> Vec<String> {
        let (ours, theirs) = (self.record(), record_of(row));
        let differ = |name: &&String| ours.get(*name) != theirs.get(*name);
        let mut names: Vec<String> = ours.keys().filter(differ).cloned().collect();
        let read_only = self.read_only.as_ref();
        for (what, ours, sealed) in [
            ("password", Some(&self.role), &row.password),
            ("read_only_password", read_only, &row.read_only_password),
        ] {
            let ours = ours.and_then(|role| role.password.as_ref());
            if !is_sealed_of(ours, sealed.as_deref(), &row.id, what, keyring) {
                names.push(what.to_owned());
            }
        }
        names
    }

    /// The facts by the names of the columns, without passwords.
    fn record(&self) -> Map<String, Value> {
        let read_only = self.read_only.as_ref().map(|role| &role.name);
        let record = json!({
            "name": self.name,
            "tier": self.tier.as_str(),
            "status": self.status,
            "owner_email": self.owner_email,
            "cluster": self.cluster,
            "database_name": self.database,
            "schema_name": self.schema,
            "role": self.role.name,
            "read_only_role": read_only,
            "pool_size": self.pool_size,
            "min_pool_size": self.min_pool_size,
            "server_idle_timeout": self.server_idle_timeout,
            "query_wait_timeout": self.query_wait_timeout,
            "settings": self.settings,
            "time_zone": self.time_zone,
            "auto_update": self.auto_update,
            "metadata": self.metadata,
        });
        record.as_object().cloned().unwrap_or_default()
    }
}

/// The same of a row.
fn record_of(row: &TenantRow) -> Map<String, Value> {
    let record = json!({
        "name": row.name,
        "tier": row.tier,
        "status": row.status,
        "owner_email": row.owner_email,
        "cluster": row.cluster,
        "database_name": row.database_name,
        "schema_name": row.schema_name,
        "role": row.role,
        "read_only_role": row.read_only_role,
        "pool_size": row.pool_size,
        "min_pool_size": row.min_pool_size,
        "server_idle_timeout": row.server_idle_timeout,
        "query_wait_timeout": row.query_wait_timeout,
        "settings": row.settings.0,
        "time_zone": row.time_zone,
        "auto_update": row.auto_update,
        "metadata": row.metadata.0,
    });
    record.as_object().cloned().unwrap_or_default()
}

fn is_sealed_of(
    ours: Option<&Secret>,
    sealed: Option<&[u8]>,
    id: &str,
    what: &str,
    keyring: &Keyring,
) -> bool {
    let (Some(ours), Some(sealed)) = (ours, sealed) else {
        return ours.is_none() && sealed.is_none();
    };
    let owner = format!("tenant:{id}");
    let purpose = Purpose {
        owner: &owner,
        what,
    };
    let opened = keyring.open(purpose, Sealed(sealed)).ok();
    let text = opened.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
    text.is_some_and(|text| Secret::new(text) == *ours)
}
