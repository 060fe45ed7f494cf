//! Why a use case was not done.

use crate::{registry::RegistryError, tenant::TooOften};

/// Why a use case was not done. Nothing was changed, unless the variant says so. No variant holds a
/// secret.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is none of that name (HTTP 404).
    #[error("there is no {what} {id:?}")]
    NotFound {
        /// `tenant`, `key`, `cluster`, …
        what: &'static str,
        /// As it was asked for.
        id: String,
    },
    /// It is there already, or in a state that does not allow it (HTTP 409).
    #[error("{0}")]
    Conflict(String),
    /// What was given can't be (HTTP 422).
    #[error("{field}: {problem}")]
    Invalid {
        /// Which field.
        field: String,
        /// What is wrong with it, and the way out.
        problem: String,
    },
    /// The actor may not (HTTP 403).
    #[error("this needs {0}")]
    Forbidden(String),
    /// An API key was used as often as it may be in an hour (HTTP 429).
    #[error(transparent)]
    TooOften(#[from] TooOften),
    /// The registry: not answering (HTTP 503), or unusable (HTTP 500).
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The tenant's cluster did not answer or refused; what was made was taken back, or the message
    /// says what is left and how to go on (HTTP 502).
    #[error("{what}")]
    Upstream {
        /// What could not be done, where, and how to go on.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ControlError {
    /// What went wrong with its causes, in a line.
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl From<sqlx::Error> for ControlError {
    fn from(error: sqlx::Error) -> Self {
        Self::Registry(error.into())
    }
}
