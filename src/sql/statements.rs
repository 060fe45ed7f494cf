//! A text taken apart into its statements.

use super::{Kind, Token, Tokens, tokens};
use std::ops::Range;

/// The statements of a text: what stands between its top-level semicolons, without spaces and
/// comments around, and without what is empty.
///
/// A semicolon is no end within parentheses (`CREATE RULE … DO (…; …)`) and in the SQL body of a
/// function (`BEGIN ATOMIC …; … END`). For a text that PostgreSQL refuses as a whole (a syntax
/// error) the answer means nothing.
#[must_use]
pub fn statements(text: &[u8]) -> Statements<'_> {
    Statements {
        text,
        tokens: tokens(text),
    }
}

/// See [`statements`].
#[derive(Debug, Clone)]
pub struct Statements<'t> {
    text: &'t [u8],
    tokens: Tokens<'t>,
}

/// How deep in something whose semicolons are its own.
#[derive(Default)]
struct Depth {
    parentheses: usize,
    /// `BEGIN ATOMIC`, and every CASE in it.
    blocks: usize,
    /// It begins with CREATE: only then there are blocks.
    is_create: bool,
    was_begin: bool,
}

impl Depth {
    fn take(&mut self, token: &Token, text: &[u8]) {
        match token.kind {
            Kind::Open => self.parentheses += 1,
            Kind::Close => self.parentheses = self.parentheses.saturating_sub(1),
            _ => {}
        }
        let was_begin = self.was_begin;
        self.was_begin = false;
        if !self.is_create || token.kind != Kind::Word {
            return;
        }
        let is = |word: &[u8]| token.is_word(text, word);
        if self.blocks == 0 {
            self.blocks = usize::from(was_begin && is(b"atomic"));
            self.was_begin = is(b"begin");
        } else if is(b"case") {
            self.blocks += 1;
        } else if is(b"end") {
            self.blocks -= 1;
        }
    }
}

impl Iterator for Statements<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let mut found: Option<Range<usize>> = None;
        let mut depth = Depth::default();
        for token in self.tokens.by_ref() {
            if token.kind == Kind::Semicolon && depth.parentheses == 0 && depth.blocks == 0 {
                if found.is_some() {
                    return found;
                }
            } else if token.kind.is_significant() {
                depth.take(&token, self.text);
                let begin = found.map_or(token.range.start, |range| range.start);
                if begin == token.range.start {
                    depth.is_create = token.is_word(self.text, b"create");
                }
                found = Some(begin..token.range.end);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &str) -> Vec<&str> {
        let ranges = statements(text.as_bytes());
        ranges.map(|range| &text[range]).collect()
    }

    #[test]
    fn statements_end_at_semicolons_outside_of_everything() {
        assert_eq!(
            all(" begin; select ';' /*;*/ ;; -- x\n commit \0"),
            ["begin", "select ';'", "commit"]
        );
        assert_eq!(all(" -- nothing\n;"), [""; 0]);
        let rule = "create rule r as on insert to t do (select 1; select 2)";
        assert_eq!(all(&format!("{rule}; select 3")), [rule, "select 3"]);
    }

    #[test]
    fn the_body_of_a_function_is_a_part_of_it() {
        let body = "create or replace function f() returns int begin atomic \
            select case when true then 1 end; select 2; end";
        assert_eq!(all(&format!("{body}; begin; end")), [body, "begin", "end"]);
        assert_eq!(all("begin; select 1; end").len(), 3);
    }

    proptest! {
        #[test]
        fn statements_of_any_text_follow_one_another(text in "[';()$/*a-z -]{0,60}") {
            let mut at = 0;
            for range in statements(text.as_bytes()) {
                prop_assert!(range.start >= at && range.end > range.start);
                prop_assert!(range.end <= text.len());
                at = range.end;
            }
        }
    }
}
