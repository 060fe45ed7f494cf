//! The PROXY protocol, version 2, by which a load balancer tells who the client is.
//!
//! Reference: <https://www.haproxy.org/download/1.8/doc/proxy-protocol.txt>, section 2.2.

use super::{Peer, Socket};
use ppp::v2::{Addresses, Command, Header};
use std::{io, net::SocketAddr};
use tokio::io::AsyncReadExt as _;

/// Fixed part of the header: signature, version and command, family, length.
const FIXED_BYTES: usize = 16;

/// Longest header that is read, TLVs included.
const HEADER_BYTES_MAX: usize = 536 + FIXED_BYTES;

/// Why there is no header to trust.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The stream ended or failed.
    #[error("the PROXY header could not be read")]
    Io(#[from] io::Error),
    /// What came is not a header of version 2.
    #[error("the connection does not start with a PROXY v2 header")]
    Malformed,
}

/// Reads exactly the header, and says who the client is; `None` for a health check of the load
/// balancer itself (`LOCAL`).
///
/// # Errors
/// [`HeaderError`]; the connection is then closed without an answer.
///
/// # Cancel safety
/// Not cancel safe: bytes read are lost. Close the socket after dropping the future.
pub async fn read(socket: &mut Socket) -> Result<Option<Peer>, HeaderError> {
    let mut header = vec![0; FIXED_BYTES];
    socket.read_exact(&mut header).await?;
    let length = match header.last_chunk::<2>() {
        Some(bytes) => usize::from(u16::from_be_bytes(*bytes)),
        None => return Err(HeaderError::Malformed),
    };
    if !header.starts_with(ppp::v2::PROTOCOL_PREFIX) || FIXED_BYTES + length > HEADER_BYTES_MAX {
        return Err(HeaderError::Malformed);
    }
    header.resize(FIXED_BYTES + length, 0);
    if let Some(rest) = header.get_mut(FIXED_BYTES..) {
        socket.read_exact(rest).await?;
    }
    parse(&header)
}

fn parse(header: &[u8]) -> Result<Option<Peer>, HeaderError> {
    let header = Header::try_from(header).map_err(|_error| HeaderError::Malformed)?;
    if header.command == Command::Local {
        return Ok(None);
    }
    match header.addresses {
        Addresses::IPv4(ip) => Ok(Some(Peer::Tcp(SocketAddr::new(
            ip.source_address.into(),
            ip.source_port,
        )))),
        Addresses::IPv6(ip) => Ok(Some(Peer::Tcp(SocketAddr::new(
            ip.source_address.into(),
            ip.source_port,
        )))),
        Addresses::Unix(_) | Addresses::Unspecified => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ppp::v2::{Builder, Protocol, Version};
    use proptest::prelude::*;

    #[test]
    fn the_client_of_the_header_is_the_peer() {
        let source: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        let target: SocketAddr = "192.0.2.9:6432".parse().unwrap();
        let bytes = Builder::with_addresses(
            Version::Two | Command::Proxy,
            Protocol::Stream,
            (source, target),
        )
        .build()
        .unwrap();
        assert_eq!(parse(&bytes).unwrap(), Some(Peer::Tcp(source)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            drop(parse(&bytes));
        }
    }
}
