//! The fields of an `ErrorResponse` or a `NoticeResponse`.

use std::{collections::BTreeMap, fmt};

/// The fields by their letter, as PostgreSQL's protocol documentation names them.
#[derive(Clone, PartialEq, Eq)]
pub struct Fields(BTreeMap<char, String>);

impl Fields {
    /// Reads the body of an `E` or `N` message, and holds it to its grammar.
    pub fn parse(body: &[u8]) -> Self {
        let (last, rest) = body
            .split_last()
            .expect("an error response has a terminator");
        assert_eq!(*last, 0, "an error response ends in NUL");
        let mut fields = BTreeMap::new();
        for field in rest
            .split(|byte| *byte == 0)
            .filter(|field| !field.is_empty())
        {
            let (letter, text) = field.split_first().unwrap();
            let text = String::from_utf8_lossy(text).into_owned();
            let before = fields.insert(char::from(*letter), text);
            assert_eq!(before, None, "field {} comes twice", char::from(*letter));
        }
        for letter in ['S', 'C', 'M'] {
            assert!(
                fields.contains_key(&letter),
                "no field {letter} in {fields:?}"
            );
        }
        Self(fields)
    }

    fn field(&self, letter: char) -> &str {
        self.0.get(&letter).map_or("", String::as_str)
    }

    /// The SQLSTATE.
    pub fn code(&self) -> &str {
        self.field('C')
    }

    /// FATAL, ERROR, NOTICE…
    pub fn severity(&self) -> &str {
        self.field('S')
    }

    /// The primary message.
    pub fn message(&self) -> &str {
        self.field('M')
    }

    /// Message, detail and hint: all that a person reads.
    pub fn text(&self) -> String {
        format!("{} {} {}", self.message(), self.field('D'), self.field('H'))
    }

    /// What must be the same whether PostgreSQL or the proxy says it: not the place in the source.
    pub fn without_source(&self) -> Self {
        let mut fields = self.0.clone();
        fields.retain(|letter, _| !"FLR".contains(*letter));
        Self(fields)
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.severity(), self.code(), self.message())?;
        for (letter, text) in self
            .0
            .iter()
            .filter(|(letter, _)| "DHPW".contains(**letter))
        {
            write!(f, " {letter}={text:?}")?;
        }
        Ok(())
    }
}
