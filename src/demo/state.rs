//! What stays the same from one start to the next: passwords, keys, and ports if they are still free.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt::Display, str::FromStr};

use super::opaque::opaque;
use crate::{
    provisioning::Variant,
    tenant::{PoolMode, Tier},
};

/// The tenants of the demo: two in each tier, and two that share their logins.
pub(super) const ROSTER: [(&str, Tier, Variant); 8] = [
    ("acme", Tier::Database, Variant::Own),
    ("globex", Tier::Database, Variant::Own),
    ("initech", Tier::Schema, Variant::Own),
    ("umbrella", Tier::Schema, Variant::Own),
    ("hooli", Tier::Row, Variant::Own),
    ("stark", Tier::Row, Variant::Own),
    ("wayne", Tier::Row, Variant::Shared),
    ("wonka", Tier::Row, Variant::Shared),
];

/// All that is made up at the first start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// Whether a start got through; before that nothing is worth keeping.
    pub(super) is_provisioned: bool,
    pub(super) superuser_password: String,
    pub(super) replication_password: String,
    /// Of the login that owns the registry.
    pub(super) registry_password: String,
    /// For the admin API.
    pub(super) admin_token: String,
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

/// A tenant as its clients see it. The rest stands in the registry.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DemoTenant {
    pub(super) id: String,
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub(super) tier: Tier,
    pub(super) variant: Variant,
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub(super) pool_mode: PoolMode,
    pub(super) key: String,
    pub(super) read_only_key: String,
}

impl State {
    /// Makes everything up that is needed before there are tenants.
    pub(super) fn invent() -> Self {
        let password = || opaque(26); // 130 random bits
        Self {
            is_provisioned: false,
            superuser_password: password(),
            replication_password: password(),
            registry_password: password(),
            admin_token: String::new(),
            tenants: Vec::new(),
            ports: Ports::default(),
        }
    }
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
