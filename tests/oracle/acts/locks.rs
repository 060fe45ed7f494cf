//! Advisory locks: keys of the client's own, and keys that everyone wants.

use super::{Actor, Outcome, asks};
use crate::{
    model::{Locks, Model},
    statement::{Answer, Statement},
};

/// Locks and unlocks keys that nobody else uses, and looks which it has.
pub fn own(actor: &mut Actor) -> Outcome {
    let key = actor.key();
    let is_shared = actor.chance.one_in(3);
    let statement = match actor.chance.below(8) {
        0..2 => lock(actor, key, is_shared),
        2..4 => transaction_lock(actor, key, is_shared),
        4..6 => unlock(key, is_shared),
        6 => return let_go(actor),
        _ => asks(
            "select coalesce(string_agg(objid || mode, ',' order by objid, mode), '') \
             from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'"
                .to_owned(),
            held,
        ),
    };
    actor.say(statement).map(drop)
}

/// Gives up all session-level locks.
pub fn let_go(actor: &mut Actor) -> Outcome {
    actor.holds_nothing_wanted();
    actor.say(unlock_all()).map(drop)
}

fn held(model: &Model) -> String {
    let mut held: Vec<(u32, &str)> = Vec::new();
    for (key, is_shared) in model.kept.locks.keys().chain(model.now.locks.keys()) {
        let mode = if *is_shared {
            "ShareLock"
        } else {
            "ExclusiveLock"
        };
        held.push((*key, mode));
    }
    held.sort_unstable();
    held.dedup();
    let held = held.iter().map(|(key, mode)| format!("{key}{mode}"));
    held.collect::<Vec<_>>().join(",")
}

fn add(locks: &mut Locks, key: u32, is_shared: bool) {
    *locks.entry((key, is_shared)).or_default() += 1;
}

/// A statement with this effect on a call of a function that takes a key.
fn call(
    actor: &mut Actor,
    name: &str,
    key: u32,
    effect: impl Fn(&mut Model) + 'static,
) -> Statement {
    let is_try = actor.chance.one_in(2);
    let name = if is_try {
        name.replace("pg_", "pg_try_")
    } else {
        name.to_owned()
    };
    let row = if is_try { "t" } else { "" };
    let schema = actor.chance.pick(&["", "pg_catalog."]);
    Statement::new(format!("select {schema}{name}({key})"), move |model| {
        effect(model);
        Ok(Answer::row(row))
    })
}

fn lock(actor: &mut Actor, key: u32, is_shared: bool) -> Statement {
    let name = if is_shared {
        "pg_advisory_lock_shared"
    } else {
        "pg_advisory_lock"
    };
    call(actor, name, key, move |model| {
        add(&mut model.kept.locks, key, is_shared);
    })
}

fn transaction_lock(actor: &mut Actor, key: u32, is_shared: bool) -> Statement {
    let name = if is_shared {
        "pg_advisory_xact_lock_shared"
    } else {
        "pg_advisory_xact_lock"
    };
    call(actor, name, key, move |model| {
        add(&mut model.now.locks, key, is_shared);
    })
}

fn unlock(key: u32, is_shared: bool) -> Statement {
    let name = if is_shared {
        "pg_advisory_unlock_shared"
    } else {
        "pg_advisory_unlock"
    };
    Statement::new(format!("select {name}({key})"), move |model| {
        let locks = &mut model.kept.locks;
        let row = match locks.get_mut(&(key, is_shared)) {
            None => "f",
            Some(1) => {
                locks.remove(&(key, is_shared));
                "t"
            }
            Some(count) => {
                *count -= 1;
                "t"
            }
        };
        Ok(Answer::row(row))
    })
}

fn unlock_all() -> Statement {
    Statement::new("select pg_advisory_unlock_all()", |model| {
        model.kept.locks.clear();
        Ok(Answer::row(""))
    })
}

/// Tries to get a lock that others want, too.
pub fn wanted(actor: &mut Actor) -> Outcome {
    let key = u32::try_from(1 + actor.chance.below(3)).expect("it is small");
    let name = actor.name();
    if actor.model.status == 'E' {
        return Ok(());
    }
    if actor.model.kept.locks.contains_key(&(key, false)) {
        actor.world.holders.lock().remove(&key);
        return actor.say(unlock(key, false)).map(drop);
    }
    let before = actor.world.holders.lock().get(&key).cloned();
    let sql = format!("select pg_try_advisory_lock({key})");
    let lines = actor.say(Statement::new(sql, |_| Ok(Answer::row("?"))))?;
    let mut holders = actor.world.holders.lock();
    let after = holders.get(&key).cloned();
    let has_it = lines[0] == "row t";
    if has_it {
        if let Some(holder) = before.filter(|holder| Some(holder) == after.as_ref()) {
            // Unless that session has ended without knowing it yet.
            actor.world.doubted.lock().push((key, holder.0));
        }
        holders.insert(key, (name, actor.world.post.now()));
        drop(holders);
        add(&mut actor.model.kept.locks, key, false);
        actor.world.count("wanted locks got");
    } else {
        drop(holders);
        actor.world.count("wanted locks not got");
    }
    Ok(())
}
