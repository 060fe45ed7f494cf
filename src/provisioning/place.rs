//! What is to be made, and as whom.

use crate::tenant::{Address, Login, Secret, Tier, UpstreamTls};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How to log in at a cluster as who makes and removes tenants there: a superuser, or a role with
/// CREATEROLE and CREATEDB (as on managed PostgreSQL).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// The cluster's primary.
    pub address: Address,
    /// TLS towards it.
    pub tls: UpstreamTls,
    /// The role.
    pub role: Box<str>,
    /// Its password; none where PostgreSQL trusts us.
    pub password: Option<Secret>,
    /// TCP connect, TLS and login.
    pub connect_timeout: Duration,
}

/// How much of PostgreSQL's own catalogue tenants of a shared database may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// No bodies and no figures, but what applications read while they run: the default.
    #[default]
    Strict,
    /// As much as `pg_dump` and reflection need; what that shows is listed as [`Hole`]s.
    Compatible,
    /// Names only, and no text that a tenant wrote. Reflection fails, and with it what asks the
    /// catalogue while it runs (`ActiveRecord`) and `psql`'s `\d`.
    Sealed,
}

impl Profile {
    /// As configuration and the registry write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Compatible => "compatible",
            Self::Sealed => "sealed",
        }
    }

    /// The profile of a name; `None` for one that is none.
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Strict, Self::Compatible, Self::Sealed];
        all.into_iter().find(|profile| profile.as_str() == name)
    }
}

/// Whether a row tenant has a login role of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// It has.
    #[default]
    Own,
    /// It is bound to a slot, a login role that many tenants use in turn.
    Shared,
}

/// A tenant's place: where it is and as whom it is used. Tenants of the tiers `schema` and `row`
/// share a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// How it is kept apart.
    pub tier: Tier,
    /// Tier `row`: with a role of its own or through slots.
    pub variant: Variant,
    /// The database.
    pub database: Box<str>,
    /// Tier `schema` and `database`: the schema that is the tenant's; tier `row`: `None`.
    pub schema: Option<Box<str>>,
    /// `[a-z2-7]{20}`: in all names, and the `tenant_id` of its rows.
    pub token: Box<str>,
    /// Who reads and writes; the variant `shared` has no login of its own.
    pub login: Option<Login>,
    /// Who reads.
    pub read_only_login: Option<Login>,
    /// Connections PostgreSQL lets each of its roles have; -1: any number.
    pub connection_limit: i32,
}

impl Place {
    /// Whether its roles have the names that pgusher gives. An imported tenant's have others: what
    /// has them was not made here and may be used by others too, so it is served and never changed.
    pub fn is_made_here(&self) -> bool {
        // Who a tenant is, its roles say by their names.
        let is_of_it = |(login, is_read_only): (&Login, bool)| {
            let prefix = if is_read_only { "r_" } else { "t_" };
            login.role.strip_prefix(prefix) == Some(&self.token)
        };
        super::logins::logins(self).all(is_of_it)
    }
}

/// Something that could not be closed, or is left open by the profile. It is recorded and told,
/// never passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// A short name that stays: `pg_stat_activity`, `object_names`.
    pub name: String,
    /// What a tenant can see or do through it.
    pub what: String,
    /// How it could be closed.
    pub way_out: String,
}
