//! The listener's connection: asks, and reads what PostgreSQL says at any time.

use super::{Channels, hub::Lender};
use crate::{
    upstream::UpstreamError,
    wire::{HEADER_BYTES, frontend, peek, read, tag::backend as tag},
};
use bytes::{Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Longest message that is read: a payload has less than 8000 bytes, an error little more.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// What the connection said.
pub(super) enum Said {
    /// A `NotificationResponse`.
    Notification {
        pid: u32,
        channel: String,
        payload: Bytes,
        message: Bytes,
    },
    /// The last question is answered.
    Ready,
    /// The last question was refused, in these words.
    Refused(String),
    /// Anything else.
    Nothing,
}

/// A connection that listens.
pub(super) struct Link {
    lent: Box<dyn Lender>,
    read: BytesMut,
    /// What it listens to, beside the markers.
    pub(super) channels: Channels,
}

impl Link {
    pub(super) fn new(lent: Box<dyn Lender>) -> Self {
        Self {
            lent,
            read: BytesMut::with_capacity(4096),
            channels: Channels::new(),
        }
    }

    /// The backend's process id.
    pub(super) fn pid(&mut self) -> u32 {
        self.lent.server().identity().key.pid
    }

    /// Sends a Query.
    ///
    /// # Cancel safety
    /// Not cancel safe: half a message may be sent.
    pub(super) async fn ask(&mut self, sql: &str) -> Result<(), UpstreamError> {
        let mut out = Vec::with_capacity(HEADER_BYTES + sql.len() + 1);
        frontend::query(&mut out, sql);
        let stream = &mut self.lent.server().stream;
        stream.write_all(&out).await?;
        stream.flush().await?;
        Ok(())
    }

    /// The next message.
    ///
    /// # Cancel safety
    /// Cancel safe: what was read stays.
    pub(super) async fn next(&mut self) -> Result<Said, UpstreamError> {
        loop {
            let header = peek(&self.read).map_err(|_error| UpstreamError::Protocol)?;
            if let Some(header) = header {
                if header.message_bytes > MESSAGE_BYTES_MAX {
                    return Err(UpstreamError::Protocol);
                }
                if self.read.len() >= header.message_bytes {
                    let message = self.read.split_to(header.message_bytes).freeze();
                    return said(header.tag, &message).ok_or(UpstreamError::Protocol);
                }
            }
            let stream = &mut self.lent.server().stream;
            if stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

fn said(tag: u8, message: &Bytes) -> Option<Said> {
    let body = message.get(HEADER_BYTES..)?;
    Some(match tag {
        tag::NOTIFICATION => {
            let pid = read::u32_at_front(body)?;
            let (channel, rest) = read::cstr(body.get(4..)?)?;
            let (payload, _) = read::cstr(rest)?;
            Said::Notification {
                pid,
                channel: std::str::from_utf8(channel).ok()?.to_owned(),
                payload: message.slice_ref(payload),
                message: message.clone(),
            }
        }
        tag::READY => Said::Ready,
        tag::ERROR => {
            let words = read::error_field(body, b'M').unwrap_or_default();
            Said::Refused(String::from_utf8_lossy(words).into_owned())
        }
        _ => Said::Nothing,
    })
}
