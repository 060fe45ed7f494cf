//! Why a server connection could not be made.

use crate::wire::{Refusal, SqlState};
use std::io;

/// What went wrong on the way to a logged-in server connection.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The connection or its TLS failed.
    #[error("the connection to PostgreSQL failed")]
    Io(#[from] io::Error),
    /// It took longer than `connect_timeout`.
    #[error("PostgreSQL did not answer within connect_timeout")]
    Timeout,
    /// PostgreSQL does not offer the TLS that the cluster requires.
    #[error("PostgreSQL does not offer TLS")]
    NoTls,
    /// The TLS settings of the cluster can't be used.
    #[error("the TLS settings of the cluster can't be used: {0}")]
    TlsSettings(String),
    /// PostgreSQL refused the login.
    #[error("PostgreSQL refused the login: {message} ({sqlstate})")]
    Refused {
        /// Its code.
        sqlstate: String,
        /// Its message.
        message: String,
    },
    /// The login asks for something that is not configured or not known.
    #[error("the upstream login failed: {0}")]
    Login(&'static str),
    /// PostgreSQL said something that the protocol does not allow here.
    #[error("PostgreSQL sent an unexpected message")]
    Protocol,
    /// All server connections of the cluster are in use.
    #[error("max_server_connections of the cluster is reached")]
    Budget,
}

impl UpstreamError {
    /// Whether PostgreSQL knows another password of the role than we do.
    pub fn is_wrong_password(&self) -> bool {
        matches!(self, Self::Refused { sqlstate, .. } if sqlstate == "28P01")
    }

    /// Whether nobody answers there, or not as a server does that can be used.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Io(_) | Self::Timeout | Self::Protocol | Self::NoTls => true,
            Self::Refused { sqlstate, .. } => sqlstate.starts_with("57P"),
            Self::TlsSettings(_) | Self::Login(_) | Self::Budget => false,
        }
    }

    /// What the client is told. Names of hosts and roles upstream stay out of it.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Io(_) | Self::Timeout | Self::Protocol => Refusal::error(
                SqlState::CONNECTION_FAILURE,
                "the tenant's PostgreSQL server can't be reached",
            ),
            Self::NoTls | Self::TlsSettings(_) | Self::Login(_) => Refusal::error(
                SqlState::CONNECTION_FAILURE,
                "pgusher can't log in at the tenant's PostgreSQL server",
            )
            .with_detail("The operator finds the reason in pgusher's log."),
            Self::Refused { sqlstate, .. } => refused(sqlstate),
            Self::Budget => Refusal::error(
                SqlState::TOO_MANY,
                "too many server connections: max_server_connections of the cluster is reached",
            ),
        }
    }
}

fn refused(sqlstate: &str) -> Refusal {
    match sqlstate {
        "53300" => Refusal::error(
            SqlState::TOO_MANY,
            "the tenant's PostgreSQL server has too many connections",
        ),
        "57P03" | "57P01" | "57P02" => Refusal::error(
            SqlState::NOT_NOW,
            "the tenant's PostgreSQL server is starting up or shutting down",
        ),
        "3D000" => Refusal::error(
            SqlState::NO_DATABASE,
            "the tenant's upstream database does not exist",
        ),
        _ => Refusal::error(
            SqlState::CONNECTION_FAILURE,
            "the tenant's PostgreSQL server refused pgusher's login",
        )
        .with_detail("The operator finds the reason in pgusher's log."),
    }
}
