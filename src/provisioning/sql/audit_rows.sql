-- Rules about the shared tables, as the admin sees them: the rule, and what breaks it.
WITH tables AS MATERIALIZED (
    SELECT c.*, (SELECT attnum FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped) AS tenant
    FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'data')
      AND c.relkind IN ('r', 'p', 'f', 'm')
)
SELECT 'row_security' AS rule, relname || ' does not force row-level security' AS found FROM tables
WHERE NOT (relrowsecurity AND relforcerowsecurity)
UNION ALL
SELECT 'row_security', relname || ' has no tenant_id' FROM tables WHERE tenant IS NULL
UNION ALL
SELECT 'row_security', relname || ' does not belong to pgusher_data' FROM tables WHERE relowner <> 'pgusher_data'::regrole
UNION ALL
SELECT 'policies', t.relname || ': ' || p.polname FROM tables AS t JOIN pg_catalog.pg_policy AS p ON p.polrelid = t.oid
WHERE p.polpermissive AND (coalesce(pg_catalog.pg_get_expr(p.polqual, p.polrelid), 'tenant()') !~ 'tenant\(\)'
    OR coalesce(pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid), 'tenant()') !~ 'tenant\(\)')
  -- Whoever drops what it owns drops the policies that name it.
  OR p.polroles <> '{0}'
UNION ALL
SELECT 'policies', t.relname || ' lets read-only logins lock rows' FROM tables AS t
WHERE pg_catalog.has_any_column_privilege('pgusher_view', t.oid, 'UPDATE')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy AS p WHERE p.polrelid = t.oid AND NOT p.polpermissive
    AND p.polcmd IN ('w', '*') AND pg_catalog.pg_get_expr(p.polqual, p.polrelid) ~ 'may_write\(\)')
UNION ALL
SELECT 'grants', t.relname || ' to ' || CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END || ': ' || a.privilege_type
FROM tables AS t, pg_catalog.aclexplode(t.relacl) AS a
WHERE a.grantee <> t.relowner
  -- More than reading by the table takes the right to lock it with it.
  AND (a.grantee NOT IN ('pgusher_view'::regrole, 'pgusher_del'::regrole, current_user::regrole)
    OR a.grantee = 'pgusher_view'::regrole AND a.privilege_type IN ('UPDATE', 'DELETE', 'TRUNCATE', 'MAINTAIN'))
UNION ALL
SELECT 'indexes', i.indexrelid::regclass::text FROM tables AS t JOIN pg_catalog.pg_index AS i ON i.indrelid = t.oid
WHERE i.indkey[0] IS DISTINCT FROM t.tenant
UNION ALL
SELECT 'foreign_keys', t.relname || ': ' || c.conname FROM tables AS t JOIN pg_catalog.pg_constraint AS c ON c.conrelid = t.oid
WHERE c.contype = 'f' AND c.conkey[1] IS DISTINCT FROM t.tenant
UNION ALL
SELECT 'sequences', t.relname || '.' || a.attname || ' counts for all tenants' FROM tables AS t
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE a.attidentity <> '' OR EXISTS (SELECT FROM pg_catalog.pg_attrdef AS d
    WHERE d.adrelid = t.oid AND d.adnum = a.attnum AND pg_catalog.pg_get_expr(d.adbin, d.adrelid) ~ '^nextval\(')
UNION ALL
SELECT 'planner_statistics', t.relname || '.' || a.attname FROM tables AS t
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE coalesce(a.attstattarget, -1) <> 0
UNION ALL
SELECT 'planner_statistics', t.relname || ': ' || s.stxname FROM tables AS t JOIN pg_catalog.pg_statistic_ext AS s ON s.stxrelid = t.oid
UNION ALL
SELECT 'views', c.oid::regclass::text FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname IN ('app', 'ctl') AND c.relkind = 'v'
  AND (c.relowner <> 'pgusher_view'::regrole OR NOT coalesce(c.reloptions::text, '') ~ 'security_barrier=(true|on|1)|security_barrier[,}]')
UNION ALL
SELECT 'views', c.oid::regclass || ' is a table outside of data' FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'app' AND c.relkind IN ('r', 'p', 'm', 'f')
UNION ALL
SELECT 'tenant', 'ctl.tenant() belongs to somebody else' FROM pg_catalog.pg_proc AS p
WHERE p.pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'ctl') AND p.proname = 'tenant'
  AND p.proowner <> 'pgusher_ctl'::regrole
