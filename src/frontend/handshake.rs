//! From a connection to a StartupMessage or a CancelRequest, TLS on the way.
//!
//! Every step is bounded: a packet has at most [`STARTUP_BYTES_MAX`] bytes, each kind of
//! encryption may be asked for once, and the caller sets the deadline.

use super::Door;
use crate::{
    auth::Conversation,
    net::{Buffer, BufferPool, Socket, Stream},
    tls::{ServerTls, is_postgresql},
    wire::{
        CancelKey, Opening, OpeningError, Refusal, STARTUP_BYTES_MAX, SqlState, StartupPacket,
        parse_opening, read,
    },
};
use std::io;
use tokio_rustls::rustls;

/// First byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a connection turned out to want.
pub(super) enum Handshake {
    /// To log in.
    Startup(Box<Conversation>, StartupPacket),
    /// To cancel a statement. The connection stays open until that is done: its end is how the
    /// client knows.
    Cancel(Box<Conversation>, CancelKey),
}

/// Why there is no handshake.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// The connection failed or ended.
    #[error("the connection ended")]
    Io(#[from] io::Error),
    /// A packet can't be read; the client is told what PostgreSQL would tell.
    #[error("the startup packet is not valid: {1}")]
    Opening(Box<Conversation>, OpeningError),
    /// Encryption was asked for with bytes behind that nobody encrypted.
    #[error("the client broke the protocol of encryption requests")]
    Encryption(Box<Conversation>),
    /// TLS is required and was not asked for.
    #[error("the client did not ask for TLS")]
    TlsRequired(Box<Conversation>),
    /// Direct TLS without the protocol's name, or where there is no TLS.
    #[error("direct TLS is not possible")]
    DirectTls,
}

impl HandshakeError {
    /// Who is to be told what, if anyone can be.
    pub(super) fn refusal(self) -> Option<(Box<Conversation>, Refusal)> {
        match self {
            Self::Io(_) | Self::DirectTls | Self::Opening(_, OpeningError::Length) => None,
            Self::Opening(conversation, error) => {
                let sqlstate = match error {
                    OpeningError::Version(..) => SqlState::UNSUPPORTED,
                    _ => SqlState::PROTOCOL,
                };
                Some((conversation, Refusal::fatal(sqlstate, error.to_string())))
            }
            Self::Encryption(conversation) => {
                let text = "received unencrypted data after an encryption request";
                Some((conversation, Refusal::fatal(SqlState::PROTOCOL, text)))
            }
            Self::TlsRequired(conversation) => {
                let refusal = Refusal::fatal(SqlState::UNAUTHORIZED, "TLS is required")
                    .with_detail("Connect with sslmode=require or stronger.");
                Some((conversation, refusal))
            }
        }
    }
}

/// Reads opening packets until there is one that says what the client wants.
///
/// # Cancel safety
/// Not cancel safe: close the connection when the future is dropped.
pub(super) async fn open(
    socket: Socket,
    tls: &ServerTls,
    door: &Door,
    buffers: &BufferPool,
) -> Result<Handshake, HandshakeError> {
    let keys = tls
        .keys()
        .filter(|_| door.tls_offered && matches!(socket, Socket::Tcp(_)));
    let mut conversation = Box::new(Conversation {
        stream: Stream::Plain(socket),
        inbox: Buffer::new(buffers.clone()),
        scram_plus: keys.as_ref().map(|keys| keys.scram.clone()),
    });
    let acceptor = keys.map(|keys| keys.acceptor.clone());
    if acceptor.is_some() && starts_with_tls(&conversation).await? {
        let acceptor = acceptor.as_ref().ok_or(HandshakeError::DirectTls)?;
        encrypt(&mut conversation, acceptor).await?;
        if !is_postgresql(&conversation.stream) {
            return Err(HandshakeError::DirectTls);
        }
    }
    let (mut asked_tls, mut asked_gss) = (conversation.stream.is_tls(), false);
    loop {
        let opening = match receive(&mut conversation).await? {
            Ok(opening) => opening,
            Err(error) => return Err(HandshakeError::Opening(conversation, error)),
        };
        match opening {
            Opening::Cancel(key) => return Ok(Handshake::Cancel(conversation, key)),
            Opening::Startup(_) if door.tls_required && !conversation.stream.is_tls() => {
                return Err(HandshakeError::TlsRequired(conversation));
            }
            Opening::Startup(packet) => return Ok(Handshake::Startup(conversation, packet)),
            Opening::Ssl if asked_tls => {
                let error = OpeningError::SECOND_SSL;
                return Err(HandshakeError::Opening(conversation, error));
            }
            Opening::GssEnc if asked_gss => {
                let error = OpeningError::SECOND_GSSENC;
                return Err(HandshakeError::Opening(conversation, error));
            }
            _ if !conversation.inbox.is_empty() => {
                return Err(HandshakeError::Encryption(conversation));
            }
            Opening::Ssl => {
                asked_tls = true;
                match &acceptor {
                    Some(acceptor) => {
                        conversation.send(b"S").await?;
                        encrypt(&mut conversation, acceptor).await?;
                    }
                    None => conversation.send(b"N").await?,
                }
            }
            Opening::GssEnc => {
                asked_gss = true;
                conversation.send(b"N").await?;
            }
        }
    }
}

/// Whether the first byte begins a TLS handshake. It stays in the socket.
async fn starts_with_tls(conversation: &Conversation) -> io::Result<bool> {
    let mut first = [0; 1];
    match conversation.stream.socket() {
        Socket::Tcp(tcp) => Ok(tcp.peek(&mut first).await? == 1 && first[0] == TLS_HANDSHAKE),
        _ => Ok(false),
    }
}

async fn encrypt(
    conversation: &mut Conversation,
    acceptor: &tokio_rustls::TlsAcceptor,
) -> io::Result<()> {
    let stream = std::mem::replace(&mut conversation.stream, Stream::Plain(Socket::Detached));
    let Stream::Plain(socket) = stream else {
        return Err(io::Error::other("TLS inside TLS"));
    };
    let tls = acceptor.accept(socket).await.inspect_err(|error| {
        let alert = error
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>());
        tracing::info!(%error, is_tls = alert.is_some(), "TLS handshake failed");
    })?;
    conversation.stream = Stream::Tls(Box::new(tls.into()));
    Ok(())
}

async fn receive(conversation: &mut Conversation) -> io::Result<Result<Opening, OpeningError>> {
    conversation.fill_to(4).await?;
    let length = read::u32_at_front(conversation.inbox.bytes()).unwrap_or_default() as usize;
    if !(8..=STARTUP_BYTES_MAX).contains(&length) {
        return Ok(Err(OpeningError::Length));
    }
    conversation.fill_to(length).await?;
    let body = conversation
        .inbox
        .bytes()
        .get(4..length)
        .unwrap_or_default();
    let opening = parse_opening(body);
    conversation.inbox.consume(length);
    Ok(opening)
}
