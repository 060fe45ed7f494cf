-- The tenant's schema. What it makes there later is readable for its read-only role; its functions
-- are not that role's to run, as one that runs with its owner's rights could write.
DO $schema$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = {schema_text}) THEN
        CREATE SCHEMA {schema} AUTHORIZATION {role};
    ELSIF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_roles AS r ON r.oid = n.nspowner
            WHERE n.nspname = {schema_text} AND r.rolname = {role_text}) THEN
        RAISE EXCEPTION 'schema %', {schema_text} USING ERRCODE = 'PU001';
    END IF;
    ALTER DEFAULT PRIVILEGES FOR ROLE {role} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
END
$schema$;
