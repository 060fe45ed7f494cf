//! What clients do.

mod cursors;
mod hidden;
mod interruptions;
mod locks;
mod notifications;
mod prepared;
mod sequences;
mod settings;
mod temps;
mod transactions;

use super::{actor::Actor, ending::Outcome, model::Model, statement::Statement};

/// Something that a client may do.
type Act = fn(&mut Actor) -> Outcome;

/// With how much weight they are chosen.
const ACTS: [(usize, Act); 17] = [
    (30, settings::change),
    (12, settings::look),
    (30, transactions::go_on),
    (6, transactions::several),
    (10, prepared::in_sql),
    (24, prepared::by_protocol),
    (8, prepared::look),
    (10, temps::touch),
    (6, cursors::touch),
    (10, locks::own),
    (4, locks::wanted),
    (6, notifications::listen),
    (10, notifications::notify),
    (5, notifications::hear),
    (10, hidden::call),
    (2, sequences::touch),
    (5, interruptions::happen),
];

/// One step of a script.
pub fn step(actor: &mut Actor) -> Outcome {
    let is_failed = actor.model.status == 'E';
    if is_failed && !actor.chance.one_in(4) {
        return transactions::go_on(actor);
    }
    // What keeps a server from others goes soon.
    if actor.model.holds_anything() && actor.chance.one_in(5) {
        return clean(actor);
    }
    let act = actor.chance.weighed(&ACTS);
    act(actor)
}

/// Gives up what keeps the server.
fn clean(actor: &mut Actor) -> Outcome {
    if actor.model.status != 'I' {
        return transactions::go_on(actor);
    }
    if actor.chance.one_in(8) {
        return settings::discard(actor);
    }
    let model = &actor.model;
    if !model.kept.locks.is_empty() {
        locks::let_go(actor)
    } else if model.now.cursors.is_empty() {
        temps::drop_one(actor)
    } else {
        cursors::close_all(actor)
    }
}

/// A statement that asks the model what it returns.
fn asks(sql: String, answer: impl Fn(&Model) -> String + 'static) -> Statement {
    Statement::new(sql, move |model| {
        Ok(super::statement::Answer::row(answer(model)))
    })
}
