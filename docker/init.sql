-- Two tenants: acme has a database of its own, globex a schema in a shared database. Run once, as
-- superuser, on a new cluster (PostgreSQL 15 or newer). What keeps tenants apart is PostgreSQL's own
-- privileges: each has a login role that is a member of nothing that matters. The names tell who is
-- who; choose opaque ones where tenants must not learn of each other.

\set ON_ERROR_STOP on
\getenv replication_password REPLICATION_PASSWORD
\getenv acme_password ACME_PASSWORD
\getenv globex_password GLOBEX_PASSWORD

-- 1. The cluster -----------------------------------------------------------------------------------
CREATE ROLE pgusher_tenants NOLOGIN;   -- to name all tenants at once in pg_hba.conf; may do nothing
CREATE ROLE pgusher_replica LOGIN REPLICATION PASSWORD :'replication_password';
SELECT pg_create_physical_replication_slot('replica');

CREATE ROLE t_acme LOGIN NOINHERIT CONNECTION LIMIT 50 PASSWORD :'acme_password' IN ROLE pgusher_tenants;
CREATE ROLE t_globex LOGIN NOINHERIT CONNECTION LIMIT 50 PASSWORD :'globex_password' IN ROLE pgusher_tenants;
-- Only a superuser can change this one, so a runaway sort can't fill the disk.
ALTER ROLE t_acme SET temp_file_limit = '1GB';
ALTER ROLE t_globex SET temp_file_limit = '1GB';

REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;

-- 2. The template: what no tenant may do, in any database made from it -----------------------------
\connect template1
REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- Look at others: their sessions, locks, statistics, sizes and write-ahead log.
SELECT format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', oid::regprocedure)
FROM pg_proc
WHERE pronamespace = 'pg_catalog'::regnamespace AND (
     proname ~ '^pg_stat_(get_|reset|clear)'
  OR proname ~ '^pg_(total_relation|relation|table|indexes|database|tablespace)_size$'
  OR proname ~ '^pg_(relation_file|filenode|current_wal|last_wal|last_committed_xact|xact_commit_timestamp|ls_)'
  OR proname IN ('pg_lock_status', 'pg_prepared_xact', 'pg_blocking_pids', 'pg_safe_snapshot_blocking_pids',
                 'pg_isolation_test_session_is_blocked', 'pg_notification_queue_usage', 'pg_get_replication_slots',
                 'pg_show_replication_origin_status', 'pg_tablespace_databases', 'pg_sequence_last_value',
                 'pg_export_snapshot', 'pg_logical_emit_message', 'currtid2'))
\gexec

-- 3. acme: tier "database" -------------------------------------------------------------------------
CREATE DATABASE t_acme TEMPLATE template1;
REVOKE ALL ON DATABASE t_acme FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE t_acme TO t_acme;
\connect t_acme
CREATE SCHEMA app AUTHORIZATION t_acme;
ALTER ROLE t_acme IN DATABASE t_acme SET search_path = app;

-- 4. The shared database: its tenants must also keep their hands off each other --------------------
CREATE DATABASE shared TEMPLATE template1;
REVOKE ALL ON DATABASE shared FROM PUBLIC;
\connect shared

-- Disturb others: advisory locks, signals, notifications, large objects. (Unlocking stays: drivers
-- call it to reset a session.)  Read others' code: the bodies of functions, views and rules.
SELECT format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', oid::regprocedure)
FROM pg_proc
WHERE pronamespace = 'pg_catalog'::regnamespace AND (
     proname ~ '^pg_(try_)?advisory_(xact_)?lock'
  OR proname IN ('pg_terminate_backend', 'pg_cancel_backend', 'pg_notify')
  OR proname ~ '^(lo_|be_lo|lo(read|write)$)'
  OR proname ~ '^pg_get_(viewdef|functiondef|function_sqlbody|function_arg_default|ruledef|triggerdef|policydef)$')
\gexec
REVOKE SELECT ON pg_rewrite, pg_views, pg_rules, pg_matviews, pg_policies, pg_stats_ext, pg_stats_ext_exprs,
  pg_sequences, pg_prepared_xacts, pg_locks, pg_shdescription, pg_db_role_setting, pg_replication_slots FROM PUBLIC;
REVOKE SELECT ON pg_proc FROM PUBLIC;
SELECT format('GRANT SELECT (%s) ON pg_proc TO PUBLIC', string_agg(quote_ident(attname), ', '))
FROM pg_attribute
WHERE attrelid = 'pg_proc'::regclass AND (attnum > 0 OR attname IN ('tableoid', 'ctid'))
  AND attname NOT IN ('prosrc', 'probin', 'prosqlbody', 'proargdefaults')
\gexec

-- 5. globex: tier "schema" -------------------------------------------------------------------------
GRANT CONNECT, TEMPORARY ON DATABASE shared TO t_globex;
CREATE SCHEMA t_globex AUTHORIZATION t_globex;
ALTER ROLE t_globex IN DATABASE shared SET search_path = "$user";
