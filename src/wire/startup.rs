//! The packets that open a connection: they have no tag, and come before anyone is known.

use super::read;
use std::fmt;

/// Longest startup packet, as PostgreSQL's `MAX_STARTUP_PACKET_LENGTH`.
pub const STARTUP_BYTES_MAX: usize = 10_000;

/// Longest cancel key of protocol 3.2.
pub const CANCEL_KEY_BYTES_MAX: usize = 256;

/// The newest minor version of protocol 3 that we speak.
pub const PROTOCOL_MINOR_MAX: u16 = 2;

const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// Names one running statement to cancel: process id and secret.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelKey {
    /// The process id from `BackendKeyData`.
    pub pid: u32,
    /// The secret: 4 bytes in protocol 3.0, up to 256 in 3.2.
    pub secret: Box<[u8]>,
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelKey")
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

/// Names and values, in the order they came.
pub type Parameters = Vec<(Box<str>, Box<str>)>;

/// A `StartupMessage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartupPacket {
    /// Minor version that the client asks for.
    pub minor: u16,
    /// All but `_pq_.` options.
    pub parameters: Parameters,
    /// Names of `_pq_.` options; we know none of them.
    pub unknown_options: Vec<Box<str>>,
}

impl StartupPacket {
    /// The value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| &**key == name)
            .map(|(_, value)| &**value)
    }

    /// Whether the client must be told what we speak: it wants more than we have.
    pub fn needs_negotiation(&self) -> bool {
        self.minor > PROTOCOL_MINOR_MAX || !self.unknown_options.is_empty()
    }
}

/// What a connection opens with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// The client wants TLS.
    Ssl,
    /// The client wants GSSAPI encryption.
    GssEnc,
    /// The client wants a statement cancelled.
    Cancel(CancelKey),
    /// The client wants to log in.
    Startup(StartupPacket),
}

/// Why an opening is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    /// The length is impossible. As PostgreSQL, we close then and say nothing.
    #[error("invalid length of startup packet")]
    Length,
    /// Not protocol 3.
    #[error("unsupported frontend protocol {0}.{1}: server supports 3.0 to 3.2")]
    Version(u16, u16),
    /// Names and values don't end as they must.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// Names or values are not UTF-8.
    #[error("the startup packet is not valid UTF-8")]
    Encoding,
    /// A parameter stands twice.
    #[error("the startup packet names a parameter twice")]
    Duplicate,
}

impl OpeningError {
    /// A second SSLRequest: to PostgreSQL it is a version of the protocol then.
    pub(crate) const SECOND_SSL: Self = Self::version(SSL_REQUEST);
    /// A second GSSENCRequest; likewise.
    pub(crate) const SECOND_GSSENC: Self = Self::version(GSSENC_REQUEST);

    const fn version(code: u32) -> Self {
        Self::Version((code >> 16) as u16, code as u16)
    }
}

/// Reads the body of an opening packet: what follows its four bytes of length.
///
/// # Errors
/// [`OpeningError`].
pub fn parse_opening(body: &[u8]) -> Result<Opening, OpeningError> {
    let code = read::u32_at_front(body).ok_or(OpeningError::Length)?;
    let rest = body.get(4..).ok_or(OpeningError::Length)?;
    match code {
        SSL_REQUEST if rest.is_empty() => Ok(Opening::Ssl),
        GSSENC_REQUEST if rest.is_empty() => Ok(Opening::GssEnc),
        SSL_REQUEST | GSSENC_REQUEST => Err(OpeningError::Length),
        CANCEL_REQUEST => parse_cancel(rest).map(Opening::Cancel),
        _ if code >> 16 == 3 => parse_startup(code as u16, rest).map(Opening::Startup),
        _ => Err(OpeningError::version(code)),
    }
}

