-- Rules about the tenant's roles, as the admin sees them: the rule, and what breaks it.
SELECT 'settings' AS rule, r.rolname || ': ' || s.setting AS found
FROM pg_catalog.pg_roles AS r JOIN pg_catalog.pg_db_role_setting AS d ON d.setrole = r.oid, unnest(d.setconfig) AS s (setting)
WHERE r.rolname = ANY ({roles}) AND s.setting <> ALL (ARRAY['temp_file_limit=1GB', 'default_transaction_read_only=on', {search_path}])
UNION ALL
SELECT 'settings', r.rolname || ' has not default_transaction_read_only' FROM pg_catalog.pg_roles AS r
WHERE r.rolname = {reader} AND NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting AS d
    WHERE d.setrole = r.oid AND d.setdatabase = 0 AND 'default_transaction_read_only=on' = ANY (d.setconfig))
UNION ALL
SELECT 'members', m.member::regrole || ' is a member of ' || m.roleid::regrole
FROM pg_catalog.pg_auth_members AS m JOIN pg_catalog.pg_roles AS r ON r.oid = m.member
WHERE r.rolname = ANY ({roles}) AND m.roleid <> 'pgusher_tenants'::regrole
UNION ALL
SELECT 'members', m.member::regrole || ' is a member of ' || m.roleid::regrole
FROM pg_catalog.pg_auth_members AS m JOIN pg_catalog.pg_roles AS r ON r.oid = m.roleid
JOIN pg_catalog.pg_auth_members AS tenants ON tenants.roleid = 'pgusher_tenants'::regrole AND tenants.member = m.member
WHERE r.rolname = ANY ({roles})
  -- Who applies templates is made for one run; who made the group is in it, from 16 on.
  AND m.member::regrole::text <> 'm_' || {token} AND m.member <> current_user::regrole
UNION ALL
SELECT 'members', m.member::regrole || ' is no member of pgusher_tenants' FROM pg_catalog.pg_roles AS r
JOIN (SELECT oid AS member FROM pg_catalog.pg_roles) AS m ON m.member = r.oid
WHERE r.rolname = ANY ({roles}) AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members AS t
    WHERE t.member = r.oid AND t.roleid = 'pgusher_tenants'::regrole)
UNION ALL
SELECT 'group', 'pgusher_tenants has a privilege on ' || s.classid::regclass || ' ' || s.objid
FROM pg_catalog.pg_shdepend AS s
WHERE s.refclassid = 'pg_catalog.pg_authid'::regclass AND s.refobjid = 'pgusher_tenants'::regrole
  AND s.classid <> 'pg_catalog.pg_auth_members'::regclass
UNION ALL
SELECT 'code', p.oid::regprocedure || ' of the extension ' || e.extname
FROM pg_catalog.pg_extension AS e
JOIN pg_catalog.pg_depend AS d ON d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
JOIN pg_catalog.pg_proc AS p ON d.classid = 'pg_catalog.pg_proc'::regclass AND p.oid = d.objid
WHERE e.extname IN ('dblink', 'postgres_fdw', 'file_fdw', 'adminpack', 'pg_stat_statements', 'pageinspect',
        'pg_buffercache', 'pg_visibility', 'pg_freespacemap', 'pgrowlocks', 'pgstattuple', 'pg_walinspect', 'amcheck', 'xml2', 'lo')
  AND EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.rolname = ANY ({roles})
    AND pg_catalog.has_function_privilege(r.oid, p.oid, 'EXECUTE') AND pg_catalog.has_schema_privilege(r.oid, p.pronamespace, 'USAGE'))
UNION ALL
SELECT 'code', 'language ' || lanname FROM pg_catalog.pg_language AS l
-- %_SHARED of PL/Perl survives from one session's user to the next.
WHERE (NOT l.lanpltrusted AND l.lanname NOT IN ('internal', 'c') OR l.lanname = 'plperl')
  AND EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.rolname = ANY ({roles}) AND pg_catalog.has_language_privilege(r.oid, l.oid, 'USAGE'))
UNION ALL
SELECT 'definers', p.oid::regprocedure::text
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_roles AS o ON o.oid = p.proowner
WHERE p.prosecdef AND o.rolname !~ '^[tr]_[a-z2-7]{20}$'
  AND NOT coalesce(p.proconfig::text, '') ~ 'search_path='
  -- A trigger function is run without the privilege.
  AND (p.prorettype = 'trigger'::regtype OR EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.rolname = ANY ({roles})
    AND pg_catalog.has_function_privilege(r.oid, p.oid, 'EXECUTE')))
