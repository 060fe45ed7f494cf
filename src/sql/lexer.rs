//! Where the tokens of a text begin and end, as PostgreSQL's own scanner has it.
//!
//! Reference: <https://www.postgresql.org/docs/current/sql-syntax-lexical.html>.

use std::ops::Range;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// White space; a NUL counts as such, so that a text may be given with the one that ends it.
    Space,
    /// `-- …` up to the end of its line, or `/* … */`, which nests.
    Comment,
    /// A keyword, or a name without quotes.
    Word,
    /// `"…"`.
    QuotedName,
    /// `U&"…"`.
    UnicodeName,
    /// `'…'`, also `B'…'`, `X'…'` and `N'…'`; with what continues it on the lines that follow.
    String,
    /// `E'…'`, continued likewise.
    EscapeString,
    /// `U&'…'`, continued likewise.
    UnicodeString,
    /// `$tag$…$tag$`.
    DollarString,
    /// `$1`.
    Parameter,
    /// A number without its sign.
    Number,
    /// `;`.
    Semicolon,
    /// `(`.
    Open,
    /// `)`.
    Close,
    /// Any other byte, one at a time: operators, commas, dots, brackets.
    Other,
    /// A comment, string or quoted name without its end: the rest of the text. PostgreSQL refuses
    /// the whole text then.
    Unterminated,
}

impl Kind {
    /// Whether PostgreSQL's parser sees it.
    #[inline]
    pub fn is_significant(self) -> bool {
        !matches!(self, Self::Space | Self::Comment)
    }

    /// Whether it is a string constant.
    pub fn is_string(self) -> bool {
        matches!(
            self,
            Self::String | Self::EscapeString | Self::UnicodeString | Self::DollarString
        )
    }
}

/// One token and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Its bytes in the text; never empty.
    pub range: Range<usize>,
}

impl Token {
    /// Its bytes.
    #[inline]
    pub fn of<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        text.get(self.range.clone()).unwrap_or_default()
    }

    /// Whether it is this keyword (in lower or upper case).
    #[inline]
    pub fn is_word(&self, text: &[u8], word: &[u8]) -> bool {
        self.kind == Kind::Word && self.of(text).eq_ignore_ascii_case(word)
    }

    /// Whether it may name something.
    pub fn is_name(&self) -> bool {
        matches!(self.kind, Kind::Word | Kind::QuotedName | Kind::UnicodeName)
    }
}

/// The tokens of a text, one after the other: together they are the whole text.
///
/// It is read as with `standard_conforming_strings = on` (the default since 9.1) and in an encoding
/// in which no byte below 0x80 is a part of a longer character (all but BIG5, GBK, GB18030, SJIS,
/// JOHAB, UHC and `SHIFT_JIS_2004`, which only clients may use).
#[must_use]
pub fn tokens(text: &[u8]) -> Tokens<'_> {
    Tokens {
        text,
        at: 0,
        has_backslashes: false,
    }
}

/// See [`tokens`].
#[derive(Debug, Clone)]
pub struct Tokens<'t> {
    text: &'t [u8],
    at: usize,
    has_backslashes: bool,
}

impl<'t> Tokens<'t> {
    /// The same with `standard_conforming_strings = off`: a backslash escapes in `'…'`, too.
    #[must_use]
    pub fn with_backslashes(self) -> Self {
        Self {
            has_backslashes: true,
            ..self
        }
    }

