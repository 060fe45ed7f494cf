//! Set-ups as one meets them, directly on PostgreSQL: what the attacks must succeed against.

use crate::{
    attack::{Attack, Tier},
    door::Door,
    harness::{
        Client, Connect,
        place::ROLE_PASSWORD,
        postgres::{ADMIN, Endpoint},
    },
    scene::{Stage, Who},
    wire::{PATIENCE, Wire},
};
use std::{
    cell::RefCell,
    panic::{self, AssertUnwindSafe},
    rc::Rc,
};

/// How tenants are kept apart by who knows no better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naive {
    /// One login role; the client says which tenant it is, by SET.
    SharedRole,
    /// The same, and the role is a superuser.
    Superuser,
    /// One login role; SET ROLE makes it the tenant's.
    SetRole,
    /// A login role each, with PostgreSQL's own defaults, grants to all, and trust on loopback.
    OwnRoles,
    /// One connection in turns, without a reset.
    Turns,
    /// The victim's own login, with `SET default_transaction_read_only`.
    ReadOnly,
}

/// All of them; the likeliest to leak first. Superusers can change what is everybody's: they come
/// last.
pub const NAIVE: [Naive; 6] = [
    Naive::ReadOnly,
    Naive::SharedRole,
    Naive::OwnRoles,
    Naive::Turns,
    Naive::SetRole,
    Naive::Superuser,
];

/// Parts of the attacks that run beside each other: two for each tier.
pub const LANES: usize = 6;

impl Naive {
    fn who(self) -> Who {
        match self {
            Self::ReadOnly => Who::OwnReader,
            _ => Who::Other,
        }
    }

    /// Whether it makes sense to try this attack on it.
    pub fn is_for(self, attack: &Attack, tier: Tier) -> bool {
        match self {
            // Databases are not changed by SET.
            Self::Turns | Self::SetRole if tier == Tier::Database => false,
            // There, everybody is the owner but for one setting.
            Self::ReadOnly => attack.is_readers && attack.tiers.contains(&tier),
            _ => attack.is_for(Who::Other, tier),
        }
    }
}

/// What is the same for both tenants and what is not.
struct Plan {
    naive: Naive,
    tier: Tier,
    prefix: String,
    endpoint: Endpoint,
}

/// Whose: the attacker's or the victim's.
const SIDES: [&str; 2] = ["a", "v"];

impl Plan {
    fn has_roles(&self) -> bool {
        matches!(self.naive, Naive::SetRole | Naive::OwnRoles)
    }

    /// The role that owns what this side has.
    fn role(&self, side: &str) -> String {
        if self.has_roles() {
            format!("{}_{side}", self.prefix)
        } else {
            self.prefix.clone()
        }
    }

    fn login(&self, side: &str) -> String {
        if self.naive == Naive::OwnRoles {
            self.role(side)
        } else {
            self.prefix.clone()
        }
    }

    fn database(&self, side: &str) -> String {
        if self.tier == Tier::Database {
            format!("{}_{side}", self.prefix)
        } else {
            format!("{}_db", self.prefix)
        }
    }

    fn schema(&self, side: &str) -> String {
        match self.tier {
            Tier::Schema => format!("{}_s{side}", self.prefix),
            Tier::Database | Tier::Row | Tier::Shared => "app".into(),
        }
    }

    fn tenant(&self, side: &str) -> String {
        if self.has_roles() {
            self.role(side)
        } else {
            format!("corp_{side}")
        }
    }

    fn greeting(&self, side: &str) -> Vec<String> {
        let mut greeting = Vec::new();
        if self.naive == Naive::SetRole {
            greeting.push(format!("set role {}", self.role(side)));
        }
        match self.tier {
            Tier::Database => {}
            Tier::Schema => {
                greeting.push(format!("set search_path = {}, public", self.schema(side)));
            }
            Tier::Row | Tier::Shared => {
                greeting.push(format!("set app.tenant_id = '{}'", self.tenant(side)));
            }
        }
        greeting
    }

    fn door(&self, side: &str) -> Door {
        let login = self.login(side);
        let database = self.database(side);
        // A lock that somebody else holds is an error after a second, so that nobody waits longer.
        let options = "-c lock_timeout=1000";
        Door::new(self.endpoint.port(), &login, Some(&database), ROLE_PASSWORD)
            .parameter("options", options)
            .greeting(&self.greeting(side))
    }

