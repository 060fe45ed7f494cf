-- Rules about the cluster, as the admin sees them: the rule, and what breaks it.
SELECT 'owners' AS rule, name || ' is missing' AS found
FROM unnest(ARRAY['pgusher_tenants', 'pgusher_ctl', 'pgusher_data', 'pgusher_view', 'pgusher_del']) AS name
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = name)
UNION ALL
SELECT 'owners', rolname || ' can log in or has an attribute' FROM pg_catalog.pg_roles
WHERE rolname IN ('pgusher_tenants', 'pgusher_ctl', 'pgusher_data', 'pgusher_view', 'pgusher_del')
  AND (rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
UNION ALL
SELECT 'owners', m.rolname || ' is a member of ' || g.rolname
FROM pg_catalog.pg_auth_members AS a JOIN pg_catalog.pg_roles AS g ON g.oid = a.roleid JOIN pg_catalog.pg_roles AS m ON m.oid = a.member
WHERE g.rolname IN ('pgusher_ctl', 'pgusher_data', 'pgusher_view', 'pgusher_del')
  AND m.rolname <> current_user AND NOT m.rolsuper
UNION ALL
SELECT 'members', m.rolname || ' is a member of ' || g.rolname
FROM pg_catalog.pg_auth_members AS a JOIN pg_catalog.pg_roles AS g ON g.oid = a.roleid JOIN pg_catalog.pg_roles AS m ON m.oid = a.member
WHERE g.rolname <> 'pgusher_tenants' AND m.rolname ~ '^[trsqm]_'
  -- Who applies templates is made for one run, and is the tenant in it.
  AND NOT (m.rolname ^@ 'm_' AND substr(m.rolname, 3) = substr(g.rolname, 3)) AND EXISTS (SELECT FROM pg_catalog.pg_auth_members AS t
    JOIN pg_catalog.pg_roles AS tenants ON tenants.oid = t.roleid
    WHERE tenants.rolname = 'pgusher_tenants' AND t.member = m.oid)
UNION ALL
SELECT 'attributes', m.rolname::text
FROM pg_catalog.pg_auth_members AS a JOIN pg_catalog.pg_roles AS g ON g.oid = a.roleid JOIN pg_catalog.pg_roles AS m ON m.oid = a.member
WHERE g.rolname = 'pgusher_tenants' AND m.rolname ~ '^[trsqm]_'
  AND (m.rolsuper OR m.rolcreaterole OR m.rolcreatedb OR m.rolreplication OR m.rolbypassrls)
UNION ALL
SELECT 'group', 'pgusher_tenants has a privilege on ' || s.classid::regclass || ' ' || s.objid
FROM pg_catalog.pg_shdepend AS s JOIN pg_catalog.pg_roles AS g ON g.oid = s.refobjid
WHERE s.refclassid = 'pg_catalog.pg_authid'::regclass AND g.rolname = 'pgusher_tenants'
  AND s.classid <> 'pg_catalog.pg_auth_members'::regclass
