//! Transactions, savepoints, and several statements at once.

use super::{Actor, Outcome, asks, notifications, settings, temps};
use crate::{
    model::{Control, Model},
    setting::question,
    statement::Statement,
};

/// Begins a transaction, goes on in it, or ends it.
pub fn go_on(actor: &mut Actor) -> Outcome {
    let name = actor.chance.pick(&["a", "b"]).to_owned();
    let (sql, control) = match (actor.model.status, actor.chance.below(10)) {
        ('I', 0) | ('T', 0..3) => (format!("savepoint {name}"), Control::Savepoint(name)),
        ('I', _) => (
            actor
                .chance
                .pick(&["begin", "BEGIN", "start transaction"])
                .to_owned(),
            Control::Begin,
        ),
        ('T', 3) => (format!("release {name}"), Control::Release(name)),
        (_, 3..6) => (format!("rollback to {name}"), Control::RollbackTo(name)),
        ('T', 6..9) | (_, 9) => ("commit".to_owned(), Control::Commit),
        _ => ("rollback".to_owned(), Control::Rollback),
    };
    let sql = match (&control, actor.model.status) {
        (Control::Begin, 'I') if sql.starts_with("start") => return start(actor, &sql),
        _ => sql,
    };
    actor.control(&sql, &control)
}

/// The tag says how it was begun.
fn start(actor: &mut Actor, sql: &str) -> Outcome {
    use crate::harness::Request;
    use crate::model::Unnamed;
    actor.model.kept.unnamed = Unnamed::Gone;
    let request = Request::new().query(sql);
    actor
        .converse(&request, sql, |model| {
            model.control(&Control::Begin);
            vec!["tag START TRANSACTION".to_owned()]
        })
        .map(drop)
}

/// Several statements in one Query, or before one Sync; now and then one of them fails.
pub fn several(actor: &mut Actor) -> Outcome {
    let count = 2 + actor.chance.below(3);
    let mut statements: Vec<_> = (0..count).map(|_| one(actor)).collect();
    if actor.chance.one_in(4) {
        statements.push(Statement::fails("select 1/0", "22012"));
    }
    actor.say_all(&statements).map(drop)
}

fn one(actor: &mut Actor) -> Statement {
    loop {
        let statement = match actor.chance.below(5) {
            0 => notifications::one(actor),
            1 if actor.model.is_owner() => temps::any(actor),
            2 => asks(question(), Model::all_settings),
            _ => settings::any(actor),
        };
        if statement.is_sociable && !statement.sql.contains("role") {
            return statement;
        }
    }
}
