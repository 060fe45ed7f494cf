-- A database of the tier `row`, as provisioning makes it, with what a shared one is hardened by as far
-- as slots depend on it.
DO $roles$
DECLARE role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['pgusher_tenants', 'pgusher_ctl', 'pgusher_data', 'pgusher_view', 'pgusher_del'] LOOP
        EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', role);
    END LOOP;
END
$roles$;
REVOKE ALL ON DATABASE rows FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
DO $harden$
DECLARE it record;
BEGIN
    FOR it IN SELECT oid::regprocedure AS name FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
        AND (proname ~ '^(lo_|lowrite|loread|pg_(try_)?advisory_(xact_)?lock)' OR proname ~ '^pg_stat_get_(activity|backend)'
            OR proname IN ('pg_lock_status', 'pg_export_snapshot'))
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', it.name);
    END LOOP;
    REVOKE SELECT ON pg_catalog.pg_shdepend, pg_catalog.pg_db_role_setting FROM PUBLIC;
END
$harden$;
CREATE SCHEMA ctl AUTHORIZATION pgusher_ctl;
CREATE SCHEMA data AUTHORIZATION pgusher_data;
CREATE SCHEMA app AUTHORIZATION pgusher_view;
GRANT USAGE ON SCHEMA ctl, app TO PUBLIC;
GRANT USAGE ON SCHEMA data TO pgusher_view, pgusher_del;
ALTER DATABASE rows SET search_path = app;
CREATE FUNCTION ctl.tenant() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE RETURN NULL::text;
CREATE FUNCTION ctl.refuse_read_only() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $refuse$
BEGIN
    RAISE EXCEPTION 'permission denied for table %', TG_TABLE_NAME USING ERRCODE = '42501';
END
$refuse$;
GRANT EXECUTE ON FUNCTION ctl.tenant(), ctl.refuse_read_only() TO PUBLIC;
ALTER FUNCTION ctl.tenant() OWNER TO pgusher_ctl;

CREATE TABLE data.accounts (
    tenant_id text NOT NULL DEFAULT ctl.tenant(),
    id        bigint NOT NULL,
    secret    text,
    PRIMARY KEY (tenant_id, id)
);
ALTER TABLE data.accounts OWNER TO pgusher_data;
ALTER TABLE data.accounts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY,
    ALTER tenant_id SET STATISTICS 0, ALTER id SET STATISTICS 0, ALTER secret SET STATISTICS 0;
CREATE POLICY tenant ON data.accounts TO PUBLIC
    USING (tenant_id = (SELECT ctl.tenant())) WITH CHECK (tenant_id = (SELECT ctl.tenant()));
GRANT SELECT (tenant_id, id, secret), INSERT (tenant_id, id, secret), UPDATE (tenant_id, id, secret) ON data.accounts TO pgusher_view;
GRANT SELECT (tenant_id, id), DELETE ON data.accounts TO pgusher_del;
CREATE TRIGGER refuse_read_only BEFORE INSERT OR UPDATE OR DELETE ON data.accounts FOR EACH STATEMENT
    WHEN (session_user ^@ 'r_' OR session_user ^@ 'q_') EXECUTE FUNCTION ctl.refuse_read_only();
CREATE VIEW app.accounts WITH (security_barrier) AS SELECT id, secret, tenant_id FROM data.accounts;
ALTER VIEW app.accounts OWNER TO pgusher_view;
ALTER VIEW app.accounts ALTER tenant_id SET DEFAULT ctl.tenant();
GRANT SELECT, INSERT, UPDATE, DELETE ON app.accounts TO PUBLIC;
CREATE FUNCTION ctl.del_accounts() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $del$
BEGIN
    DELETE FROM data.accounts WHERE tenant_id = old.tenant_id AND id = old.id;
    IF NOT found THEN RETURN NULL; END IF;
    RETURN old;
END
$del$;
ALTER FUNCTION ctl.del_accounts() OWNER TO pgusher_del;
CREATE TRIGGER del INSTEAD OF DELETE ON app.accounts FOR EACH ROW EXECUTE FUNCTION ctl.del_accounts();
