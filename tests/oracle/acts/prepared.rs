//! Prepared statements, of SQL and of the protocol: everyone's have the same names.

use super::{Actor, Outcome, asks};
use crate::{
    harness::Request,
    model::{Model, Unnamed},
    statement::{Answer, Statement},
    text::Text,
};

const NAMES: [&str; 4] = ["n0", "n1", "n2", "n3"];

/// A name that statements of functions have, which can't know the protocol's.
const HIDDEN: &str = "h0";

fn text(actor: &mut Actor) -> Text {
    match actor.chance.below(8) {
        0..4 => Text::Marked(actor.mark()),
        4 => Text::Common,
        5 => Text::Setting(
            actor
                .chance
                .pick(&["application_name", "work_mem", "app.x"]),
        ),
        6 => Text::Placed,
        // Not "shadowed": a plan goes on with the permanent table when a temporary one comes to hide it.
        _ if actor.model.is_owner() => Text::Temp("t0".to_owned()),
        _ => Text::Common,
    }
}

/// PREPARE, EXECUTE, DEALLOCATE.
pub fn in_sql(actor: &mut Actor) -> Outcome {
    let name = actor
        .chance
        .pick(&[NAMES[0], NAMES[1], NAMES[2], NAMES[3], HIDDEN]);
    let statement = match actor.chance.below(10) {
        0..3 => prepare(actor, name),
        3..7 => execute(actor, name),
        7..9 => Statement::new(format!("deallocate {name}"), move |model| {
            model.kept.statements.remove(name).ok_or("26000")?;
            Ok(Answer::tag("DEALLOCATE"))
        }),
        _ => Statement::new("deallocate all", |model| {
            model.kept.statements.clear();
            Ok(Answer::tag("DEALLOCATE ALL"))
        }),
    };
    actor.say(statement).map(drop)
}

fn prepare(actor: &mut Actor, name: &'static str) -> Statement {
    let text = text(actor);
    Statement::new(
        format!("prepare {name}(text) as {}", text.sql()),
        move |model| {
            text.is_sound(model)?;
            if model.kept.statements.contains_key(name) {
                return Err("42P05");
            }
            model.kept.statements.insert(name.to_owned(), text.clone());
            Ok(Answer::tag("PREPARE"))
        },
    )
}

fn execute(actor: &mut Actor, name: &'static str) -> Statement {
    let param = actor.mark();
    Statement::new(format!("execute {name}('{param}')"), move |model| {
        let text = model.kept.statements.get(name).ok_or("26000")?;
        text.run(model, &param)
    })
}

/// The names of the statements that SQL made are no one else's.
pub fn look(actor: &mut Actor) -> Outcome {
    let name = actor.chance.pick(&NAMES);
    if actor.chance.one_in(2) {
        let statement = execute(actor, name);
        return actor.say(statement).map(drop);
    }
    // One that can't be parsed any more is not listed.
    let mut texts = actor.model.kept.statements.values();
    let are_sound = texts.all(|text| text.is_sound(&actor.model).is_ok());
    if !are_sound || actor.chance.one_in(2) {
        let statement = Statement::fails("execute pgu_1('x')", "26000");
        return actor.say(statement).map(drop);
    }
    let sql =
        "select coalesce(string_agg(name, ',' order by name), '') from pg_prepared_statements";
    let names = |model: &Model| {
        let names: Vec<_> = model.kept.statements.keys().map(String::as_str).collect();
        names.join(",")
    };
    actor.say(asks(sql.to_owned(), names)).map(drop)
}

/// Parse, Bind, Execute, Close.
pub fn by_protocol(actor: &mut Actor) -> Outcome {
    match actor.chance.below(10) {
        0..2 => parse(actor),
        2..3 => parse_and_run(actor),
        3..8 => run(actor),
        8 => close(actor),
        _ => unnamed(actor),
    }
}

/// Notes a statement as PostgreSQL does at the end of Parse.
fn parsed(model: &mut Model, name: &str, text: &Text) -> Result<(), &'static str> {
    if model.status == 'E' {
        return Err("25P02");
    }
    text.is_sound(model)?;
    if model.kept.statements.contains_key(name) {
        return Err("42P05");
    }
    model.kept.statements.insert(name.to_owned(), text.clone());
    Ok(())
}

