//! Notifications as PostgreSQL sends them, and the markers among them.

use crate::wire::{frontend, read, tag::backend};
use bytes::Bytes;
use std::fmt;

/// The channel of the markers. A tenant may use it too: its notifications are ordinary ones.
pub const MARKER_CHANNEL: &str = "pgusher";

/// What every marker begins with, also those of other hubs of the same database.
const MARK: &str = "marker:";

/// Whether a notification, of whose payload at least the first 32 bytes are known, is a marker of any
/// hub: never a client's to hear.
pub fn is_marker(channel: &[u8], payload: &[u8]) -> bool {
    channel == MARKER_CHANNEL.as_bytes() && payload.starts_with(MARK.as_bytes())
}

/// The fields of a `NotificationResponse`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification<'a> {
    /// The process that notified.
    pub pid: u32,
    /// The channel's name.
    pub channel: &'a [u8],
    /// What was said.
    pub payload: &'a [u8],
}

impl<'a> Notification<'a> {
    /// Reads the body of a `NotificationResponse`; `None` when it is none.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let pid = read::u32_at_front(body)?;
        let (channel, rest) = read::cstr(body.get(4..)?)?;
        let (payload, rest) = read::cstr(rest)?;
        rest.is_empty().then_some(Self {
            pid,
            channel,
            payload,
        })
    }

    /// The whole message with another channel and payload.
    pub fn with(&self, channel: &[u8], payload: &[u8]) -> Bytes {
        let parts: [&[u8]; 5] = [&self.pid.to_be_bytes(), channel, b"\0", payload, b"\0"];
        let mut message = Vec::new();
        frontend::message(&mut message, backend::NOTIFICATION, &parts);
        message.into()
    }

    /// Whether it is the same in all encodings that PostgreSQL's clients may have.
    pub fn is_ascii(&self) -> bool {
        self.channel.is_ascii() && self.payload.is_ascii()
    }
}

/// The point in the order of all notifications at which channels move from a session's server to
/// the hub: a marker that both of them see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The process of the hub's connection.
    pub pid: u32,
    /// The marker's payload, never used before.
    pub payload: Box<str>,
}

impl Cut {
    /// Whether a notification on the session's server is this marker: those before it are that
    /// server's to deliver, those behind it the hub's.
    pub fn is(&self, notification: &Notification<'_>) -> bool {
        notification.pid == self.pid
            && notification.channel == MARKER_CHANNEL.as_bytes()
            && notification.payload == self.payload.as_bytes()
    }
}

/// What the payloads of one hub's markers begin with. Random: nobody else's payload does.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct MarkerPrefix(Box<str>);

impl fmt::Debug for MarkerPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl MarkerPrefix {
    /// A new one.
    pub(super) fn random() -> Self {
        Self(format!("{MARK}{:016x}.", rand::random::<u64>()).into())
    }

    /// The payload with this number, on the connection of this process.
    pub(super) fn payload(&self, pid: u32, number: u64) -> Box<str> {
        format!("{}{pid}.{number}", self.0).into()
    }

    /// Whether a notification is a marker of this hub, of this or of an earlier connection.
    pub(super) fn begins(&self, notification: &Notification<'_>) -> bool {
        notification.channel == MARKER_CHANNEL.as_bytes()
            && notification.payload.starts_with(self.0.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_notification_is_read_in_place() {
        let read = Notification::read(b"\0\0\0\x07news\0hello\0").unwrap();
        assert_eq!(
            (read.pid, read.channel, read.payload),
            (7, &b"news"[..], &b"hello"[..])
        );
        for bad in [
            &b"\0\0\0\x07news\0hello"[..],
            b"\0\0\0",
            b"\0\0\0\x07a\0b\0c",
        ] {
            assert_eq!(Notification::read(bad), None);
        }
    }

    #[test]
    fn a_marker_is_its_own_hubs_alone() {
        let prefix = MarkerPrefix::random();
        let cut = Cut {
            pid: 7,
            payload: prefix.payload(7, 12),
        };
        let payload = cut.payload.clone();
        let marker = Notification {
            pid: 7,
            channel: b"pgusher",
            payload: payload.as_bytes(),
        };
        assert!(cut.is(&marker) && prefix.begins(&marker));
        assert!(!cut.is(&Notification { pid: 8, ..marker }));
        let other = prefix.payload(7, 1);
        let other = Notification {
            payload: other.as_bytes(),
            ..marker
        };
        assert!(!cut.is(&other) && prefix.begins(&other));
        let tenants = Notification {
            payload: b"12",
            ..marker
        };
        assert!(!cut.is(&tenants) && !prefix.begins(&tenants));
        assert!(!MarkerPrefix::random().begins(&marker));
        assert!(is_marker(marker.channel, marker.payload));
        assert!(!is_marker(tenants.channel, tenants.payload));
        assert!(!is_marker(b"news", marker.payload));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            let _ = Notification::read(&bytes);
        }
    }
}
