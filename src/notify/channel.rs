//! Names of channels.

use super::HubError;
use std::{borrow::Borrow, collections::BTreeSet, fmt, sync::Arc};

/// Names of channels, as `pg_listening_channels()` spells them in UTF-8.
pub type Channels = BTreeSet<Box<str>>;

/// Longest name of a channel in bytes, as PostgreSQL's `NAMEDATALEN - 1`.
const CHANNEL_BYTES_MAX: usize = 63;

/// The name of a channel: checked, cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Channel(Arc<str>);

impl Channel {
    /// Checks a name: UTF-8 of 1 to 63 bytes without NUL.
    ///
    /// # Errors
    /// [`HubError::Name`].
    pub(super) fn new(name: &[u8]) -> Result<Self, HubError> {
        let text = std::str::from_utf8(name).map_err(|_invalid| HubError::Name)?;
        if text.is_empty() || text.len() > CHANNEL_BYTES_MAX || text.contains('\0') {
            return Err(HubError::Name);
        }
        Ok(Self(text.into()))
    }

    /// The name.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Appends the name as an identifier of SQL.
    pub(super) fn quote_into(&self, sql: &mut String) {
        sql.push('"');
        for c in self.0.chars() {
            if c == '"' {
                sql.push('"');
            }
            sql.push(c);
        }
        sql.push('"');
    }
}

impl Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_utf8_of_1_to_63_bytes() {
        for name in [&b"a"[..], &[b'x'; 63], "größe 😀\"\\';--".as_bytes()] {
            assert_eq!(Channel::new(name).unwrap().as_str().as_bytes(), name);
        }
        for name in [&b""[..], &[b'x'; 64], b"a\0b", b"gr\xf6\xdfe"] {
            assert!(matches!(Channel::new(name), Err(HubError::Name)));
        }
    }

    #[test]
    fn a_quote_in_a_name_stays_inside_the_identifier() {
        let mut sql = String::new();
        let channel = Channel::new(b"a\"; DROP TABLE t; --").unwrap();
        channel.quote_into(&mut sql);
        assert_eq!(sql, "\"a\"\"; DROP TABLE t; --\"");
    }
}
