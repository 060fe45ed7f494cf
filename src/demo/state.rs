//! What stays the same from one start to the next: names, passwords, keys, and ports if they are
//! still free.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt::Display, str::FromStr};

use super::keys;
use crate::tenant::{PoolMode, Tier};

/// The tenants of the demo.
const ROSTER: [(&str, Tier); 4] = [
    ("acme", Tier::Database),
    ("globex", Tier::Database),
    ("initech", Tier::Schema),
    ("umbrella", Tier::Schema),
];

/// The schema of a tenant that has a database of its own.
const OWN_DATABASE_SCHEMA: &str = "app";

/// All that is made up at the first start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// Whether a start got through; before that nothing is worth keeping.
    pub(super) is_provisioned: bool,
    pub(super) superuser_password: String,
    pub(super) replication_password: String,
    /// The database of the tenants of tier `schema`.
    pub(super) shared_database: String,
    pub(super) ports: Ports,
    pub(super) tenants: Vec<DemoTenant>,
}

/// The ports of the last start.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Ports {
    pub(super) primary: Option<u16>,
    pub(super) replica: Option<u16>,
    pub(super) proxy: Option<u16>,
    pub(super) admin: Option<u16>,
}

/// A tenant, as the client and as PostgreSQL sees it. Upstream names are opaque: who a tenant is
/// can't be read from the catalog that others see.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DemoTenant {
    pub(super) id: String,
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub(super) tier: Tier,
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub(super) pool_mode: PoolMode,
    pub(super) database: String,
    pub(super) schema: String,
    pub(super) owner: Access,
    pub(super) reader: Access,
}

/// A key and the role behind it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Access {
    pub(super) role: String,
    pub(super) password: String,
    pub(super) key: String,
    pub(super) verifier: String,
}

impl State {
    /// Makes everything up.
    pub(super) fn invent() -> Self {
        let shared_database = name();
        let tenants = ROSTER.map(|(id, tier)| DemoTenant::invent(id, tier, &shared_database));
        Self {
            is_provisioned: false,
            superuser_password: password(),
            replication_password: password(),
            tenants: tenants.into(),
            ports: Ports::default(),
            shared_database,
        }
    }
}

impl DemoTenant {
    fn invent(id: &str, tier: Tier, shared_database: &str) -> Self {
        let salt = keys::new_salt();
        let access = || {
            let key = keys::new_key();
            Access {
                role: name(),
                password: password(),
                verifier: keys::verifier(&key, &salt),
                key,
            }
        };
        let owner = access();
        let (database, schema) = if tier.shares_database() {
            (shared_database.to_owned(), owner.role.clone())
        } else {
            (name(), OWN_DATABASE_SCHEMA.to_owned())
        };
        Self {
            id: id.to_owned(),
            tier,
            pool_mode: PoolMode::Transaction,
            database,
            schema,
            reader: access(),
            owner,
        }
    }
}

/// An upstream name: never derived from the tenant's, needs no quoting.
fn name() -> String {
    format!("t_{}", keys::opaque(16))
}

/// 130 random bits.
fn password() -> String {
    keys::opaque(26)
}

fn to_text<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn from_text<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::ScramVerifier;
    use std::collections::HashSet;

    #[test]
    fn nothing_upstream_names_a_tenant_or_is_used_twice() {
        let state = State::invent();
        let mut seen = HashSet::new();
        for tenant in &state.tenants {
            for access in [&tenant.owner, &tenant.reader] {
                for value in [&access.role, &access.password, &access.key] {
                    assert!(seen.insert(value.clone()));
                    assert!(!value.contains(&tenant.id));
                }
            }
        }
    }

    #[test]
    fn the_keys_of_a_tenant_share_salt_and_iterations() {
        for tenant in State::invent().tenants {
            let [owner, reader] =
                [tenant.owner, tenant.reader].map(|a| a.verifier.parse::<ScramVerifier>().unwrap());
            assert_eq!(owner.salt, reader.salt);
            assert_eq!(owner.iterations, reader.iterations);
            assert_ne!(owner.stored_key, reader.stored_key);
        }
    }

    #[test]
    fn the_state_survives_its_file() {
        let state = State::invent();
        let text = serde_json::to_string(&state).unwrap();
        let again: State = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), text);
    }
}
