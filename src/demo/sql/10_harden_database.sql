-- In template1 and in every database that a tenant reaches, as superuser; idempotent.
-- Takes from PUBLIC what shows the work of others: their sessions, locks, sizes, WAL.
DO $harden$
DECLARE
    routine record;
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    REVOKE ALL ON SCHEMA public FROM PUBLIC;
    ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
    FOR routine IN
        SELECT oid::regprocedure AS name, CASE prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END AS kind
        FROM pg_catalog.pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace
          AND (proname ~ '^pg_stat_(get_|reset|clear)'
            OR proname ~ '^pg_xact_commit_timestamp'
            OR proname IN ('pg_lock_status', 'pg_prepared_xact', 'pg_notification_queue_usage',
                'pg_get_replication_slots', 'pg_show_replication_origin_status', 'pg_last_committed_xact',
                'pg_safe_snapshot_blocking_pids', 'pg_blocking_pids', 'pg_isolation_test_session_is_blocked',
                'pg_tablespace_databases', 'pg_export_snapshot', 'pg_logical_emit_message',
                'pg_sequence_last_value')
            OR proname ~ '^pg_(total_relation|relation|table|indexes|database|tablespace)_size$'
            OR proname ~ '^pg_(relation_file|filenode|current_wal|last_wal|ls_)'
            OR proname ~ '^currtid2')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON %s %s FROM PUBLIC', routine.kind, routine.name);
    END LOOP;
END
$harden$;
