-- What harden.sql should have closed in this database and has not: the subject, whether there is some
-- of it that the admin may not close, and whether there is some that it may: that was opened again.
WITH routines AS MATERIALIZED (SELECT * FROM ({routines}) AS routines WHERE subject IS NOT NULL)
SELECT subject, bool_or(NOT is_ours) AS is_known, bool_or(is_ours) AS is_reopened FROM (
    SELECT subject, pg_catalog.pg_has_role(proowner, 'USAGE') FROM routines
    WHERE subject = ANY ({closed}) AND pg_catalog.has_function_privilege('public', oid, 'EXECUTE')
    UNION ALL
    SELECT subject, pg_catalog.pg_has_role(relowner, 'USAGE') FROM ({relations}) AS relations
    WHERE subject = ANY ({closed})
      AND CASE WHEN closed IS NULL THEN pg_catalog.has_any_column_privilege('public', oid, 'SELECT')
        ELSE EXISTS (SELECT FROM unnest(closed) AS name WHERE pg_catalog.has_column_privilege('public', oid, name, 'SELECT')) END
    UNION ALL
    SELECT 'public_schema', pg_catalog.pg_has_role(nspowner, 'USAGE') FROM pg_catalog.pg_namespace
    WHERE nspname = 'public' AND (pg_catalog.has_schema_privilege('public', oid, 'USAGE')
        OR pg_catalog.has_schema_privilege('public', oid, 'CREATE'))
    UNION ALL
    -- Other databases than pgusher's are not its own to close.
    SELECT 'database_access', pg_catalog.pg_has_role(datdba, 'USAGE')
        AND (datname IN ('postgres', 'template1', current_database()) OR datname ~ '^d_[a-z2-7]{20}$')
    FROM pg_catalog.pg_database
    WHERE datallowconn AND datname <> 'template0'
      AND pg_catalog.has_database_privilege('public', oid, 'CONNECT')
    UNION ALL
    SELECT 'prepared_transactions', false WHERE current_setting('max_prepared_transactions')::int > 0
    UNION ALL
    SELECT 'temporary_files', false WHERE NOT current_setting('is_superuser')::bool
      AND NOT pg_catalog.has_parameter_privilege('temp_file_limit', 'SET')
    UNION ALL
    SELECT 'slots', false WHERE {is_row} AND NOT pg_catalog.has_parameter_privilege('pgusher_ctl', 'backtrace_functions', 'SET')
) AS open (subject, is_ours)
GROUP BY subject ORDER BY subject
