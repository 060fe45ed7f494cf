//! Positions in the WAL.

use std::{fmt, num::ParseIntError, str::FromStr};

/// A position in the WAL, in bytes from its beginning; 0 is nowhere. Written as PostgreSQL's
/// `pg_lsn`: `16/B374D848`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

/// Why a text is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LsnError {
    /// There is no slash in it.
    #[error("a WAL position has a slash")]
    NoSlash,
    /// What stands at a side of the slash is not a hexadecimal number of 32 bits.
    #[error("a WAL position has a hexadecimal number at each side of its slash")]
    Number(#[from] ParseIntError),
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = LsnError;

    fn from_str(text: &str) -> Result<Self, LsnError> {
        let (high, low) = text.split_once('/').ok_or(LsnError::NoSlash)?;
        let high = u32::from_str_radix(high, 16)?;
        let low = u32::from_str_radix(low, 16)?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

/// How the WAL of a cluster is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Bytes of a page.
    pub(super) page: u64,
    /// Bytes of a segment.
    pub(super) segment: u64,
}

/// Bytes of the header of a page, and of the first page of a segment.
const PAGE_HEADER: u64 = 24;
const SEGMENT_HEADER: u64 = 40;

impl Layout {
    /// The end of what has been inserted, where the next record would begin at `insert`.
    ///
    /// Behind a full page PostgreSQL says where the next record begins, which is behind the header
    /// of a page that is not written yet. No standby gets there before something else is written.
    pub(super) fn end(self, insert: Lsn) -> Lsn {
        let in_segment = insert.0.checked_rem(self.segment);
        let in_page = insert.0.checked_rem(self.page);
        match (in_segment, in_page) {
            (Some(SEGMENT_HEADER), _) => Lsn(insert.0 - SEGMENT_HEADER),
            (Some(in_segment), Some(PAGE_HEADER)) if in_segment != PAGE_HEADER => {
                Lsn(insert.0 - PAGE_HEADER)
            }
            _ => insert,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_written_as_postgresql_does() {
        for (text, value) in [
            ("0/0", 0),
            ("16/B374D848", 0x16_B374_D848),
            ("FFFFFFFF/FFFFFFFF", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Lsn(value)), "{text}");
            assert_eq!(Lsn(value).to_string(), text);
        }
        assert_eq!("".parse::<Lsn>(), Err(LsnError::NoSlash));
        for bad in ["/", "1/", "g/0", "1/100000000", "-1/0", "1/2/3"] {
            let refused = bad.parse::<Lsn>();
            assert!(matches!(refused, Err(LsnError::Number(_))), "{bad}");
        }
        assert!(Lsn(0x1_0000_0000) > Lsn(0xFFFF_FFFF));
    }

    #[test]
    fn behind_a_full_page_its_end_counts() {
        let layout = Layout {
            page: 8192,
            segment: 16 << 20,
        };
        let segment = 48 << 20;
        for (insert, end) in [
            (segment + 40, segment),
            (segment + 41, segment + 41),
            (segment + 24, segment + 24),
            (segment + 8192 + 24, segment + 8192),
            // A record that began on the page before may end here.
            (segment + 8192 + 40, segment + 8192 + 40),
            (segment + 100, segment + 100),
        ] {
            assert_eq!(layout.end(Lsn(insert)), Lsn(end), "{insert}");
        }
        let unknown = Layout {
            page: 0,
            segment: 0,
        };
        assert_eq!(unknown.end(Lsn(40)), Lsn(40));
    }
}
