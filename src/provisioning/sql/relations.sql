-- PostgreSQL's own tables and views that show what others wrote: which columns are closed (none: the
-- whole of it), and what for. A relation may be closed for several subjects.
SELECT c.oid, c.relowner, r.subject, CASE WHEN r.closed IS NOT NULL THEN ARRAY(
    -- A column that this version lacks is none to close.
    SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attname = ANY (r.closed)) END AS closed
FROM (VALUES
    ('pg_db_role_setting', 'role_settings', NULL::text[]),
    ('pg_class', 'row_counts', '{relpages,reltuples,relallvisible,relallfrozen}'),
    ('pg_roles', 'role_settings', '{rolconfig}'),
    ('pg_user', 'role_settings', '{useconfig}'),
    ('pg_shdescription', 'shared_comments', NULL),
    ('pg_shdepend', 'activity', NULL),
    ('pg_replication_slots', 'activity', NULL),
    ('pg_prepared_xacts', 'activity', NULL),
    ('pg_locks', 'activity', NULL),
    ('pg_rewrite', 'definitions', NULL),
    ('pg_views', 'definitions', NULL),
    ('pg_rules', 'definitions', NULL),
    ('pg_matviews', 'definitions', NULL),
    ('pg_policies', 'definitions', NULL),
    ('pg_stats_ext', 'definitions', NULL),
    ('pg_stats_ext_exprs', 'definitions', NULL),
    ('pg_sequences', 'definitions', NULL),
    ('pg_proc', 'definitions', '{prosrc,probin,prosqlbody,proargdefaults,proconfig}'),
    ('pg_aggregate', 'definitions', '{agginitval,aggminitval}'),
    ('pg_trigger', 'definitions', '{tgqual,tgargs}'),
    -- What a column that was added later has in the rows that were there before.
    ('pg_attribute', 'added_values', '{attmissingval}'),
    ('pg_attrdef', 'object_texts', '{adbin}'),
    ('pg_attribute', 'object_texts', '{attoptions,attfdwoptions}'),
    ('pg_class', 'object_texts', '{relpartbound,reloptions}'),
    ('pg_collation', 'object_texts', '{colliculocale,colllocale,collicurules}'),
    ('pg_constraint', 'object_texts', '{conbin}'),
    ('pg_foreign_data_wrapper', 'object_texts', '{fdwoptions}'),
    ('pg_foreign_server', 'object_texts', '{srvtype,srvversion,srvoptions}'),
    ('pg_foreign_table', 'object_texts', '{ftoptions}'),
    ('pg_index', 'object_texts', '{indexprs,indpred}'),
    ('pg_indexes', 'object_texts', '{indexdef}'),
    ('pg_partitioned_table', 'object_texts', '{partexprs}'),
    ('pg_policy', 'object_texts', '{polqual,polwithcheck}'),
    ('pg_publication_rel', 'object_texts', '{prqual}'),
    ('pg_publication_tables', 'object_texts', '{rowfilter}'),
    ('pg_sequence', 'object_texts', '{seqstart,seqincrement,seqmax,seqmin,seqcache}'),
    ('pg_statistic_ext', 'object_texts', '{stxexprs}'),
    ('pg_ts_dict', 'object_texts', '{dictinitoption}'),
    ('pg_type', 'object_texts', '{typdefault,typdefaultbin}'),
    -- The one view of information_schema that shows a text to whom the object is closed.
    ('domains', 'object_texts', '{domain_default}'),
    ('pg_description', 'comments', NULL),
    ('pg_seclabel', 'comments', NULL),
    ('pg_seclabels', 'comments', NULL),
    ('pg_shseclabel', 'comments', NULL)
) AS r (name, subject, closed)
JOIN pg_catalog.pg_class AS c ON c.relname = r.name AND c.relnamespace =
    CASE r.name WHEN 'domains' THEN to_regnamespace('information_schema') ELSE 'pg_catalog'::regnamespace END
