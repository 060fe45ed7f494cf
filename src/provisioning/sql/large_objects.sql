-- In a tenant's own database: large objects are in tables of the system that PUBLIC may write, so
-- they would be a write privilege of the read-only role. The tenant keeps them.
DO $large_objects$
DECLARE
    it regprocedure;
BEGIN
    FOR it IN
        SELECT oid FROM pg_catalog.pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace AND pg_catalog.pg_has_role(proowner, 'USAGE')
          AND (proname ~ '^(lo_|be_lo|lo(read|write)$)') AND proname NOT IN ('lo_import', 'lo_export')
    LOOP
        IF pg_catalog.has_function_privilege('public', it, 'EXECUTE') THEN
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', it);
        END IF;
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO {role}', it);
    END LOOP;
END
$large_objects$;
