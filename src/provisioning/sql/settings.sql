-- A role's settings as they should be, whatever it has set for itself (any role may: ALTER ROLE
-- CURRENT_USER SET).
DO $settings$
DECLARE
    place text;
BEGIN
    FOR place IN
        SELECT CASE s.setdatabase WHEN 0 THEN '' ELSE format(' IN DATABASE %I', d.datname) END
        FROM pg_catalog.pg_db_role_setting AS s LEFT JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase
        WHERE s.setrole = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = {role_text})
    LOOP
        EXECUTE 'ALTER ROLE {role}' || place || ' RESET ALL';
    END LOOP;
    -- It can't be raised by who has it; holes.sql tells when the admin may not set it.
    IF current_setting('is_superuser')::bool OR pg_catalog.has_parameter_privilege('temp_file_limit', 'SET') THEN
        ALTER ROLE {role} SET temp_file_limit = '{temp_file_limit}';
    END IF;
    IF {is_read_only} THEN
        ALTER ROLE {role} SET default_transaction_read_only = on;
    END IF;
    IF {search_path_text} <> '' THEN
        EXECUTE 'ALTER ROLE {role} IN DATABASE {database} SET search_path = ' || quote_ident({search_path_text});
    END IF;
END
$settings$;
