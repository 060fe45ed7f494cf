//! What is decided of a statement.

/// The server that may run it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// Only the primary.
    Primary,
    /// A hot standby as well, as far as the statement goes.
    Replica,
}

/// What a transaction is asked to be; `None` where the statement doesn't say, so that the default
/// of the session holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mode {
    /// `READ ONLY` or `READ WRITE`; the last one counts.
    pub read_only: Option<bool>,
    /// Whether its isolation is `SERIALIZABLE`, which no standby has (0A000).
    pub serializable: Option<bool>,
}

/// What a statement does to the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transaction {
    /// Nothing.
    None,
    /// `BEGIN`, `START TRANSACTION`.
    Begin(Mode),
    /// `COMMIT`, `ROLLBACK`, `PREPARE TRANSACTION`; with `AND CHAIN` the next one begins as this was.
    End {
        /// Whether it has `AND CHAIN`.
        chain: bool,
    },
    /// `SAVEPOINT`, `RELEASE`, `ROLLBACK TO`: it goes where the transaction is.
    Savepoint,
    /// `SET TRANSACTION …`, or one of its settings by name.
    Set(Mode),
    /// `SET SESSION CHARACTERISTICS AS TRANSACTION …`, or one of `default_transaction_…` by name:
    /// for the transactions that follow.
    SetDefault(Mode),
    /// Several statements, or more text than is looked at: what ReadyForQuery says, holds.
    Unknown,
}

/// Why it goes where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// It reads, and calls nothing that matters where it runs. The only one that means a replica,
    /// but for a transaction that says it only reads.
    Read = 1,
    /// INSERT, UPDATE, DELETE, MERGE, also within WITH or EXPLAIN.
    Write,
    /// Definitions, privileges, maintenance: all commands that are no other.
    Definition,
    /// `FOR UPDATE`, `FOR NO KEY UPDATE`, `FOR SHARE`, `FOR KEY SHARE`.
    Locking,
    /// `SELECT … INTO`.
    Into,
    /// It begins, ends or sets up a transaction.
    Transaction,
    /// SET, RESET, SHOW, DISCARD: state of the session or the server.
    Session,
    /// DECLARE, FETCH, MOVE, CLOSE, `WHERE CURRENT OF`.
    Cursor,
    /// PREPARE, EXECUTE, DEALLOCATE.
    Prepared,
    /// COPY, in either direction.
    Copy,
    /// DO, CALL: code that may do anything.
    Code,
    /// LISTEN, UNLISTEN, NOTIFY.
    Channel,
    /// LOCK.
    Lock,
    /// Several statements that don't all only read.
    Several,
    /// It names a temporary schema.
    Temporary,
    /// It calls a function that writes, keeps state or tells of the server.
    Volatile,
    /// It calls a function of the tenant's that nobody vouches for.
    Untrusted,
    /// It calls a function that the catalogue doesn't have.
    UnknownFunction,
    /// It uses an operator that is unknown, or has such a function behind it.
    Operator,
    /// It casts to a domain with such a check, or by such a function; or the database has an implicit
    /// cast by one.
    Type,
    /// It reads what a standby doesn't have, or a view or policy that calls such a function.
    Relation,
    /// A part of the grammar that is not known to be harmless.
    Construct,
    /// Longer, or with more names, than is looked at.
    TooLong,
    /// PostgreSQL's parser refuses it.
    Syntax,
    /// It means something else with `standard_conforming_strings = off`.
    Backslash,
    /// It isn't UTF-8, or the client's encoding isn't.
    Encoding,
    /// There is no statement in it.
    Empty,
    /// The database's catalogue wasn't read yet, or is too large.
    NoCatalogue,
}

impl Reason {
    /// Every one.
    pub const ALL: [Self; 28] = [
        Self::Read,
        Self::Write,
        Self::Definition,
        Self::Locking,
        Self::Into,
        Self::Transaction,
        Self::Session,
        Self::Cursor,
        Self::Prepared,
        Self::Copy,
        Self::Code,
        Self::Channel,
        Self::Lock,
        Self::Several,
        Self::Temporary,
        Self::Volatile,
        Self::Untrusted,
        Self::UnknownFunction,
        Self::Operator,
        Self::Type,
        Self::Relation,
        Self::Construct,
        Self::TooLong,
        Self::Syntax,
        Self::Backslash,
        Self::Encoding,
        Self::Empty,
        Self::NoCatalogue,
    ];

    /// As metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Definition => "definition",
            Self::Locking => "locking",
            Self::Into => "into",
            Self::Transaction => "transaction",
            Self::Session => "session",
            Self::Cursor => "cursor",
            Self::Prepared => "prepared",
            Self::Copy => "copy",
            Self::Code => "code",
            Self::Channel => "channel",
            Self::Lock => "lock",
            Self::Several => "several",
            Self::Temporary => "temporary",
            Self::Volatile => "volatile",
            Self::Untrusted => "untrusted",
            Self::UnknownFunction => "unknown_function",
            Self::Operator => "operator",
            Self::Type => "type",
            Self::Relation => "relation",
            Self::Construct => "construct",
            Self::TooLong => "too_long",
            Self::Syntax => "syntax",
            Self::Backslash => "backslash",
            Self::Encoding => "encoding",
            Self::Empty => "empty",
            Self::NoCatalogue => "no_catalogue",
        }
    }

    /// The one with this number.
    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|one| *one as u8 == number)
    }
}

/// What is decided of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// Where it may run outside of a transaction, or as the first of one. Within a transaction
    /// everything goes where the transaction is.
    pub target: Target,
    /// What it does to the transaction.
    pub transaction: Transaction,
    /// Why.
    pub reason: Reason,
}

impl Verdict {
    /// For the primary; also for a reason that only the caller knows: a text with letters beyond
    /// ASCII whose client's encoding isn't UTF-8 ([`Reason::Encoding`]).
    pub const fn primary(reason: Reason, transaction: Transaction) -> Self {
        Self {
            target: Target::Primary,
            transaction,
            reason,
        }
    }

    /// A read, or why it isn't one.
    pub(super) fn of(reason: Reason) -> Self {
        let target = if reason == Reason::Read {
            Target::Replica
        } else {
            Target::Primary
        };
        Self {
            target,
            transaction: Transaction::None,
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_numbers_and_names_of_their_own() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|one| one.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
        for one in Reason::ALL {
            assert_eq!(Reason::from_number(one as u8), Some(one));
        }
        assert_eq!(Reason::from_number(0), None);
    }
}
