//! What a text does with prepared statements by their names.

use super::{Token, statements, tokens, unquoted};
use aho_corasick::AhoCorasick;
use std::{borrow::Cow, sync::LazyLock};

/// One command that speaks of prepared statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use<'t> {
    /// `DEALLOCATE name`.
    Deallocate(Cow<'t, [u8]>),
    /// `DEALLOCATE ALL`, `DISCARD ALL`.
    DeallocateAll,
    /// `EXECUTE name`, also in EXPLAIN and CREATE TABLE AS.
    Execute(Cow<'t, [u8]>),
    /// `PREPARE name`.
    Prepare(Cow<'t, [u8]>),
    /// A question for all names: `pg_prepared_statements`.
    Look,
}

impl Use<'_> {
    /// Whether it changes which names there are.
    pub fn changes_names(&self) -> bool {
        !matches!(self, Self::Execute(_) | Self::Look)
    }

    /// The same without the text that it was found in.
    pub fn into_owned(self) -> Use<'static> {
        let owned = |name: Cow<'_, [u8]>| Cow::Owned(name.into_owned());
        match self {
            Self::Deallocate(name) => Use::Deallocate(owned(name)),
            Self::DeallocateAll => Use::DeallocateAll,
            Self::Execute(name) => Use::Execute(owned(name)),
            Self::Prepare(name) => Use::Prepare(owned(name)),
            Self::Look => Use::Look,
        }
    }

    /// The name, if it is about one.
    pub fn name(&self) -> Option<&[u8]> {
        match self {
            Self::Deallocate(name) | Self::Execute(name) | Self::Prepare(name) => Some(name),
            Self::DeallocateAll | Self::Look => None,
        }
    }
}

static FINDER: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .build(["deallocate", "discard", "execute", "prepare"])
        .expect("the words are constants that a test has built")
});

/// The view and its function, as both begin.
static LOOK: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .build(["pg_prepared_statement"])
        .expect("the word is a constant that a test has built")
});

/// Whether [`uses`] may find anything: a quick look that says no to nearly every text.
#[inline]
pub fn may_use_statements(text: &[u8]) -> bool {
    FINDER.is_match(text)
}

/// What the commands of a text do with prepared statements, in their order. What a DO block may
/// execute is guessed: every word behind an `execute`. Allocates for names that are not written as
/// they are.
pub fn uses(text: &[u8]) -> impl Iterator<Item = Use<'_>> {
    statements(text).flat_map(|range| {
        let text = text.get(range).unwrap_or_default();
        let looks = LOOK.is_match(text).then_some(Use::Look);
        looks.into_iter().chain(one(text)).chain(in_block(text))
    })
}

/// What a DO block may execute.
fn in_block(text: &[u8]) -> impl Iterator<Item = Use<'_>> {
    let first = tokens(text).find(|token| token.kind.is_significant());
    let is_block = first.is_some_and(|first| first.is_word(text, b"do"));
    let block = if is_block { text } else { b"" };
    let is_part = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80;
    let words = block.split(move |b| !is_part(b));
    let mut was_execute = false;
    words
        .filter(|word| !word.is_empty())
        .filter_map(move |word| {
            let is_run = std::mem::replace(&mut was_execute, word.eq_ignore_ascii_case(b"execute"));
            is_run.then(|| Use::Execute(Cow::Owned(word.to_ascii_lowercase())))
        })
}

fn one(text: &[u8]) -> Option<Use<'_>> {
    let mut all = tokens(text).significant();
    let first = all.next()?;
    let is_first = |word: &[u8]| first.is_word(text, word);
    if is_first(b"deallocate") {
        deallocated(text, (all.next()?, all.next()))
    } else if is_first(b"discard") {
        let is_all = all.next()?.is_word(text, b"all");
        is_all.then_some(Use::DeallocateAll)
    } else if is_first(b"execute") {
        Some(Use::Execute(unquoted(&all.next()?, text)?))
    } else if is_first(b"prepare") {
        let name = all.next()?;
        let is_transaction = name.is_word(text, b"transaction")
            && all.next().is_some_and(|next| next.kind.is_string());
        let name = unquoted(&name, text)?;
        (!is_transaction).then_some(Use::Prepare(name))
    } else if is_first(b"explain") {
        executed_after(text, all, |_| true)
    } else if is_first(b"create") {
        executed_after(text, all, |before| before.is_word(text, b"as"))
    } else {
        None
    }
}

