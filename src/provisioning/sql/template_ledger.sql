-- What was applied, to whom. It belongs to the admin: nobody else may look.
CREATE SCHEMA IF NOT EXISTS pgusher;
DO $owner$
BEGIN
    IF NOT (SELECT pg_catalog.pg_has_role(nspowner, 'USAGE') FROM pg_catalog.pg_namespace WHERE nspname = 'pgusher') THEN
        RAISE EXCEPTION 'schema pgusher' USING ERRCODE = 'PU001';
    END IF;
END
$owner$;
CREATE TABLE IF NOT EXISTS pgusher.template (
    -- the tenant's schema, or data
    place       text NOT NULL,
    version     bigint NOT NULL,
    name        text NOT NULL,
    sha256      bytea NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    -- the tenant's transaction in which it is applied: it counts when PostgreSQL says that this has
    -- committed; NULL: it has
    transaction xid8,
    PRIMARY KEY (place, version)
);
REVOKE ALL ON pgusher.template FROM PUBLIC
