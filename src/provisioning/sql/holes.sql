-- What harden.sql should have closed in this database and has not: the subject, and how much of it.
WITH routines AS MATERIALIZED (SELECT * FROM ({routines}) AS routines WHERE subject IS NOT NULL)
SELECT subject, count(*) FROM (
    SELECT subject FROM routines
    WHERE subject = ANY ({closed}) AND pg_catalog.has_function_privilege('public', oid, 'EXECUTE')
    UNION ALL
    SELECT subject FROM ({relations}) AS relations
    WHERE subject = ANY ({closed})
      AND CASE WHEN closed IS NULL THEN pg_catalog.has_any_column_privilege('public', oid, 'SELECT')
        ELSE EXISTS (SELECT FROM unnest(closed) AS name WHERE pg_catalog.has_column_privilege('public', oid, name, 'SELECT')) END
    UNION ALL
    SELECT 'public_schema' FROM pg_catalog.pg_namespace
    WHERE nspname = 'public' AND (pg_catalog.has_schema_privilege('public', oid, 'USAGE')
        OR pg_catalog.has_schema_privilege('public', oid, 'CREATE'))
    UNION ALL
    SELECT 'database_access' FROM pg_catalog.pg_database
    WHERE datallowconn AND datname <> 'template0'
      AND pg_catalog.has_database_privilege('public', oid, 'CONNECT')
    UNION ALL
    SELECT 'prepared_transactions' WHERE current_setting('max_prepared_transactions')::int > 0
    UNION ALL
    SELECT 'temporary_files' WHERE NOT current_setting('is_superuser')::bool
      AND NOT pg_catalog.has_parameter_privilege('temp_file_limit', 'SET')
    UNION ALL
    SELECT 'slots' WHERE {is_row} AND NOT pg_catalog.has_parameter_privilege('pgusher_ctl', 'backtrace_functions', 'SET')
) AS open (subject)
GROUP BY subject ORDER BY subject
