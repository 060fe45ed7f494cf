-- Once per database of the row tier, after row.sql, as a superuser; idempotent. What tenants of the
-- variant `shared` are served by: login roles that serve one tenant after the other, one for each
-- server connection. A role is nobody's while it is not connected: before each login ctl.lease makes
-- it ready, and ctl.bind tells whom it serves.
DO $slots$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'pgusher_slots') THEN
        -- Makes slots and makes them ready. Nobody logs in as it.
        CREATE ROLE pgusher_slots NOLOGIN CREATEROLE;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'pgusher_lease') THEN
        -- May lease slots, and nothing else.
        CREATE ROLE pgusher_lease NOINHERIT;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO pgusher_lease', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO pgusher_slots WITH GRANT OPTION', current_database());
    -- pg_hba.conf lets in who is among the tenants.
    GRANT pgusher_tenants TO pgusher_slots WITH ADMIN OPTION;
    GRANT pgusher_tenants TO pgusher_lease;
END
$slots$;
GRANT SET ON PARAMETER backtrace_functions TO pgusher_ctl;
GRANT SET ON PARAMETER temp_file_limit TO pgusher_slots;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_get_activity(int) TO pgusher_slots;
GRANT SELECT ON pg_catalog.pg_db_role_setting TO pgusher_slots;
GRANT SELECT ON pg_catalog.pg_shdepend TO pgusher_ctl, pgusher_slots;

-- Keys that tokens are made with; more than one while a new one is on its way.
CREATE TABLE IF NOT EXISTS ctl.hmac_key (id int PRIMARY KEY, ipad bytea NOT NULL, opad bytea NOT NULL);
ALTER TABLE ctl.hmac_key OWNER TO pgusher_ctl;
REVOKE ALL ON ctl.hmac_key FROM PUBLIC;
-- Made by which state of this file.
ALTER TABLE ctl.hmac_key ADD COLUMN IF NOT EXISTS level int;
-- The slots of this database. -infinity: its connection is, or was, there; infinity: never again.
CREATE TABLE IF NOT EXISTS ctl.slot (
    role      name PRIMARY KEY,
    kind      text NOT NULL CHECK (kind IN ('s', 'q')),
    leased_at timestamptz NOT NULL
);
ALTER TABLE ctl.slot OWNER TO pgusher_slots;
REVOKE ALL ON ctl.slot FROM PUBLIC;

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
GRANT EXECUTE ON FUNCTION ctl.unbound() TO PUBLIC;
CREATE OR REPLACE FUNCTION ctl.tenant() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN session_user OPERATOR(pg_catalog.^@) 't_' OR session_user OPERATOR(pg_catalog.^@) 'r_'
        THEN pg_catalog.substr(session_user::text, 3)
    WHEN session_user OPERATOR(pg_catalog.^@) 's_' OR session_user OPERATOR(pg_catalog.^@) 'q_'
        THEN coalesce(nullif(pg_catalog.current_setting('backtrace_functions'), ''), ctl.unbound())
    WHEN pg_catalog.pg_has_role(session_user, 'pgusher_data', 'USAGE')
        THEN nullif(pg_catalog.current_setting('pgusher.tenant', true), '')
END;

