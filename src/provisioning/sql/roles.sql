-- A tenant's login role. It holds no attribute and is a member of nothing that has a privilege.
DO $role$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {role_text}) THEN
        CREATE ROLE {role} LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
            CONNECTION LIMIT {limit} PASSWORD {verifier} IN ROLE pgusher_tenants;
    ELSIF NOT EXISTS (
        SELECT FROM pg_catalog.pg_auth_members AS m
        JOIN pg_catalog.pg_roles AS r ON r.oid = m.member
        JOIN pg_catalog.pg_roles AS g ON g.oid = m.roleid
        WHERE r.rolname = {role_text} AND g.rolname = 'pgusher_tenants')
    THEN
        RAISE EXCEPTION 'role %', {role_text} USING ERRCODE = 'PU001';
    ELSE
        ALTER ROLE {role} LOGIN CONNECTION LIMIT {limit} PASSWORD {verifier};
    END IF;
    -- Who is no superuser makes, gives away and drops only for roles that it is a member of.
    IF NOT pg_catalog.pg_has_role({role_text}, 'USAGE') THEN
        EXECUTE 'GRANT {role} TO CURRENT_USER' || CASE WHEN current_setting('server_version_num')::int >= 160000
            THEN ' WITH INHERIT TRUE, SET TRUE' ELSE '' END;
    END IF;
END
$role$;
