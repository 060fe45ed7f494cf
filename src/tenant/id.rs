//! Identifiers: cheap to clone, checked once, impossible to mix up.

use std::{fmt, sync::Arc};

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not between 1 and 63 bytes.
    #[error("it has {0} bytes; 1 to 63 are allowed")]
    Length(usize),
    /// A character outside `a-z`, `0-9`, `_` and `-`.
    #[error("it has the character {0:?}; a-z, 0-9, \"_\" and \"-\" are allowed")]
    Character(char),
    /// The name of a console.
    #[error("{0:?} is the name of the console that PgBouncer's tools ask for; take another")]
    Reserved(&'static str),
}

/// No tenant's: clients of this name ask for a console.
const CONSOLE: &str = "pgbouncer";

/// Longest identifier in bytes, as PostgreSQL's `NAMEDATALEN - 1`.
const LENGTH_MAX: usize = 63;

fn checked(text: &str) -> Result<Arc<str>, IdError> {
    if text.is_empty() || text.len() > LENGTH_MAX {
        return Err(IdError::Length(text.len()));
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    match text.chars().find(|c| !allowed(*c)) {
        Some(c) => Err(IdError::Character(c)),
        None => Ok(Arc::from(text)),
    }
}

fn checked_tenant(text: &str) -> Result<Arc<str>, IdError> {
    if text == CONSOLE {
        return Err(IdError::Reserved(CONSOLE));
    }
    checked(text)
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $checked:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text: 1 to 63 characters of `a-z`, `0-9`, `_`, `-`; a tenant is not called
            /// `pgbouncer`.
            ///
            /// # Errors
            /// [`IdError`] says what is wrong with it.
            pub fn new(text: &str) -> Result<Self, IdError> {
                $checked(text).map(Self)
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

identifier!(
    /// A tenant: the user name in its `DATABASE_URL`.
    TenantId,
    checked_tenant
);
identifier!(
    /// A cluster of `proxy.toml`.
    ClusterName,
    checked
);
identifier!(
    /// One API key of a tenant, for logs and quotas. Not secret.
    KeyId,
    checked
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_short_lower_case_words() {
        assert!(TenantId::new("acme-2_b").is_ok());
        assert_eq!(TenantId::new(""), Err(IdError::Length(0)));
        assert_eq!(TenantId::new(&"a".repeat(64)), Err(IdError::Length(64)));
        for (text, bad) in [
            ("Acme", 'A'),
            ("a b", ' '),
            ("a\"b", '"'),
            ("ä", 'ä'),
            ("a\0", '\0'),
        ] {
            assert_eq!(TenantId::new(text), Err(IdError::Character(bad)));
        }
        assert_eq!(
            TenantId::new("pgbouncer"),
            Err(IdError::Reserved("pgbouncer"))
        );
        assert!(ClusterName::new("pgbouncer").is_ok() && TenantId::new("pgbouncer2").is_ok());
    }
}
