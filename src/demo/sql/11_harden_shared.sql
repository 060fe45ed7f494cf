-- After 10, in a database that several tenants share. Takes from PUBLIC what reaches into the
-- others' work there: advisory locks (unlocking stays, drivers reset with it), signals, large
-- objects, and the text of functions, views and rules. Names in pg_class can't be hidden.
DO $harden$
DECLARE
    routine record;
    columns text;
BEGIN
    FOR routine IN
        SELECT oid::regprocedure AS name
        FROM pg_catalog.pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace
          AND (proname ~ '^pg_(try_)?advisory_(xact_)?lock'
            OR proname IN ('pg_terminate_backend', 'pg_cancel_backend', 'pg_notify')
            OR proname ~ '^(lo_|be_lo|lo(read|write)$)'
            OR proname ~ '^pg_get_(viewdef|functiondef|function_sqlbody|function_arg_default|ruledef|triggerdef|policydef)$')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', routine.name);
    END LOOP;
    REVOKE SELECT ON pg_catalog.pg_rewrite, pg_catalog.pg_views, pg_catalog.pg_rules, pg_catalog.pg_matviews,
        pg_catalog.pg_policies, pg_catalog.pg_stats_ext, pg_catalog.pg_stats_ext_exprs, pg_catalog.pg_sequences,
        pg_catalog.pg_prepared_xacts, pg_catalog.pg_locks, pg_catalog.pg_shdescription,
        pg_catalog.pg_db_role_setting, pg_catalog.pg_replication_slots FROM PUBLIC;
    SELECT string_agg(quote_ident(attname), ', ') INTO columns
        FROM pg_catalog.pg_attribute
        WHERE attrelid = 'pg_catalog.pg_proc'::regclass
          AND (attnum > 0 OR attname IN ('tableoid', 'ctid'))
          AND attname NOT IN ('prosrc', 'probin', 'prosqlbody', 'proargdefaults');
    REVOKE SELECT ON pg_catalog.pg_proc FROM PUBLIC;
    EXECUTE format('GRANT SELECT (%s) ON pg_catalog.pg_proc TO PUBLIC', columns);
END
$harden$;
