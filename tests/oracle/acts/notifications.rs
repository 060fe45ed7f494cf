//! LISTEN, NOTIFY, UNLISTEN.

use super::{Actor, Outcome, asks};
use crate::{
    model::Wish,
    statement::{Answer, Statement, literal},
};

const CHANNELS: [&str; 4] = ["news", "gossip", "alerts", "weather"];

/// Listens, or stops to.
pub fn listen(actor: &mut Actor) -> Outcome {
    // A session that stops to listen need not hear what it was sent before: it hears that now.
    actor.hear_out()?;
    let channel = actor.chance.pick(&CHANNELS);
    let (sql, wish) = match actor.chance.below(6) {
        0..3 => (
            format!("listen {channel}"),
            Wish::Listen(channel.to_owned()),
        ),
        3..5 => (
            format!("unlisten {channel}"),
            Wish::Unlisten(channel.to_owned()),
        ),
        _ => ("unlisten *".to_owned(), Wish::UnlistenAll),
    };
    let tag = if sql.starts_with('l') {
        "LISTEN"
    } else {
        "UNLISTEN"
    };
    let statement = Statement::new(sql, move |model| {
        model.now.wishes.push(wish.clone());
        Ok(Answer::tag(tag))
    });
    actor.say(statement).map(drop)
}

/// Notifies.
pub fn notify(actor: &mut Actor) -> Outcome {
    let statement = one(actor);
    actor.say(statement).map(drop)
}

/// A statement that notifies.
pub fn one(actor: &mut Actor) -> Statement {
    let channel = actor.chance.pick(&CHANNELS);
    let payload = actor.mark();
    let note = (channel.to_owned(), payload.clone());
    if actor.chance.one_in(2) {
        let sql = format!("notify {channel}, {}", literal(&payload));
        return Statement::new(sql, move |model| {
            model.now.notes.push(note.clone());
            Ok(Answer::tag("NOTIFY"))
        });
    }
    Statement::new("select pg_notify($1, $2)", move |model| {
        model.now.notes.push(note.clone());
        Ok(Answer::row(""))
    })
    .bound(&[channel, &payload])
}

/// Hears all that was sent to it, or looks what it listens to.
pub fn hear(actor: &mut Actor) -> Outcome {
    // In a transaction the pool's listener is not spoken for.
    let is_idle = actor
        .client
        .as_ref()
        .is_some_and(|client| client.status == 'I');
    if actor.chance.one_in(2) || !is_idle || !actor.world.has("channels") {
        return actor.hear_out();
    }
    let sql = "select coalesce(string_agg(c, ',' order by c collate \"C\"), '') \
               from pg_listening_channels() c";
    let statement = asks(sql.to_owned(), |model| {
        let channels: Vec<_> = model.kept.listens.iter().map(String::as_str).collect();
        channels.join(",")
    });
    actor.say(statement).map(drop)
}
