-- Once per database of the row tier, after harden.sql; idempotent. `data` has the tables, `app` the
-- views through which tenants use them, `ctl` the functions that say who the tenant is.
DO $row$
DECLARE
    it record;
BEGIN
    FOR it IN SELECT * FROM (VALUES ('ctl', 'pgusher_ctl'), ('data', 'pgusher_data'), ('app', 'pgusher_view')) AS s (name, owner) LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = it.name) THEN
            -- Made by the admin and then given away: who is no superuser may not make it for another.
            EXECUTE format('CREATE SCHEMA %I', it.name);
            EXECUTE format('ALTER SCHEMA %I OWNER TO %I', it.name, it.owner);
        ELSIF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_roles AS r ON r.oid = n.nspowner
                WHERE n.nspname = it.name AND r.rolname = it.owner) THEN
            RAISE EXCEPTION 'schema %', it.name USING ERRCODE = 'PU001';
        END IF;
    END LOOP;
    -- An object is given only to who may make it there.
    GRANT USAGE ON SCHEMA ctl, app TO PUBLIC;
    GRANT USAGE ON SCHEMA data TO pgusher_view, pgusher_del;
    GRANT USAGE, CREATE ON SCHEMA ctl TO pgusher_view, pgusher_del;
    EXECUTE format('ALTER DATABASE %I SET search_path = app', current_database());
END
$row$;
-- A slot that serves nobody has lost its tenant (RESET ALL takes it away). That fails loudly: a
-- client must not take it for a table without rows.
CREATE OR REPLACE FUNCTION ctl.unbound() RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $unbound$
BEGIN
    -- Without the names of the commands: who looks at bodies for what they leave would find them here.
    RAISE EXCEPTION 'the session serves no tenant any more'
        USING ERRCODE = 'PU002', HINT = 'All its settings were taken back; the next transaction serves the tenant again.';
END
$unbound$;
ALTER FUNCTION ctl.unbound() OWNER TO pgusher_ctl;
-- Who is the tenant: who logged in as one says so by its name, a slot by the setting that only
-- ctl.bind may set, and who removes a tenant's rows (a member of their owner) by a setting of ours.
-- Names are bound here and now, so no search_path matters, and the planner can inline it.
CREATE OR REPLACE FUNCTION ctl.tenant() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN session_user OPERATOR(pg_catalog.^@) 't_' OR session_user OPERATOR(pg_catalog.^@) 'r_'
        THEN pg_catalog.substr(session_user::text, 3)
    WHEN session_user OPERATOR(pg_catalog.^@) 's_' OR session_user OPERATOR(pg_catalog.^@) 'q_'
        THEN coalesce(nullif(pg_catalog.current_setting('backtrace_functions'), ''), ctl.unbound())
    WHEN pg_catalog.pg_has_role(session_user, 'pgusher_data', 'USAGE')
        THEN nullif(pg_catalog.current_setting('pgusher.tenant', true), '')
END;
-- Whether the login is one that writes.
CREATE OR REPLACE FUNCTION ctl.may_write() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
RETURN NOT (session_user OPERATOR(pg_catalog.^@) 'r_' OR session_user OPERATOR(pg_catalog.^@) 'q_');
-- Write privileges are PUBLIC's, as one tenant could drop what is granted to a group. So who only
-- reads is refused here, before the first row is looked at.
CREATE OR REPLACE FUNCTION ctl.refuse_read_only() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $refuse$
BEGIN
    RAISE EXCEPTION 'permission denied for table %', TG_TABLE_NAME
        USING ERRCODE = '42501', DETAIL = 'This login may only read.';
END
$refuse$;
ALTER FUNCTION ctl.tenant() OWNER TO pgusher_ctl;
ALTER FUNCTION ctl.refuse_read_only() OWNER TO pgusher_ctl;
ALTER FUNCTION ctl.may_write() OWNER TO pgusher_ctl;
-- PUBLIC, so that nobody can take it away from itself.
GRANT EXECUTE ON FUNCTION ctl.tenant(), ctl.unbound(), ctl.refuse_read_only(), ctl.may_write() TO PUBLIC;
-- What verification tries to read: a table as all of them should be, with a row of nobody's.
CREATE TABLE IF NOT EXISTS data.canary (
    tenant_id text NOT NULL DEFAULT ctl.tenant(),
    id        int NOT NULL,
    secret    text,
    PRIMARY KEY (tenant_id, id)
);
ALTER TABLE data.canary OWNER TO pgusher_data;
ALTER TABLE data.canary ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY,
    ALTER tenant_id SET STATISTICS 0, ALTER id SET STATISTICS 0, ALTER secret SET STATISTICS 0;
DROP POLICY IF EXISTS tenant ON data.canary;
CREATE POLICY tenant ON data.canary TO PUBLIC
    USING (tenant_id = (SELECT ctl.tenant())) WITH CHECK (tenant_id = (SELECT ctl.tenant()));
-- SELECT … FOR UPDATE and its like ask the policies for UPDATE, and fire no trigger.
DROP POLICY IF EXISTS read_only ON data.canary;
CREATE POLICY read_only ON data.canary AS RESTRICTIVE FOR UPDATE TO PUBLIC USING ((SELECT ctl.may_write()));
-- By column: a privilege on the whole table would let its holder lock it.
GRANT SELECT (tenant_id, id, secret), INSERT (tenant_id, id, secret), UPDATE (tenant_id, id, secret) ON data.canary TO pgusher_view;
CREATE OR REPLACE TRIGGER refuse_read_only BEFORE INSERT OR UPDATE OR DELETE ON data.canary FOR EACH STATEMENT
    WHEN (session_user OPERATOR(pg_catalog.^@) 'r_' OR session_user OPERATOR(pg_catalog.^@) 'q_')
    EXECUTE FUNCTION ctl.refuse_read_only();
CREATE OR REPLACE VIEW ctl.canary WITH (security_barrier) AS SELECT id, secret, tenant_id FROM data.canary;
ALTER VIEW ctl.canary OWNER TO pgusher_view;
ALTER VIEW ctl.canary ALTER tenant_id SET DEFAULT ctl.tenant();
GRANT SELECT, INSERT, UPDATE ON ctl.canary TO PUBLIC;
SELECT pg_catalog.set_config('pgusher.tenant', 'canary', true);
INSERT INTO data.canary (tenant_id, id, secret) VALUES ('canary', 1, 'canary') ON CONFLICT DO NOTHING;
