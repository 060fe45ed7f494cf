//! To write, or to hold up who writes, with a key of the victim's own that only reads.

use super::blocking::BRIEFLY;
use crate::{
    attack::{
        ALL, Act,
        Act::Sql,
        Attack,
        Class::{Block, Write},
        LOGINS, OWN,
        Step::{A, Again, V, VictimFence},
    },
    harness::Request,
};

/// See the head of this file.
pub const ATTACKS: &[Attack] = &[
    Attack::new(
        "reader_begins_read_write",
        Write,
        ALL,
        Sql(&[
            "begin read write; update accounts set secret = 'written' where id = 1; commit",
            "rollback",
            "begin read write; delete from orders; insert into accounts (id, secret) values (70, 'written'); commit",
            "rollback",
        ]),
    )
    .reader(),
    Attack::new(
        "reader_unsets_read_only",
        Write,
        ALL,
        Sql(&[
            "set default_transaction_read_only = off",
            "set session characteristics as transaction read write",
            "update accounts set secret = 'written' where id = 1",
            "insert into accounts (id, secret) values (71, 'written')",
        ]),
    )
    .reader(),
    Attack::new(
        "reader_alters_itself",
        Write,
        ALL,
        Act::Script(&[
            A("begin read write; alter role current_user set default_transaction_read_only = off; commit"),
            A("rollback"),
            A("begin read write; alter role current_user reset all; commit"),
            A("rollback"),
            Again,
            A("begin read write; update accounts set secret = 'written' where id = 1; commit"),
            A("rollback"),
        ]),
    )
    .reader(),
    Attack::new(
        "reader_upserts",
        Write,
        ALL,
        Sql(&[
            "begin read write; insert into accounts (id, secret) values (1, 'written') on conflict (id) do update set secret = 'written'; commit",
            "rollback",
            "begin read write; merge into accounts a using (values (1)) v(id) on a.id = v.id when matched then update set secret = 'written'; commit",
            "rollback",
        ]),
    )
    .reader(),
    Attack::new(
        "reader_writes_in_a_query",
        Write,
        ALL,
        Sql(&[
            "begin read write; with w as (update accounts set secret = 'written' where id = 1 returning id) select * from w; commit",
            "rollback",
            "begin read write; explain analyze update accounts set secret = 'written' where id = 1; commit",
            "rollback",
            "begin read write; prepare w as delete from accounts where id = 2; explain analyze execute w; commit",
            "rollback",
        ]),
    )
    .reader(),
    Attack::new(
        "reader_writes_in_a_block",
        Write,
        ALL,
        Sql(&[
            "do $$ begin perform set_config('transaction_read_only', 'off', true); update accounts set secret = 'written' where id = 1; end $$",
            "begin read write; do $$ begin execute 'update accounts set secret = ''written'' where id = 1'; end $$; commit",
            "rollback",
            "do $$ begin set transaction read write; delete from accounts where id = 2; end $$",
        ]),
    )
    .reader(),
    Attack::new(
        "reader_copies_in",
        Write,
        ALL,
        Act::Own(|scene| {
            scene.say("begin read write");
            let copy = Request::new()
                .query("copy accounts (id, secret) from stdin")
                .copy_data(b"72\twritten\n")
                .copy_done();
            scene.attacker.ask(copy.bytes());
            scene.attacker.catch_up();
            scene.say("commit");
            None
        }),
    )
    .reader(),
    Attack::new(
        "reader_truncates",
        Write,
        ALL,
        Sql(&["begin read write; truncate orders, accounts; commit", "rollback"]),
    )
    .reader(),
    Attack::new(
        "reader_changes_tables",
        Write,
        ALL,
        Act::Refused(&["begin read write", "alter table accounts disable trigger user"]),
    )
    .reader(),
    Attack::new(
        "reader_drops",
        Write,
        ALL,
        Sql(&[
            "begin read write; drop view app.accounts cascade; commit",
            "rollback",
            "begin read write; drop table orders, accounts cascade; commit",
            "rollback",
        ]),
    )
    .reader(),
    Attack::new(
        "reader_makes_tables",
        Write,
        ALL,
        Act::Refused(&["begin read write", "select * into stolen from accounts"]),
    )
    .reader(),
    Attack::new(
        "reader_adds_trigger",
        Write,
        ALL,
        Act::Refused(&[
            "begin read write",
            "create trigger spy instead of insert on accounts for each row execute function suppress_redundant_updates_trigger()",
            "rollback",
            "begin read write",
            "create rule spy as on insert to accounts do also select 1",
        ]),
    )
    .reader(),
    Attack::new(
        "reader_grants_itself",
        Write,
        ALL,
        Sql(&[
            "begin read write; grant all on accounts to {me}; grant all on orders to public; commit",
            "rollback",
            "begin read write; grant all on data.accounts to {me}; commit",
            "rollback",
            "begin read write; update accounts set secret = 'written' where id = 1; commit",
            "rollback",
        ]),
    )
    .reader(),
    Attack::new(
        "reader_becomes_writer",
        Write,
        ALL,
        Sql(&[
            "set role {role}",
            "set session authorization {role}",
            "begin read write; grant {role} to current_user; commit",
            "rollback",
            "set role {role}",
            "begin read write; update accounts set secret = 'written' where id = 1; commit",
            "rollback",
        ]),
    )
    .reader(),
    Attack::new(
        "reader_moves_sequence",
        Write,
        OWN,
        Sql(&[
            "begin read write; select nextval('ticket'); commit",
            "rollback",
            "begin read write; select setval('ticket', 1); commit",
            "rollback",
        ]),
    )
    .reader(),
    Attack::new(
        "reader_moves_sequence_by_call",
        Write,
        OWN,
        Act::Own(|scene| {
            scene.say("begin read write");
            // nextval(regclass), as a fast-path call.
            scene
                .attacker
                .ask(Request::new().function_call(1574, &["ticket"]).bytes());
            scene.say("commit");
            None
        }),
    )
    .reader(),
    Attack::new(
        "reader_refreshes",
        Write,
        OWN,
        Act::Refused(&["begin read write", "refresh materialized view memory"]),
    )
    .reader(),
    Attack::new(
        "reader_makes_large_object",
        Write,
        ALL,
        Act::Refused(&["begin read write", "select lo_create(0)"]),
    )
    .reader(),
    Attack::new(
        "reader_sets_defaults",
        Write,
        ALL,
        Act::Refused(&[
            "begin read write",
            "alter table accounts alter secret set default 'written'",
        ]),
    )
    .reader(),
    Attack::new(
        "reader_comments",
        Write,
        ALL,
        Act::Refused(&["begin read write", "comment on column accounts.secret is 'written'"]),
    )
    .reader(),
    Attack::new(
        "reader_notifies",
        Write,
        LOGINS,
        Act::Script(&[
            V("listen orders"),
            A("begin read write; notify orders, '{mark}'; commit"),
            A("rollback"),
            A("select pg_notify('orders', '{mark}')"),
            V("notify orders, 'fence'"),
            VictimFence,
            V("select 1"),
        ]),
    )
    .reader()
    .residual_of_reader("R5"),
    Attack::new(
        "reader_locks_rows",
        Block,
        ALL,
        Sql(&["begin read write", "select * from accounts for update"]),
    )
    .reader(),
    Attack::new(
        "reader_shares_rows",
        Block,
        ALL,
        Sql(&[
            "begin read write",
            "select * from accounts for share",
        ]),
    )
    .reader(),
    Attack::new(
        "reader_locks_keys",
        Block,
        ALL,
        Act::Own(|scene| {
            // Who removes a row waits for who holds its key.
            scene.stage.victim_says("insert into accounts (id, secret) values (7776, 'held')");
            scene.say("begin read write");
            scene.say("select id from accounts where id = 7776 for key share");
            scene.say("select id from accounts where id = 7776 for no key update");
            let removed = scene.stage.victim_says("delete from accounts where id = 7776")?;
            scene.say("rollback");
            if removed.is_ok() {
                return None;
            }
            scene.stage.victim_says("delete from accounts where id = 7776");
            Some(format!("the victim's DELETE gets {:?}, {:?}", removed.code(), removed.end))
        }),
    )
    .reader(),
    Attack::new(
        "reader_locks_tables",
        Block,
        ALL,
        Sql(&[
            BRIEFLY,
            "begin read write",
            "lock table accounts in share mode",
            "rollback",
            "begin read write",
            "lock table accounts in row exclusive mode",
            "rollback",
            "begin read write",
            "lock table {table} in share row exclusive mode",
            "rollback",
            "begin read write",
            "lock table orders, accounts in access exclusive mode",
        ]),
    )
    .reader(),
];
