-- In template1 and in every database that a tenant reaches; idempotent. Takes from PUBLIC the use of
-- what shows or disturbs the work of others, and gives back what this profile leaves open. What the
-- admin may not change it passes over: holes.sql tells it.
DO $harden$
DECLARE
    it record;
    closed_subjects constant text[] := {closed};
    -- What some profile leaves open.
    left_by_profiles constant text[] := '{definitions,object_texts}';
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
            OR subject = ANY (left_by_profiles) AND subject <> ALL (closed_subjects)
                AND NOT pg_catalog.has_function_privilege('public', oid, 'EXECUTE'))
    LOOP
        EXECUTE format(CASE WHEN it.is_closed THEN 'REVOKE EXECUTE ON %s %s FROM PUBLIC'
            ELSE 'GRANT EXECUTE ON %s %s TO PUBLIC' END, it.kind, it.name);
    END LOOP;
    FOR it IN
        WITH subjects AS (
            SELECT oid, CASE WHEN subject = ANY (closed_subjects) THEN coalesce(closed, '{*}') ELSE '{}' END AS closed
            FROM ({relations}) AS relations
            WHERE pg_catalog.pg_has_role(relowner, 'USAGE')
        ), wanted AS (
            SELECT oid, ARRAY(SELECT unnest(s.closed) FROM subjects AS s WHERE s.oid = subjects.oid) AS closed
            FROM subjects GROUP BY oid
        ), columns AS (
            SELECT w.oid, a.attname, a.attname <> ALL (w.closed) AND '*' <> ALL (w.closed) AS is_open,
                pg_catalog.has_column_privilege('public', w.oid, a.attnum, 'SELECT') AS was_open
            FROM wanted AS w JOIN pg_catalog.pg_class AS c ON c.oid = w.oid
            JOIN pg_catalog.pg_attribute AS a ON a.attrelid = w.oid AND NOT a.attisdropped
                AND (a.attnum > 0 OR a.attname IN ('tableoid', 'ctid') AND c.relkind = 'r')
        )
        SELECT oid::regclass AS name, bool_and(is_open) AS is_whole,
            string_agg(quote_ident(attname), ', ') FILTER (WHERE is_open) AS open
        FROM columns GROUP BY oid
        HAVING bool_or(is_open <> was_open)
            OR bool_and(is_open) <> pg_catalog.has_table_privilege('public', oid, 'SELECT')
    LOOP
        -- That of the columns as well.
        EXECUTE format('REVOKE SELECT ON %s FROM PUBLIC', it.name);
        IF it.is_whole THEN
            EXECUTE format('GRANT SELECT ON %s TO PUBLIC', it.name);
        ELSIF it.open IS NOT NULL THEN
            EXECUTE format('GRANT SELECT (%s) ON %s TO PUBLIC', it.open, it.name);
        END IF;
    END LOOP;
    -- The slots' functions look whether a slot is clean.
    IF is_shared AND current_setting('is_superuser')::bool THEN
        GRANT SELECT ON pg_catalog.pg_shdepend, pg_catalog.pg_db_role_setting TO pgusher_ctl;
    END IF;
END
$harden$
