//! SET and all that does the same.

use super::{Actor, Outcome, asks};
use crate::{
    model::Model,
    setting::{SET, SETTINGS, Setting, question},
    statement::{Answer, Statement, literal},
};

/// Changes a setting.
pub fn change(actor: &mut Actor) -> Outcome {
    let statement = any(actor);
    actor.say(statement).map(drop)
}

/// A statement that changes a setting.
pub fn any(actor: &mut Actor) -> Statement {
    let resets_alone = actor.says_first;
    let statement = match actor.chance.below(20) {
        0 => Statement::new("reset all", |model| {
            model.reset_all();
            Ok(Answer::tag("RESET"))
        }),
        1 => Statement::fails("set work_mem = 'rubbish'", "22023"),
        2 => Statement::fails("set no_such_setting = 1", "42704"),
        3..5 => role(actor),
        5..8 => reset(actor),
        8..10 => block(actor),
        10..14 => by_function(actor),
        _ => by_command(actor),
    };
    if resets_alone && statement.sql.contains("reset ") | statement.sql.ends_with("default") {
        return statement.alone();
    }
    statement
}

fn chosen(actor: &mut Actor) -> (Setting, String) {
    let setting = actor.chance.pick(&SETTINGS[..SET]);
    let mut mark = actor.mark();
    if setting.is_custom() {
        match actor.chance.below(8) {
            0 => mark.push_str(" it's \"quoted\""),
            1 => mark.push_str(&" long".repeat(300)),
            2 => mark.clear(),
            _ => {}
        }
    }
    (setting, setting.value(&mut actor.chance, &mark))
}

fn by_command(actor: &mut Actor) -> Statement {
    let (setting, value) = chosen(actor);
    let is_local = actor.chance.one_in(3);
    let scope = if is_local {
        "local "
    } else {
        actor.chance.pick(&["", "session "])
    };
    let (name, text) = (setting.name, literal(&value));
    let sql = match name {
        "TimeZone" if actor.chance.one_in(2) => format!("set {scope}time zone {text}"),
        "client_encoding" if actor.chance.one_in(2) => format!("set {scope}names {text}"),
        "default_transaction_isolation" if !is_local && actor.chance.one_in(2) => {
            format!("set session characteristics as transaction isolation level {value}")
        }
        "search_path" | "DateStyle" => format!("set {scope}{name} to {value}"),
        _ => {
            let equals = actor.chance.pick(&["=", "to", " TO "]);
            format!("set {scope}{name} {equals} {text}")
        }
    };
    Statement::new(sql, move |model| {
        model.set(name, &value, is_local);
        Ok(Answer::tag("SET"))
    })
}

fn by_function(actor: &mut Actor) -> Statement {
    let (setting, mut value) = chosen(actor);
    let is_local = actor.chance.one_in(3);
    let name = setting.name;
    let is_named = name != "app.bound" || actor.world.has("bound");
    let is_bound = actor.chance.one_in(2) && is_named;
    if is_bound && setting.is_custom() && actor.chance.one_in(4) {
        value.push_str(" back\\slash");
    }
    let text = value.clone();
    let statement = |sql: String| {
        Statement::new(sql, move |model| {
            model.set(name, &value, is_local);
            Ok(Answer::row(value.clone()))
        })
    };
    let schema = actor.chance.pick(&["", "pg_catalog."]);
    if is_bound {
        return statement(format!("select {schema}set_config($1, $2, {is_local})"))
            .bound(&[name, &text]);
    }
    statement(format!(
        "select {schema}set_config('{name}', {}, {is_local})",
        literal(&text)
    ))
}

fn block(actor: &mut Actor) -> Statement {
    let (setting, value) = chosen(actor);
    let (name, text) = (setting.name, literal(&value));
    let sql = format!("do $$ begin perform set_config('{name}', {text}, false); end $$");
    Statement::new(sql, move |model| {
        model.set(name, &value, false);
        Ok(Answer::tag("DO"))
    })
}

fn reset(actor: &mut Actor) -> Statement {
    let name = actor.chance.pick(&SETTINGS).name;
    let way = actor
        .chance
        .pick(&["reset ?", "set ? to default", "set ? = default"]);
    let tag = if way.starts_with("reset") {
        "RESET"
    } else {
        "SET"
    };
    Statement::new(way.replace('?', name), move |model| {
        model.reset(name);
        Ok(Answer::tag(tag))
    })
}

fn role(actor: &mut Actor) -> Statement {
    let other = format!("{}_b", actor.world.role);
    match actor.chance.below(4) {
        0 => Statement::new("reset role", |model| {
            model.reset("role");
            Ok(Answer::tag("RESET"))
        }),
        1 => Statement::new("set role none", |model| {
            model.set("role", "none", false);
            Ok(Answer::tag("SET"))
        }),
        way => {
            let is_local = way == 2;
            let scope = if is_local { "local " } else { "" };
            Statement::new(format!("set {scope}role {other}"), move |model| {
                model.set("role", &other, is_local);
                Ok(Answer::tag("SET"))
            })
        }
    }
}

/// Looks at the settings.
pub fn look(actor: &mut Actor) -> Outcome {
    let statement = match actor.chance.below(6) {
        0 => asks("show transaction_isolation".to_owned(), |model| {
            model.isolation.clone()
        })
        .tagged("SHOW"),
        1 => {
            let listed = SETTINGS.map(|s| format!("'{}'", s.name.to_lowercase()));
            asks(
                format!(
                    "select coalesce(string_agg(name || '=' || setting, ','), '') from pg_settings \
                     where source = 'session' and lower(name) not in ({}, 'role', \
                     'transaction_isolation', 'transaction_read_only', 'transaction_deferrable')",
                    listed.join(",")
                ),
                |_| String::new(),
            )
        }
        2 => {
            let setting = actor.chance.pick(&SETTINGS[..13]);
            asks(format!("show {}", setting.name), |model| {
                model.value(setting.name)
            })
            .tagged("SHOW")
        }
        _ => asks(question(), Model::all_settings),
    };
    actor.say(statement).map(drop)
}

/// DISCARD.
pub fn discard(actor: &mut Actor) -> Outcome {
    actor.holds_nothing_wanted();
    let statement = Statement::new("discard all", |model| {
        if model.status != 'I' {
            return Err("25001");
        }
        model.discard_all();
        Ok(Answer::tag("DISCARD ALL"))
    });
    actor.say(statement.alone()).map(drop)
}