/// What Bind and Execute of a statement return.
fn bound(model: &Model, text: Option<&Text>, param: &str) -> Result<Vec<String>, &'static str> {
    let text = text.ok_or("26000")?;
    if model.status == 'E' {
        return Err("25P02");
    }
    let answer = text.run(model, param)?;
    let rows = answer.rows.iter().map(|row| format!("row {row}"));
    Ok(rows.chain([format!("tag {}", answer.tag)]).collect())
}

/// The lines of a batch, which an error ends.
fn lines(model: &mut Model, result: Result<Vec<String>, &'static str>) -> Vec<String> {
    result.unwrap_or_else(|code| {
        model.fail();
        vec![format!("error {code}")]
    })
}

fn parse(actor: &mut Actor) -> Outcome {
    let name = actor.chance.pick(&NAMES);
    let text = text(actor);
    let request = Request::new().parse(name, &text.sql()).sync();
    let label = format!("Parse {name}: {} Sync", text.sql());
    let effect = |model: &mut Model| {
        let result = parsed(model, name, &text).map(|()| Vec::new());
        lines(model, result)
    };
    actor.converse(&request, &label, effect).map(drop)
}

fn parse_and_run(actor: &mut Actor) -> Outcome {
    let name = actor.chance.pick(&NAMES);
    let text = text(actor);
    let param = actor.mark();
    let mut request = Request::new();
    let is_closed = actor.chance.one_in(2);
    if is_closed {
        request = request.close_statement(name);
    }
    let request = request
        .parse(name, &text.sql())
        .describe_statement(name)
        .run_prepared(name, &[&param])
        .sync();
    let label = format!(
        "Close? {is_closed} Parse {name}: {} Bind Execute Sync",
        text.sql()
    );
    let effect = |model: &mut Model| {
        if is_closed {
            model.kept.statements.remove(name);
        }
        let result = parsed(model, name, &text).and_then(|()| bound(model, Some(&text), &param));
        lines(model, result)
    };
    actor.converse(&request, &label, effect).map(drop)
}

fn run(actor: &mut Actor) -> Outcome {
    let names = [actor.chance.pick(&NAMES), actor.chance.pick(&NAMES)];
    let count = 1 + actor.chance.below(2);
    let param = actor.mark();
    let run = |request: Request, name: &&str| request.run_prepared(name, &[&param]);
    let request = names[..count].iter().fold(Request::new(), run).sync();
    let label = format!("Bind Execute {:?} Sync", &names[..count]);
    let effect = |model: &mut Model| {
        let mut all = Vec::new();
        for name in &names[..count] {
            let text = model.kept.statements.get(*name).cloned();
            let result = bound(model, text.as_ref(), &param);
            let is_error = result.is_err();
            all.extend(lines(model, result));
            if is_error {
                break;
            }
        }
        all
    };
    actor.converse(&request, &label, effect).map(drop)
}

fn close(actor: &mut Actor) -> Outcome {
    let name = actor.chance.pick(&NAMES);
    let request = Request::new().close_statement(name).sync();
    let effect = |model: &mut Model| {
        model.kept.statements.remove(name);
        Vec::new()
    };
    actor
        .converse(&request, &format!("Close {name} Sync"), effect)
        .map(drop)
}

/// The unnamed statement lasts, too.
fn unnamed(actor: &mut Actor) -> Outcome {
    let text = text(actor);
    let request = Request::new().parse("", &text.sql()).sync();
    let label = format!("Parse unnamed: {} Sync", text.sql());
    let effect = |model: &mut Model| {
        model.kept.unnamed = Unnamed::Gone;
        let result = match model.status {
            'E' => Err("25P02"),
            _ => text.is_sound(model).map(|()| Vec::new()),
        };
        if result.is_ok() {
            model.kept.unnamed = Unnamed::Known(text.clone());
        }
        lines(model, result)
    };
    actor.converse(&request, &label, effect)?;
    for _ in 0..2 {
        let text = match &actor.model.kept.unnamed {
            Unnamed::Other => return Ok(()),
            Unnamed::Gone => None,
            Unnamed::Known(text) => Some(text.clone()),
        };
        let param = actor.mark();
        let request = Request::new().run_prepared("", &[&param]).sync();
        let label = "Bind Execute unnamed Sync";
        let effect = |model: &mut Model| {
            let result = bound(model, text.as_ref(), &param);
            lines(model, result)
        };
        actor.converse(&request, label, effect)?;
    }
    Ok(())
}
