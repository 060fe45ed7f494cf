-- In the tenant's database (its own, or the shared one), already hardened. The schema is the
-- tenant's; what it makes there later is readable for its read-only role, too.
GRANT CONNECT, TEMP ON DATABASE {database} TO {role};
GRANT CONNECT ON DATABASE {database} TO {read_only_role};
CREATE SCHEMA {schema} AUTHORIZATION {role};
GRANT USAGE ON SCHEMA {schema} TO {read_only_role};
ALTER ROLE {role} IN DATABASE {database} SET search_path = {schema};
ALTER ROLE {read_only_role} IN DATABASE {database} SET search_path = {schema};
ALTER DEFAULT PRIVILEGES FOR ROLE {role} IN SCHEMA {schema} GRANT SELECT ON TABLES TO {read_only_role};
ALTER DEFAULT PRIVILEGES FOR ROLE {role} IN SCHEMA {schema} GRANT SELECT ON SEQUENCES TO {read_only_role};
