//! Temporary tables: everyone's have the same names.

use super::{Actor, Outcome};
use crate::{
    model::{OnCommit, Temp},
    statement::{Answer, Statement},
};

const NAMES: [&str; 3] = ["t0", "t1", "shadowed"];

/// Makes, fills, reads or drops one.
pub fn touch(actor: &mut Actor) -> Outcome {
    if !actor.model.is_owner() {
        return Ok(());
    }
    let statement = any(actor);
    actor.say(statement).map(drop)
}

/// A statement about a temporary table.
pub fn any(actor: &mut Actor) -> Statement {
    let name = actor.chance.pick(&NAMES);
    let exists = actor.model.now.temps.contains_key(name);
    let is_permanent = name == "shadowed" && !exists;
    match actor.chance.below(8) {
        0..3 => make(actor, name),
        3..5 if !is_permanent => insert(actor, name),
        5 if !is_permanent => drop_table(name),
        6 => Statement::new("discard temp", |model| {
            model.now.temps.clear();
            Ok(Answer::tag("DISCARD TEMP"))
        }),
        _ => select(name),
    }
}

fn make(actor: &mut Actor, name: &'static str) -> Statement {
    let mark = actor.mark();
    let (ending, on_commit) = actor.chance.pick(&[
        ("", OnCommit::Preserve),
        (" on commit preserve rows", OnCommit::Preserve),
        (" on commit delete rows", OnCommit::Delete),
        (" on commit drop", OnCommit::Drop),
    ]);
    let (sql, tag, rows) = match actor.chance.below(5) {
        0 => {
            let sql =
                format!("create temporary table {name}{ending} as select '{mark}'::text as mark");
            (sql, "SELECT 1", vec![mark])
        }
        1 if on_commit == OnCommit::Preserve => {
            let sql = format!("select '{mark}'::text as mark into temp {name}");
            (sql, "SELECT 1", vec![mark])
        }
        2 => {
            let sql = format!("create table pg_temp.{name} (mark text){ending}");
            (sql, "CREATE TABLE", Vec::new())
        }
        _ => {
            let sql = format!("create temp table {name} (mark text){ending}");
            (sql, "CREATE TABLE", Vec::new())
        }
    };
    Statement::new(sql, move |model| {
        if model.now.temps.contains_key(name) {
            return Err("42P07");
        }
        let rows = rows.clone();
        let temp = Temp { rows, on_commit };
        model.now.temps.insert(name.to_owned(), temp);
        Ok(Answer::tag(tag))
    })
}

fn insert(actor: &mut Actor, name: &'static str) -> Statement {
    let mark = actor.mark();
    let sql = format!("insert into {name} values ('{mark}')");
    Statement::new(sql, move |model| {
        let temp = model.now.temps.get_mut(name).ok_or("42P01")?;
        temp.rows.push(mark.clone());
        Ok(Answer::tag("INSERT 0 1"))
    })
}

fn select(name: &'static str) -> Statement {
    let sql = format!("select mark from {name} order by mark collate \"C\"");
    Statement::new(sql, move |model| Ok(Answer::rows(model.marks_of(name)?)))
}

fn drop_table(name: &'static str) -> Statement {
    Statement::new(format!("drop table {name}"), move |model| {
        model.now.temps.remove(name).ok_or("42P01")?;
        Ok(Answer::tag("DROP TABLE"))
    })
}

/// Drops one that there is.
pub fn drop_one(actor: &mut Actor) -> Outcome {
    if !actor.model.is_owner() {
        return actor
            .say(Statement::new("reset role", |model| {
                model.reset("role");
                Ok(Answer::tag("RESET"))
            }))
            .map(drop);
    }
    let names = NAMES.iter().copied();
    match names
        .into_iter()
        .find(|name| actor.model.now.temps.contains_key(*name))
    {
        Some(name) => actor.say(drop_table(name)).map(drop),
        None => Ok(()),
    }
}
