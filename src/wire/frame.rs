//! Framing: one byte of tag, four of length (itself included), then the body.

/// Bytes of tag and length.
pub const HEADER_BYTES: usize = 5;

/// Longest message that PostgreSQL itself reads or sends (`PQ_LARGE_MESSAGE_LIMIT`, 1 GiB - 1).
pub const MESSAGE_BYTES_MAX: usize = 0x3fff_ffff;

/// A message whose length can't be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid message length {length} in a message of type {tag:#04x}")]
pub struct FrameError {
    /// The message's first byte.
    pub tag: u8,
    /// The length it claims.
    pub length: u32,
}

/// A message's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The first byte.
    pub tag: u8,
    /// Bytes of the whole message, header included: at least 5.
    pub message_bytes: usize,
}

/// Reads the header of the message that starts here; `None` until five bytes are here.
///
/// # Errors
/// [`FrameError`] for a length below four or above one gigabyte: the stream is out of step.
#[inline]
pub fn peek(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    let Some((&[tag, a, b, c, d], _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]);
    if length < 4 || length as usize > MESSAGE_BYTES_MAX {
        return Err(FrameError { tag, length });
    }
    Ok(Some(Header {
        tag,
        message_bytes: length as usize + 1,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn impossible_lengths_are_refused() {
        for length in [0u32, 1, 3, 0x4000_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            let mut bytes = vec![b'Q'];
            bytes.extend(length.to_be_bytes());
            assert_eq!(peek(&bytes), Err(FrameError { tag: b'Q', length }));
        }
        assert_eq!(peek(b"Q\0\0\0"), Ok(None));
        let sync = Header {
            tag: b'S',
            message_bytes: 5,
        };
        assert_eq!(peek(b"S\0\0\0\x04"), Ok(Some(sync)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_give_a_bounded_frame_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            if let Ok(Some(header)) = peek(&bytes) {
                prop_assert!((HEADER_BYTES..=MESSAGE_BYTES_MAX + 1).contains(&header.message_bytes));
            }
        }
    }
}
