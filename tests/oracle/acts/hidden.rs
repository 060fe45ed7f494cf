//! State that a statement leaves without naming it.

use super::{Actor, Outcome};
use crate::{
    model::{Model, Temp},
    statement::{Answer, Statement, literal},
    text::Text,
};

/// Calls a function, or fires a trigger, or reads a view that does.
pub fn call(actor: &mut Actor) -> Outcome {
    if !actor.model.is_owner() {
        return Ok(());
    }
    let mark = actor.mark();
    let key = actor.key();
    let statement = match actor.chance.below(14) {
        0..2 => hides("select h_set_hidden(?)", "app.hidden", mark),
        2 => hides("select h_calls(?)", "app.hidden", mark),
        3 if actor.world.has("bound") => {
            let sql = "select h_set($1, $2)";
            let value = mark.clone();
            Statement::new(sql, move |model| {
                model.set("app.bound", &value, false);
                Ok(Answer::row(value.clone()))
            })
            .bound(&["app.bound", &mark])
        }
        4 => Statement::new(format!("select h_caught('{mark}')"), |_| {
            Ok(Answer::row("caught"))
        }),
        5 => Statement::new("select h_clause()", |_| Ok(Answer::row("7777kB"))),
        6 => locks(format!("select h_lock({key})"), Answer::row(""), key),
        7 if actor.world.has("views") => Statement::new("select mark from v_set", |model| {
            model.set("app.view", "by a view", false);
            Ok(Answer::row("by a view"))
        }),
        8 => {
            let inner = format!("set app.hidden = '{mark}'");
            dynamic(&inner, move |model| {
                model.set("app.hidden", &mark, false);
                Ok(())
            })
        }
        9 => dynamic(
            &format!("prepare h0(text) as {}", Text::Marked(mark.clone()).sql()),
            move |model| {
                if model.kept.statements.contains_key("h0") {
                    return Err("42P05");
                }
                let text = Text::Marked(mark.clone());
                model.kept.statements.insert("h0".to_owned(), text);
                Ok(())
            },
        ),
        10 => trigger("set", &mark.clone(), move |model| {
            model.set("app.trigger", &mark, false);
            Ok(())
        }),
        11 => trigger("lock", &key.to_string(), move |model| {
            *model.kept.locks.entry((key, false)).or_default() += 1;
            Ok(())
        }),
        _ => trigger("temp", &mark.clone(), move |model| makes(model, &mark)),
    };
    actor.say(statement).map(drop)
}

fn hides(sql: &str, name: &'static str, value: String) -> Statement {
    Statement::new(sql.replace('?', &literal(&value)), move |model| {
        model.set(name, &value, false);
        Ok(Answer::row(value.clone()))
    })
}

fn locks(sql: String, answer: Answer, key: u32) -> Statement {
    Statement::new(sql, move |model| {
        *model.kept.locks.entry((key, false)).or_default() += 1;
        Ok(answer.clone())
    })
}

fn dynamic(
    inner: &str,
    effect: impl Fn(&mut Model) -> Result<(), &'static str> + 'static,
) -> Statement {
    let sql = format!("select h_dynamic({})", literal(inner));
    Statement::new(sql, move |model| {
        effect(model)?;
        Ok(Answer::row(""))
    })
}

fn trigger(
    what: &str,
    mark: &str,
    effect: impl Fn(&mut Model) -> Result<(), &'static str> + 'static,
) -> Statement {
    let sql = format!("insert into triggering values ('{what}', '{mark}')");
    Statement::new(sql, move |model| {
        effect(model)?;
        Ok(Answer::tag("INSERT 0 0"))
    })
}

fn makes(model: &mut Model, mark: &str) -> Result<(), &'static str> {
    if model.now.temps.contains_key("t0") {
        return Err("42P07");
    }
    let temp = Temp {
        rows: vec![mark.to_owned()],
        ..Temp::default()
    };
    model.now.temps.insert("t0".to_owned(), temp);
    Ok(())
}
