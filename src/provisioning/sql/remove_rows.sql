-- Removes a tenant's rows from every table of `data`, whatever refers to what.
DO $rows$
DECLARE
    it regclass;
    tables regclass[];
    blocked regclass[];
BEGIN
    PERFORM set_config('pgusher.tenant', {token_text}, true);
    SELECT coalesce(array_agg(c.oid ORDER BY c.oid DESC), '{}') INTO tables
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'data' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND EXISTS (SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped);
    WHILE tables <> '{}' LOOP
        blocked := '{}';
        FOREACH it IN ARRAY tables LOOP
            BEGIN
                EXECUTE format('DELETE FROM %s WHERE tenant_id = %L', it, {token_text});
            EXCEPTION WHEN foreign_key_violation THEN
                blocked := blocked || it;
            END;
        END LOOP;
        IF array_length(blocked, 1) = array_length(tables, 1) THEN
            RAISE EXCEPTION 'rows of % refer to each other', blocked USING ERRCODE = '23503';
        END IF;
        tables := blocked;
    END LOOP;
END
$rows$;
