//! Where a tenant's data lives, and as whom we log in there.

use super::{ClusterName, Secret, Slots};
use std::{fmt, str::FromStr};

/// A name that is none of the allowed ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it must be one of {allowed}")]
pub struct UnknownName {
    /// The allowed names, for the message.
    pub allowed: &'static str,
}

/// How a tenant is kept apart from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// Its own database.
    Database,
    /// Its own schema in a shared database.
    Schema,
    /// Its rows in shared tables.
    Row,
}

impl Tier {
    /// The name in `proxy.toml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Schema => "schema",
            Self::Row => "row",
        }
    }

    /// Whether other tenants use the same upstream database.
    pub fn shares_database(self) -> bool {
        self != Self::Database
    }
}

impl FromStr for Tier {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        match text {
            "database" | "enterprise" => Ok(Self::Database),
            "schema" | "standard" => Ok(Self::Schema),
            "row" | "small" => Ok(Self::Row),
            _ => Err(UnknownName {
                allowed: "\"database\", \"schema\", \"row\"",
            }),
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How long a client keeps a server connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolMode {
    /// For its whole session.
    Session,
    /// For a transaction.
    Transaction,
    /// For a statement; transactions over several statements are refused.
    Statement,
}

impl PoolMode {
    /// The name in `proxy.toml` and on the console.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
            Self::Statement => "statement",
        }
    }
}

impl FromStr for PoolMode {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        match text {
            "session" => Ok(Self::Session),
            "transaction" => Ok(Self::Transaction),
            "statement" => Ok(Self::Statement),
            _ => Err(UnknownName {
                allowed: "\"session\", \"transaction\", \"statement\"",
            }),
        }
    }
}

impl fmt::Display for PoolMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens when a session in transaction mode makes state that can't be carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Pinning {
    /// It keeps its server as long as the state is there.
    #[default]
    Allow,
    /// It is refused (0A000).
    Refuse,
}

/// An upstream login role. Without a password PostgreSQL must trust us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The role's name.
    pub role: Box<str>,
    /// Its password.
    pub password: Option<Secret>,
}

/// Where a tenant's data lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The cluster.
    pub cluster: ClusterName,
    /// How the tenant is kept apart there.
    pub tier: Tier,
    /// The upstream database.
    pub database: Box<str>,
    /// The schema that becomes the `search_path` (tier `schema` only).
    pub schema: Option<Box<str>>,
    /// The login for keys that read and write.
    pub login: Login,
    /// The login for keys that only read: a role without write privilege.
    pub read_only_login: Option<Login>,
    /// Set for a tenant without a login of its own: then the logins above are not used.
    pub slots: Option<Slots>,
}
