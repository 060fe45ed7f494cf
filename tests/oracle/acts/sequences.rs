//! Sequences: what nextval returned last is the session's own.

use super::{Actor, Outcome};
use crate::{
    ending::Gone,
    model::Model,
    statement::{Answer, Statement},
};

/// Draws from a sequence, looks at what it drew, and leaves.
pub fn touch(actor: &mut Actor) -> Outcome {
    for _ in 0..3 {
        let name = actor.chance.pick(&["one", "two"]);
        match actor.chance.below(3) {
            0 => next(actor, name)?,
            1 => ask(actor, format!("select currval('{name}')"), move |model| {
                model.kept.sequences.get(name).cloned()
            })?,
            _ => ask(actor, "select lastval()".to_owned(), |model| {
                let last = model.kept.last_sequence?;
                model.kept.sequences.get(last).cloned()
            })?,
        }
    }
    // Nothing but the end of the session takes this away, so that it keeps a server until then.
    if actor.chance.one_in(2) {
        return Err(Gone::Left);
    }
    let statement = Statement::new("discard sequences", |model| {
        model.kept.sequences.clear();
        model.kept.last_sequence = None;
        Ok(Answer::tag("DISCARD SEQUENCES"))
    });
    actor.say(statement).map(drop)
}

fn next(actor: &mut Actor, name: &'static str) -> Outcome {
    let sql = format!("select nextval('{name}')");
    let lines = actor.say(Statement::new(sql, |_| Ok(Answer::row("?"))))?;
    if let Some(value) = lines[0].strip_prefix("row ") {
        let kept = &mut actor.model.kept;
        kept.sequences.insert(name, value.to_owned());
        kept.last_sequence = Some(name);
    }
    Ok(())
}

fn ask(
    actor: &mut Actor,
    sql: String,
    value: impl Fn(&Model) -> Option<String> + 'static,
) -> Outcome {
    let statement = Statement::new(sql, move |model| {
        value(model).map(Answer::row).ok_or("55000")
    });
    actor.say(statement).map(drop)
}