    /// Without spaces and comments.
    pub fn significant(self) -> impl Iterator<Item = Token> + Clone + use<'t> {
        self.filter(|token| token.kind.is_significant())
    }

    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    fn has(&self, at: usize, bytes: &[u8]) -> bool {
        self.text.get(at..).is_some_and(|t| t.starts_with(bytes))
    }

    /// The first place from `at` on whose byte is not of the kind.
    fn past(&self, at: usize, is: impl Fn(u8) -> bool) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        at + rest.iter().position(|b| !is(*b)).unwrap_or(rest.len())
    }

    fn token(&self) -> (Kind, usize) {
        let at = self.at;
        let next = self.byte(at + 1);
        match self.byte(at) {
            b if is_space(b) => (Kind::Space, self.past(at, is_space)),
            b'-' if next == b'-' => (Kind::Comment, self.past(at, |b| !is_newline(b))),
            b'/' if next == b'*' => self.block_comment(),
            b'\'' if self.has_backslashes => self.string(Kind::String, at, true),
            b'\'' => self.string(Kind::String, at, false),
            b'e' | b'E' if next == b'\'' => self.string(Kind::EscapeString, at + 1, true),
            b'b' | b'B' | b'x' | b'X' if next == b'\'' => self.string(Kind::String, at + 1, false),
            b'n' | b'N' if next == b'\'' => self.string(Kind::String, at + 1, self.has_backslashes),
            b'u' | b'U' if self.has(at + 1, b"&'") => {
                self.string(Kind::UnicodeString, at + 2, false)
            }
            b'u' | b'U' if self.has(at + 1, b"&\"") => self.name(Kind::UnicodeName, at + 2),
            b'"' => self.name(Kind::QuotedName, at),
            b if begins_word(b) => (Kind::Word, self.past(at, continues_word)),
            b if b.is_ascii_digit() => (Kind::Number, self.number()),
            b'.' if next.is_ascii_digit() => (Kind::Number, self.number()),
            b'$' if next.is_ascii_digit() => {
                (Kind::Parameter, self.past(at + 1, |b| b.is_ascii_digit()))
            }
            b'$' => self.dollar(),
            b';' => (Kind::Semicolon, at + 1),
            b'(' => (Kind::Open, at + 1),
            b')' => (Kind::Close, at + 1),
            _ => (Kind::Other, at + 1),
        }
    }

    fn unterminated(&self) -> (Kind, usize) {
        (Kind::Unterminated, self.text.len())
    }

    fn block_comment(&self) -> (Kind, usize) {
        let mut depth = 0_usize;
        let mut at = self.at;
        loop {
            at = self.past(at, |b| !matches!(b, b'/' | b'*'));
            if at >= self.text.len() {
                return self.unterminated();
            }
            if self.has(at, b"/*") {
                depth += 1;
                at += 2;
            } else if self.has(at, b"*/") {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return (Kind::Comment, at);
                }
            } else {
                at += 1;
            }
        }
    }

    /// A string whose first quote is at `at`.
    fn string(&self, kind: Kind, at: usize, has_backslashes: bool) -> (Kind, usize) {
        let mut at = at + 1;
        loop {
            at = self.past(at, |b| b != b'\'' && !(has_backslashes && b == b'\\'));
            if at >= self.text.len() {
                return self.unterminated();
            }
            if self.byte(at) == b'\\' || self.byte(at + 1) == b'\'' {
                at = (at + 2).min(self.text.len());
                continue;
            }
            match self.continued(at + 1) {
                Some(inside) => at = inside,
                None => return (kind, at + 1),
            }
        }
    }

    /// A string goes on when the next quote is on another line with nothing but white space and
    /// `--` comments between; where its inside goes on.
    fn continued(&self, end: usize) -> Option<usize> {
        let mut at = end;
        let mut has_newline = false;
        loop {
            let begin = at;
            at = self.past(at, |b| is_space(b) && b != 0);
            has_newline |= self
                .text
                .get(begin..at)
                .is_some_and(|s| s.iter().any(|b| is_newline(*b)));
            match self.byte(at) {
                b'-' if self.byte(at + 1) == b'-' => at = self.past(at, |b| !is_newline(b)),
                b'\'' if has_newline => return Some(at + 1),
                _ => return None,
            }
        }
    }

    /// A quoted name whose first quote is at `at`.
    fn name(&self, kind: Kind, at: usize) -> (Kind, usize) {
        let mut at = at + 1;
        loop {
            at = self.past(at, |b| b != b'"');
            match (self.byte(at), self.byte(at + 1)) {
                (b'"', b'"') => at += 2,
                (b'"', _) => return (kind, at + 1),
                _ => return self.unterminated(),
            }
        }
    }

    /// `$tag$…$tag$`, or a dollar that means nothing.
    fn dollar(&self) -> (Kind, usize) {
        let tag = self.at + 1;
        let tag_end = if begins_word(self.byte(tag)) {
            self.past(tag, |b| b != b'$' && continues_word(b))
        } else {
            tag
        };
        if self.byte(tag_end) != b'$' {
            return (Kind::Other, self.at + 1);
        }
        let delimiter = self.text.get(self.at..=tag_end).unwrap_or_default();
        let body = self.text.get(tag_end + 1..).unwrap_or_default();
        match memchr::memmem::find(body, delimiter) {
            Some(length) => (Kind::DollarString, tag_end + 1 + length + delimiter.len()),
            None => self.unterminated(),
        }
    }

    /// The end of a number; letters that can't be a part of it are another token's.
    fn number(&self) -> usize {
        let radix: Option<fn(u8) -> bool> = match self.byte(self.at + 1) {
            _ if self.byte(self.at) != b'0' => None,
            b'x' | b'X' => Some(|b| b.is_ascii_hexdigit()),
            b'o' | b'O' => Some(|b| matches!(b, b'0'..=b'7')),
            b'b' | b'B' => Some(|b| matches!(b, b'0' | b'1')),
            _ => None,
        };
        if let Some(is_digit) = radix
            && (is_digit(self.byte(self.at + 2)) || self.byte(self.at + 2) == b'_')
        {
            return self.past(self.at + 2, |b| is_digit(b) || b == b'_');
        }
        let is_digit = |b: u8| b.is_ascii_digit() || b == b'_';
        let mut at = self.past(self.at, is_digit);
        // `1..2` is a range of PL/pgSQL.
        if self.byte(at) == b'.' && self.byte(at + 1) != b'.' {
            at += 1;
            if self.byte(at).is_ascii_digit() {
                at = self.past(at, is_digit);
            }
        }
        if matches!(self.byte(at), b'e' | b'E') {
            let sign = usize::from(matches!(self.byte(at + 1), b'+' | b'-'));
            if self.byte(at + 1 + sign).is_ascii_digit() {
                at = self.past(at + 1 + sign, is_digit);
            }
        }
        at
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    #[inline]
    fn next(&mut self) -> Option<Token> {
        if self.at >= self.text.len() {
            return None;
        }
        let (kind, end) = self.token();
        let range = self.at..end;
        self.at = end;
        Some(Token { kind, range })
    }
}

