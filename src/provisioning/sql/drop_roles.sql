DO $roles$
DECLARE
    it record;
BEGIN
    FOR it IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY ({roles}) LOOP
        EXECUTE format('DROP ROLE %I', it.rolname);
    END LOOP;
END
$roles$;
