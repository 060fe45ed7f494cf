-- Once per cluster, in any database of it; idempotent. The roles that own what tenants share, none of
-- which can log in. pgusher_tenants is for pg_hba.conf ("+pgusher_tenants") and holds no privilege.
DO $cluster$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['pgusher_tenants', 'pgusher_ctl', 'pgusher_data', 'pgusher_view', 'pgusher_del'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', role);
        ELSIF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role
                AND (rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)) THEN
            RAISE EXCEPTION 'role % can log in or has attributes', role USING ERRCODE = 'PU001';
        END IF;
        -- Who is no superuser gives objects away only to roles that it is a member of.
        IF role <> 'pgusher_tenants' AND NOT pg_catalog.pg_has_role(role, 'USAGE') THEN
            EXECUTE format('GRANT %I TO CURRENT_USER', role)
                || CASE WHEN current_setting('server_version_num')::int >= 160000
                    THEN ' WITH INHERIT TRUE, SET TRUE' ELSE '' END;
        END IF;
    END LOOP;
    -- The slot that a session can't forge: a setting that only this role may set.
    IF current_setting('is_superuser')::bool THEN
        GRANT SET ON PARAMETER backtrace_functions TO pgusher_ctl;
    END IF;
    FOR role IN
        SELECT datname FROM pg_catalog.pg_database
        WHERE datname IN ('postgres', 'template1') AND pg_catalog.pg_has_role(datdba, 'USAGE')
    LOOP
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO CURRENT_USER', role);
        EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', role);
    END LOOP;
END
$cluster$
