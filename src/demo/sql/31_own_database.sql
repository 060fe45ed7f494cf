-- In a tenant's own database: large objects are tables of the system that PUBLIC may write, so
-- they would be a write privilege of the read-only role. The tenant keeps them.
DO $own$
DECLARE
    routine regprocedure;
BEGIN
    FOR routine IN
        SELECT oid::regprocedure FROM pg_catalog.pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace
          AND proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_put', 'lowrite', 'lo_truncate',
              'lo_truncate64', 'lo_unlink', 'lo_open', 'lo_close', 'loread', 'lo_lseek', 'lo_lseek64',
              'lo_tell', 'lo_tell64', 'lo_get')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', routine);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO {role}', routine);
    END LOOP;
END
$own$;
