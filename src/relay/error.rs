//! Why a relay can't go on, and what becomes of its client and its server then.

use crate::{
    sessions::Order,
    wire::{FrameError, Refusal, SqlState},
};
use std::io;

/// Why a relay can't go on. The server is closed in every case but the client's own fault.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The client's connection failed.
    #[error("the client's connection failed")]
    Client(#[source] io::Error),
    /// The server's connection failed.
    #[error("the server's connection failed")]
    Server(#[source] io::Error),
    /// The server closed; whether it said why.
    #[error("the server closed the connection")]
    ServerGone {
        /// The client has its last error already.
        explained: bool,
    },
    /// The client broke the protocol.
    #[error("the client broke the protocol: {0}")]
    ClientFrame(#[from] FrameError),
    /// The client sent a message that has no place here.
    #[error("the client sent an unexpected message of type {0:#04x}")]
    ClientMessage(u8),
    /// The client sent a message whose fields don't fit its length.
    #[error("the client sent a malformed message of type {0:#04x}")]
    ClientMalformed(u8),
    /// The server broke the protocol.
    #[error("the server is out of step")]
    OutOfStep,
    /// The client's settings could not be put on the server.
    #[error("the session's settings could not be restored")]
    Settings {
        /// Nothing of the client's went to the server: another one may take it.
        is_unsent: bool,
    },
    /// A transaction in statement mode.
    #[error("a transaction block in statement mode")]
    TransactionBlock,
    /// The client did not take its notifications.
    #[error("the client did not take its notifications")]
    Lagged(Box<Refusal>),
    /// The client has made state that its tenant can't have.
    #[error("the client has made state that is not available")]
    NotAvailable(Box<Refusal>),
    /// The session was told to end.
    #[error("the session was told to end")]
    Ordered(Order),
}

impl RelayError {
    /// What the client is told; `None` when it can't hear or knows already.
    pub fn refusal(&self) -> Option<Refusal> {
        Some(match self {
            Self::Client(_) | Self::ServerGone { explained: true } => return None,
            Self::Server(_) | Self::ServerGone { explained: false } => Refusal::fatal(
                SqlState::CONNECTION_FAILURE,
                "the connection to the tenant's PostgreSQL server was lost",
            )
            .with_detail("Whether the transaction in progress was committed is not known."),
            Self::ClientFrame(error) => Refusal::fatal(SqlState::PROTOCOL, error.to_string()),
            Self::ClientMessage(tag) => Refusal::fatal(
                SqlState::PROTOCOL,
                format!("invalid frontend message type {tag}"),
            ),
            Self::ClientMalformed(tag) => Refusal::fatal(
                SqlState::PROTOCOL,
                format!("invalid message format in a message of type {tag}"),
            ),
            Self::OutOfStep => Refusal::fatal(
                SqlState::CONNECTION_FAILURE,
                "the tenant's PostgreSQL server broke the protocol",
            ),
            Self::Settings { .. } => Refusal::fatal(
                SqlState::CONNECTION_FAILURE,
                "the session's settings could not be restored on the server",
            ),
            Self::TransactionBlock => Refusal::fatal(
                SqlState::UNSUPPORTED,
                "transaction blocks are not allowed in statement mode",
            )
            .with_detail("The tenant's pool_mode is \"statement\"."),
            Self::Lagged(refusal) | Self::NotAvailable(refusal) => (**refusal).clone(),
            Self::Ordered(order) => order.refusal().into_fatal(),
        })
    }

    /// Whether the client can't be told why before its server is free: it takes nothing.
    pub fn is_deaf(&self) -> bool {
        matches!(self, Self::Ordered(Order::ClientWriteTimeout))
    }

    /// Whether the server may still be brought to a clean end.
    pub fn spares_server(&self) -> bool {
        match self {
            Self::Client(_)
            | Self::ClientFrame(_)
            | Self::ClientMessage(_)
            | Self::ClientMalformed(_)
            | Self::TransactionBlock
            | Self::Lagged(_)
            | Self::NotAvailable(_)
            | Self::Ordered(_) => true,
            Self::Server(_) | Self::ServerGone { .. } | Self::OutOfStep | Self::Settings { .. } => {
                false
            }
        }
    }

    /// Whose fault it is, for metrics.
    pub fn fault(&self) -> &'static str {
        match self {
            Self::Client(_)
            | Self::ClientFrame(_)
            | Self::ClientMessage(_)
            | Self::ClientMalformed(_)
            | Self::Lagged(_)
            | Self::NotAvailable(_)
            | Self::TransactionBlock => "client",
            Self::Server(_) | Self::ServerGone { .. } | Self::OutOfStep => "target",
            Self::Settings { .. } => "proxy",
            Self::Ordered(_) => "tenant",
        }
    }
}
