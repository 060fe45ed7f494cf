-- In the tenant's database. The tenant's code may have left something there that is the visitor's.
DO $visitor$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {visitor_text}) THEN
        BEGIN
            DROP ROLE {visitor};
        EXCEPTION WHEN dependent_objects_still_exist THEN
            REASSIGN OWNED BY {visitor} TO {role};
            DROP OWNED BY {visitor};
            DROP ROLE {visitor};
        END;
    END IF;
END
$visitor$
