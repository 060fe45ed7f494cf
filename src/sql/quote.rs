//! Names and texts, quoted for SQL: the one place where that is done for statements of our own.

use super::quoted;

/// A name, as PostgreSQL reads it whatever it contains. A NUL, which no name can have, is left out.
pub fn quoted_name(name: &str) -> String {
    let name = name.replace('\0', "");
    String::from_utf8_lossy(&quoted(name.as_bytes())).into_owned()
}

/// A text as a literal, whatever `standard_conforming_strings` says: with a backslash in it, it is
/// written `E'…'`. A NUL, which no text can have, is left out.
pub fn quoted_literal(text: &str) -> String {
    let text = text.replace('\0', "").replace('\'', "''");
    if text.contains('\\') {
        format!(" E'{}'", text.replace('\\', "\\\\"))
    } else {
        format!("'{text}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_one_name_or_one_text() {
        assert_eq!(quoted_name("a\"b"), "\"a\"\"b\"");
        assert_eq!(quoted_literal("a'b"), "'a''b'");
        assert_eq!(quoted_literal("a\\'b"), " E'a\\\\''b'");
        assert_eq!(quoted_literal("a\0b"), "'ab'");
    }
}
