-- All that protect has to know about tables, as one JSON object each. The search path is empty, so
-- that names in definitions are whole.
SELECT json_build_object(
    'schema', n.nspname, 'name', c.relname, 'oid', c.oid::bigint,
    'kind', c.relkind, 'is_temporary', c.relpersistence = 't',
    'is_partition', c.relispartition,
    'inherits', EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid OR i.inhparent = c.oid),
    'owner', r.rolname, 'has_rls', c.relrowsecurity, 'is_forced', c.relforcerowsecurity,
    'is_analyzed', c.reltuples >= 0,
    'columns', (SELECT coalesce(json_agg(json_build_object(
            'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'is_not_null', a.attnotnull,
            'default', CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END,
            'is_generated', a.attgenerated <> '', 'is_identity', a.attidentity <> '',
            'statistics', coalesce(a.attstattarget, -1),
            'sequence', (SELECT format('%I.%I', sn.nspname, s.relname) FROM pg_depend p
                JOIN pg_class s ON s.oid = p.objid AND s.relkind = 'S' JOIN pg_namespace sn ON sn.oid = s.relnamespace
                WHERE p.classid = 'pg_class'::regclass AND p.refclassid = 'pg_class'::regclass
                  AND p.refobjid = c.oid AND p.refobjsubid = a.attnum AND p.deptype = 'a' LIMIT 1),
            'is_granted', has_column_privilege('pgusher_view', c.oid, a.attnum, 'SELECT')
                AND has_column_privilege('pgusher_view', c.oid, a.attnum, 'INSERT')
                AND has_column_privilege('pgusher_view', c.oid, a.attnum, 'UPDATE')
                AND has_column_privilege('pgusher_del', c.oid, a.attnum, 'SELECT'))
            ORDER BY a.attnum), '[]')
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    'keys', (SELECT coalesce(json_agg(json_build_object(
            'name', k.conname, 'is_primary', k.contype = 'p',
            'is_temporal', coalesce((to_jsonb(k) ->> 'conperiod')::bool, false),
            'columns', (SELECT json_agg(a.attname ORDER BY u.at) FROM unnest(k.conkey) WITH ORDINALITY AS u (num, at)
                JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.num),
            'included', (SELECT coalesce(json_agg(a.attname ORDER BY u.at), '[]') FROM unnest(x.indkey) WITH ORDINALITY AS u (num, at)
                JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.num WHERE u.at > x.indnkeyatts),
            'nulls_not_distinct', x.indnullsnotdistinct,
            'is_deferrable', k.condeferrable, 'is_deferred', k.condeferred)
            ORDER BY k.contype, k.conname), '[]')
        FROM pg_constraint k JOIN pg_index x ON x.indexrelid = k.conindid
        WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u')),
    'exclusions', (SELECT coalesce(json_agg(k.conname), '[]') FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'x'),
    'indexes', (SELECT coalesce(json_agg(json_build_object(
            'name', format('%I.%I', n.nspname, i.relname), 'definition', pg_get_indexdef(i.oid),
            'prefix', format('CREATE %sINDEX %I ON %I.%I USING %s (', CASE WHEN x.indisunique THEN 'UNIQUE ' ELSE '' END,
                i.relname, n.nspname, c.relname, m.amname),
            'method', m.amname,
            'leads', coalesce((SELECT a.attname = 'tenant_id' FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = x.indkey[0]), false),
            'can_lead', pg_indexam_has_property(m.oid, 'can_multi_col') AND EXISTS (
                SELECT FROM pg_opclass o WHERE o.opcmethod = m.oid AND o.opcdefault AND o.opcintype = 'text'::regtype),
            'observed', (SELECT coalesce(json_agg(e.attnum ORDER BY e.attnum), '[]') FROM pg_attribute e
                WHERE e.attrelid = i.oid AND x.indkey[e.attnum - 1] = 0 AND e.attnum <= x.indnkeyatts AND coalesce(e.attstattarget, -1) <> 0),
            'expressions', (SELECT coalesce(json_agg(e.attnum ORDER BY e.attnum), '[]') FROM pg_attribute e
                WHERE e.attrelid = i.oid AND x.indkey[e.attnum - 1] = 0 AND e.attnum <= x.indnkeyatts))
            ORDER BY i.relname), '[]')
        FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am m ON m.oid = i.relam
        WHERE x.indrelid = c.oid AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.oid AND k.contype IN ('p', 'u', 'x') AND k.conrelid = c.oid)),
    'references', (SELECT coalesce(json_agg(json_build_object(
            'name', k.conname, 'target', k.confrelid::bigint, 'target_schema', tn.nspname, 'target_name', t.relname,
            'columns', (SELECT json_agg(a.attname ORDER BY u.at) FROM unnest(k.conkey) WITH ORDINALITY AS u (num, at)
                JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.num),
            'target_columns', (SELECT json_agg(a.attname ORDER BY u.at) FROM unnest(k.confkey) WITH ORDINALITY AS u (num, at)
                JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = u.num),
            'set_columns', (SELECT coalesce(json_agg(a.attname ORDER BY u.at), '[]') FROM unnest(k.confdelsetcols) WITH ORDINALITY AS u (num, at)
                JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.num),
            'on_update', k.confupdtype, 'on_delete', k.confdeltype, 'is_full', k.confmatchtype = 'f',
            'is_deferrable', k.condeferrable, 'is_deferred', k.condeferred, 'is_valid', k.convalidated)
            ORDER BY k.conname), '[]')
        FROM pg_constraint k JOIN pg_class t ON t.oid = k.confrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace
        WHERE k.conrelid = c.oid AND k.contype = 'f'),
    'referrers', (SELECT coalesce(json_agg(DISTINCT jsonb_build_object('oid', k.conrelid::bigint, 'name', format('%I.%I', tn.nspname, t.relname), 'constraint', k.conname)), '[]')
        FROM pg_constraint k JOIN pg_class t ON t.oid = k.conrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace
        WHERE k.confrelid = c.oid AND k.contype = 'f'),
    'triggers', (SELECT coalesce(json_agg(json_build_object('name', t.tgname,
            'is_definer', p.prosecdef,
            'is_ours', t.tgname = 'refuse_read_only' AND t.tgenabled = 'O' AND p.proname = 'refuse_read_only' AND p.pronamespace = to_regnamespace('ctl'))), '[]')
        FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
    'rules', (SELECT coalesce(json_agg(w.rulename), '[]') FROM pg_rewrite w WHERE w.ev_class = c.oid),
    'policies', (SELECT coalesce(json_agg(json_build_object('name', p.polname,
            'is_ours', p.polroles = '{0}' AND CASE p.polname
                WHEN 'tenant' THEN p.polpermissive AND p.polcmd = '*'
                    AND pg_get_expr(p.polqual, p.polrelid) = '(tenant_id = ( SELECT ctl.tenant() AS tenant))'
                    AND pg_get_expr(p.polwithcheck, p.polrelid) = '(tenant_id = ( SELECT ctl.tenant() AS tenant))'
                WHEN 'read_only' THEN NOT p.polpermissive AND p.polcmd = 'w' AND p.polwithcheck IS NULL
                    AND pg_get_expr(p.polqual, p.polrelid) = '( SELECT ctl.may_write() AS may_write)'
                ELSE false END)), '[]')
        FROM pg_policy p WHERE p.polrelid = c.oid),
    'statistics', (SELECT coalesce(json_agg(format('%I.%I', sn.nspname, s.stxname)), '[]')
        FROM pg_statistic_ext s JOIN pg_namespace sn ON sn.oid = s.stxnamespace WHERE s.stxrelid = c.oid),
    'grantees', (SELECT coalesce(json_agg(DISTINCT CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END), '[]')
        FROM (SELECT e.grantee, e.privilege_type, false AS is_column FROM aclexplode(c.relacl) e
              UNION ALL SELECT e.grantee, e.privilege_type, true FROM pg_attribute a, aclexplode(a.attacl) e WHERE a.attrelid = c.oid AND NOT a.attisdropped) g
        WHERE g.grantee <> c.relowner AND NOT CASE WHEN g.is_column
            THEN g.grantee <> 0 AND pg_get_userbyid(g.grantee) IN ('pgusher_view', 'pgusher_del')
            ELSE g.grantee <> 0 AND pg_get_userbyid(g.grantee) = 'pgusher_del' AND g.privilege_type = 'DELETE' END),
    'can_delete', has_table_privilege('pgusher_del', c.oid, 'DELETE'),
    'dependents', (SELECT coalesce(json_agg(DISTINCT format('%I.%I', vn.nspname, v.relname)), '[]')
        FROM pg_depend p JOIN pg_rewrite w ON w.oid = p.objid JOIN pg_class v ON v.oid = w.ev_class JOIN pg_namespace vn ON vn.oid = v.relnamespace
        WHERE p.classid = 'pg_rewrite'::regclass AND p.refclassid = 'pg_class'::regclass AND p.refobjid = c.oid
          AND v.oid <> c.oid AND NOT (vn.nspname = 'app' AND v.relname = c.relname)),
    'view', (SELECT json_build_object('kind', v.relkind, 'owner', pg_get_userbyid(v.relowner),
            'is_barrier', coalesce('security_barrier=true' = ANY (v.reloptions), false),
            'columns', (SELECT json_agg(json_build_array(a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid)) ORDER BY a.attnum)
                FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                WHERE a.attrelid = v.oid AND a.attnum > 0 AND NOT a.attisdropped),
            'is_granted', (SELECT count(*) = 4 FROM aclexplode(v.relacl) e WHERE e.grantee = 0 AND e.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')),
            'triggers', (SELECT coalesce(json_agg(t.tgname || ' ' || p.proname ORDER BY t.tgname), '[]')
                FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid = v.oid AND NOT t.tgisinternal))
        FROM pg_class v WHERE v.relnamespace = to_regnamespace('app') AND v.relname = c.relname),
    'functions', (SELECT coalesce(json_object_agg(p.proname, p.prosrc), '{}') FROM pg_proc p
        WHERE p.pronamespace = to_regnamespace('ctl') AND p.prosecdef AND pg_get_userbyid(p.proowner) = 'pgusher_del')
)::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
WHERE c.oid = ANY ({oids}) ORDER BY c.oid
