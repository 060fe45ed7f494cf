DO $nologin$
DECLARE
    it record;
BEGIN
    FOR it IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY ({roles}) AND rolcanlogin LOOP
        EXECUTE format('ALTER ROLE %I NOLOGIN', it.rolname);
    END LOOP;
END
$nologin$;
