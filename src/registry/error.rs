//! Why the registry could not be used.

use crate::crypto::{OpenError, SealError};
use std::time::Duration;

/// Why the registry could not be used. No variant holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The URL.
    #[error("registry.url can't be read; write \"postgres://user:password@host:port/database\"")]
    Url,
    /// It does not answer, or refused.
    #[error("the registry can't be used")]
    Database(#[from] sqlx::Error),
    /// It does not answer.
    #[error(
        "the registry at {address} does not answer ({reason}); is PostgreSQL running there? [registry] in proxy.toml says where it is"
    )]
    Unanswered {
        /// Host and port, or a socket's folder.
        address: String,
        /// Why.
        reason: String,
    },
    /// PostgreSQL has no connection left for it.
    #[error(
        "the registry at {address} has no place for a connection and had none for {} ({reason}); give it more max_connections, or do less at once",
        humantime::format_duration(*.patience)
    )]
    Full {
        /// Host and port, or a socket's folder.
        address: String,
        /// What PostgreSQL says.
        reason: String,
        /// How long it was waited.
        patience: Duration,
    },
    /// The master keys open nothing of what is there.
    #[error(
        "these master keys are not the registry's: nothing that it has opens with them, and nothing is sealed with them"
    )]
    OtherKeys(#[source] OpenError),
    /// It can't be brought up to date.
    #[error("the registry can't be migrated")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A secret in it can't be opened.
    #[error("{owner}'s {what} can't be opened")]
    Open {
        /// Whose.
        owner: String,
        /// Which.
        what: String,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// A secret can't be sealed.
    #[error("a secret can't be sealed")]
    Seal(#[from] SealError),
    /// A row says what can't be.
    #[error("{what} in the registry is not usable: {problem}")]
    Row {
        /// Which row.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl RegistryError {
    /// What PostgreSQL calls it, when it was PostgreSQL that refused.
    pub fn sqlstate(&self) -> Option<String> {
        match self {
            Self::Database(sqlx::Error::Database(error)) => error.code().map(Into::into),
            _ => None,
        }
    }

    /// Whether the registry did not answer, so that it may later.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Database(error) => !matches!(
                error,
                sqlx::Error::Database(_)
                    | sqlx::Error::RowNotFound
                    | sqlx::Error::ColumnDecode { .. }
            ),
            Self::Unanswered { .. } | Self::Full { .. } => true,
            Self::Migrate(sqlx::migrate::MigrateError::Execute(error)) => {
                !matches!(error, sqlx::Error::Database(_))
            }
            _ => false,
        }
    }
}
