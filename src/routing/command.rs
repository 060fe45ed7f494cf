//! What the first word of a text tells, so that most of what isn't a read needs no parser.

use super::{Mode, Reason, Target, Transaction, Verdict};
use crate::sql::{self, Kind, Token, Tokens};

/// Longest text that is looked at, in bytes; a longer one goes to the primary.
pub const TEXT_BYTES_MAX: usize = 32 * 1024;

/// What the first word says, or `None` where PostgreSQL's grammar must be asked.
pub(super) fn command(text: &[u8]) -> Option<Verdict> {
    // Of a long text only the beginning is searched.
    let head = text.get(..TEXT_BYTES_MAX).unwrap_or(text);
    let too_long = Verdict::primary(Reason::TooLong, Transaction::Unknown);
    let mut tokens = sql::tokens(head);
    let first = tokens.find(|token| {
        let is_nothing = matches!(token.kind, Kind::Open | Kind::Semicolon);
        token.kind.is_significant() && !is_nothing
    });
    let Some(first) = first else {
        let is_whole = head.len() == text.len();
        let empty = Verdict::primary(Reason::Empty, Transaction::None);
        return Some(if is_whole { empty } else { too_long });
    };
    if first.range.end == head.len() && head.len() < text.len() {
        return Some(too_long);
    }
    if first.kind != Kind::Word {
        return Some(Verdict::primary(Reason::Syntax, Transaction::None));
    }
    let mut folded = [0_u8; WORD_BYTES_MAX];
    let word = folded_word(first.of(text), &mut folded);
    let reason = match word {
        b"select" | b"with" | b"values" | b"table" | b"explain" => {
            let is_long = text.len() > TEXT_BYTES_MAX;
            return is_long.then_some(too_long);
        }
        b"begin" | b"start" | b"commit" | b"end" | b"rollback" | b"abort" | b"savepoint"
        | b"release" => {
            return Some(of_transaction(word, tokens, text));
        }
        b"set" => return Some(of_set(tokens, text)),
        b"prepare" => return Some(of_prepare(tokens, text)),
        _ => reason_of(word),
    };
    Some(Verdict::primary(reason, rest_of(text)))
}

const WORD_BYTES_MAX: usize = 16;

/// The word in lower case; empty for a longer one than any command.
fn folded_word<'f>(word: &[u8], folded: &'f mut [u8; WORD_BYTES_MAX]) -> &'f [u8] {
    match folded.get_mut(..word.len()) {
        Some(part) => {
            part.copy_from_slice(word);
            part.make_ascii_lowercase();
            part
        }
        None => &[],
    }
}

fn reason_of(word: &[u8]) -> Reason {
    match word {
        b"insert" | b"update" | b"delete" | b"merge" | b"truncate" => Reason::Write,
        b"reset" | b"show" | b"discard" => Reason::Session,
        b"declare" | b"fetch" | b"move" | b"close" => Reason::Cursor,
        b"execute" | b"deallocate" => Reason::Prepared,
        b"copy" => Reason::Copy,
        b"do" | b"call" => Reason::Code,
        b"listen" | b"unlisten" | b"notify" => Reason::Channel,
        b"lock" => Reason::Lock,
        b"alter" | b"analyse" | b"analyze" | b"checkpoint" | b"cluster" | b"comment"
        | b"create" | b"drop" | b"grant" | b"import" | b"load" | b"reassign" | b"refresh"
        | b"reindex" | b"revoke" | b"security" | b"vacuum" => Reason::Definition,
        _ => Reason::Syntax,
    }
}

/// What may stand behind the first statement: nothing, or nobody looks.
fn rest_of(text: &[u8]) -> Transaction {
    if text.len() > TEXT_BYTES_MAX {
        return Transaction::Unknown;
    }
    let ends = |b: &u8| matches!(b, b';' | 0) || b.is_ascii_whitespace();
    let behind = memchr::memchr(b';', text).and_then(|at| text.get(at..));
    if behind.is_none_or(|behind| behind.iter().all(ends)) {
        Transaction::None
    } else {
        Transaction::Unknown
    }
}

fn has_several(text: &[u8]) -> bool {
    sql::statements(text).nth(1).is_some()
}

/// The words of a short statement, folded by comparison only.
struct Words<'t, I: Iterator<Item = Token>> {
    text: &'t [u8],
    tokens: std::iter::Peekable<I>,
}

impl<I: Iterator<Item = Token>> Words<'_, I> {
    fn next(&mut self) -> Option<Token> {
        self.tokens.next_if(|token| token.kind != Kind::Semicolon)
    }

    /// Takes the next one if it is this word.
    fn takes(&mut self, word: &[u8]) -> bool {
        let text = self.text;
        let next = self.tokens.next_if(|token| token.is_word(text, word));
        next.is_some()
    }

    fn takes_all(&mut self, words: &[&[u8]]) -> bool {
        words.iter().all(|word| self.takes(word))
    }
}

