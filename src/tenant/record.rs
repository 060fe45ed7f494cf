//! A tenant, as the directory knows it.

use super::{
    ApiKey, Fullness, KeyId, Limits, Login, Pinning, Placement, PoolMode, ReadTarget, Reads, Scope,
    TenantId, Terms, Timeouts,
};
use std::sync::Arc;

/// Whether a tenant is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is.
    Active,
    /// Its logins are refused and its sessions end.
    Suspended,
}

/// Everything the data plane knows of one tenant. Immutable: a change is a new value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// The user name of its clients.
    pub id: TenantId,
    /// Whether it is served.
    pub status: Status,
    /// Where its data lives.
    pub placement: Placement,
    /// How its clients share servers, unless a client asks otherwise.
    pub pool_mode: PoolMode,
    /// What becomes of state that can't be carried from one transaction to the next.
    pub pinning: Pinning,
    /// What it may use.
    pub limits: Limits,
    /// Bytes that its data took when it was measured last; `None`: it never was.
    pub storage_used: Option<u64>,
    /// What it may use in a month, and for how long it is on trial.
    pub terms: Terms,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How its reads are spread.
    pub reads: Reads,
    /// Settings given to PostgreSQL in the StartupMessage, in order: `RESET ALL` returns to them.
    /// The search path, the time zone and the tenant setting are among them.
    pub settings: Vec<(Box<str>, Box<str>)>,
    /// Names (lower case) that a client can't give at startup.
    pub forced: Vec<Box<str>>,
    /// What opens it. All verifiers share salt and iteration count.
    pub keys: Vec<Arc<ApiKey>>,
}

impl Tenant {
    /// The upstream login for a key of this scope; `None` when a read-only key has no role to use.
    pub fn login(&self, scope: Scope) -> Option<&Login> {
        match scope {
            Scope::ReadWrite => Some(&self.placement.login),
            Scope::ReadOnly => self.placement.read_only_login.as_ref(),
        }
    }

    /// How much of its storage it has used.
    pub fn fullness(&self) -> Fullness {
        Fullness::of(self.storage_used, self.limits.max_storage_bytes)
    }

    /// Whether nothing but its use of storage differs from this one, which its servers have nothing to do
    /// with.
    pub fn is_served_like(&self, other: &Self) -> bool {
        self == other
            || self.storage_used != other.storage_used
                && Self {
                    storage_used: other.storage_used,
                    ..self.clone()
                } == *other
    }

    /// Settings that its sessions start with beyond those of their servers: slots start with nobody's.
    pub fn settings_of_sessions(&self) -> &[(Box<str>, Box<str>)] {
        match self.placement.slots {
            Some(_) => &self.settings,
            None => &[],
        }
    }

    /// What a session of this scope may know of itself before it has done anything: the names and
    /// values of `pgusher.*`.
    pub fn facts(&self, scope: Scope) -> Vec<(&'static str, String)> {
        let limits = &self.limits;
        vec![
            ("pgusher.tenant", self.id.to_string()),
            ("pgusher.tier", self.placement.tier.to_string()),
            ("pgusher.scope", scope.as_str().to_owned()),
            ("pgusher.pool_mode", self.pool_mode.to_string()),
            ("pgusher.pin", String::new()),
            ("pgusher.target", ReadTarget::Auto.as_str().to_owned()),
            ("pgusher.pool_size", limits.pool_size.to_string()),
            (
                "pgusher.max_pinned_servers",
                limits.max_pinned_servers.to_string(),
            ),
            (
                "pgusher.max_client_connections",
                limits.max_client_connections.to_string(),
            ),
            (
                "pgusher.max_prepared_statements",
                limits.max_prepared_statements.to_string(),
            ),
            ("pgusher.version", env!("CARGO_PKG_VERSION").to_owned()),
        ]
    }

    /// Whether a client that asks for this database is at the right place: the tenant's id or its
    /// upstream database.
    pub fn serves_database(&self, database: &str) -> bool {
        database == self.id.as_str() || database == &*self.placement.database
    }

    /// Whether a session that this key opened may go on when the tenant becomes `new`: it is
    /// served, at the same place, and the key is the same.
    pub fn keeps_session(&self, new: &Self, key_id: &KeyId) -> bool {
        let verifier = |tenant: &Self| {
            let key = tenant.keys.iter().find(|key| key.id == *key_id);
            key.map(|key| key.verifier.clone())
        };
        new.status == Status::Active
            && self.keeps_place(new)
            && verifier(new).is_some()
            && verifier(self) == verifier(new)
    }

    /// Whether its data is where that of `new` is.
    pub fn keeps_place(&self, new: &Self) -> bool {
        let (old, new) = (&self.placement, &new.placement);
        let token = |place: &Placement| place.slots.as_ref().map(|slots| slots.token.clone());
        old.cluster == new.cluster
            && old.tier == new.tier
            && old.database == new.database
            && old.schema == new.schema
            && token(old) == token(new)
    }
}
