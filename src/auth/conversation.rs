//! Messages to and from a client before it is logged in: small, few, under a deadline that the
//! caller sets.

use crate::{
    net::{Buffer, Stream},
    wire::{HEADER_BYTES, Refusal, SqlState, peek, tag},
};
use pgwire::api::auth::sasl::scram::ScramServerAuth;
use std::{future::poll_fn, io};
use tokio::io::AsyncWriteExt as _;

/// Longest password or SASL message, as PostgreSQL's own limit for it.
const PASSWORD_BYTES_MAX: usize = 64 * 1024;

/// Why a conversation broke off.
#[derive(Debug, thiserror::Error)]
pub enum ConversationError {
    /// The stream failed or ended.
    #[error("the connection ended")]
    Io(#[from] io::Error),
    /// Something else came than was asked for.
    #[error("the client sent an unexpected message")]
    Unexpected,
}

impl ConversationError {
    /// What the client is told; `None` when it has left.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Io(_) => None,
            Self::Unexpected => Some(Refusal::fatal(
                SqlState::PROTOCOL,
                "expected a password response",
            )),
        }
    }
}

/// A client that is not logged in yet.
#[derive(Debug)]
pub struct Conversation {
    /// Its bytes.
    pub stream: Stream,
    /// What it sent and nobody has read.
    pub inbox: Buffer,
    /// SCRAM bound to our certificate, when inside TLS.
    pub scram_plus: Option<ScramServerAuth>,
}

impl Conversation {
    /// Reads until so many bytes are here.
    ///
    /// # Errors
    /// When the stream fails or ends before.
    ///
    /// # Cancel safety
    /// Cancel safe: what was read stays.
    pub async fn fill_to(&mut self, count: usize) -> io::Result<()> {
        while self.inbox.len() < count {
            self.inbox.make_room(count - self.inbox.len());
            let read = poll_fn(|cx| self.inbox.poll_fill(&mut self.stream, cx)).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// As the stream's write.
    ///
    /// # Cancel safety
    /// Not cancel safe: some may be sent.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Reads the body of a password or SASL message.
    ///
    /// # Errors
    /// [`ConversationError`] for anything else, and for one that is too long.
    ///
    /// # Cancel safety
    /// Cancel safe: what was read stays.
    pub async fn receive_password(&mut self) -> Result<Vec<u8>, ConversationError> {
        self.fill_to(HEADER_BYTES).await?;
        let header = peek(self.inbox.bytes()).ok().flatten();
        let header = header
            .filter(|header| header.tag == tag::frontend::PASSWORD)
            .filter(|header| header.message_bytes <= PASSWORD_BYTES_MAX)
            .ok_or(ConversationError::Unexpected)?;
        self.fill_to(header.message_bytes).await?;
        let body = self
            .inbox
            .bytes()
            .get(HEADER_BYTES..header.message_bytes)
            .unwrap_or_default();
        let body = body.to_vec();
        self.inbox.consume(header.message_bytes);
        Ok(body)
    }
}
