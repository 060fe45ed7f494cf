//! Reading fields of a message in place. Every function is total: bytes come from strangers.

/// Splits a NUL-terminated string off; `None` when there is no NUL.
#[inline]
pub fn cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// The four bytes at the front as a number.
#[inline]
pub fn u32_at_front(bytes: &[u8]) -> Option<u32> {
    bytes
        .first_chunk::<4>()
        .map(|bytes| u32::from_be_bytes(*bytes))
}

/// The value of one field of an `ErrorResponse` or `NoticeResponse` body.
pub fn error_field(body: &[u8], field: u8) -> Option<&[u8]> {
    let mut rest = body;
    while let Some((&kind, after)) = rest.split_first() {
        if kind == 0 {
            return None;
        }
        let (value, next) = cstr(after)?;
        if kind == field {
            return Some(value);
        }
        rest = next;
    }
    None
}

/// Name and value of a `ParameterStatus` body.
pub fn parameter_status(body: &[u8]) -> Option<(&str, &str)> {
    let (name, rest) = cstr(body)?;
    let (value, _) = cstr(rest)?;
    Some((
        std::str::from_utf8(name).ok()?,
        std::str::from_utf8(value).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_error_field_is_found_by_its_letter() {
        let body = b"SERROR\0VERROR\0C42P05\0Mtext\0\0";
        assert_eq!(error_field(body, b'C'), Some(&b"42P05"[..]));
        assert_eq!(error_field(body, b'D'), None);
        assert_eq!(error_field(b"Cunterminated", b'C'), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = (cstr(&bytes), u32_at_front(&bytes), error_field(&bytes, b'M'), parameter_status(&bytes));
        }
    }
}
