//! Text in other encodings, by PostgreSQL's own conversion.

use super::{AskError, Server, settings::literal};
use std::{fmt::Write as _, time::Duration};

/// How long a server may take to convert.
const TIMEOUT: Duration = Duration::from_secs(5);

impl Server {
    /// Two texts in UTF-8 as a client of this encoding would be told them; `None` when one has a
    /// character that the encoding lacks, or the question is refused otherwise. Notifications that come
    /// meanwhile are added to `asides`.
    ///
    /// # Errors
    /// [`AskError`], never `Refused`: the server can only be closed.
    ///
    /// # Cancel safety
    /// Not cancel safe: drop the server when the future is dropped.
    pub async fn convert(
        &mut self,
        texts: [&[u8]; 2],
        encoding: &str,
        asides: &mut Vec<u8>,
    ) -> Result<Option<[Vec<u8>; 2]>, AskError> {
        let encoding = literal(encoding);
        let mut sql = String::from("SELECT ");
        for (at, text) in texts.into_iter().enumerate() {
            sql.push_str(if at == 0 { "" } else { "," });
            sql.push_str("pg_catalog.encode(pg_catalog.convert(pg_catalog.decode('");
            for byte in text {
                // Writing to a String can't fail.
                write!(sql, "{byte:02x}").ok();
            }
            write!(sql, "','hex'),'UTF8',{encoding}),'hex')").ok();
        }
        let answer = match self.ask_rows(&sql, TIMEOUT).await {
            Ok(answer) => answer,
            Err(AskError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        asides.extend_from_slice(&answer.asides);
        let row = answer.rows.first().ok_or(AskError::Protocol)?;
        let text = |at: usize| {
            let hex = row.get(at)?.as_deref()?;
            unhex(hex)
        };
        let texts = text(0).zip(text(1)).ok_or(AskError::Protocol)?;
        Ok(Some(texts.into()))
    }
}

/// The bytes that hexadecimal digits stand for.
pub(super) fn unhex(hex: &[u8]) -> Option<Vec<u8>> {
    hex::decode(hex).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_digits_are_bytes() {
        assert_eq!(unhex(b"00fF1a"), Some(vec![0, 255, 26]));
        assert_eq!(unhex(b""), Some(Vec::new()));
        assert_eq!(unhex(b"0"), None);
        assert_eq!(unhex(b"0g"), None);
    }
}