-- Whom this slot serves from now on, until it is reset: verified once. mac is HMAC-SHA256 of
-- 'tenant.pid.expiry.role'; expiry in seconds since 1970. 28000: the token is none, or too old; 55000:
-- the slot serves another or a tenant before has left something on it.
CREATE OR REPLACE FUNCTION ctl.bind(tenant text, expiry bigint, mac bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $bind$
DECLARE
    said bytea := convert_to(tenant || '.' || pg_backend_pid() || '.' || expiry || '.' || session_user, 'UTF8');
    slot oid := (SELECT oid FROM pg_roles WHERE rolname = session_user);
BEGIN
    -- Hashed once more before they are compared: how long that takes tells nothing.
    IF tenant IS NULL OR expiry IS NULL OR mac IS NULL OR tenant !~ '^[a-z0-9_]{1,40}$'
        OR session_user !~ '^[sq]_[0-9]+$'
        OR expiry < extract(epoch FROM clock_timestamp())
        OR NOT EXISTS (SELECT FROM ctl.hmac_key AS k
            WHERE sha256(sha256(k.opad || sha256(k.ipad || said))) = sha256(mac)) THEN
        RAISE EXCEPTION 'bind refused' USING ERRCODE = '28000';
    END IF;
    IF current_setting('backtrace_functions') NOT IN ('', tenant) THEN
        RAISE EXCEPTION 'slot % serves another tenant', session_user USING ERRCODE = '55000';
    END IF;
    -- Nothing is owned by it; nobody is a member of it but who makes it ready. What any tenant of the
    -- cluster may grant to it at any time gives away nothing of whom it serves, and is no reason: else
    -- one could stop all slots by that.
    IF EXISTS (SELECT FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid = slot AND deptype = 'o')
        OR EXISTS (SELECT FROM pg_auth_members WHERE roleid = slot AND member <> 'pgusher_slots'::regrole)
        OR EXISTS (SELECT FROM pg_auth_members WHERE member = slot AND roleid <> 'pgusher_tenants'::regrole
            AND roleid::regrole::text !~ '^[sqtr]_[a-z0-9]+$') THEN
        RAISE EXCEPTION 'slot % is not clean', session_user USING ERRCODE = '55000';
    END IF;
    PERFORM set_config('backtrace_functions', tenant, false);
    -- No reset takes a seed away: the tenant before would know what random() gives.
    PERFORM setseed(('x' || encode(substr(sha256(uuid_send(gen_random_uuid())), 1, 4), 'hex'))::bit(32)::int / 2147483648.0);
END
$bind$;
ALTER FUNCTION ctl.bind(text, bigint, bytea) OWNER TO pgusher_ctl;

-- A new role for a slot: its name. Nobody calls it but ctl.lease and who prepares the database: its
-- right to connect stands in the database's own row of the catalogue, which an open transaction of the
-- admin's may hold, so a database has as many roles as are usual before they are asked for.
CREATE OR REPLACE FUNCTION ctl.make_slot(kind text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $make$
DECLARE
    slots_max constant int := 1000;
    made text;
BEGIN
    IF (SELECT count(*) FROM ctl.slot AS s WHERE s.kind = make_slot.kind) >= slots_max THEN
        RAISE EXCEPTION 'all slots are leased' USING ERRCODE = '53300';
    END IF;
    -- Roles are the cluster's: another database may have some.
    SELECT kind || '_' || n INTO made FROM generate_series(1, 100000) AS n
        WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = kind || '_' || n) LIMIT 1;
    EXECUTE format('CREATE ROLE %I NOINHERIT IN ROLE pgusher_tenants', made);
    EXECUTE format('GRANT %I TO pgusher_slots', made)
        || CASE WHEN current_setting('server_version_num')::int >= 160000
            THEN ' WITH INHERIT TRUE, SET FALSE' ELSE '' END;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), made);
    EXECUTE format('ALTER ROLE %I SET temp_file_limit = %L', made, '1GB');
    INSERT INTO ctl.slot VALUES (made, kind, '-infinity');
    RETURN made;
END
$make$;
ALTER FUNCTION ctl.make_slot(text) OWNER TO pgusher_slots;

