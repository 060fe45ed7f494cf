-- A role for one run: what it does it does as the tenant, and there is no other role to return to.
-- So neither the tenant's settings nor its connection limit matter, nor that it is locked out.
DO $visitor$
BEGIN
    CREATE ROLE {visitor} LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
        PASSWORD {verifier} IN ROLE pgusher_tenants;
    EXECUTE format('ALTER ROLE {visitor} VALID UNTIL %L', pg_catalog.now() + interval '1 hour');
    EXECUTE 'GRANT {role} TO {visitor}' || CASE WHEN current_setting('server_version_num')::int >= 160000
        THEN ' WITH INHERIT TRUE, SET TRUE' ELSE '' END;
    -- Who is no superuser ends the sessions only of roles that it is a member of.
    IF NOT pg_catalog.pg_has_role({visitor_text}, 'USAGE') THEN
        EXECUTE 'GRANT {visitor} TO CURRENT_USER' || CASE WHEN current_setting('server_version_num')::int >= 160000
            THEN ' WITH INHERIT TRUE, SET TRUE' ELSE '' END;
    END IF;
END
$visitor$