fn words<'t>(
    tokens: Tokens<'t>,
    text: &'t [u8],
) -> Words<'t, impl Iterator<Item = Token> + use<'t>> {
    Words {
        text,
        tokens: tokens.significant().peekable(),
    }
}

fn of_transaction(first: &[u8], tokens: Tokens<'_>, text: &[u8]) -> Verdict {
    if text.len() > TEXT_BYTES_MAX {
        return Verdict::primary(Reason::TooLong, Transaction::Unknown);
    }
    if has_several(text) {
        return Verdict::primary(Reason::Several, Transaction::Unknown);
    }
    let mut words = words(tokens, text);
    let transaction = match first {
        b"begin" | b"start" => {
            let _is_said = words.takes(b"work") || words.takes(b"transaction");
            Transaction::Begin(mode(&mut words))
        }
        b"savepoint" | b"release" => Transaction::Savepoint,
        _ => {
            let _is_said = words.takes(b"work") || words.takes(b"transaction");
            if words.takes(b"to") {
                Transaction::Savepoint
            } else if words.takes(b"prepared") {
                // COMMIT PREPARED, ROLLBACK PREPARED: not in a transaction, and on the primary.
                Transaction::None
            } else {
                let chain = words.takes_all(&[b"and", b"chain"]);
                Transaction::End { chain }
            }
        }
    };
    with_target(transaction)
}

/// A transaction that says it only reads may be a replica's, unless it wants what none has.
fn with_target(transaction: Transaction) -> Verdict {
    let (Transaction::Begin(mode) | Transaction::Set(mode)) = transaction else {
        return Verdict::primary(Reason::Transaction, transaction);
    };
    let is_read = mode.read_only == Some(true) && mode.serializable != Some(true);
    Verdict {
        target: if is_read {
            Target::Replica
        } else {
            Target::Primary
        },
        transaction,
        reason: Reason::Transaction,
    }
}

fn mode<I: Iterator<Item = Token>>(words: &mut Words<'_, I>) -> Mode {
    let mut mode = Mode::default();
    loop {
        if words.takes(b"read") {
            if words.takes(b"only") {
                mode.read_only = Some(true);
            } else if words.takes(b"write") {
                mode.read_only = Some(false);
            }
        } else if words.takes_all(&[b"isolation", b"level"]) {
            mode.serializable = Some(words.takes(b"serializable"));
        } else if words.next().is_none() {
            return mode;
        }
    }
}

fn of_prepare(tokens: Tokens<'_>, text: &[u8]) -> Verdict {
    let mut words = words(tokens, text);
    let is_transaction =
        words.takes(b"transaction") && words.next().is_some_and(|name| name.kind.is_string());
    if !is_transaction {
        return Verdict::primary(Reason::Prepared, rest_of(text));
    }
    let transaction = match rest_of(text) {
        Transaction::None => Transaction::End { chain: false },
        unknown => unknown,
    };
    Verdict::primary(Reason::Transaction, transaction)
}

fn of_set(tokens: Tokens<'_>, text: &[u8]) -> Verdict {
    if rest_of(text) != Transaction::None && (text.len() > TEXT_BYTES_MAX || has_several(text)) {
        return Verdict::primary(Reason::Session, Transaction::Unknown);
    }
    let mut words = words(tokens, text);
    let is_local = words.takes(b"local");
    let is_session = !is_local && words.takes(b"session");
    if is_session && words.takes_all(&[b"characteristics", b"as", b"transaction"]) {
        let transaction = Transaction::SetDefault(mode(&mut words));
        return Verdict::primary(Reason::Session, transaction);
    }
    if words.takes(b"transaction") {
        return with_target(Transaction::Set(mode(&mut words)));
    }
    let Some(name) = words.next().and_then(|name| sql::unquoted(&name, text)) else {
        return Verdict::primary(Reason::Session, Transaction::None);
    };
    // Settings are found in any case, also within quotes.
    let name = name.to_ascii_lowercase();
    let _is_sign = words.takes(b"to") || words.next().is_some();
    let value = words.next();
    let value = value.as_ref().map(|value| value.of(text));
    let of = |read_only, serializable| Mode {
        read_only,
        serializable,
    };
    match name.as_slice() {
        b"transaction_read_only" => with_target(Transaction::Set(of(value.and_then(truth), None))),
        b"transaction_isolation" => {
            with_target(Transaction::Set(of(None, value.map(is_serializable))))
        }
        b"default_transaction_read_only" => {
            let mode = of(value.and_then(truth), None);
            Verdict::primary(Reason::Session, Transaction::SetDefault(mode))
        }
        b"default_transaction_isolation" => {
            let mode = of(None, value.map(is_serializable));
            Verdict::primary(Reason::Session, Transaction::SetDefault(mode))
        }
        _ => Verdict::primary(Reason::Session, Transaction::None),
    }
}

