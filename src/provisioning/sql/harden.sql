-- In template1 and in every database that a tenant reaches; idempotent. Takes from PUBLIC the use of
-- what shows or disturbs the work of others, and gives back what this profile leaves open. What the
-- admin may not change it passes over: holes.sql tells it.
DO $harden$
DECLARE
    it record;
    columns text;
    closed_subjects constant text[] := {closed};
    is_shared constant boolean := {is_shared};
BEGIN
    IF pg_catalog.pg_has_role((SELECT datdba FROM pg_catalog.pg_database WHERE datname = current_database()), 'USAGE') THEN
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO CURRENT_USER', current_database());
        EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'public' AND pg_catalog.pg_has_role(nspowner, 'USAGE')) THEN
        REVOKE ALL ON SCHEMA public FROM PUBLIC;
    END IF;
    IF is_shared THEN
        ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
    END IF;
    FOR it IN
        WITH routines AS MATERIALIZED (SELECT * FROM ({routines}) AS routines WHERE subject IS NOT NULL)
        SELECT oid::regprocedure AS name, CASE prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END AS kind,
            subject = ANY (closed_subjects) AS is_closed
        FROM routines
        WHERE pg_catalog.pg_has_role(proowner, 'USAGE')
          AND (subject = ANY (closed_subjects)
                AND pg_catalog.has_function_privilege('public', oid, 'EXECUTE')
            OR subject = 'definitions' AND subject <> ALL (closed_subjects)
                AND NOT pg_catalog.has_function_privilege('public', oid, 'EXECUTE'))
    LOOP
        EXECUTE format(CASE WHEN it.is_closed THEN 'REVOKE EXECUTE ON %s %s FROM PUBLIC'
            ELSE 'GRANT EXECUTE ON %s %s TO PUBLIC' END, it.kind, it.name);
    END LOOP;
    FOR it IN
        SELECT oid, oid::regclass AS name, closed, subject = ANY (closed_subjects) AS is_closed
        FROM ({relations}) AS relations
        WHERE pg_catalog.pg_has_role(relowner, 'USAGE')
    LOOP
        SELECT string_agg(quote_ident(attname), ', ') INTO columns FROM pg_catalog.pg_attribute
        WHERE attrelid = it.oid AND NOT attisdropped AND attname <> ALL (it.closed)
          AND (attnum > 0 OR attname IN ('tableoid', 'ctid')
            AND (SELECT relkind FROM pg_catalog.pg_class WHERE oid = it.oid) = 'r');
        IF it.is_closed AND pg_catalog.has_table_privilege('public', it.oid, 'SELECT') THEN
            EXECUTE format('REVOKE SELECT ON %s FROM PUBLIC', it.name);
            IF it.closed IS NOT NULL THEN
                EXECUTE format('GRANT SELECT (%s) ON %s TO PUBLIC', columns, it.name);
            END IF;
        ELSIF NOT it.is_closed AND NOT pg_catalog.has_table_privilege('public', it.oid, 'SELECT') THEN
            EXECUTE format('GRANT SELECT ON %s TO PUBLIC', it.name);
        END IF;
    END LOOP;
    -- The slots' functions look whether a slot is clean.
    IF is_shared AND current_setting('is_superuser')::bool THEN
        GRANT SELECT ON pg_catalog.pg_shdepend, pg_catalog.pg_db_role_setting TO pgusher_ctl;
    END IF;
END
$harden$
