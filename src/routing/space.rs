//! What a text does to the storage that its tenant takes, as far as the text alone tells.

use crate::sql::{self, Kind};
use pg_raw_parse::{Node, nodes, raw::AlterTableType as Alter};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a text does to the storage that its tenant takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    /// It reads. What functions that it calls do, it doesn't say.
    Reads,
    /// It runs by name what was prepared before.
    Runs,
    /// It frees some, or needs next to none: deletes, drops, transactions, settings, locks.
    Frees,
    /// It may take more: new rows, and new versions of rows, tables, indexes; code that may do anything.
    Takes,
}

impl Space {
    /// What both do, one behind the other.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Takes, _) | (_, Self::Takes) => Self::Takes,
            (Self::Runs, _) | (_, Self::Runs) => Self::Runs,
            (Self::Reads, Self::Reads) => Self::Reads,
            _ => Self::Frees,
        }
    }
}

/// What a text does to the storage of its tenant. It is the whole of a Query, or the query of a Parse; a NUL
/// may end it.
///
/// Takes time linear in the text, and PostgreSQL's own grammar where the first word of a statement doesn't
/// tell. What that grammar refuses, PostgreSQL will refuse.
pub fn space(text: &[u8]) -> Space {
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    let all = sql::statements(text).map(|range| of_statement(text.get(range).unwrap_or_default()));
    all.reduce(Space::and).unwrap_or(Space::Frees)
}

fn of_statement(text: &[u8]) -> Space {
    let first = sql::tokens(text).find(|token| {
        let is_nothing = token.kind == Kind::Open;
        token.kind.is_significant() && !is_nothing
    });
    let word = first.map(|first| first.of(text).to_ascii_lowercase());
    match word.as_deref().unwrap_or_default() {
        b"insert" | b"update" | b"merge" | b"create" | b"import" | b"refresh" | b"do" | b"call" => {
            Space::Takes
        }
        b"select" | b"with" | b"explain" | b"copy" | b"alter" => of_grammar(text),
        b"values" | b"table" | b"show" => Space::Reads,
        b"execute" => Space::Runs,
        _ => Space::Frees,
    }
}

fn of_grammar(text: &[u8]) -> Space {
    let Ok(text) = std::str::from_utf8(text) else {
        return Space::Frees;
    };
    // The parser is C behind a young crate: should its wrapper panic, the text is not understood.
    let read = catch_unwind(AssertUnwindSafe(|| {
        let parsed = pg_raw_parse::parse(text).ok()?;
        parsed.stmts().map(of_node).reduce(Space::and)
    }));
    read.ok().flatten().unwrap_or(Space::Reads)
}

fn of_node(node: Node<'_>) -> Space {
    match node {
        Node::SelectStmt(select) => of_select(select),
        Node::DeleteStmt(delete) => of_with(delete.with_clause()).unwrap_or(Space::Frees),
        Node::ExplainStmt(explain) => of_node(explain.query()),
        Node::CopyStmt(copy) if copy.is_from => Space::Takes,
        Node::CopyStmt(copy) => of_node(copy.query()),
        // COPY of a table, to the client.
        Node::None => Space::Reads,
        Node::ExecuteStmt(_) => Space::Runs,
        Node::AlterTableStmt(alter) if !alter.cmds().iter().all(is_small) => Space::Takes,
        Node::InsertStmt(_)
        | Node::UpdateStmt(_)
        | Node::MergeStmt(_)
        | Node::CreateTableAsStmt(_)
        | Node::RefreshMatViewStmt(_)
        | Node::DoStmt(_)
        | Node::CallStmt(_) => Space::Takes,
        _ => Space::Frees,
    }
}

fn of_select(select: &nodes::SelectStmt) -> Space {
    if select.into_clause().is_some() {
        return Space::Takes;
    }
    if let Some(space) = of_with(select.with_clause()) {
        return space;
    }
    // In a transaction that only reads nothing can be locked.
    if select.locking_clause().is_empty() {
        Space::Reads
    } else {
        Space::Frees
    }
}

/// What writes within a WITH; that stands nowhere but ahead of a whole statement.
fn of_with(with: Option<&nodes::WithClause>) -> Option<Space> {
    let queries = with?.ctes().iter().map(|one| of_node(one.ctequery()));
    queries
        .reduce(Space::and)
        .filter(|space| *space != Space::Reads)
}