fn parse_cancel(rest: &[u8]) -> Result<CancelKey, OpeningError> {
    let pid = read::u32_at_front(rest).ok_or(OpeningError::Length)?;
    let secret = rest.get(4..).ok_or(OpeningError::Length)?;
    if !(4..=CANCEL_KEY_BYTES_MAX).contains(&secret.len()) {
        return Err(OpeningError::Length);
    }
    Ok(CancelKey {
        pid,
        secret: secret.into(),
    })
}

fn parse_startup(minor: u16, mut rest: &[u8]) -> Result<StartupPacket, OpeningError> {
    let mut packet = StartupPacket {
        minor,
        parameters: Vec::new(),
        unknown_options: Vec::new(),
    };
    loop {
        let (name, after) = text(rest)?;
        if name.is_empty() {
            return if after.is_empty() {
                Ok(packet)
            } else {
                Err(OpeningError::Layout)
            };
        }
        let (value, after) = text(after)?;
        if packet.parameter(name).is_some() {
            return Err(OpeningError::Duplicate);
        }
        if name.starts_with("_pq_.") {
            packet.unknown_options.push(name.into());
        } else {
            packet.parameters.push((name.into(), value.into()));
        }
        rest = after;
    }
}

fn text(bytes: &[u8]) -> Result<(&str, &[u8]), OpeningError> {
    let (text, rest) = read::cstr(bytes).ok_or(OpeningError::Layout)?;
    Ok((
        std::str::from_utf8(text).map_err(|_error| OpeningError::Encoding)?,
        rest,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(code: u32, rest: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes(), rest].concat()
    }

    #[test]
    fn openings_are_told_apart() {
        assert_eq!(parse_opening(&body(SSL_REQUEST, b"")), Ok(Opening::Ssl));
        assert_eq!(
            parse_opening(&body(GSSENC_REQUEST, b"")),
            Ok(Opening::GssEnc)
        );
        assert_eq!(
            parse_opening(&body(SSL_REQUEST, b"x")),
            Err(OpeningError::Length)
        );
        assert_eq!(
            parse_opening(&body(0x0002_0000, b"")),
            Err(OpeningError::Version(2, 0))
        );
        assert_eq!(parse_opening(b"\0\0"), Err(OpeningError::Length));
        let key = CancelKey {
            pid: 9,
            secret: [1, 2, 3, 4].into(),
        };
        let cancel = body(CANCEL_REQUEST, &[0, 0, 0, 9, 1, 2, 3, 4]);
        assert_eq!(parse_opening(&cancel), Ok(Opening::Cancel(key)));
        assert_eq!(
            parse_opening(&body(CANCEL_REQUEST, &[0; 7])),
            Err(OpeningError::Length)
        );
        assert_eq!(
            parse_opening(&body(CANCEL_REQUEST, &[0; 261])),
            Err(OpeningError::Length)
        );
    }

    #[test]
    fn a_startup_packet_keeps_order_and_sets_unknown_options_apart() {
        let packet = body(0x0003_270f, b"user\0u\0_pq_.grease\0\0database\0d\0\0");
        let Ok(Opening::Startup(packet)) = parse_opening(&packet) else {
            panic!("not a startup packet")
        };
        assert_eq!(packet.minor, 9999);
        assert_eq!(packet.parameter("database"), Some("d"));
        assert_eq!(packet.unknown_options, ["_pq_.grease".into()]);
        assert!(packet.needs_negotiation());
    }

    #[test]
    fn bad_layouts_are_refused() {
        for (rest, error) in [
            (&b""[..], OpeningError::Layout),
            (b"user\0u\0", OpeningError::Layout),
            (b"user\0u", OpeningError::Layout),
            (b"user\0u\0\0x", OpeningError::Layout),
            (b"user\0u\0user\0v\0\0", OpeningError::Duplicate),
            (b"user\0\xff\0\0", OpeningError::Encoding),
        ] {
            assert_eq!(parse_opening(&body(0x0003_0000, rest)), Err(error));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(parse_opening(&bytes));
        }

        #[test]
        fn arbitrary_parameters_never_panic(rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(parse_opening(&body(0x0003_0000, &rest)));
        }
    }
}
