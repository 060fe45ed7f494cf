//! Cancels, and clients that are gone in the middle.

use super::{Actor, Outcome, settings, temps, transactions};
use crate::{ending::Gone, harness::Request, model::Unnamed};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// How long a cancel may take before it is sent again.
const AGAIN: Duration = Duration::from_millis(20);

/// Something happens.
pub fn happen(actor: &mut Actor) -> Outcome {
    match actor.chance.below(6) {
        0..2 => cancel(actor),
        2..4 => cancel_nothing(actor),
        4 => vanish(actor),
        _ => say_good_bye(actor),
    }
}

/// Cancels a statement of its own, which would take far longer than the test.
fn cancel(actor: &mut Actor) -> Outcome {
    let sql = "select pg_sleep(600)";
    let request = if actor.chance.one_in(2) {
        actor.model.kept.unnamed = Unnamed::Gone;
        Request::new().query(sql)
    } else {
        actor.model.kept.unnamed = Unnamed::Other;
        Request::new().run(sql, &[]).sync()
    };
    let client = actor.client.as_ref().expect("it has a session");
    let (pid, secret) = (client.pid, client.secret.clone());
    let connect = actor.world.connect.clone();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let canceller = scope.spawn(|| {
            // A cancel that comes before its statement is void.
            while !is_over.load(Ordering::SeqCst) {
                connect.cancel_key(pid, &secret);
                thread::park_timeout(AGAIN);
            }
        });
        let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            actor.converse(&request, &format!("{sql}, and cancels it"), |model| {
                if model.status == 'E' {
                    return vec!["error 25P02".to_owned()];
                }
                model.fail();
                vec!["error 57014".to_owned()]
            })
        }));
        is_over.store(true, Ordering::SeqCst);
        canceller.thread().unpark();
        said.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    actor.world.count("cancels");
    Ok(())
}

/// Cancels while it runs nothing: nobody notices.
fn cancel_nothing(actor: &mut Actor) -> Outcome {
    actor.note("cancels nothing".to_owned());
    let client = actor.client.as_ref().expect("it has a session");
    actor.world.connect.cancel_key(client.pid, &client.secret);
    actor.world.count("cancels of nothing");
    settings::look(actor)
}

/// Is gone in the middle of a statement, without a word.
fn vanish(actor: &mut Actor) -> Outcome {
    let statement = if actor.model.is_owner() && actor.chance.one_in(2) {
        temps::any(actor)
    } else {
        settings::any(actor)
    };
    let params: Vec<_> = statement.params.iter().map(String::as_str).collect();
    let request = match actor.chance.below(4) {
        0 => Request::new().run(&statement.sql, &params),
        1 => Request::new().query("select pg_sleep(0.01)"),
        2 => Request::new().query(&format!("begin; {}", statement.sql)),
        _ => Request::new().run(&statement.sql, &params).sync(),
    };
    actor.note(format!("{}, and is gone", statement.sql));
    actor.send(&request);
    if let Some(client) = actor.client.take() {
        client.reset();
    }
    Err(Gone::Left)
}

/// Says good-bye, whatever it holds.
fn say_good_bye(actor: &mut Actor) -> Outcome {
    if actor.chance.one_in(2) {
        transactions::go_on(actor)?;
    }
    if let Some(mut client) = actor.client.take()
        && client
            .try_send_bytes(Request::new().terminate().bytes())
            .is_ok()
    {
        client.rest();
    }
    Err(Gone::Left)
}
