//! Why a place could not be made, changed, verified or removed.

use super::Check;
use std::fmt;

/// The condition that our own SQL raises where a name belongs to somebody else.
pub(super) const NAME_TAKEN: &str = "PU001";

/// Why a place could not be made, changed, verified or removed. No variant holds a secret, none
/// holds SQL.
#[derive(Debug, thiserror::Error)]
pub enum ProvisioningError {
    /// Nobody answers there, or not in time, or not as PostgreSQL.
    #[error("PostgreSQL at {address} can't be reached: {reason}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system says.
        reason: String,
    },
    /// PostgreSQL does not let this role in: a wrong password, or `pg_hba.conf` (28P01, 28000).
    #[error("PostgreSQL at {address} does not let role {role} in ({code}): {message}")]
    NotLetIn {
        /// Where.
        address: String,
        /// Who.
        role: String,
        /// SQLSTATE.
        code: String,
        /// PostgreSQL's words.
        message: String,
    },
    /// A standby, or a cluster that is set to read only (25006).
    #[error("the cluster is read-only: give the address of its primary")]
    ReadOnly,
    /// A role, schema or database of this name exists and was not made by us.
    #[error("the name is taken: {0}")]
    NameTaken(String),
    /// PostgreSQL refused a step.
    #[error("PostgreSQL refused to {step} ({code}): {message}")]
    Refused {
        /// What was to be done.
        step: &'static str,
        /// SQLSTATE.
        code: String,
        /// PostgreSQL's words.
        message: String,
    },
    /// What was made does not hold.
    #[error("the place does not hold: {}", Leaks(.0))]
    Leaks(Vec<Check>),
    /// A place that can't be: what is missing or wrong in it.
    #[error("not a place that can be made: {0}")]
    Place(&'static str),
    /// No randomness.
    #[error("the system has no randomness")]
    Randomness,
}

struct Leaks<'a>(&'a [Check]);

impl fmt::Display for Leaks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, check) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "; " };
            write!(f, "{comma}{check}")?;
        }
        Ok(())
    }
}

impl ProvisioningError {
    /// The SQLSTATE, where PostgreSQL gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::NotLetIn { code, .. } | Self::Refused { code, .. } => Some(code),
            Self::ReadOnly => Some("25006"),
            _ => None,
        }
    }

    /// What PostgreSQL said to a step.
    pub(super) fn of(step: &'static str, address: &str, error: &sqlx::Error) -> Self {
        let sqlx::Error::Database(refusal) = error else {
            return Self::Unreachable {
                address: address.to_owned(),
                reason: error.to_string(),
            };
        };
        let code = refusal.code().unwrap_or_default().into_owned();
        let message = refusal.message().to_owned();
        match code.as_str() {
            "25006" => Self::ReadOnly,
            NAME_TAKEN => Self::NameTaken(message),
            _ => Self::Refused {
                step,
                code,
                message,
            },
        }
    }

    /// Whether another try may succeed, as it met somebody else's.
    pub(super) fn is_transient(&self) -> bool {
        let Self::Refused { code, message, .. } = self else {
            return false;
        };
        match code.as_str() {
            // Unique violation in a catalogue, serialization, deadlock, object in use.
            "23505" | "40001" | "40P01" | "55006" => true,
            "XX000" => message.starts_with("tuple concurrently"),
            _ => false,
        }
    }
}