    /// Roles and databases, once.
    fn found(&self) {
        let mut admin = self.endpoint.admin();
        let password = ROLE_PASSWORD.replace('\'', "''");
        let prefix = &self.prefix;
        let role = |admin: &mut Client, role: &str, attributes: &str| {
            admin.exec(&format!(
                "create role {role} login {attributes} password '{password}'"
            ));
        };
        match self.naive {
            Naive::SharedRole | Naive::Turns | Naive::ReadOnly => {
                role(&mut admin, prefix, "createrole");
            }
            Naive::Superuser => role(&mut admin, prefix, "superuser"),
            Naive::SetRole | Naive::OwnRoles => {
                for side in SIDES {
                    role(&mut admin, &self.role(side), "");
                    admin.exec(&format!("grant by_trust to {}", self.role(side)));
                }
            }
        }
        if self.naive == Naive::SetRole {
            role(&mut admin, prefix, "noinherit createrole");
            admin.exec(&format!(
                "grant {prefix}_a, {prefix}_v to {prefix} with admin option"
            ));
        }
        let mut databases = SIDES
            .map(|side| (self.database(side), self.role(side)))
            .to_vec();
        databases.dedup_by(|one, other| one.0 == other.0);
        for (database, owner) in databases {
            admin.exec(&format!("create database {database} owner {owner}"));
        }
    }

    /// Everything in the databases, as it was.
    fn restore(&self) {
        self.clear();
        self.undo_renames();
        for side in SIDES {
            let database = self.database(side);
            let mut admin = self.admin_of(&database);
            let clear = format!(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity \
                    where datname = '{database}' and pid <> pg_backend_pid();\
                 select lo_unlink(oid) from pg_largeobject_metadata;\
                 alter database {database} reset all; alter database {database} connection limit -1"
            );
            let is_first = side == "a" || self.tier == Tier::Database;
            for statement in clear.split(';').filter(|_| is_first) {
                admin.exec(statement);
            }
            self.restore_role(&mut admin, side);
            if is_first {
                admin.exec(
                    "do $$ declare s text; begin for s in select nspname from pg_namespace \
                        where nspname !~ '^(pg_|information)' loop \
                        execute format('drop schema %I cascade', s); end loop; \
                     for s in select pubname from pg_publication loop \
                        execute format('drop publication %I', s); end loop; end $$; \
                     do $$ declare s text; begin for s in select evtname from pg_event_trigger loop \
                        execute format('drop event trigger %I', s); end loop; end $$; \
                     drop cast if exists (text as bigint); \
                     create schema public; grant all on schema public to public",
                );
                if self.tier.is_row() {
                    self.restore_rows(&mut admin);
                }
            }
            if !self.tier.is_row() {
                self.restore_own(&mut admin, side);
            }
        }
    }

    /// Ends all sessions and prepared transactions: what they hold, nobody else could change.
    fn clear(&self) {
        let mut admin = self.admin_of("postgres");
        let names = SIDES.map(|side| {
            let name = self.database(side);
            format!("'{name}', '{name}x'")
        });
        let names = names.join(", ");
        admin.exec(&format!(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname in ({names})"
        ));
        let prepared =
            format!("select distinct database from pg_prepared_xacts where database in ({names})");
        for database in admin.values(&prepared) {
            let mut admin = self.admin_of(&database);
            for gid in admin.values(&format!(
                "select gid from pg_prepared_xacts where database = '{database}'"
            )) {
                admin.exec(&format!("rollback prepared '{gid}'"));
            }
        }
    }

    /// An admin's connection on which nothing that was set for all roles has an effect.
    fn admin_of(&self, database: &str) -> Client {
        Connect::to(self.endpoint.address())
            .user(ADMIN)
            .database(database)
            .options("-c statement_timeout=0 -c default_transaction_read_only=off")
            .login()
    }

    fn undo_renames(&self) {
        let mut admin = self.admin_of("postgres");
        for side in SIDES {
            for (kind, name) in [("role", self.role(side)), ("database", self.database(side))] {
                admin.query(&format!("alter {kind} {name}x rename to {name}"));
            }
        }
        if self.naive == Naive::Superuser {
            admin.exec("alter role all reset all");
            admin.exec("alter system reset all");
            admin.exec("alter database template1 reset all");
            admin.exec("select pg_reload_conf()");
            admin.exec("select pg_drop_replication_slot(slot_name) from pg_replication_slots");
        }
        for side in SIDES {
            let database = self.database(side);
            admin.exec(&format!("alter role all in database {database} reset all"));
            admin.exec(&format!(
                "grant connect, temporary on database {database} to public"
            ));
            for role in [self.role(side), self.login(side)] {
                admin.exec(&format!("grant connect on database {database} to {role}"));
                admin.exec(&format!(
                    "alter role {role} in database {database} reset all"
                ));
            }
            admin.exec(&format!("alter database {database} allow_connections true"));
        }
    }

