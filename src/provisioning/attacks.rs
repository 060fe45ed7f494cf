//! What a tenant could try against another one, as SQL that its own role runs.

use super::{Place, Variant, admin::IN_USE};
use crate::tenant::Tier;

/// Who tries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// The tenant's role that reads and writes.
    Writer,
    /// The one that only reads.
    Reader,
    /// Both of them.
    Both,
}

/// When it has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fails {
    /// When it is refused.
    Refused,
    /// When it is refused or finds no row. The rows' only column is a text that tells.
    Empty,
}

/// Where it can be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Everywhere,
    Shared,
    Rows,
    /// Where the tenant has a schema.
    OwnSchema,
    /// Where it is served through slots.
    Slots,
}

impl At {
    pub(super) fn is_in(self, place: &Place) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Shared => place.tier != Tier::Database,
            Self::Rows => place.tier == Tier::Row,
            Self::OwnSchema => place.tier != Tier::Row,
            Self::Slots => place.variant == Variant::Shared,
        }
    }
}

/// When it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum When {
    /// Whenever a tenant is made: few, as each is a round trip and a line in PostgreSQL's log.
    Making,
    /// When a tenant is verified: there is another tenant then, made for the purpose.
    Verifying,
}

/// One attack. In `sql` stand, quoted already: `{role}`, `{token}`, `{schema_text}`
/// and `{schema}` of who attacks; `{victim}` (a role), `{victim_token}`, `{table}`
/// (where a secret of the victim's is read), `{base}` (the table itself), `{base_schema}`,
/// `{others}` (a condition that leaves out the attacker's own rows), `{pid}`; for slots what was given
/// to `ctl.bind`, by the attacker (`{own_binding}`) and by the victim (`{victim_binding}`), and what
/// would bind the attacker's slot to the victim (`{right_binding}`).
#[derive(Debug)]
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) sql: &'static str,
    pub(super) who: Who,
    pub(super) fails: Fails,
    pub(super) at: At,
    pub(super) when: When,
    /// The hole that explains its success.
    pub(super) hole: Option<&'static str>,
    /// SQLSTATEs that refuse it, beside the usual ones.
    pub(super) codes: &'static [&'static str],
}

const fn attack(name: &'static str, what: &'static str, sql: &'static str) -> Attack {
    Attack {
        name,
        what,
        sql,
        who: Who::Writer,
        fails: Fails::Refused,
        at: At::Everywhere,
        when: When::Verifying,
        hole: None,
        codes: &[],
    }
}

impl Attack {
    const fn finding(mut self) -> Self {
        self.fails = Fails::Empty;
        self
    }
    const fn by(mut self, who: Who) -> Self {
        self.who = who;
        self
    }
    const fn at(mut self, at: At) -> Self {
        self.at = at;
        self
    }
    const fn first(mut self) -> Self {
        self.when = When::Making;
        self
    }
    const fn refused_by(mut self, codes: &'static [&'static str]) -> Self {
        self.codes = codes;
        self
    }
    const fn hole(mut self, hole: &'static str) -> Self {
        self.hole = Some(hole);
        self
    }
}

