-- Once per cluster, as superuser. Member of this role: who pg_hba.conf lets in as a tenant. It holds no privilege.
CREATE ROLE pgusher_tenants NOLOGIN;
-- The hot standby; pg_hba.conf lets nobody else replicate.
CREATE ROLE pgusher_replica LOGIN REPLICATION NOINHERIT PASSWORD '{replication_password}';
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