    fn restore_role(&self, admin: &mut Client, side: &str) {
        let password = ROLE_PASSWORD.replace('\'', "''");
        let attributes = match self.naive {
            Naive::Superuser => "superuser",
            _ => "nosuperuser nocreatedb noreplication nobypassrls",
        };
        for role in [self.role(side), self.login(side)] {
            admin.exec(&format!("alter role {role} reset all"));
            admin.exec(&format!(
                "alter role {role} login {attributes} connection limit 12 password '{password}' valid until 'infinity'"
            ));
        }
    }

    fn restore_own(&self, admin: &mut Client, side: &str) {
        let (schema, role, database) = (self.schema(side), self.role(side), self.database(side));
        if self.tier == Tier::Database {
            admin.exec(&format!(
                "alter database {database} set search_path = app, public"
            ));
        }
        let secrets = secrets_of(side, &self.prefix);
        admin.exec(&format!(
            "create schema {schema} authorization {role}; set role {role}; \
             set search_path = {schema}; \
             create table accounts (id bigint primary key, secret text); \
             create table orders (id bigint primary key, account_id bigint references accounts, item text); \
             insert into accounts values {secrets}; reset role"
        ));
        if self.naive == Naive::OwnRoles {
            admin.exec(&format!(
                "grant usage on schema {schema} to public; \
                 grant all on all tables in schema {schema} to public"
            ));
        }
    }

    fn restore_rows(&self, admin: &mut Client) {
        let (is_tenant, options, default) = if self.has_roles() {
            (
                "tenant_id = current_user::text",
                "with (security_invoker)",
                "current_user",
            )
        } else {
            let setting = "current_setting('app.tenant_id', true)";
            (
                "tenant_id = current_setting('app.tenant_id', true)",
                "",
                setting,
            )
        };
        admin.exec(&format!(
            "create schema data; create schema app; \
             create function app.tenant() returns text language plpgsql stable as \
                $$ begin return current_setting('app.tenant_id', true); end $$; \
             create sequence data.ids start 100000; \
             create table data.accounts (id bigint primary key default nextval('data.ids'), \
                secret text, tenant_id text default {default}); \
             create unique index on data.accounts (secret) where id < 100; \
             create index on data.accounts (secret); \
             create table data.orders (id bigint primary key, \
                account_id bigint references data.accounts on delete cascade, item text, \
                tenant_id text default {default})"
        ));
        for side in SIDES {
            let secrets = secrets_of(side, &self.prefix);
            let tenant = self.tenant(side);
            admin.exec(&format!(
                "insert into data.accounts select *, '{tenant}' from (values {secrets}) as s(id, secret)"
            ));
        }
        let tenant = self.tenant("v");
        let guess = format!("guess {}", self.prefix);
        admin.exec(&format!(
            "insert into data.accounts select 20000 + n, '{guess}', '{tenant}' \
                from generate_series(1, 900) n; analyze data.accounts"
        ));
        for table in ["accounts", "orders"] {
            self.protect(admin, table, is_tenant, options);
        }
        let database = self.database("v");
        admin.exec(&format!(
            "alter database {database} set search_path = app, public"
        ));
    }

    /// Who sees which rows of a table, and the view through which it is used.
    fn protect(&self, admin: &mut Client, table: &str, is_tenant: &str, options: &str) {
        admin.exec(&format!(
            "alter table data.{table} enable row level security; \
             alter table data.{table} force row level security; \
             grant all on data.{table} to public; grant all on sequence data.ids to public; \
             grant usage on schema data, app to public; grant create on schema data to public"
        ));
        if self.has_roles() {
            // A restrictive policy for each role: what one role owns it can drop.
            admin.exec(&format!(
                "create policy everybody on data.{table} using (true)"
            ));
            for side in SIDES {
                let role = self.role(side);
                admin.exec(&format!(
                    "create policy {role} on data.{table} as restrictive to {role} \
                        using (tenant_id = '{role}')"
                ));
            }
        } else {
            admin.exec(&format!(
                "create policy tenant on data.{table} using ({is_tenant})"
            ));
        }
        if self.naive == Naive::SetRole {
            // Who is no tenant sees nothing.
            let login = &self.prefix;
            admin.exec(&format!(
                "create policy {login} on data.{table} as restrictive to {login} using (false)"
            ));
        }
        // As many write it: a function that costs more than what is asked of the rows.
        let filter = if self.has_roles() {
            "true"
        } else {
            "tenant_id = app.tenant()"
        };
        admin.exec(&format!(
            "create view app.{table} {options} as select * from data.{table} where {filter}; \
             grant all on app.{table} to public"
        ));
    }
}

