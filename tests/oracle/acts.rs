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
const ACTS: [(usize, (&str, Act)); 17] = [
    (30, ("set", settings::change)),
    (12, ("look", settings::look)),
    (30, ("transactions", transactions::go_on)),
    (6, ("several", transactions::several)),
    (10, ("prepare", prepared::in_sql)),
    (24, ("parse", prepared::by_protocol)),
    (8, ("look", prepared::look)),
    (10, ("temp", temps::touch)),
    (6, ("cursors", cursors::touch)),
    (10, ("locks", locks::own)),
    (4, ("locks", locks::wanted)),
    (6, ("listen", notifications::listen)),
    (10, ("notify", notifications::notify)),
    (5, ("listen", notifications::hear)),
    (10, ("hidden", hidden::call)),
    (2, ("sequences", sequences::touch)),
    (5, ("interruptions", interruptions::happen)),
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
    let (name, act) = actor.chance.weighed(&ACTS);
    if actor.world.has(name) {
        return act(actor);
    }
    Ok(())
}

/// Gives up what keeps the server.
fn clean(actor: &mut Actor) -> Outcome {
    if actor.model.status != 'I' {
        return transactions::go_on(actor);
    }
    if actor.chance.one_in(8) && actor.world.has("discard") {
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
