-- Tenants of verification: the token, the tier and the database, from the note on their role.
SELECT token, tier, database FROM (
    SELECT substr(r.rolname, 3) AS token, m[2] AS tier, m[3] AS database,
        extract(epoch FROM now())::bigint - m[1]::bigint AS age
    FROM pg_catalog.pg_roles AS r
    JOIN pg_catalog.pg_shdescription AS d ON d.objoid = r.oid AND d.classoid = 'pg_catalog.pg_authid'::regclass,
    regexp_match(d.description, '^pgusher canary (\d+) (\w+) (.*)$') AS m
    WHERE r.rolname ~ '^t_[a-z2-7]{20}$' AND m IS NOT NULL
) AS left_behind
WHERE true
