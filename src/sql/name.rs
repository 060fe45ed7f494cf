//! Names in SQL: what is written, and what it stands for.

use super::{Kind, Token};
use std::borrow::Cow;

/// Longest name; PostgreSQL cuts longer ones (`NAMEDATALEN` - 1).
pub const NAME_BYTES_MAX: usize = 63;

/// Whether a byte may stand in a name without quotes, as far as ASCII goes.
#[inline]
pub fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
}

/// A name as PostgreSQL keeps it: its first 63 bytes.
#[inline]
pub fn clipped(name: &[u8]) -> &[u8] {
    name.get(..NAME_BYTES_MAX).unwrap_or(name)
}

/// The name that a token stands for: folded to lower case, or without its quotes; whole characters
/// of its first 63 bytes. `None` when the token is no name, an empty one, or one that only PostgreSQL's parser can
/// tell (`U&"…"`, whose escape character comes behind it).
///
/// Allocates only for what is to be changed.
pub fn unquoted<'t>(token: &Token, text: &'t [u8]) -> Option<Cow<'t, [u8]>> {
    let written = token.of(text);
    match token.kind {
        Kind::Word if written.iter().any(u8::is_ascii_uppercase) => {
            Some(Cow::Owned(whole(written).to_ascii_lowercase()))
        }
        Kind::Word => Some(Cow::Borrowed(whole(written))),
        Kind::QuotedName => {
            let inside = written.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
            if inside.is_empty() {
                return None;
            }
            if memchr::memchr(b'"', inside).is_none() {
                return Some(Cow::Borrowed(whole(inside)));
            }
            let mut name = Vec::with_capacity(inside.len());
            let mut bytes = inside.iter();
            while let Some(byte) = bytes.next() {
                name.push(*byte);
                if *byte == b'"' {
                    bytes.next();
                }
            }
            name.truncate(whole(&name).len());
            Some(Cow::Owned(name))
        }
        _ => None,
    }
}

/// As much of a name as PostgreSQL keeps, without a part of a UTF-8 character at its end.
fn whole(name: &[u8]) -> &[u8] {
    let mut kept = clipped(name);
    if kept.len() < name.len() && name.get(kept.len()).is_some_and(|b| b & 0xc0 == 0x80) {
        while let Some((last, rest)) = kept.split_last() {
            kept = rest;
            if last & 0xc0 != 0x80 {
                break;
            }
        }
    }
    kept
}

/// A name in quotes, to be written into SQL.
pub fn quoted(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 2);
    out.push(b'"');
    for byte in name {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::tokens;
    use proptest::prelude::*;

    fn name(text: &[u8]) -> Option<Vec<u8>> {
        let token = tokens(text).next()?;
        unquoted(&token, text).map(Cow::into_owned)
    }

    #[test]
    fn a_name_is_read_as_postgresql_does() {
        assert_eq!(name(b"AbC").unwrap(), b"abc");
        assert_eq!(name(b"\"A\"\"b\"").unwrap(), b"A\"b");
        assert_eq!(name(b"u&\"A\""), None);
        assert_eq!(name(b"'a'"), None);
        let long = "é".repeat(40);
        assert_eq!(name(long.as_bytes()).unwrap(), "é".repeat(31).as_bytes());
    }

    proptest! {
        #[test]
        fn a_quoted_name_is_read_back(bytes in proptest::collection::vec(1_u8..128, 1..=63)) {
            prop_assert_eq!(name(&quoted(&bytes)).unwrap(), bytes);
        }
    }
}