/// The rows of a side, as VALUES.
fn secrets_of(side: &str, prefix: &str) -> String {
    match side {
        "a" => "(101, 'mine'), (102, 'mine too')".into(),
        _ => format!("(1, 'canary{prefix}x'), (2, 'guess {prefix}')"),
    }
}

/// A naive set-up for this tier, by its lane and by how often that was made anew.
pub fn stage(
    (naive, tier, lane): (Naive, Tier, usize),
    remakes: usize,
    endpoint: &Endpoint,
) -> Result<Stage, String> {
    let made = || found(naive, tier, 100 * remakes + lane, endpoint);
    let made = panic::catch_unwind(AssertUnwindSafe(made));
    let mut stage = made.ok().ok_or("it can't be made")?;
    stage.look()?;
    Ok(stage)
}

fn found(naive: Naive, tier: Tier, number: usize, endpoint: &Endpoint) -> Stage {
    let prefix = format!("n{number}{}{}", naive as u8, tier.name());
    let endpoint = endpoint.clone();
    let plan = Rc::new(Plan {
        naive,
        tier,
        prefix: prefix.clone(),
        endpoint,
    });
    plan.found();
    plan.restore();
    let (mut attacker, mut victim) = (plan.door("a"), plan.door("v"));
    if naive == Naive::ReadOnly {
        attacker = plan.door("v");
        let read_only = "set default_transaction_read_only = on";
        attacker.greeting.push(read_only.to_owned());
    }
    let mut turnstile = None;
    if naive == Naive::Turns {
        let shared = Rc::new(RefCell::new(turn(&attacker)));
        attacker.turnstile = Some(Rc::clone(&shared));
        victim.turnstile = Some(Rc::clone(&shared));
        turnstile = Some(shared);
    }
    let door = plan.door("a");
    let again = Rc::clone(&plan);
    let restore = move || {
        again.restore();
        if let Some(shared) = &turnstile {
            *shared.borrow_mut() = turn(&door);
        }
    };
    let label = format!("{naive:?}");
    let mut stage = Stage::new(
        (&label, tier),
        &plan.endpoint,
        (attacker, victim),
        Box::new(restore),
    );
    stage.is_naive = true;
    stage.who = naive.who();
    let table = match tier {
        Tier::Schema => format!("{}.accounts", plan.schema("v")),
        Tier::Database => format!("{}.app.accounts", plan.database("v")),
        _ => "data.accounts".into(),
    };
    let shown = if tier.is_row() {
        "accounts".to_owned()
    } else {
        table.clone()
    };
    stage
        .name("canary", format!("canary{prefix}x"))
        .name("guess", format!("guess {prefix}"))
        .name("mark", format!("mark of {prefix}"))
        .name("id", plan.tenant("v"))
        .name("role", plan.role("v"))
        .name("login", plan.login("v"))
        .name("me", plan.role("a"))
        .name("schema", plan.schema("v"))
        .name("myschema", plan.schema("a"))
        .name("db", plan.database("v"))
        .name("mydb", plan.database("a"))
        .name("shown", shown)
        .name("table", table)
        .name("tenant", plan.tenant("v"))
        .name("port", plan.endpoint.port().to_string())
        .name("lo", (990_000 + 10 * number + naive as usize).to_string())
        .name("gid", format!("gid {prefix}"))
        .name("lock", (880_000 + 10 * number + naive as usize).to_string())
}

/// A new connection for all. Who brings it out of step makes everybody wait on it, so they wait less.
fn turn(door: &Door) -> Wire {
    let mut wire = Wire::open(door.port, door.from, PATIENCE / 2).expect("PostgreSQL listens");
    wire.log_in(&door.packet(), &door.password)
        .unwrap_or_else(|answer| panic!("can't log in: {answer:?}"));
    wire
}
