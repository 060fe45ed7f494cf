//! To lock the victim out: by locks, signals, settings, or by using everything up.

use crate::{
    attack::{
        ALL, Act,
        Act::Sql,
        Attack,
        Class::Block,
        LOGINS, ROWS,
        Step::{A, V},
        TOGETHER,
    },
    harness::Request,
    scene::Scene,
    wire::End,
};
use std::{thread, time::Duration};

/// Whoever holds a lock must hold it at once: who waits for one holds others up, which `queueing`
/// is about, and the other stages on the same tables would be held up as well.
pub const BRIEFLY: &str = "set lock_timeout = '1s'";

/// See the head of this file.
pub const ATTACKS: &[Attack] = &[
    Attack::new(
        "lock_table",
        Block,
        TOGETHER,
        Sql(&[
            BRIEFLY,
            "begin; lock table {table} in access exclusive mode",
        ]),
    ),
    Attack::new(
        "lock_view",
        Block,
        TOGETHER,
        Sql(&[
            BRIEFLY,
            "begin; lock table accounts in access exclusive mode",
        ]),
    ),
    Attack::new(
        "lock_own_view_on_victim",
        Block,
        TOGETHER,
        Sql(&[
            BRIEFLY,
            "create view mine_locked as select * from {table}",
            "begin; lock table mine_locked in access exclusive mode",
        ]),
    ),
    Attack::new(
        "lock_every_mode",
        Block,
        TOGETHER,
        Act::Own(|scene| {
            let modes = [
                "row exclusive",
                "share update exclusive",
                "share",
                "share row exclusive",
                "exclusive",
            ];
            scene.say(BRIEFLY);
            scene.say("begin");
            for mode in modes {
                scene.say("savepoint before");
                if !scene
                    .say(&format!("lock table {{table}} in {mode} mode"))
                    .is_ok()
                {
                    scene.say("rollback to before");
                }
                if !scene
                    .say(&format!("lock table accounts in {mode} mode"))
                    .is_ok()
                {
                    scene.say("rollback to before");
                }
            }
            None
        }),
    ),
    Attack::new(
        "lock_schema_objects",
        Block,
        TOGETHER,
        Sql(&[
            BRIEFLY,
            "begin; lock table {schema}.orders in access exclusive mode",
            "rollback; begin; lock table orders in access exclusive mode",
        ]),
    ),
    Attack::new(
        "lock_catalogue",
        Block,
        ALL,
        Sql(&["begin; lock table pg_catalog.pg_class in access exclusive mode"]),
    ),
    Attack::new(
        "lock_roles",
        Block,
        ALL,
        Sql(&["begin; lock table pg_catalog.pg_authid in access exclusive mode"]),
    ),
    Attack::new(
        "lock_rows",
        Block,
        TOGETHER,
        Sql(&["begin; select * from {table} for update"]),
    ),
    Attack::new(
        "lock_rows_of_view",
        Block,
        ROWS,
        Sql(&["set app.tenant_id = '{tenant}'; begin; select id from accounts for no key update"]),
    ),
    Attack::new(
        "hold_key",
        Block,
        ROWS,
        Sql(&["begin; insert into accounts (id, secret) values (7777, 'held')"]),
    ),
    Attack::new(
        "hold_foreign_key",
        Block,
        ROWS,
        Sql(&[
            "insert into accounts (id, secret) values (7777, 'held')",
            "begin; update accounts set secret = 'held still' where id = 7777",
        ]),
    ),
    Attack::new(
        "hold_schema_change",
        Block,
        TOGETHER,
        Sql(&["begin; alter table {table} add column held int"]),
    ),
    Attack::new(
        "hold_truncate",
        Block,
        TOGETHER,
        Sql(&["begin; truncate {table} cascade"]),
    ),
    Attack::new(
        "hold_trigger",
        Block,
        TOGETHER,
        Sql(&["begin; alter table {table} disable trigger user"]),
    ),
    Attack::new(
        "hold_role",
        Block,
        LOGINS,
        Act::Own(|scene| {
            scene.say("begin; alter role {role} set work_mem = '1MB'");
            let own = "alter role current_user set app.probe = 'x'";
            let answer = scene.stage.victim_says(own)?;
            scene.say("rollback");
            scene
                .stage
                .victim_says("alter role current_user reset app.probe");
            let is_held_up = answer.end == End::Silent || answer.code() == "55P03";
            is_held_up.then(|| "the victim can't change its own role".to_owned())
        }),
    ),
    Attack::new(
        "advisory_lock",
        Block,
        ALL,
        Act::Own(|scene| {
            scene.say("select pg_advisory_lock(991)");
            scene.say("select pg_try_advisory_lock(991)");
            scene.say("begin; select pg_advisory_xact_lock(991)");
            let got = scene
                .stage
                .victim_says("select pg_try_advisory_lock(991)")?;
            // Where the functions are not to be had, nobody needs the keys.
            if got.code() == "42501" {
                return None;
            }
            scene.stage.victim_says("select pg_advisory_unlock(991)");
            (got.value().as_deref() != Some("t")).then(|| "the victim's key is taken".to_owned())
        }),
    )
    .residual_of_reader("R5"),
    Attack::new(
        "terminate_victim",
        Block,
        ALL,
        Sql(&["select pg_terminate_backend({pid})"]),
    ),
    Attack::new(
        "terminate_all",
        Block,
        ALL,
        Sql(&[
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{login}' and datname = '{db}' and pid <> pg_backend_pid()",
            "select pg_terminate_backend({pid}, 0)",
        ]),
    ),
    Attack::new(
        "cancel_victim",
        Block,
        ALL,
        Act::Own(|scene| {
            cancelled_by(scene, |scene| {
                drop(scene.say("select pg_cancel_backend({pid})"));
            })
        }),
    ),
    Attack::new(
        "signal_by_a_block",
        Block,
        ALL,
        Sql(&[
            "do $$ begin perform pg_terminate_backend({pid}); exception when others then execute 'select pg_terminate_backend({pid})'; end $$",
        ]),
    ),
    Attack::new(
        "poison_role",
        Block,
        ALL,
        Sql(&[
            "alter role current_user set statement_timeout = 1",
            "alter role {role} set statement_timeout = 1",
        ]),
    ),
    Attack::new(
        "poison_login",
        Block,
        ALL,
        Sql(&["alter role {login} set local_preload_libraries = 'no_such_library'"]),
    ),
    Attack::new(
        "poison_path",
        Block,
        ALL,
        Sql(&["alter role {login} set search_path = pg_catalog"]),
    ),
    Attack::new(
        "poison_role_in_database",
        Block,
        ALL,
        Sql(&[
            "alter role {login} in database {db} set default_transaction_read_only = on",
            "alter role current_user in database {db} set default_transaction_read_only = on",
        ]),
    ),
    Attack::new(
        "poison_all_roles",
        Block,
        ALL,
        Sql(&[
            "alter role all set statement_timeout = 1",
            "alter role all in database {db} set statement_timeout = 1",
        ]),
    ),
    Attack::new(
        "change_password",
        Block,
        ALL,
        Sql(&[
            "alter role {login} password 'taken'",
            "alter role {role} password 'taken'",
        ]),
    ),
    Attack::new(
        "expire_role",
        Block,
        ALL,
        Sql(&["alter role {login} valid until '2000-01-01'"]),
    ),
    Attack::new("no_login", Block, ALL, Sql(&["alter role {login} nologin"])),
    Attack::new(
        "limit_connections",
        Block,
        ALL,
        Sql(&[
            "alter role {login} connection limit 0",
            "alter database {db} connection limit 0",
        ]),
    ),
    Attack::new(
        "revoke_connect",
        Block,
        ALL,
        Sql(&[
            "revoke connect on database {db} from public",
            "revoke connect on database {db} from {login}",
            "alter database {db} allow_connections false",
        ]),
    ),
    Attack::new(
        "many_connections",
        Block,
        ALL,
        Act::Own(|scene| crowd(scene, "select 1")),
    ),
    Attack::new(
        "many_transactions",
        Block,
        ALL,
        Act::Own(|scene| crowd(scene, "begin")),
    ),
    Attack::new(
        "many_statements",
        Block,
        ALL,
        Act::Own(|scene| {
            let mut sessions: Vec<_> = (0..14)
                .filter_map(|_| scene.stage.attacker.open().ok())
                .collect();
            for session in &mut sessions {
                session.send(Request::new().query("select pg_sleep(60)").bytes());
            }
            let found = scene.victim_is_served();
            for session in &sessions {
                cancel(scene, &session.cancel_key());
            }
            found
        }),
    ),
    Attack::new(
        "leave_transaction_open",
        Block,
        ALL,
        Act::Script(&[
            A("begin"),
            A("update accounts set secret = secret"),
            A("select * from {table} for update"),
            crate::attack::Step::Again,
            A("begin"),
        ]),
    )
    .unproven("PostgreSQL itself rolls back what a client leaves; it harms behind poolers"),
    Attack::new(
        "swallow_cancels",
        Block,
        ALL,
        Act::Own(|scene| {
            // What swallows cancels must be terminated; it never holds what the victim needs.
            let block = "do $$ begin for i in 1..3 loop begin perform pg_sleep(60); exception when query_canceled then null; end; end loop; end $$";
            let lock = scene.stage.fill("begin; lock table {table} in share mode");
            scene.attacker.query(&lock);
            scene.attacker.send(Request::new().query(block).bytes());
            let found = scene.victim_is_served();
            for _ in 0..8 {
                cancel(scene, &scene.attacker.cancel_key());
            }
            if let Ok(session) = scene.stage.attacker.open() {
                scene.attacker = session;
            }
            found
        }),
    ),
    Attack::new(
        "serializable_conflict",
        Block,
        TOGETHER,
        Act::Own(|scene| {
            // Two who touch nothing of each other's, so nobody may be told of a conflict.
            if scene.stage.label == "statement" {
                return None;
            }
            let begin = "begin isolation level serializable";
            scene.say(begin);
            scene.say("select count(*) from accounts");
            scene.say("select count(*) from {table}");
            let all = format!(
                "{begin}; select count(*) from accounts; \
            update accounts set secret = secret where id = 1"
            );
            scene.stage.victim_says(&all);
            scene.say("update accounts set secret = secret where id = 101");
            scene.say("commit");
            let answer = scene.stage.victim_says("commit")?;
            scene.stage.victim_says("rollback");
            (answer.code() == "40001")
                .then(|| "the victim's transaction can't be serialized".to_owned())
        }),
    )
    .residual("R3"),
    Attack::new(
        "hold_snapshot",
        Block,
        TOGETHER,
        Act::Own(|scene| {
            scene.say("begin isolation level repeatable read; select 1");
            let build = "create index concurrently waited on drafts (note)";
            let sitter = scene.stage.sitter();
            sitter.send(Request::new().query(build).bytes());
            // It waits, or it ends: one of both shows.
            let mut waits = false;
            let mut answer = None;
            for _ in 0..100 {
                answer = scene.stage.sitter().within(Duration::from_millis(100));
                waits = waits || scene.stage.is_blocked("create index concurrently waited");
                if waits || answer.is_some() {
                    break;
                }
            }
            scene.say("rollback");
            let answer =
                answer.unwrap_or_else(|| scene.stage.sitter().until(|frame| frame.tag == b'Z'));
            scene.stage.victim_says("drop index if exists waited");
            (waits || answer.code() == "55P03").then(|| {
                "the victim's CREATE INDEX CONCURRENTLY waits for an old snapshot".to_owned()
            })
        }),
    )
    .residual("R3"),
    Attack::new(
        "drop_victims_index",
        Block,
        TOGETHER,
        Sql(&[
            "begin; reindex table {table}",
            "cluster {table}",
            "vacuum full {table}",
        ]),
    ),
    Attack::new(
        "reindex_all",
        Block,
        TOGETHER,
        Act::Refused(&["reindex (verbose) schema {schema}"]),
    ),
    Attack::new(
        "guess_keys",
        Block,
        ALL,
        Act::Own(|scene| {
            // More than an address may fail in a minute: it is the stranger who is refused.
            let mut door = scene.stage.victim.clone();
            door.from = scene.stage.attacker.from;
            for number in 0..34 {
                door.password = format!("guess {number}");
                if door.turnstile.is_none() && door.open().is_ok() {
                    return Some("a guess opens the victim's door".into());
                }
            }
            scene.victim_is_served()
        }),
    ),
    Attack::new(
        "take_notifications",
        Block,
        LOGINS,
        Act::Script(&[
            A("listen orders"),
            A("unlisten *"),
            V("listen orders"),
            A("begin; notify orders, 'held back'"),
            V("notify orders, 'fence'"),
            crate::attack::Step::VictimFence,
        ]),
    )
    .unproven("PostgreSQL holds nobody back for another's notification before that is committed"),
];

