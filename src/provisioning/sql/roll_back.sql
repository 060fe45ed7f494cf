SELECT p.gid, r.rolname::text FROM pg_catalog.pg_prepared_xact() AS p
JOIN pg_catalog.pg_roles AS r ON r.oid = p.ownerid
JOIN pg_catalog.pg_database AS d ON d.oid = p.dbid
WHERE d.datname = current_database() AND r.rolname = ANY ({roles})
