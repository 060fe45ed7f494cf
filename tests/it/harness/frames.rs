//! Messages that a server sends.

use super::Fields;
use std::fmt;

/// One message: its type and what follows the length.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// The type byte.
    pub tag: u8,
    /// The body.
    pub body: Vec<u8>,
}

impl Frame {
    /// The frame at the start of `bytes`, and its length, when it is whole.
    pub fn split_from(bytes: &[u8]) -> Option<(Self, usize)> {
        let (tag, rest) = bytes.split_first()?;
        let length = i32::from_be_bytes(rest.first_chunk().copied()?);
        let length = usize::try_from(length).expect("a server's length is positive");
        assert!(
            length >= 4,
            "a length of {length} after {:?}",
            char::from(*tag)
        );
        let body = rest.get(4..length)?.to_vec();
        Some((Self { tag: *tag, body }, length + 1))
    }

    /// The type as a character.
    pub fn kind(&self) -> char {
        char::from(self.tag)
    }

    /// The fields of an error or a notice.
    pub fn fields(&self) -> Fields {
        assert!(matches!(self.tag, b'E' | b'N'), "not an error: {self:?}");
        Fields::parse(&self.body)
    }

    /// The columns of a `DataRow`, as text.
    pub fn columns(&self) -> Vec<Option<String>> {
        assert_eq!(self.tag, b'D', "not a row: {self:?}");
        let mut rest = &self.body[2..];
        let count = u16::from_be_bytes([self.body[0], self.body[1]]);
        let mut columns = Vec::new();
        for _ in 0..count {
            let length = i32::from_be_bytes(*rest.first_chunk().unwrap());
            rest = &rest[4..];
            let Ok(length) = usize::try_from(length) else {
                columns.push(None);
                continue;
            };
            columns.push(Some(String::from_utf8_lossy(&rest[..length]).into_owned()));
            rest = &rest[length..];
        }
        assert!(rest.is_empty(), "bytes after the last column");
        columns
    }

    /// The strings of a body that consists of NUL-terminated strings.
    pub fn strings(&self) -> Vec<String> {
        let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        let mut parts: Vec<_> = self.body.split(|byte| *byte == 0).map(text).collect();
        assert_eq!(
            parts.pop().as_deref(),
            Some(""),
            "no NUL at the end of {self:?}"
        );
        parts
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tag {
            b'E' | b'N' => write!(f, "{}({:?})", self.kind(), self.fields()),
            _ if self.body.len() > 200 => write!(f, "{}({} bytes)", self.kind(), self.body.len()),
            _ => write!(f, "{}({})", self.kind(), self.body.escape_ascii()),
        }
    }
}

/// The types of the messages in a row, such as `"TDCZ"`.
pub fn tags(frames: &[Frame]) -> String {
    frames.iter().map(Frame::kind).collect()
}

/// The rows among the messages.
pub fn rows(frames: &[Frame]) -> Vec<Vec<Option<String>>> {
    let is_row = |frame: &&Frame| frame.tag == b'D';
    frames.iter().filter(is_row).map(Frame::columns).collect()
}

/// The first column of the rows among the messages, NULL as "NULL".
pub fn firsts(frames: &[Frame]) -> Vec<String> {
    let first = |row: Vec<Option<String>>| row[0].clone().unwrap_or("NULL".into());
    rows(frames).into_iter().map(first).collect()
}

/// The fields of the first error among the messages.
pub fn error(frames: &[Frame]) -> Option<Fields> {
    frames
        .iter()
        .find(|frame| frame.tag == b'E')
        .map(Frame::fields)
}

/// The first error's SQLSTATE, or "".
pub fn code(frames: &[Frame]) -> String {
    error(frames)
        .map(|fields| fields.code().to_owned())
        .unwrap_or_default()
}
