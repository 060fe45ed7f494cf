-- Several starts at once are one.
SELECT pg_catalog.pg_advisory_xact_lock(7202415);

DO $$
DECLARE
    earlier regclass;
    is_ours boolean;
    is_empty boolean;
BEGIN
    IF pg_catalog.to_regnamespace('pgusher') IS NULL THEN
        CREATE SCHEMA pgusher;
    END IF;
    -- Nothing was ever applied, or all is where it belongs.
    IF pg_catalog.to_regclass('pgusher.cluster') IS NULL THEN
        RETURN;
    END IF;
    IF pg_catalog.to_regclass('pgusher._sqlx_migrations') IS NOT NULL THEN
        SELECT NOT EXISTS (SELECT FROM pgusher._sqlx_migrations) INTO is_empty;
        IF NOT is_empty THEN
            RETURN;
        END IF;
    END IF;
    -- The application that shares the database may have such a table, too.
    FOR earlier IN
        SELECT oid FROM pg_catalog.pg_class
        WHERE relname = '_sqlx_migrations' AND relkind = 'r'
          AND relnamespace <> 'pgusher'::pg_catalog.regnamespace
          AND pg_catalog.pg_has_role(relowner, 'USAGE')
    LOOP
        EXECUTE pg_catalog.format('SELECT EXISTS (SELECT FROM %s WHERE version = 1 AND description = ''registry'')', earlier)
            INTO is_ours;
        IF is_ours THEN
            DROP TABLE IF EXISTS pgusher._sqlx_migrations;
            EXECUTE pg_catalog.format('ALTER TABLE %s SET SCHEMA pgusher', earlier);
            RETURN;
        END IF;
    END LOOP;
END
$$;
