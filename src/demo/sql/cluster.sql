-- The hot standby; pg_hba.conf lets nobody else replicate.
CREATE ROLE pgusher_replica LOGIN REPLICATION NOINHERIT PASSWORD '{replication_password}';
-- Owns the registry's database, and has no other right.
CREATE ROLE {registry} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD '{registry_password}';
