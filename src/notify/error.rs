//! Why the shared listener could not do what a session asked.

use crate::upstream::UpstreamError;
use std::sync::Arc;

/// What went wrong. The session's channels are those that it had, without those to be removed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HubError {
    /// A name that the listener can't listen to.
    #[error("the channel's name is not UTF-8 of 1 to 63 bytes")]
    Name,
    /// More channels than one session, or all together, may have.
    #[error("more than {max} channels are listened to")]
    TooManyChannels {
        /// The bound that was met.
        max: usize,
    },
    /// More requests than the listener keeps.
    #[error("too many requests wait for the listener")]
    Busy,
    /// PostgreSQL did not answer before the deadline.
    #[error("the listener did not answer in time")]
    Timeout,
    /// The listener's connection could not be made.
    #[error("the listener can't connect")]
    Dial(#[source] Arc<UpstreamError>),
    /// The listener's connection was lost.
    #[error("the listener's connection was lost")]
    Lost,
    /// PostgreSQL refused the LISTEN or the NOTIFY.
    #[error("the listener was refused: {message} ({sqlstate})")]
    Refused {
        /// Its code.
        sqlstate: String,
        /// Its message.
        message: String,
    },
}

impl HubError {
    /// Whether another attempt soon has no prospect.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Dial(error) => match &**error {
                UpstreamError::Refused { sqlstate, .. } => {
                    !["53300", "57P01", "57P02", "57P03"].contains(&sqlstate.as_str())
                }
                UpstreamError::NoTls | UpstreamError::TlsSettings(_) | UpstreamError::Login(_) => {
                    true
                }
                _ => false,
            },
            Self::Refused { .. } => true,
            _ => false,
        }
    }
}
