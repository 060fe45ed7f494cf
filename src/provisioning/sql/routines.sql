-- PostgreSQL's own routines that show or disturb the work of others, and what for. What an upgrade
-- brings is found by its name.
SELECT oid, prokind, proowner, CASE
    WHEN proname ~ '^pg_stat_(get_|reset|clear|have_)'
      OR proname IN ('pg_lock_status', 'pg_prepared_xact', 'pg_notification_queue_usage',
        'pg_get_replication_slots', 'pg_show_replication_origin_status', 'pg_safe_snapshot_blocking_pids',
        'pg_blocking_pids', 'pg_isolation_test_session_is_blocked', 'pg_export_snapshot',
        'pg_logical_emit_message', 'pg_get_multixact_members') THEN 'activity'
    WHEN proname ~ '^pg_(total_relation|relation|table|indexes|database|tablespace)_size$'
      OR proname ~ '^pg_(relation_file|filenode|current_wal|last_|ls_|control_|xact_commit_timestamp)'
      OR proname IN ('pg_tablespace_databases', 'pg_sequence_last_value') OR proname ~ '^currtid' THEN 'sizes'
    WHEN proname ~ '^pg_(try_)?advisory_(xact_)?lock' THEN 'advisory_locks'
    WHEN proname IN ('pg_terminate_backend', 'pg_cancel_backend') THEN 'signals'
    WHEN proname ~ '^(lo_|be_lo|lo(read|write)$)' THEN 'large_objects'
    WHEN proname ~ '^pg_get_(viewdef|functiondef|function_sqlbody|function_arg_default|ruledef|triggerdef|policydef)$' THEN 'definitions'
    WHEN proname ~ '^pg_get_(constraintdef|indexdef|partition_constraintdef|partkeydef|statisticsobjdef.*|function_arguments|publication_tables)$' THEN 'object_texts'
    -- Called by their names they check a value for any domain, by its number: a guess can be tried.
    -- PostgreSQL itself calls them without asking who may.
    WHEN proname ~ '^(domain|record|array|range|multirange)_(in|recv)$' THEN 'object_texts'
END AS subject
FROM pg_catalog.pg_proc
WHERE pronamespace = 'pg_catalog'::regnamespace
  -- By the index, as most of the three thousand are none of these.
  AND (proname >= 'pg_' AND proname < 'pg`' OR proname >= 'lo' AND proname < 'lp'
    OR proname >= 'be_lo' AND proname < 'be_lp' OR proname >= 'currtid' AND proname < 'currtie'
    OR proname IN ('domain_in', 'domain_recv', 'record_in', 'record_recv', 'array_in', 'array_recv',
        'range_in', 'range_recv', 'multirange_in', 'multirange_recv'))
