SELECT DISTINCT d.datname::text FROM pg_catalog.pg_shdepend AS s
JOIN pg_catalog.pg_roles AS r ON r.oid = s.refobjid AND s.refclassid = 'pg_catalog.pg_authid'::regclass
JOIN pg_catalog.pg_database AS d ON d.oid = s.dbid
WHERE r.rolname = ANY ({roles}) AND d.datallowconn
