//! The listener's connection: queries out, frames in, both at the same time.

use super::{HubError, hub::Lender};
use crate::{
    upstream::{AskError, Server, UpstreamError},
    wire::{HEADER_BYTES, frontend, peek, read},
};
use bytes::BytesMut;
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

/// Longest message that is read: a notification has at most some 8 KB, a NOTICE may be long.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes read at once.
const CHUNK_BYTES: usize = 8 * 1024;

/// An outbox that has grown beyond this is not kept.
const OUTBOX_KEPT_BYTES_MAX: usize = 16 * 1024;

/// Why the connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("it can't be made")]
    Dial(#[source] Arc<UpstreamError>),
    #[error("it could not be set up")]
    SetUp(#[source] AskError),
    #[error("it failed")]
    Io(#[from] io::Error),
    #[error("PostgreSQL ended it: {message} ({sqlstate})")]
    Ended { sqlstate: String, message: String },
    #[error("PostgreSQL refuses to listen: {message} ({sqlstate})")]
    Refused { sqlstate: String, message: String },
    #[error("PostgreSQL did not answer in time")]
    Silent,
    #[error("PostgreSQL sent an unexpected message")]
    Protocol,
    #[error("it is made from other settings now")]
    Replaced,
}

impl From<LinkError> for HubError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Dial(error) => Self::Dial(error),
            LinkError::Refused { sqlstate, message }
            | LinkError::SetUp(AskError::Refused { sqlstate, message }) => {
                Self::Refused { sqlstate, message }
            }
            LinkError::SetUp(AskError::Timeout) | LinkError::Silent => Self::Timeout,
            LinkError::SetUp(_)
            | LinkError::Io(_)
            | LinkError::Ended { .. }
            | LinkError::Replaced
            | LinkError::Protocol => Self::Lost,
        }
    }
}

/// One message.
pub(super) struct Frame {
    pub(super) tag: u8,
    bytes: BytesMut,
}

impl Frame {
    /// The whole message.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What follows the header.
    pub(super) fn body(&self) -> &[u8] {
        self.bytes.get(HEADER_BYTES..).unwrap_or_default()
    }

    /// A field of an error.
    pub(super) fn field(&self, letter: u8) -> String {
        let value = read::error_field(self.body(), letter).unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    }
}

/// A connection that is written to and read from at the same time: a server that waits for us to
/// read while we wait for it to read would wait for ever.
pub(super) struct Link {
    lent: Box<dyn Lender>,
    inbox: BytesMut,
    outbox: Vec<u8>,
    sent: usize,
    is_flushed: bool,
}

impl Link {
    pub(super) fn new(lent: Box<dyn Lender>) -> Self {
        Self {
            lent,
            inbox: BytesMut::new(),
            outbox: Vec::new(),
            sent: 0,
            is_flushed: true,
        }
    }

    /// The connection itself, before anything is sent through the link.
    pub(super) fn server(&mut self) -> &mut Server {
        self.lent.server()
    }

    /// The process at the other end.
    pub(super) fn pid(&mut self) -> u32 {
        self.lent.server().identity().key.pid
    }

    /// Queues a query; [`Link::next`] sends it.
    pub(super) fn query(&mut self, sql: &str) {
        frontend::query(&mut self.outbox, sql);
    }

    /// Says farewell as far as that goes at once.
    pub(super) async fn close(mut self) {
        self.outbox.extend_from_slice(frontend::TERMINATE);
        std::future::poll_fn(|cx| {
            // It ends either way.
            drop(self.poll_send(cx));
            Poll::Ready(())
        })
        .await;
    }

    /// The next message. Sends meanwhile what is queued.
    ///
    /// # Errors
    /// [`LinkError`]: the connection is of no use any more.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Frame, LinkError> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, LinkError>> {
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error.into()));
        }
        loop {
            if let Some(frame) = self.split_frame()? {
                return Poll::Ready(Ok(frame));
            }
            ready!(self.poll_fill(cx))?;
        }
    }

    fn split_frame(&mut self) -> Result<Option<Frame>, LinkError> {
        let Some(header) = peek(&self.inbox).map_err(|_invalid| LinkError::Protocol)? else {
            return Ok(None);
        };
        if header.message_bytes > MESSAGE_BYTES_MAX {
            return Err(LinkError::Protocol);
        }
        Ok((self.inbox.len() >= header.message_bytes).then(|| Frame {
            tag: header.tag,
            bytes: self.inbox.split_to(header.message_bytes),
        }))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut chunk = [0; CHUNK_BYTES];
        let mut room = ReadBuf::new(&mut chunk);
        if self.inbox.is_empty() {
            // An idle listener holds no memory.
            self.inbox = BytesMut::new();
        }
        ready!(Pin::new(&mut self.lent.server().stream).poll_read(cx, &mut room))?;
        if room.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.inbox.extend_from_slice(room.filled());
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(unsent) = self.outbox.get(self.sent..)
            && !unsent.is_empty()
        {
            let count = ready!(Pin::new(&mut self.lent.server().stream).poll_write(cx, unsent))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
            self.is_flushed = !self.lent.server().stream.needs_flush();
        }
        self.sent = 0;
        self.outbox.clear();
        self.outbox.shrink_to(OUTBOX_KEPT_BYTES_MAX);
        if !self.is_flushed {
            ready!(Pin::new(&mut self.lent.server().stream).poll_flush(cx))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }
}