/// Whether what `ALTER TABLE` does neither makes rows or files anew nor adds any.
fn is_small(node: Node<'_>) -> bool {
    let Node::AlterTableCmd(command) = node else {
        return false;
    };
    !matches!(
        command.subtype,
        Alter::AT_AddColumn
            | Alter::AT_AddIndex
            | Alter::AT_AddConstraint
            | Alter::AT_AddIndexConstraint
            | Alter::AT_AlterColumnType
            | Alter::AT_SetExpression
            | Alter::AT_SetLogged
            | Alter::AT_SetUnLogged
            | Alter::AT_SetAccessMethod
            | Alter::AT_SetTableSpace
            | Alter::AT_AddIdentity
            | Alter::AT_AttachPartition
    )
}

#[cfg(test)]
mod tests {
    use super::{Space::*, *};

    fn are<const N: usize>(texts: [(&str, Space); N]) {
        for (text, expected) in texts {
            assert_eq!(space(text.as_bytes()), expected, "{text}");
            let with_nul = [text.as_bytes(), b"\0"].concat();
            assert_eq!(space(&with_nul), expected, "{text} and NUL");
        }
    }

    #[test]
    fn what_reads_is_told_from_what_frees() {
        are([
            ("select 1", Reads),
            ("(select 1) union all (select 2)", Reads),
            ("with x as (select 1) select * from x", Reads),
            ("values (1)", Reads),
            ("table t", Reads),
            ("explain analyze select 1", Reads),
            ("copy t to stdout", Reads),
            ("copy (select 1) to stdout", Reads),
            ("select 1; select 2", Reads),
            ("select nonsense from where", Reads),
            ("execute p", Runs),
            ("explain execute p(1)", Runs),
            ("begin; execute p", Runs),
            ("", Frees),
            ("delete from t", Frees),
            ("with x as (select 1) delete from t using x", Frees),
            (
                "with x as (delete from t returning *) select * from x",
                Frees,
            ),
            ("explain analyze delete from t", Frees),
            ("copy (delete from t returning *) to stdout", Frees),
            ("select * from t for update", Frees),
            ("truncate t", Frees),
            ("drop table t", Frees),
            ("vacuum full t", Frees),
            ("reindex table t", Frees),
            ("begin", Frees),
            ("set search_path = x", Frees),
            ("prepare p as insert into t values (1)", Frees),
            ("alter table t drop column c, drop constraint d", Frees),
            ("alter table t rename to u", Frees),
            ("alter table p detach partition q", Frees),
            ("begin; select 1; commit", Frees),
        ]);
    }

    #[test]
    fn what_may_take_more_is_found_wherever_it_stands() {
        are([
            ("insert into t values (1)", Takes),
            ("/* x */ UPDATE t set a = 1", Takes),
            (
                "merge into t using u on true when matched then delete",
                Takes,
            ),
            (
                "with x as (insert into t values (1) returning *) select * from x",
                Takes,
            ),
            (
                "with x as (insert into t values (1) returning *) delete from u",
                Takes,
            ),
            ("with x as (select 1) insert into t select * from x", Takes),
            ("explain analyze insert into t values (1)", Takes),
            ("copy t from stdin", Takes),
            (
                "copy (insert into t values (1) returning *) to stdout",
                Takes,
            ),
            ("select * into u from t", Takes),
            ("create table u as select 1", Takes),
            ("create temp table u ()", Takes),
            ("create index on t (a)", Takes),
            ("explain analyze create table u as select 1", Takes),
            ("alter table t add column c int", Takes),
            ("alter table t drop column c, alter d type text", Takes),
            ("refresh materialized view m", Takes),
            ("do $$ begin end $$", Takes),
            ("call p()", Takes),
            ("delete from t; insert into t values (1)", Takes),
            ("begin; insert into t values (1); commit", Takes),
        ]);
    }

    #[test]
    fn what_is_no_text_is_left_to_postgresql() {
        assert_eq!(space(b"select '\xff'"), Frees);
        assert_eq!(space(b"insert into t values ('\xff')"), Takes);
    }
}
