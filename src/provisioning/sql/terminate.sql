-- Sessions survive NOLOGIN. Some take a while to end.
DO $terminate$
DECLARE
    tries int := 0;
BEGIN
    WHILE EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(NULL) AS a JOIN pg_catalog.pg_roles AS r ON r.oid = a.usesysid
            WHERE r.rolname = ANY ({roles})) LOOP
        tries := tries + 1;
        IF tries > 10 THEN
            RAISE EXCEPTION 'sessions of the tenant do not end' USING ERRCODE = '55006';
        END IF;
        PERFORM pg_catalog.pg_terminate_backend(a.pid, 1000)
        FROM pg_catalog.pg_stat_get_activity(NULL) AS a JOIN pg_catalog.pg_roles AS r ON r.oid = a.usesysid
        WHERE r.rolname = ANY ({roles});
        -- Else the next look would find what this one found.
        PERFORM pg_catalog.pg_stat_clear_snapshot();
    END LOOP;
END
$terminate$;