/// A statement of the victim's, that runs while this is done, is cancelled. Where it has ended
/// before this was done, it is tried with one that takes longer.
pub fn cancelled_by(scene: &mut Scene<'_>, act: impl Fn(&mut Scene<'_>)) -> Option<String> {
    for seconds in [2, 20] {
        let statement = format!("select pg_sleep({seconds}), 'not cancelled {{canary}}'");
        let request = Request::new().query(&scene.stage.fill(&statement));
        scene.stage.sitter().send(request.bytes());
        let mut has_begun = scene.stage.victim_runs();
        for _ in 0..seconds * 10 {
            if has_begun {
                break;
            }
            thread::park_timeout(Duration::from_millis(50));
            has_begun = scene.stage.victim_runs();
        }
        act(scene);
        let is_in_time = has_begun && scene.stage.victim_runs();
        let answer = scene.stage.sitter().until(|frame| frame.tag == b'Z');
        if !answer.is_ok() {
            return Some(format!(
                "the victim's statement ends with {:?}",
                answer.code()
            ));
        }
        if is_in_time {
            return None;
        }
    }
    panic!("no cancel was in time");
}

/// Sends a cancel request with this key to the attacker's door.
pub fn cancel(scene: &Scene<'_>, (pid, secret): &(i32, Vec<u8>)) {
    let request = crate::harness::request::cancel_request(*pid, secret);
    scene.stage.attacker.knock(&request);
}

/// As many sessions as come in, each of which says this; the victim must still be served.
fn crowd(scene: &mut Scene<'_>, sql: &str) -> Option<String> {
    let mut sessions = Vec::new();
    for _ in 0..14 {
        let Ok(mut session) = scene.stage.attacker.open() else {
            break;
        };
        session.send(Request::new().query(sql).bytes());
        sessions.push(session);
    }
    scene.victim_is_served()
}
