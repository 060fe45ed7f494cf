//! What statements return, and what clients were told of it: both must stay the same.
//!
//! PostgreSQL refuses a prepared statement whose columns have changed (0A000): its client would
//! read rows as what they are not. A server that lacks a statement parses it anew and knows nothing
//! of before. So the columns that a client was told are remembered, and where they may have changed
//! since, the server is asked for them before the Bind goes there.

use super::{Relay, Rest, from_client::Step};
use crate::{
    upstream::{Expect, Reply, Statement, Told},
    wire::{Header, frontend, read, tag::backend as tag},
};
use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

/// What PostgreSQL says of a statement whose columns have changed. Drivers know it by its routine,
/// and prepare the statement again.
const CHANGED: &[u8] = b"SERROR\0VERROR\0C0A000\0Mcached plan must not change result type\0\
    Fplancache.c\0RRevalidateCachedQuery\0\0";

impl Relay<'_> {
    /// Before a Bind of a statement that the server lacks: what becomes of it, unless it may go on.
    pub(super) fn check_columns(&mut self, header: Header, name: &[u8]) -> Option<Step> {
        let statement = self.client.names.get(name).map(Arc::clone)?;
        if self.changed.take() == Some(statement.id()) {
            self.refuse_changed(header, &statement);
            return Some(Step::Done);
        }
        let may_differ = self.may_return_otherwise(&statement);
        may_differ.then(|| self.ask_for_columns(&statement))
    }

    /// Whether the client may have been told other columns than a server would return that parses
    /// the statement now.
    fn may_return_otherwise(&self, statement: &Statement) -> bool {
        let is_old = |told: &Told| told.shapes != self.pool.shapes();
        statement.told().is_some_and(is_old)
    }

    /// Parses a statement on the server and asks what it returns; the Bind waits for the answer.
    fn ask_for_columns(&mut self, statement: &Arc<Statement>) -> Step {
        self.make_on_server(statement, (Reply::Swallow, None));
        let out = self.client.to_server.insertion();
        frontend::describe_statement(out, statement.name());
        out.extend_from_slice(frontend::FLUSH);
        let check = Expect::Check(Arc::clone(statement));
        self.server.replies.push(check);
        self.lending.barrier = true;
        Step::MustWait
    }

    /// Fails a Bind of a statement whose columns have changed, as PostgreSQL would.
    fn refuse_changed(&mut self, header: Header, statement: &Statement) {
        self.close_on_server(statement);
        let mut error = Vec::with_capacity(CHANGED.len() + 5);
        frontend::message(&mut error, tag::ERROR, &[CHANGED]);
        self.fail_with(error);
        self.pass(header.message_bytes, Rest::Drop);
    }

    /// Whether the columns that the server describes now are to be looked at.
    pub(super) fn wants_columns(&self) -> bool {
        match self.server.replies.front() {
            Some(Expect::Check(_)) => true,
            Some(Expect::Describe(Some(name))) => {
                let untold = |statement: &Arc<Statement>| statement.told().is_none();
                self.client.names.get(name).is_some_and(untold)
                    && !self.server.replies.will_name(name)
            }
            _ => false,
        }
    }

    /// Remembers the columns that a client is told, or holds them against those that it was told.
    pub(super) fn note_columns(&mut self, columns: Option<u64>) {
        let Some(columns) = columns else {
            return;
        };
        match self.server.replies.front() {
            Some(Expect::Check(statement)) => {
                let is_changed = |told: &Told| told.columns != columns;
                if statement.told().is_some_and(is_changed) {
                    self.changed = Some(statement.id());
                }
            }
            Some(Expect::Describe(Some(name))) => {
                if let Some(statement) = self.client.names.get(name) {
                    let shapes = self.pool.shapes();
                    statement.tell(Told { shapes, columns });
                }
            }
            _ => {}
        }
    }
}

/// Names and types of the columns, hashed. Where they come from does not matter to PostgreSQL
/// either. `None` when the body is none.
pub(super) fn columns(body: &[u8]) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    let Some((count, mut rest)) = body.split_first_chunk::<2>() else {
        return Some(hasher.finish());
    };
    count.hash(&mut hasher);
    for _ in 0..u16::from_be_bytes(*count) {
        let (name, fields) = read::cstr(rest)?;
        // Behind the table's oid and the column's number: type, its length and modifier; format.
        (name, fields.get(6..16)?).hash(&mut hasher);
        rest = fields.get(18..)?;
    }
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(table: u8, name: &[u8], kind: u8) -> Vec<u8> {
        let fields = [0, 0, 0, table, 0, 1, 0, 0, 0, kind, 0, 4, 0, 0, 0, 0, 0, 0];
        [&[0, 1], name, b"\0", &fields].concat()
    }

    #[test]
    fn names_and_types_count_and_tables_do_not() {
        let one = columns(&body(1, b"x", 23));
        assert!(one.is_some());
        assert_eq!(columns(&body(2, b"x", 23)), one);
        assert_ne!(columns(&body(1, b"y", 23)), one);
        assert_ne!(columns(&body(1, b"x", 25)), one);
        assert_ne!(columns(b""), one);
        assert_eq!(columns(&body(1, b"x", 23)[..10]), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = columns(&bytes);
        }
    }
}