fn deallocated(text: &[u8], (name, next): (Token, Option<Token>)) -> Option<Use<'_>> {
    // PREPARE may stand there, and may be a name itself.
    let name = match next {
        Some(next) if name.is_word(text, b"prepare") => next,
        _ => name,
    };
    if name.is_word(text, b"all") {
        return Some(Use::DeallocateAll);
    }
    Some(Use::Deallocate(unquoted(&name, text)?))
}

/// The statement of the first EXECUTE behind a token that may stand there.
fn executed_after(
    text: &[u8],
    all: impl Iterator<Item = Token>,
    may_precede: impl Fn(&Token) -> bool,
) -> Option<Use<'_>> {
    let mut before: Option<Token> = None;
    let mut all = all.peekable();
    while let Some(token) = all.next() {
        let follows = before.as_ref().is_none_or(&may_precede);
        if token.is_word(text, b"execute") && follows && all.peek()?.is_name() {
            return Some(Use::Execute(unquoted(&all.next()?, text)?));
        }
        before = Some(token);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Vec<String> {
        let all: Vec<_> = uses(text.as_bytes()).collect();
        assert!(all.is_empty() || may_use_statements(text.as_bytes()));
        all.iter()
            .map(|one| {
                let name = String::from_utf8_lossy(one.name().unwrap_or_default());
                match one {
                    Use::Deallocate(_) => format!("-{name}"),
                    Use::DeallocateAll => "-*".to_owned(),
                    Use::Execute(_) => format!("!{name}"),
                    Use::Prepare(_) => format!("+{name}"),
                    Use::Look => "?".to_owned(),
                }
            })
            .collect()
    }

    #[test]
    fn commands_are_found_with_their_names() {
        for (text, expected) in [
            ("DEALLOCATE Abc\0", "-abc"),
            ("deallocate prepare \"S \"\"1\" ;\0", "-S \"1"),
            ("deallocate prepare", "-prepare"),
            ("begin; deallocate /* */ a; commit", "-a"),
            ("Deallocate all", "-*"),
            ("deallocate prepare ALL", "-*"),
            ("deallocate \"all\"", "-all"),
            ("discard all", "-*"),
            ("select 1; execute a(1, 'x;') ; execute B", "!a !b"),
            ("explain (analyze, verbose) execute a", "!a"),
            ("explain analyze execute execute", "!execute"),
            (
                "create temp table t (a, b) as execute a(1) with no data",
                "!a",
            ),
            ("explain create table t as execute a", "!a"),
            ("deallocate a; prepare a (int) as select 1", "-a +a"),
            ("execute a; select name from PG_prepared_statements", "!a ?"),
            ("prepare transaction as select 1", "+transaction"),
            (
                "do $$ begin execute 'execute N (1)'; end $$; execute b",
                "!execute !n !b",
            ),
        ] {
            assert_eq!(shown(text).join(" "), expected, "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_nothing() {
        for text in [
            "select 'deallocate a'",
            "select 1 -- ; deallocate a",
            "discard plans",
            "prepare transaction 'x'",
            "create trigger t before insert on t for each row execute function f()",
            "grant execute on function f to r",
            "deallocate",
            "deallocate u&\"a\"",
            "deallocate 'a'",
            "do $$ begin perform 1; end $$",
            "",
        ] {
            assert!(shown(text).is_empty(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_looked_through(words in proptest::collection::vec(proptest::sample::select(vec![
            "deallocate", "all", "prepare", "execute", "explain", "create", "as", "a", ";", "(", ")", "'x'", "\"", "$$",
        ]), 0..12)) {
            let text = words.join(" ");
            for one in uses(text.as_bytes()) {
                prop_assert!(one.name().is_none_or(|name| !name.is_empty()));
            }
        }
    }
}
