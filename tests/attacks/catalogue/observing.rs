//! To learn what the victim does or has: activity, sizes, statistics, names.

use crate::attack::{
    ALL, Act,
    Act::Sql,
    Attack,
    Class::Observe,
    ROWS, SCHEMA,
    Step::{A, Fence, V},
    TOGETHER,
};

/// Something that PostgreSQL counts.
const WORK: &[&str] = &[
    "insert into accounts (id, secret) select n, 'counted' from generate_series(8000, 8400) n",
    "delete from accounts where id between 8000 and 8400",
    "select pg_stat_force_next_flush()",
    "select count(*) from accounts",
];

/// See the head of this file.
pub const ATTACKS: &[Attack] = &[
    Attack::new("activity", Observe, ALL, Sql(&["select * from pg_stat_activity", "select * from pg_stat_get_activity(null)"])),
    Attack::new("activity_by_number", Observe, ALL, Sql(&[
        "select pg_stat_get_backend_activity(n) from generate_series(1, 300) n",
        "select pg_stat_get_backend_activity(s) from pg_stat_get_backend_idset() s",
    ])),
    Attack::new("activity_tells_sessions", Observe, ALL, Act::Own(|scene| {
        let shown = scene.say("select pid from pg_stat_activity").values();
        let pid = scene.stage.value("pid");
        shown.contains(&pid).then(|| format!("the victim's process {pid} is shown"))
    })),
    Attack::new("count_of_sessions", Observe, ALL, Act::Gauge(
        "select numbackends from pg_stat_database where datname = '{db}'",
        &["select 1"],
    )).unproven("one more session is not opened by what the victim does here; kept for the refusal"),
    Attack::new("backend_functions", Observe, ALL, Act::Refused(&["select pg_stat_get_backend_userid(s) from pg_stat_get_backend_idset() s"])),
    Attack::new("backend_addresses", Observe, ALL, Act::Refused(&["select pg_stat_get_backend_client_port(s), pg_stat_get_backend_start(s) from pg_stat_get_backend_idset() s"])),
    Attack::new("locks", Observe, ALL, Act::Own(|scene| {
        let pid = scene.stage.value("pid");
        let seen = scene.say("select pid from pg_locks").values();
        let more = scene.say("select pid from pg_lock_status()").values();
        (seen.contains(&pid) || more.contains(&pid)).then(|| "the victim's locks are shown".to_owned())
    })),
    Attack::new("blocking_pids", Observe, ALL, Act::Refused(&["select pg_blocking_pids({pid}), pg_safe_snapshot_blocking_pids({pid})"])),
    Attack::new("blocked_session", Observe, ALL, Act::Refused(&["select pg_isolation_test_session_is_blocked({pid}, '{1}')"])),
    Attack::new("prepared_transactions", Observe, ALL, Act::Own(|scene| {
        let gid = scene.stage.value("gid");
        scene.stage.victim_says("begin; insert into accounts (id, secret) values (57, 'prepared'); prepare transaction '{gid}'");
        scene.say("select gid from pg_prepared_xacts");
        scene.say("select gid from pg_prepared_xact()");
        scene.stage.victim_says("rollback prepared '{gid}'");
        scene.attacker.has_heard(&gid).then(|| "the name of the victim's transaction is shown".to_owned())
    })),
    Attack::new("table_counters", Observe, TOGETHER, Act::Gauge("select pg_stat_get_tuples_inserted({table_oid})", WORK)),
    Attack::new("table_counters_by_view", Observe, TOGETHER, Act::Gauge(
        "select relid::text || ' ' || n_tup_ins from pg_stat_all_tables where relid = {table_oid}", WORK,
    )),
    Attack::new("table_scans", Observe, TOGETHER, Act::Gauge(
        "select pg_stat_get_numscans({table_oid}) + pg_stat_get_tuples_returned({table_oid})", WORK,
    )),
    Attack::new("table_io", Observe, TOGETHER, Act::Gauge(
        "select relid::text || ' ' || heap_blks_read + heap_blks_hit from pg_statio_all_tables where relid = {table_oid}", WORK,
    )),
    Attack::new("function_calls", Observe, SCHEMA, Act::Refused(&["select pg_stat_get_function_calls({whisper_oid})"])),
    Attack::new("database_counters", Observe, ALL, Act::Gauge(
        "select pg_stat_get_db_tuples_inserted(oid) from pg_database where datname = '{db}'", WORK,
    )),
    Attack::new("database_view", Observe, ALL, Act::Gauge(
        "select tup_inserted from pg_stat_database where datname = '{db}'", WORK,
    )),
    Attack::new("size_of_table", Observe, TOGETHER, Act::Refused(&["select pg_relation_size('{table}'::regclass)"])),
    Attack::new("size_by_number", Observe, TOGETHER, Act::Refused(&["select pg_total_relation_size({table_oid}), pg_table_size({table_oid}), pg_indexes_size({table_oid})"])),
    Attack::new("size_of_database", Observe, ALL, Act::Refused(&["select pg_database_size('{db}')"])),
    Attack::new("size_of_tablespace", Observe, ALL, Act::Refused(&["select pg_tablespace_size('pg_default')"])),
    Attack::new("file_of_table", Observe, TOGETHER, Act::Refused(&["select pg_relation_filepath({table_oid})"])),
    Attack::new("pages_of_table", Observe, SCHEMA, Act::Gauge(
        "select relpages || ' ' || reltuples from pg_class where oid = {table_oid}",
        &[
            "insert into accounts (id, secret) select n, 'counted' from generate_series(8000, 9500) n",
            "analyze accounts",
            "delete from accounts where id between 8000 and 9500",
        ],
    )),
    Attack::new("sequence_moves", Observe, SCHEMA, Act::Gauge("select last_value from {schema}.tally", &["select nextval('tally')"])),
    Attack::new("sequence_by_function", Observe, SCHEMA, Act::Refused(&["select pg_sequence_last_value('{schema}.ticket'::regclass)"])),
    Attack::new("sequences_view", Observe, SCHEMA, Act::Gauge(
        "select sequencename || ' ' || last_value from pg_sequences where sequencename = 'tally'",
        &["select nextval('tally')"],
    )),
    Attack::new("rate_by_shared_sequence", Observe, ROWS, Act::Gauge(
        "select last_value from data.ids",
        &[
            "insert into accounts (secret) values ('numbered')",
            "insert into accounts (secret) values ('numbered')",
            "delete from accounts where secret = 'numbered'",
        ],
    )),
    Attack::new("rate_by_identity", Observe, ROWS, Act::Own(|scene| {
        // The numbers that the attacker's own rows get tell how many others have drawn between.
        let draw = "insert into accounts (secret) values ('drawn') returning id";
        let numbers: Vec<i64> = (0..2).filter_map(|_| scene.say(draw).value()?.parse().ok()).collect();
        scene.stage.victim_says("insert into accounts (secret) values ('drawn too')");
        let last: Option<i64> = scene.say(draw).value().and_then(|value| value.parse().ok());
        scene.stage.victim_says("delete from accounts where secret = 'drawn too'");
        scene.say("delete from accounts where secret = 'drawn'");
        let (&[first, second], Some(last)) = (&numbers[..], last) else { return None };
        (last - second != second - first).then(|| "the victim's insert shows in the numbers".to_owned())
    })),
    Attack::new("listen", Observe, ALL, Act::Script(&[
        A("listen orders"),
        A("notify orders, 'fence'"),
        Fence,
        V("notify orders, '{canary}'"),
        V("select pg_notify('orders', '{canary}')"),
        A("notify orders, 'another fence'"),
        A("select 1"),
        A("notify orders, 'the last'"),
        A("select 1"),
    ])),
    Attack::new("listen_in_transaction", Observe, ALL, Act::Script(&[
        A("begin; listen orders"),
        V("notify orders, '{canary}'"),
        A("commit; notify orders, 'fence'"),
        Fence,
        V("notify orders, '{canary}'"),
        A("begin; select 1; commit"),
        A("notify orders, 'the last'"),
        A("select 1"),
    ])),
    Attack::new("notification_queue", Observe, ALL, Act::Refused(&["select pg_notification_queue_usage()"])),
    Attack::new("replication", Observe, ALL, Act::Refused(&["select * from pg_stat_replication, pg_stat_wal_receiver"])),
    Attack::new("replication_slots", Observe, ALL, Act::Refused(&["select * from pg_replication_slots"])),
    Attack::new("replication_origins", Observe, ALL, Act::Refused(&["select * from pg_show_replication_origin_status()"])),
    Attack::new("progress", Observe, ALL, Act::Refused(&["select * from pg_stat_progress_vacuum, pg_stat_progress_copy"])),
    Attack::new("connection_security", Observe, ALL, Act::Refused(&["select * from pg_stat_ssl, pg_stat_gssapi"])),
    Attack::new("archiver", Observe, ALL, Act::Refused(&["select * from pg_stat_archiver, pg_stat_bgwriter, pg_stat_wal"])),
    Attack::new("caches", Observe, ALL, Act::Refused(&["select * from pg_stat_slru"])),
    Attack::new("write_ahead_position", Observe, ALL, Act::Refused(&["select pg_current_wal_lsn()"])),
    Attack::new("last_commit", Observe, ALL, Act::Refused(&["select pg_get_wal_replay_pause_state(), pg_last_committed_xact()"]))
        .unproven("these answer on standbys, and where commit timestamps are kept"),
    Attack::new("access_rules", Observe, ALL, Act::Refused(&["select * from pg_hba_file_rules"])),
    Attack::new("configuration_file", Observe, ALL, Act::Refused(&["select * from pg_file_settings"])),
    Attack::new("memory", Observe, ALL, Act::Refused(&["select * from pg_shmem_allocations"])),
    Attack::new("log_files", Observe, ALL, Act::Refused(&["select * from pg_ls_waldir()"])),
    Attack::new("folders", Observe, ALL, Act::Refused(&["show data_directory"])),
    Attack::new("export_snapshot", Observe, TOGETHER, Act::Refused(&["select pg_export_snapshot()"])),
    Attack::new("who_is_there", Observe, ALL, Act::Own(|scene| {
        for sql in [
            "select rolname from pg_roles",
            "select datname from pg_database",
            "select nspname from pg_namespace",
            "select description from pg_shdescription",
            "select shobj_description(oid, 'pg_database') from pg_database",
            "select shobj_description(oid, 'pg_authid') from pg_roles",
            "select usename from pg_user",
        ] {
            scene.say(sql);
        }
        let id = scene.stage.value("id");
        scene.attacker.has_heard(&id).then(|| format!("the victim's name, {id}, is shown"))
    })),
    Attack::new("names_of_objects", Observe, SCHEMA, Act::Own(|scene| {
        let named = scene.say("select relname from pg_class where relname = 'glance'").values();
        (!named.is_empty()).then(|| "the names of the victim's tables are shown".to_owned())
    })).residual("hole object_names"),
    Attack::new("names_of_others", Observe, ALL, Act::Own(|scene| {
        let named = scene.say("select rolname from pg_roles where rolname = '{role}'").values();
        (!named.is_empty()).then(|| "that there is a role of this opaque name is shown".to_owned())
    })).residual("R1"),
    Attack::new("rows_of_all_tenants", Observe, ROWS, Act::Own(|scene| {
        let measure = "set enable_indexscan = off; set enable_indexonlyscan = off; set enable_bitmapscan = off; \
            explain (analyze, costs off, timing off, summary off, buffers off) select count(*) from accounts where id = 4711";
        let before = scene.say(measure).values();
        scene.stage.victim_says("insert into accounts (id, secret) select n, 'counted' from generate_series(8000, 8400) n");
        let after = scene.say(measure).values();
        scene.stage.victim_says("delete from accounts where id between 8000 and 8400");
        (before != after).then(|| format!("{before:?} becomes {after:?} when the victim adds rows"))
    })).residual("R2"),
    Attack::new("place_of_own_rows", Observe, ROWS, Act::Own(|scene| {
        let places = ["select ctid from accounts limit 1", "select ctid from {table} limit 1"];
        let mut places = places.into_iter().filter(|sql| scene.say(sql).is_ok());
        places.next().map(|_| "the place of a row in the shared table is shown".to_owned())
    })).residual("R2"),
    Attack::new("rate_of_transactions", Observe, ALL, Act::Own(|scene| {
        let count = scene.say("select pg_snapshot_xmax(pg_current_snapshot())");
        count.is_ok().then(|| "the number of the cluster's next transaction is shown".to_owned())
    })).residual("R4"),
];
