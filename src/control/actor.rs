//! Who asks for something, from where, and whether it may.

use super::ControlError;
use crate::tenant::{TenantId, UnknownName};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What an actor may do; each may do what those below it may.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    Viewer,
    /// Change a tenant's configuration entries that are not sensitive.
    User,
    /// Make and revoke keys, manage users, change pools.
    Manager,
    /// Everything, also make and end tenants and clusters.
    Admin,
}

impl Role {
    /// The name in the registry and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::User => "user",
            Self::Manager => "manager",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "user" => Ok(Self::User),
            "manager" => Ok(Self::Manager),
            "admin" => Ok(Self::Admin),
            _ => Err(UnknownName {
                allowed: "\"admin\", \"manager\", \"user\", \"viewer\"",
            }),
        }
    }
}

/// Who asks for something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// `operator:<user>`, `token:<id>`, `key:<id>`, `system`.
    pub name: String,
    /// From where; empty for a process on this machine.
    pub address: String,
    /// What it may do.
    pub role: Role,
    /// The one tenant that it may do it to; `None`: an operator.
    pub tenant: Option<TenantId>,
}

impl Actor {
    /// The operator at this machine's command line: may do everything.
    pub fn operator() -> Self {
        let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
        Self {
            name: format!("operator:{}", user.as_deref().unwrap_or("unknown")),
            address: String::new(),
            role: Role::Admin,
            tenant: None,
        }
    }

    /// The proxy itself, which goes on with what was left half done.
    pub(super) fn system() -> Self {
        Self {
            name: "system".to_owned(),
            address: String::new(),
            role: Role::Admin,
            tenant: None,
        }
    }

    /// That it may do what needs a role to this tenant.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] for another's tenant, so that nobody learns which exist;
    /// [`ControlError::Forbidden`] when its role is too low.
    pub fn may(&self, needed: Role, tenant: &str) -> Result<(), ControlError> {
        if self
            .tenant
            .as_ref()
            .is_some_and(|own| own.as_str() != tenant)
        {
            return Err(ControlError::NotFound {
                what: "tenant",
                id: tenant.to_owned(),
            });
        }
        self.has(needed)
    }

    /// That it is an operator with at least this role.
    ///
    /// # Errors
    /// [`ControlError::Forbidden`].
    pub fn may_operate(&self, needed: Role) -> Result<(), ControlError> {
        if self.tenant.is_some() {
            return Err(ControlError::Forbidden("an operator's token".to_owned()));
        }
        self.has(needed)
    }

    fn has(&self, needed: Role) -> Result<(), ControlError> {
        if self.role >= needed {
            return Ok(());
        }
        Err(ControlError::Forbidden(format!("the role {needed}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(role: Role, tenant: Option<&str>) -> Actor {
        Actor {
            name: "token:1".into(),
            address: "127.0.0.1".into(),
            role,
            tenant: tenant.map(|id| TenantId::new(id).unwrap()),
        }
    }

    #[test]
    fn a_role_may_what_those_below_it_may() {
        let manager = actor(Role::Manager, None);
        assert!(manager.may(Role::Viewer, "acme").is_ok());
        assert!(manager.may(Role::Manager, "acme").is_ok());
        assert!(matches!(
            manager.may(Role::Admin, "acme"),
            Err(ControlError::Forbidden(_))
        ));
    }

    #[test]
    fn a_tenants_own_token_reaches_no_other_and_operates_nothing() {
        let own = actor(Role::Admin, Some("acme"));
        assert!(own.may(Role::Admin, "acme").is_ok());
        assert!(matches!(
            own.may(Role::Viewer, "initech"),
            Err(ControlError::NotFound { .. })
        ));
        assert!(matches!(
            own.may_operate(Role::Viewer),
            Err(ControlError::Forbidden(_))
        ));
    }
}