#[inline]
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0)
}

#[inline]
fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

#[inline]
fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

#[inline]
fn continues_word(byte: u8) -> bool {
    begins_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Vec<(Kind, &str)> {
        let all = tokens(text.as_bytes()).significant();
        all.map(|token| (token.kind, &text[token.range])).collect()
    }

    #[test]
    fn a_statement_is_taken_apart() {
        use Kind::{Close, Number, Open, Other, Parameter, Semicolon, Word};
        assert_eq!(
            shown("select f($1,\n2) -- all;\n+1.5e-3;"),
            [
                (Word, "select"),
                (Word, "f"),
                (Open, "("),
                (Parameter, "$1"),
                (Other, ","),
                (Number, "2"),
                (Close, ")"),
                (Other, "+"),
                (Number, "1.5e-3"),
                (Semicolon, ";"),
            ]
        );
    }

    #[test]
    fn strings_and_names_end_where_they_do_in_postgresql() {
        use Kind::{
            DollarString, EscapeString, QuotedName, String, UnicodeName, UnicodeString, Word,
        };
        for (text, kind) in [
            ("'a;''b'", String),
            (r"'\'", String),
            ("'a'\n 'b'", String),
            ("'a' -- and\n'b'", String),
            (r"E'\';'", EscapeString),
            ("e'a'\n'\\';'", EscapeString),
            ("U&'\\0041'", UnicodeString),
            ("B'01'", String),
            ("n';'", String),
            ("\"a\"\";\"", QuotedName),
            ("u&\"d\\0061t\"", UnicodeName),
            ("$$;'$$", DollarString),
            ("$a$ $b$ $$ $aa$ ;$a$", DollarString),
            ("$é$;$é$", DollarString),
            ("a$b$c", Word),
            ("déjà_vu", Word),
        ] {
            assert_eq!(shown(text), [(kind, text)]);
        }
        assert_eq!(shown("'a' 'b'").len(), 2, "on one line they are two");
        assert_eq!(shown("\"a\"\n\"b\"").len(), 2);
        assert_eq!(shown("xe'a'")[0], (Word, "xe"));
        assert_eq!(shown("$1$a$;$a$")[1], (DollarString, "$a$;$a$"));
        assert_eq!(shown("$a;")[0], (Kind::Other, "$"));
    }

    #[test]
    fn comments_nest_and_begin_in_operators() {
        assert_eq!(shown("/* /* ; */ ' */"), []);
        assert_eq!(shown("/*/ ; **/"), []);
        assert_eq!(shown("+--;\n"), [(Kind::Other, "+")]);
        assert_eq!(shown("+/*;*/-").len(), 2);
    }

    #[test]
    fn what_has_no_end_is_the_rest_of_the_text() {
        for text in [
            "'a;",
            "E'\\'",
            "\"a;\"\"",
            "$a$;$b$",
            "/* /* */;",
            "'a'\n'b",
        ] {
            assert_eq!(shown(text), [(Kind::Unterminated, text)]);
        }
    }

    #[test]
    fn without_conforming_strings_a_backslash_escapes() {
        let text = br"'\';'";
        let all: Vec<_> = tokens(text).with_backslashes().collect();
        assert_eq!((all.len(), all[0].kind), (1, Kind::String));
    }

    #[test]
    fn numbers_do_not_eat_what_follows() {
        for (text, first) in [
            ("1$a$;$a$", "1"),
            ("0x1F;", "0x1F"),
            ("0b'1'", "0"),
            ("1_000a", "1_000"),
            ("1..2", "1"),
            ("1.e", "1."),
            (".5;", ".5"),
        ] {
            assert_eq!(shown(text)[0], (Kind::Number, first), "{text}");
        }
    }

    /// Texts in which quotes, dollars, comments and lines are likely.
    fn any_text() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            4 => proptest::sample::select(b"'\"$\\/*-\n;()&aEuUxn1.e_ \0".to_vec()),
            1 => any::<u8>(),
        ];
        proptest::collection::vec(byte, 0..60)
    }

    proptest! {
        /// Tokens are never empty, follow one another and reach the end.
        #[test]
        fn tokens_cover_any_text(text in any_text(), off in any::<bool>()) {
            let all = tokens(&text);
            let all = if off { all.with_backslashes() } else { all };
            let mut at = 0;
            for token in all {
                prop_assert_eq!(token.range.start, at);
                prop_assert!(token.range.end > at && token.range.end <= text.len());
                at = token.range.end;
            }
            prop_assert_eq!(at, text.len());
        }

        /// What is quoted in any way is one token, whatever it says.
        #[test]
        fn what_is_quoted_is_one_token(text in any_text()) {
            let doubled = |quote: u8, escape: bool| {
                let mut out = vec![quote];
                for byte in &text {
                    if *byte == quote || escape && *byte == b'\\' { out.push(*byte); }
                    out.push(*byte);
                }
                out.push(quote);
                out
            };
            let escaped = [b"E".to_vec(), doubled(b'\'', true)].concat();
            for quoted in [doubled(b'\'', false), doubled(b'"', false), escaped] {
                let kinds: Vec<_> = tokens(&quoted).map(|token| token.kind).collect();
                prop_assert_eq!(kinds.len(), 1);
                prop_assert_ne!(kinds[0], Kind::Unterminated);
            }
        }
    }
}