-- A slot's role, made ready for a login with a new password: its name. kind: s reads and writes, q
-- reads. verifier: what PostgreSQL keeps of the password. A role that somebody is logged in as, or that
-- was leased within half a minute and not claimed, is another's. 55P03: somebody holds what it needs;
-- who asks goes on with the slots there are, and asks again.
CREATE OR REPLACE FUNCTION ctl.lease(kind text, verifier text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $lease$
DECLARE
    chosen text;
    id oid;
BEGIN
    IF kind IS NULL OR kind NOT IN ('s', 'q') OR verifier IS NULL
        OR verifier !~ '^SCRAM-SHA-256\$[0-9]{1,7}:[A-Za-z0-9+/=]{1,100}\$[A-Za-z0-9+/=]{44}:[A-Za-z0-9+/=]{44}$' THEN
        RAISE EXCEPTION 'lease refused' USING ERRCODE = '22023';
    END IF;
    -- One after the other.
    LOCK TABLE ctl.slot IN SHARE ROW EXCLUSIVE MODE;
    LOOP
        SELECT s.role, r.oid INTO chosen, id FROM ctl.slot AS s JOIN pg_roles AS r ON r.rolname = s.role
            WHERE s.kind = lease.kind AND s.leased_at < clock_timestamp() - interval '30 s'
              AND NOT EXISTS (SELECT FROM pg_stat_get_activity(NULL) AS a WHERE a.usesysid = r.oid)
            ORDER BY s.leased_at, s.role LIMIT 1;
        EXIT WHEN chosen IS NULL;
        -- As it was made? All slots' rights to connect are in one row of the catalogue: so nothing is
        -- changed that need not be.
        IF has_database_privilege(id, current_database(), 'CONNECT')
            AND NOT EXISTS (SELECT FROM pg_shdepend
                WHERE refclassid = 'pg_authid'::regclass AND refobjid = id AND deptype = 'o')
            AND NOT EXISTS (SELECT FROM pg_auth_members WHERE roleid = id AND member <> 'pgusher_slots'::regrole)
            AND NOT EXISTS (SELECT FROM pg_auth_members WHERE member = id AND roleid <> 'pgusher_tenants'::regrole
                AND roleid::regrole::text !~ '^[sqtr]_[a-z0-9]+$')
            AND (SELECT array_agg(setdatabase || ':' || setconfig::text) FROM pg_db_role_setting WHERE setrole = id)
                = ARRAY['0:{temp_file_limit=1GB}'] THEN
            EXIT;
        END IF;
        -- A tenant has changed it. Not all that can be set for a role can be reset from here: a new role
        -- takes its place, and one that can't go is never leased again; one that is held, not now.
        BEGIN
            EXECUTE format('DROP OWNED BY %I', chosen);
            EXECUTE format('DROP ROLE %I', chosen);
            DELETE FROM ctl.slot WHERE role = chosen;
        EXCEPTION
            WHEN lock_not_available THEN
                UPDATE ctl.slot SET leased_at = clock_timestamp() WHERE role = chosen;
            WHEN OTHERS THEN
                UPDATE ctl.slot SET leased_at = 'infinity' WHERE role = chosen;
        END;
    END LOOP;
    IF chosen IS NULL THEN
        chosen := ctl.make_slot(kind);
    END IF;
    UPDATE ctl.slot SET leased_at = clock_timestamp() WHERE role = chosen;
    -- One connection: who has its password can't come beside it.
    EXECUTE format('ALTER ROLE %I LOGIN CONNECTION LIMIT 1 VALID UNTIL %L PASSWORD %L', chosen, 'infinity', verifier);
    RETURN chosen;
END
$lease$;
ALTER FUNCTION ctl.lease(text, text) OWNER TO pgusher_slots;

-- A slot that has just logged in says so, and hears what PostgreSQL's clock says, in seconds since
-- 1970. 55000: it starts with settings that ctl.lease did not give it.
CREATE OR REPLACE FUNCTION ctl.claim() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $claim$
BEGIN
    IF (SELECT count(*) FROM pg_settings WHERE source IN ('user', 'database user')) <> 1 THEN
        RAISE EXCEPTION 'slot % has settings of its own', session_user USING ERRCODE = '55000';
    END IF;
    -- Once: who calls it again holds no lock that ctl.lease would wait for.
    IF NOT EXISTS (SELECT FROM ctl.slot WHERE role = session_user AND leased_at = '-infinity') THEN
        UPDATE ctl.slot SET leased_at = '-infinity' WHERE role = session_user;
        IF NOT found THEN
            RAISE EXCEPTION '% is no slot', session_user USING ERRCODE = '28000';
        END IF;
    END IF;
    RETURN extract(epoch FROM clock_timestamp())::bigint;
END
$claim$;
ALTER FUNCTION ctl.claim() OWNER TO pgusher_slots;
REVOKE ALL ON FUNCTION ctl.bind(text, bigint, bytea), ctl.lease(text, text), ctl.make_slot(text), ctl.claim(), ctl.tenant() FROM PUBLIC;
-- PUBLIC, so that no slot can take it away from itself.
GRANT EXECUTE ON FUNCTION ctl.bind(text, bigint, bytea), ctl.claim(), ctl.tenant() TO PUBLIC;
GRANT EXECUTE ON FUNCTION ctl.lease(text, text) TO pgusher_lease;

-- Tenants of this tier own nothing and make nothing. What commands on objects could do for them is to
-- disturb others: DROP OWNED holds the database's row of the catalogue until its transaction ends, and
-- ALTER DEFAULT PRIVILEGES leaves something on a slot. Privileges can't refuse these, this does.
CREATE OR REPLACE FUNCTION ctl.refuse_commands() RETURNS event_trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $refuse$
BEGIN
    IF session_user ~ '^([sq]_[0-9]+|[tr]_[a-z2-7]{20})$' THEN
        RAISE EXCEPTION 'permission denied for %', lower(tg_tag) USING ERRCODE = '42501';
    END IF;
END
$refuse$;
REVOKE ALL ON FUNCTION ctl.refuse_commands() FROM PUBLIC;
DO $trigger$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger WHERE evtname = 'pgusher_refuse_commands') THEN
        CREATE EVENT TRIGGER pgusher_refuse_commands ON ddl_command_start EXECUTE FUNCTION ctl.refuse_commands();
    END IF;
END
$trigger$;
