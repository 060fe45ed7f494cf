-- A tenant's two login roles: it owns its data, and it reads its data. Neither is a member of the other.
CREATE ROLE {role} LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    CONNECTION LIMIT 50 PASSWORD '{password}' IN ROLE pgusher_tenants;
CREATE ROLE {read_only_role} LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    CONNECTION LIMIT 50 PASSWORD '{read_only_password}' IN ROLE pgusher_tenants;
ALTER ROLE {role} SET temp_file_limit = '1GB';
ALTER ROLE {read_only_role} SET temp_file_limit = '1GB';
ALTER ROLE {read_only_role} SET default_transaction_read_only = on;
