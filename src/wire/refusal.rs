//! What a client is told when something does not go.

use super::backend;
use std::{borrow::Cow, fmt};

/// A five-character error code of PostgreSQL (appendix A of its manual).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState(pub &'static str);

impl SqlState {
    /// `protocol_violation`.
    pub const PROTOCOL: Self = Self("08P01");
    /// `connection_failure`.
    pub const CONNECTION_FAILURE: Self = Self("08006");
    /// `feature_not_supported`.
    pub const UNSUPPORTED: Self = Self("0A000");
    /// `invalid_parameter_value`.
    pub const INVALID_VALUE: Self = Self("22023");
    /// `invalid_sql_statement_name`.
    pub const UNKNOWN_STATEMENT: Self = Self("26000");
    /// `invalid_authorization_specification`.
    pub const UNAUTHORIZED: Self = Self("28000");
    /// `invalid_password`.
    pub const BAD_KEY: Self = Self("28P01");
    /// `read_only_sql_transaction`.
    pub const READ_ONLY: Self = Self("25006");
    /// `idle_in_transaction_session_timeout`.
    pub const IDLE_IN_TRANSACTION: Self = Self("25P03");
    /// `transaction_timeout`.
    pub const TRANSACTION_TIMEOUT: Self = Self("25P04");
    /// `invalid_catalog_name`.
    pub const NO_DATABASE: Self = Self("3D000");
    /// `insufficient_privilege`.
    pub const FORBIDDEN: Self = Self("42501");
    /// `duplicate_prepared_statement`.
    pub const DUPLICATE_STATEMENT: Self = Self("42P05");
    /// `too_many_connections`.
    pub const TOO_MANY: Self = Self("53300");
    /// `configuration_limit_exceeded`.
    pub const QUOTA: Self = Self("53400");
    /// `program_limit_exceeded`.
    pub const TOO_LARGE: Self = Self("54000");
    /// `query_canceled`.
    pub const CANCELED: Self = Self("57014");
    /// `admin_shutdown`.
    pub const SHUTDOWN: Self = Self("57P01");
    /// `cannot_connect_now`.
    pub const NOT_NOW: Self = Self("57P03");
    /// `idle_session_timeout`.
    pub const IDLE_SESSION: Self = Self("57P05");
    /// `internal_error`.
    pub const INTERNAL: Self = Self("XX000");
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Whether the client may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It may.
    Error,
    /// The connection ends.
    Fatal,
}

impl Severity {
    /// The word in the message.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

/// An `ErrorResponse` of our own. Texts are safe to show: no secret, nothing of another tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whether the connection ends.
    pub severity: Severity,
    /// The code that drivers look at.
    pub sqlstate: SqlState,
    /// What is the matter, naming the limit.
    pub message: Cow<'static, str>,
    /// How to get out, or why.
    pub detail: Option<Cow<'static, str>>,
    /// What to do.
    pub hint: Option<Cow<'static, str>>,
}

impl Refusal {
    /// A refusal after which the client may go on.
    pub fn error(sqlstate: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            severity: Severity::Error,
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    /// A refusal that ends the connection.
    pub fn fatal(sqlstate: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            severity: Severity::Fatal,
            ..Self::error(sqlstate, message)
        }
    }

    /// Adds how to get out, or why.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..self
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<Cow<'static, str>>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// The same, ending the connection.
    #[must_use]
    pub fn into_fatal(self) -> Self {
        Self {
            severity: Severity::Fatal,
            ..self
        }
    }

    /// Whether the connection ends.
    pub fn is_fatal(&self) -> bool {
        self.severity == Severity::Fatal
    }

    /// The message as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        backend::error(&mut out, self);
        out
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.sqlstate)
    }
}