/// All of them. A view is locked before PostgreSQL looks at the table; verification doesn't wait for
/// its users ([`IN_USE`]), as others would wait behind it. What ends the victim's sessions comes last.
pub(super) const ATTACKS: &[Attack] = &[
    // Values.
    attack("read_rows", "read another tenant's rows", "SELECT t::text FROM {table} AS t {others}")
        .finding().by(Who::Both).at(At::Shared).first(),
    attack("read_base", "read the shared table itself", "SELECT t::text FROM {base} AS t {others}")
        .finding().by(Who::Both).at(At::Rows).first(),
    attack("change_rows", "change another tenant's rows", "UPDATE {table} AS t SET secret = 'taken' {others} RETURNING t::text")
        .finding().at(At::Shared),
    attack("add_rows", "write rows as another tenant", "INSERT INTO {table} (tenant_id, id, secret) VALUES ({victim_token}, 2, 'planted')")
        .at(At::Shared),
    attack("remove_rows", "remove another tenant's rows", "DELETE FROM {table} AS t {others} RETURNING t::text")
        .finding().at(At::Shared),
    attack("truncate", "empty a table of another tenant", "TRUNCATE {base}").at(At::Shared),
    attack("lock_table", "lock a table of another tenant", "LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT")
        .by(Who::Both).at(At::Shared).refused_by(&[IN_USE]).first(),
    attack("share_lock", "lock a table of another tenant against writers", "LOCK TABLE {table} IN SHARE MODE NOWAIT")
        .at(At::Shared).refused_by(&[IN_USE]),
    attack("drop_table", "drop a table of another tenant", "DROP TABLE {base} CASCADE").at(At::Shared),
    attack("alter_table", "change a table of another tenant", "ALTER TABLE {base} DISABLE ROW LEVEL SECURITY").at(At::Shared),
    attack("statistics", "read values from the planner's statistics", "SELECT attname || ': ' || coalesce(most_common_vals::text, histogram_bounds::text, '') FROM pg_catalog.pg_stats WHERE schemaname = {base_schema}")
        .finding().at(At::Shared),
    attack("bodies", "read the text of another tenant's functions", "SELECT left(prosrc, 20) FROM pg_catalog.pg_proc ORDER BY oid DESC LIMIT 1")
        .finding().at(At::Shared).hole("definitions"),
    attack("view_texts", "read the text of another tenant's views", "SELECT left(pg_catalog.pg_get_viewdef('pg_catalog.pg_class'::regclass::oid), 20) UNION ALL SELECT ev_class::regclass::text FROM pg_catalog.pg_rewrite LIMIT 1")
        .finding().at(At::Shared).hole("definitions"),
    attack("added_values", "read values that another tenant added a column with", "SELECT attmissingval::text FROM pg_catalog.pg_attribute LIMIT 1")
        .finding().at(At::Shared).hole("added_values"),
    attack("default_texts", "read another tenant's column defaults", "SELECT left(pg_catalog.pg_get_expr(adbin, adrelid), 20) FROM pg_catalog.pg_attrdef LIMIT 1")
        .finding().at(At::Shared).hole("object_texts"),
    attack("check_texts", "read another tenant's constraints", "SELECT left(pg_catalog.pg_get_constraintdef(oid), 20) FROM pg_catalog.pg_constraint LIMIT 1")
        .finding().at(At::Shared).hole("object_texts"),
    attack("comments", "read another tenant's comments", "SELECT left(description, 20) FROM pg_catalog.pg_description LIMIT 1")
        .finding().at(At::Shared).hole("comments"),
    // Identity.
    attack("set_role", "become another role", "SET ROLE {victim}").by(Who::Both).first(),
    attack("set_session", "become another session user", "SET SESSION AUTHORIZATION {victim}").by(Who::Both),
    attack("join_role", "become a member of another role", "GRANT {victim} TO {role}"),
    attack("alter_role", "change another role's settings", "ALTER ROLE {victim} SET statement_timeout = 1"),
    attack("alter_password", "change another role's password", "ALTER ROLE {victim} PASSWORD 'taken'"),
    attack("drop_owned", "drop what another role owns", "DROP OWNED BY {victim}"),
    attack("alter_self", "give itself an attribute", "ALTER ROLE {role} BYPASSRLS"),
    attack("create_role", "make a role", "CREATE ROLE pgusher_verify"),
    attack("memberships", "be a member of a role with privileges", "SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname NOT IN (session_user, 'pgusher_tenants') AND pg_catalog.pg_has_role(oid, 'MEMBER')")
        .finding().by(Who::Both).first(),
    attack("attributes", "have an attribute", "SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname = session_user AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls OR rolinherit)")
        .finding().by(Who::Both).first(),
    attack("forge_slot", "say that it is another tenant, as a slot does", "SELECT pg_catalog.set_config('backtrace_functions', {victim_token}, false)").by(Who::Both).first(),
    attack("forge_tenant", "say that it is another tenant, as the admin does", "SET LOCAL pgusher.tenant = {victim_token}; SELECT ctl.tenant() WHERE ctl.tenant() IS DISTINCT FROM {token}")
        .finding().at(At::Rows).by(Who::Both).first(),
    // The binding of a slot.
    attack("slot_set", "say that it is another tenant by SET", "SET backtrace_functions = {victim_token}").by(Who::Both).at(At::Slots).first(),
    attack("slot_set_local", "say that it is another tenant for a transaction", "SET LOCAL backtrace_functions = {victim_token}").at(At::Slots),
    attack("slot_set_hidden", "say that it is another tenant from within a block", "DO $attack$ BEGIN PERFORM pg_catalog.set_config('backtrace_functions', {victim_token}, true); END $attack$").at(At::Slots),
    attack("slot_reset", "be nobody", "RESET backtrace_functions").at(At::Slots),
    attack("slot_reset_all", "see rows as nobody", "RESET ALL; SELECT t::text FROM ctl.canary AS t")
        .finding().by(Who::Both).at(At::Slots).refused_by(&["PU002"]).first(),
    attack("slot_write_as_nobody", "write rows as nobody", "RESET ALL; INSERT INTO ctl.canary (id, secret) VALUES (3, 'nobody')")
        .at(At::Slots).refused_by(&["PU002"]),
    attack("slot_role_setting", "have its role start as another tenant", "ALTER ROLE CURRENT_USER SET backtrace_functions = {victim_token}").by(Who::Both).at(At::Slots),
    attack("slot_database_setting", "have its role start as another tenant in this database", "DO $attack$ BEGIN EXECUTE format('ALTER ROLE %I IN DATABASE %I SET backtrace_functions = %L', session_user, current_database(), {victim_token}); END $attack$")
        .at(At::Slots),
    attack("slot_parameter", "let itself set whom it serves", "GRANT SET ON PARAMETER backtrace_functions TO PUBLIC").at(At::Slots),
    attack("slot_owner", "become who may set whom it serves", "SET ROLE pgusher_ctl").by(Who::Both).at(At::Slots),
    attack("slot_owner_session", "become who may set whom it serves as the session's user", "SET SESSION AUTHORIZATION pgusher_ctl").at(At::Slots),
    attack("slot_owner_member", "be a member of who may set whom it serves", "GRANT pgusher_ctl TO {role}").at(At::Slots),
    attack("slot_keys", "read the keys that bindings are made with", "SELECT id::text FROM ctl.hmac_key").finding().by(Who::Both).at(At::Slots).first(),
    attack("slot_leases", "read who has which slot", "SELECT role::text FROM ctl.slot").finding().at(At::Slots),
    attack("slot_lease", "lease a slot for itself", "SELECT ctl.lease('s', '')").by(Who::Both).at(At::Slots).first(),
    attack("slot_make", "make a slot", "SELECT ctl.make_slot('s')").at(At::Slots),
    attack("slot_forged", "bind itself to another tenant with a made-up token", "SELECT ctl.bind({victim_token}, 9999999999, pg_catalog.sha256({victim_token}::bytea))")
        .by(Who::Both).at(At::Slots).refused_by(&["28000"]).first(),
    attack("slot_replayed", "bind itself to another tenant with that one's token", "SELECT ctl.bind({victim_binding})")
        .by(Who::Both).at(At::Slots).refused_by(&["28000"]),
    attack("slot_replayed_as_nobody", "bind itself to another tenant with that one's token, once it is nobody", "RESET ALL; SELECT ctl.bind({victim_binding})")
        .at(At::Slots).refused_by(&["28000"]),
    attack("slot_retold", "bind itself to another tenant with its own token", "SELECT ctl.bind({victim_token}, b.expiry, b.mac) FROM (VALUES ({own_binding})) AS b (tenant, expiry, mac)")
        .at(At::Slots).refused_by(&["28000"]),
    attack("slot_rebound", "be bound to another tenant while it serves this one, with a right token", "SELECT ctl.bind({right_binding})")
        .at(At::Slots).refused_by(&["55000"]),
    attack("slot_leaves", "leave on the slot what it grants by default", "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC").at(At::Slots),
    attack("slot_drops", "hold what other slots need, by dropping what its own has", "DROP OWNED BY CURRENT_USER").by(Who::Both).at(At::Slots),
    // Observation.
    attack("activity", "see who is connected", "SELECT pid::text FROM pg_catalog.pg_stat_activity").finding().by(Who::Both).hole("activity").first(),
    attack("queries", "see another tenant's queries", "SELECT query FROM pg_catalog.pg_stat_activity WHERE query LIKE '%pgusher_canary_query%' AND pid <> pg_catalog.pg_backend_pid()")
        .finding().by(Who::Both),
    attack("locks", "see locks", "SELECT pid::text FROM pg_catalog.pg_locks").finding().hole("activity"),
    attack("sizes", "see how much another tenant has", "SELECT pg_catalog.pg_total_relation_size('pg_catalog.pg_class')::text")
        .finding().hole("sizes"),
    attack("wal", "see how much is written", "SELECT pg_catalog.pg_current_wal_lsn()::text").finding().hole("sizes"),
    attack("settings_of_others", "read what another tenant has set for its role", "SELECT setconfig::text FROM pg_catalog.pg_db_role_setting").finding().hole("role_settings"),
    attack("role_list_settings", "read what another tenant has set for its role, in the list of roles", "SELECT rolname || ' ' || rolconfig::text FROM pg_catalog.pg_roles WHERE rolconfig IS NOT NULL").finding().hole("role_settings"),
    attack("prepared", "see prepared transactions", "SELECT coalesce((SELECT gid FROM pg_catalog.pg_prepared_xacts LIMIT 1), 'none')").finding().hole("activity"),
    // Interference.
    attack("advisory_locks", "take advisory locks", "SELECT pg_catalog.pg_try_advisory_xact_lock(7202413)").at(At::Shared).hole("advisory_locks"),
    attack("large_objects", "leave large objects", "SELECT pg_catalog.lo_create(0)").at(At::Shared).hole("large_objects"),
    attack("make_schema", "make a schema", "CREATE SCHEMA pgusher_verify"),
    attack("make_in_public", "make a table in the schema public", "CREATE TABLE public.pgusher_verify (i int)").hole("public_schema"),
    attack("writable_schemas", "make objects in a schema that is not its own", "SELECT nspname::text FROM pg_catalog.pg_namespace WHERE nspname <> {schema_text} AND nspname <> 'public' AND nspname !~ '^pg_(toast_)?temp_' AND pg_catalog.has_schema_privilege(oid, 'CREATE')")
        .finding().by(Who::Both).first(),
    attack("usable_schemas", "use a schema that is not its own", "SELECT nspname::text FROM pg_catalog.pg_namespace WHERE nspname NOT IN ({schema_text}, 'pg_catalog', 'information_schema', 'app', 'ctl', 'public') AND nspname !~ '^pg_(toast_)?temp_' AND pg_catalog.has_schema_privilege(oid, 'USAGE')")
        .finding().by(Who::Both).first(),
    attack("temporary_tables", "make temporary tables", "CREATE TEMP TABLE pgusher_verify (i int)").at(At::Rows),
    attack("programs", "run a program on the server", "COPY (SELECT 1) TO PROGRAM 'true'"),
    attack("files", "read a file of the server", "SELECT pg_catalog.pg_read_file('PG_VERSION')"),
    attack("libraries", "load code into the server", "LOAD 'plpgsql'"),
    attack("extensions", "make an extension that connects elsewhere", "CREATE EXTENSION dblink SCHEMA public"),
    attack("catalogue", "write PostgreSQL's own tables", "UPDATE pg_catalog.pg_database SET datname = datname"),
    attack("temporary_files", "use any amount of temporary files", "SELECT 'no limit' WHERE pg_catalog.current_setting('temp_file_limit') = '-1'").finding().by(Who::Both).hole("temporary_files"),
    attack("raise_limit", "raise its limit of temporary files", "SET temp_file_limit = -1"),
    attack("databases", "connect to another tenant's database", "SELECT datname::text FROM pg_catalog.pg_database WHERE datname <> pg_catalog.current_database() AND datallowconn AND pg_catalog.has_database_privilege(oid, 'CONNECT') AND NOT pg_catalog.has_database_privilege('public', oid, 'CONNECT')")
        .finding().by(Who::Both).first(),
    attack("public_databases", "connect to a database that lets everybody in", "SELECT datname::text FROM pg_catalog.pg_database WHERE datallowconn AND datname <> 'template0' AND pg_catalog.has_database_privilege('public', oid, 'CONNECT')")
        .finding().hole("database_access"),
    // Writing with the read-only role.
    attack("reader_rows", "write rows with the read-only role", "INSERT INTO ctl.canary (id, secret) VALUES (99, 'written')").by(Who::Reader).at(At::Rows).first(),
    attack("reader_update", "change rows with the read-only role", "UPDATE ctl.canary SET secret = 'written'").by(Who::Reader).at(At::Rows),
    attack("reader_privileges", "write a table with the read-only role", "SELECT c.oid::regclass::text FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = {schema_text} AND CASE WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'USAGE, UPDATE') WHEN c.relkind IN ('r', 'p', 'v', 'f') THEN pg_catalog.has_table_privilege(c.oid, 'DELETE, TRUNCATE, TRIGGER') OR pg_catalog.has_any_column_privilege(c.oid, 'INSERT, UPDATE') END")
        .finding().by(Who::Reader).at(At::OwnSchema).first(),
    attack("reader_functions", "run a function with its owner's rights as the read-only role", "SELECT p.oid::regproc::text FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = {schema_text} AND p.prosecdef AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')")
        .finding().by(Who::Reader).at(At::OwnSchema).first(),
    attack("reader_tables", "make a table with the read-only role", "CREATE TABLE {schema}.pgusher_verify (i int)").by(Who::Reader).at(At::OwnSchema),
    attack("reader_temporary", "make a temporary table with the read-only role", "CREATE TEMP TABLE pgusher_verify (i int)").by(Who::Reader),
    attack("reader_objects", "write a large object with the read-only role", "SELECT pg_catalog.lo_create(0)").by(Who::Reader).hole("large_objects"),
    attack("reader_writer", "become the role that writes", "SET ROLE {role}").by(Who::Reader),
    attack("reader_counter", "take a number of the tenant's with the read-only role", "SELECT ctl.next_number('pgusher_verify')")
        .by(Who::Reader).at(At::Slots).refused_by(&["42883"]),
    // Signals.
    attack("cancel", "cancel another tenant's query", "SELECT pg_catalog.pg_cancel_backend({pid})"),
    attack("terminate", "end another tenant's session", "SELECT pg_catalog.pg_terminate_backend({pid})"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_attack_has_a_name_of_its_own() {
        let names: HashSet<_> = ATTACKS.iter().map(|attack| attack.name).collect();
        assert_eq!(names.len(), ATTACKS.len());
    }
}
