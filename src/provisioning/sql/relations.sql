-- PostgreSQL's own tables and views that show what others wrote: which columns are closed (none: the
-- whole of it), and what for.
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
    ('pg_proc', 'definitions', '{prosrc,probin,prosqlbody,proargdefaults}'),
    ('pg_trigger', 'definitions', '{tgqual,tgargs}')
) AS r (name, subject, closed)
JOIN pg_catalog.pg_class AS c ON c.relname = r.name AND c.relnamespace = 'pg_catalog'::regnamespace
