-- In one database: what the tenant's roles own there, and what was granted to them.
DO $owned$
DECLARE
    it record;
BEGIN
    FOR it IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY ({roles}) LOOP
        EXECUTE format('DROP OWNED BY %I CASCADE', it.rolname);
    END LOOP;
END
$owned$;
