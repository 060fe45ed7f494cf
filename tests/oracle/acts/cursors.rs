//! Cursors that outlive their transaction.

use super::{Actor, Outcome};
use crate::statement::{Answer, Statement};

/// Declares, reads or closes one.
pub fn touch(actor: &mut Actor) -> Outcome {
    let name = actor.chance.pick(&["k0", "k1"]);
    let statement = match actor.chance.below(6) {
        0..2 => declare(actor, name),
        2..5 => fetch(name, 1 + actor.chance.below(3)),
        _ => Statement::new(format!("close {name}"), move |model| {
            model.cursor(name).ok_or("34000")?;
            let number = model.now.cursors.remove(name).ok_or("34000")?;
            model.kept.cursors.remove(&number);
            Ok(Answer::tag("CLOSE CURSOR"))
        }),
    };
    actor.say(statement).map(drop)
}

fn declare(actor: &mut Actor, name: &'static str) -> Statement {
    let mark = actor.mark();
    let count = 1 + actor.chance.below(5);
    let sql = format!(
        "declare {name} cursor with hold for select '{mark}.' || g from generate_series(1, {count}) g"
    );
    Statement::new(sql, move |model| {
        if model.cursor(name).is_some() {
            return Err("42P03");
        }
        let rows = (1..=count).map(|number| format!("{mark}.{number}"));
        model.open_cursor(name, rows.collect());
        Ok(Answer::tag("DECLARE CURSOR"))
    })
}

fn fetch(name: &'static str, count: usize) -> Statement {
    Statement::new(format!("fetch {count} from {name}"), move |model| {
        let left = model.cursor(name).ok_or("34000")?;
        let rows: Vec<_> = left.drain(..count.min(left.len())).collect();
        let tag = format!("FETCH {}", rows.len());
        Ok(Answer { rows, tag })
    })
}

/// Closes all.
pub fn close_all(actor: &mut Actor) -> Outcome {
    let statement = Statement::new("close all", |model| {
        model.now.cursors.clear();
        model.kept.cursors.clear();
        Ok(Answer::tag("CLOSE CURSOR ALL"))
    });
    actor.say(statement).map(drop)
}