fn unquoted_value(value: &[u8]) -> Vec<u8> {
    let inside = value.strip_prefix(b"'").and_then(|v| v.strip_suffix(b"'"));
    inside.unwrap_or(value).to_ascii_lowercase()
}

/// A boolean setting as PostgreSQL reads it: `None` for DEFAULT and for what it refuses.
fn truth(value: &[u8]) -> Option<bool> {
    let value = unquoted_value(value);
    let is = |word: &str, least: usize| {
        value.len() >= least && word.as_bytes().starts_with(&value) && !value.is_empty()
    };
    if is("true", 1) || is("yes", 1) || is("on", 2) || value == b"1" {
        Some(true)
    } else if is("false", 1) || is("no", 1) || is("off", 2) || value == b"0" {
        Some(false)
    } else {
        None
    }
}

fn is_serializable(value: &[u8]) -> bool {
    unquoted_value(value) == b"serializable"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> (Target, Transaction) {
        let verdict = command(text.as_bytes()).unwrap();
        (verdict.target, verdict.transaction)
    }

    const READ_ONLY: Mode = Mode {
        read_only: Some(true),
        serializable: None,
    };

    #[test]
    fn a_transaction_that_only_reads_may_be_a_replicas() {
        let begin = Transaction::Begin(READ_ONLY);
        for text in [
            "BEGIN READ ONLY",
            " /* x */ begin transaction read only;",
            "start transaction read write, read only",
            "BEGIN WORK READ\nONLY -- ; commit\n",
            "begin read only not deferrable",
        ] {
            assert_eq!(of(text), (Target::Replica, begin), "{text}");
        }
        let isolation = Mode {
            serializable: Some(false),
            ..READ_ONLY
        };
        assert_eq!(
            of("begin isolation level repeatable read, read only"),
            (Target::Replica, Transaction::Begin(isolation))
        );
        for text in [
            "SET TRANSACTION READ ONLY",
            "set local transaction_read_only to on",
            "set transaction_read_only = 'yes'",
            "set \"transaction_READ_only\" = 1",
        ] {
            assert_eq!(
                of(text),
                (Target::Replica, Transaction::Set(READ_ONLY)),
                "{text}"
            );
        }
    }

    #[test]
    fn any_other_transaction_is_the_primarys() {
        for text in [
            "begin",
            "BEGIN READ ONLY, READ WRITE",
            "start transaction isolation level serializable read only deferrable",
            "set transaction read write",
            "set transaction_read_only = default",
            "set transaction snapshot '00000003-1'",
        ] {
            assert_eq!(of(text).0, Target::Primary, "{text}");
        }
    }

    #[test]
    fn what_a_command_does_to_the_transaction_is_told() {
        use Transaction::{End, None, Savepoint, SetDefault, Unknown};
        let writes = Mode {
            read_only: Some(false),
            serializable: Option::None,
        };
        let serializable = Mode {
            read_only: Option::None,
            serializable: Some(true),
        };
        for (text, transaction) in [
            ("commit", End { chain: false }),
            ("END WORK AND CHAIN;", End { chain: true }),
            ("rollback and no chain", End { chain: false }),
            ("abort transaction", End { chain: false }),
            ("rollback transaction to savepoint a", Savepoint),
            ("rollback to a", Savepoint),
            ("release a", Savepoint),
            ("savepoint a", Savepoint),
            ("prepare transaction 'a'", End { chain: false }),
            ("prepare transaction as select 1", None),
            ("commit prepared 'a'", None),
            (
                "set session characteristics as transaction read only",
                SetDefault(READ_ONLY),
            ),
            (
                "set session default_transaction_read_only = off",
                SetDefault(writes),
            ),
            (
                "set default_transaction_isolation to 'Serializable'",
                SetDefault(serializable),
            ),
            ("set work_mem = '1MB'", None),
            ("set time zone 'UTC'", None),
            ("insert into t values (1)", None),
            ("insert into t values (1); ", None),
            ("insert into t values (1); commit", Unknown),
            ("begin; select 1", Unknown),
            ("set a.b = 1; begin read only", Unknown),
        ] {
            assert_eq!(of(text).1, transaction, "{text}");
        }
    }

    #[test]
    fn truth_is_read_as_postgresql_does() {
        for (value, expected) in [
            ("on", Some(true)),
            ("TRUE", Some(true)),
            ("'t'", Some(true)),
            ("1", Some(true)),
            ("o", None),
            ("of", Some(false)),
            ("0", Some(false)),
            ("n", Some(false)),
            ("default", None),
            ("''", None),
        ] {
            assert_eq!(truth(value.as_bytes()), expected, "{value}");
        }
    }
}
