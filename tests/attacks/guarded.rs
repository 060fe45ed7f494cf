//! Tenants as pgusher makes them, behind the proxy.

use crate::{
    attack::Tier,
    door::Door,
    harness::{
        Client, Connect, Mode, Postgres, port,
        postgres::{ADMIN, Endpoint},
        proxy::PROGRAM,
        scram, wait::eventually,
    },
    scene::Stage,
};
use pgusher::{
    provisioning::{self, Admin, Place, Profile, Variant},
    tenant::{self, Address, Login, Secret, UpstreamTls},
};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::TcpStream,
    process::{Child, Command, Stdio},
    rc::Rc,
    time::Duration,
};

/// The application's tables, as the tenant itself would make them.
const TABLES: &str = "create table accounts (id bigint primary key, secret text); \
    create table orders (id bigint primary key, account_id bigint references accounts)";

/// The modes of a pool.
pub const MODES: [Mode; 3] = [Mode::Transaction, Mode::Session, Mode::Statement];

/// A tenant with its place.
#[derive(Clone)]
struct Tenant {
    id: String,
    key: String,
    mode: Mode,
    place: Place,
}

/// PostgreSQL, hardened, and a proxy for pairs of tenants, one pair for each tier and mode.
pub struct Guarded {
    postgres: Postgres,
    folder: tempfile::TempDir,
    port: u16,
    proxy: Child,
    pairs: Vec<(Tier, [Tenant; 2])>,
}

impl Guarded {
    /// Makes it all.
    pub fn start() -> Self {
        let postgres = Postgres::start();
        // The harness's own, open to all.
        postgres.admin().exec("drop database shared");
        let admin = admin(postgres.endpoint());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(provisioning::harden_cluster(&admin, Profile::Strict)).unwrap();
        let (mut pairs, mut told) = (Vec::new(), BTreeMap::new());
        for tier in [Tier::Database, Tier::Schema, Tier::Row] {
            for mode in MODES {
                let pair = ["attacker", "victim"].map(|who| tenant_of(who, tier, mode));
                for tenant in &pair {
                    let made = provisioning::make(&admin, Profile::Strict, &tenant.place);
                    let holes = runtime.block_on(made).unwrap();
                    told.extend(holes.into_iter().map(|hole| (hole.name, hole.what)));
                }
                pairs.push((tier, pair));
            }
        }
        println!("told to be open: {told:#?}");
        protect_by_hand(&mut postgres.endpoint().admin_of(&pairs[6].1[0].place.database));
        let folder = tempfile::tempdir().unwrap();
        let port = port::free();
        fs::write(folder.path().join("proxy.toml"), file(port, &postgres, &pairs)).unwrap();
        let proxy = Command::new(PROGRAM)
            .args(["serve", "--config"])
            .arg(folder.path().join("proxy.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        eventually("the proxy listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { postgres, folder, port, proxy, pairs }
    }

    /// How many pairs of tenants there are.
    pub fn pairs(&self) -> Vec<(usize, Tier, &'static str)> {
        let pairs = self.pairs.iter().enumerate();
        pairs.map(|(number, (tier, pair))| (number, *tier, pair[0].mode.name())).collect()
    }

    /// A stage for a pair.
    pub fn stage(&self, number: usize) -> Stage {
        let (tier, [attacker, victim]) = self.pairs[number].clone();
        let endpoint = self.postgres.endpoint();
        let [canary, guess] = [format!("canary{number}x"), format!("guess {number}")];
        furnish(endpoint, tier, &victim, &format!("(1, '{canary}'), (2, '{guess}')"));
        furnish(endpoint, tier, &attacker, "(101, 'mine'), (102, 'mine too')");
        if tier.is_row() {
            many_rows(endpoint, &victim, &guess);
        }
        let door = |tenant: &Tenant| Door::new(self.port, &tenant.id, None, &tenant.key);
        let doors = (door(&attacker), door(&victim));
        let restore = Rc::new(Restore::new(endpoint, tier, &attacker));
        let label = victim.mode.name();
        let role = |tenant: &Tenant| tenant.place.login.as_ref().map_or_else(String::new, |login| login.role.to_string());
        let schema = |tenant: &Tenant| tenant.place.schema.as_deref().unwrap_or("app").to_owned();
        let table = match tier {
            Tier::Database => format!("{}.app.accounts", victim.place.database),
            Tier::Schema => format!("{}.accounts", schema(&victim)),
            _ => "data.accounts".into(),
        };
        Stage::new((label, tier), endpoint, doors, Box::new(move || restore.restore()))
            .name("canary", canary)
            .name("guess", guess)
            .name("mark", format!("mark of {number}"))
            .name("id", &*victim.id)
            .name("role", role(&victim))
            .name("login", role(&victim))
            .name("me", role(&attacker))
            .name("schema", schema(&victim))
            .name("myschema", schema(&attacker))
            .name("db", &*victim.place.database)
            .name("mydb", &*attacker.place.database)
            .name("table", table)
            .name("tenant", &*victim.place.token)
            .name("port", endpoint.port().to_string())
            .name("lo", (990_100 + number).to_string())
            .name("gid", format!("gid {number}"))
            .name("lock", (880_100 + number).to_string())
    }

    /// The proxy still runs; its log has no panic.
    pub fn proxy_is_well(&mut self) {
        let ended = self.proxy.try_wait().unwrap();
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap();
        assert!(ended.is_none(), "the proxy ended: {ended:?}, {log}");
        assert!(!log.contains("panicked"), "the proxy's log: {log}");
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.proxy.kill().ok();
        self.proxy.wait().ok();
    }
}

fn admin(endpoint: &Endpoint) -> Admin {
    Admin {
        address: Address::Tcp { host: "127.0.0.1".into(), port: endpoint.port() },
        tls: UpstreamTls::Disable,
        role: ADMIN.into(),
        password: None,
        connect_timeout: Duration::from_secs(20),
    }
}

fn tenant_of(who: &str, tier: Tier, mode: Mode) -> Tenant {
    let token = provisioning::new_token().unwrap();
    let login = |prefix: &str| Login {
        role: format!("{prefix}_{token}").into(),
        password: Some(Secret::new(format!("password of {who}"))),
    };
    let (place_tier, database, schema) = match tier {
        Tier::Database => (tenant::Tier::Database, format!("d_{token}"), Some("app".into())),
        Tier::Schema => (tenant::Tier::Schema, "schemas".into(), Some(format!("t_{token}").into())),
        Tier::Row | Tier::Shared => (tenant::Tier::Row, "rows".into(), None),
    };
    let place = Place {
        tier: place_tier,
        variant: Variant::Own,
        database: database.into(),
        schema,
        login: Some(login("t")),
        read_only_login: Some(login("r")),
        connection_limit: 10,
        token,
    };
    let id = format!("{who}-{}-{}", tier.name(), mode.name());
    let key = format!("pgu_k{who}_the-secret-of-{who}");
    Tenant { id, key, mode, place }
}

fn file(port: u16, postgres: &Postgres, pairs: &[(Tier, [Tenant; 2])]) -> String {
    let mut file = format!(
        "[proxy]\nlisten = \"127.0.0.1:{port}\"\nworkers = 2\nauth_failures_per_minute = 100000\n\
         [[clusters]]\nname = \"main\"\nprimary = \"{}\"\nmax_server_connections = 250\n",
        postgres.endpoint().url()
    );
    for tenant in pairs.iter().flat_map(|(_, pair)| pair) {
        let place = &tenant.place;
        let verifier = scram::verifier(&tenant.key, &scram::salt(&tenant.id));
        let tier = place.tier.to_string();
        let login = place.login.as_ref().unwrap();
        writeln!(
            file,
            "[[tenants]]\nid = \"{}\"\ncluster = \"main\"\ntier = \"{tier}\"\ndatabase = \"{}\"\n\
             role = \"{}\"\npassword = \"{}\"\npool_mode = \"{}\"\npool_size = 4\n\
             keys = [{{ verifier = \"{verifier}\" }}]",
            tenant.id,
            place.database,
            login.role,
            login.password.as_ref().unwrap().expose(),
            tenant.mode.name(),
        )
        .unwrap();
        if let (tenant::Tier::Schema, Some(schema)) = (place.tier, &place.schema) {
            writeln!(file, "schema = \"{schema}\"").unwrap();
        }
    }
    file
}

/// As the tenant itself, without the proxy.
fn direct(endpoint: &Endpoint, tenant: &Tenant) -> Client {
    let login = tenant.place.login.as_ref().unwrap();
    Connect::to(endpoint.address())
        .user(&login.role)
        .database(&tenant.place.database)
        .password(login.password.as_ref().unwrap().expose())
        .login()
}

fn furnish(endpoint: &Endpoint, tier: Tier, tenant: &Tenant, rows: &str) {
    let mut client = direct(endpoint, tenant);
    if !tier.is_row() {
        client.exec(TABLES);
    }
    client.exec(&format!("insert into accounts values {rows}"));
}

/// Enough for statistics to tell, if anybody kept them.
fn many_rows(endpoint: &Endpoint, victim: &Tenant, guess: &str) {
    let mut client = direct(endpoint, victim);
    client.exec(&format!("insert into accounts select 20000 + n, '{guess}' from generate_series(1, 900) n"));
    endpoint.admin_of(&victim.place.database).exec("analyze data.accounts, data.orders");
}

/// Undoes what an attacker did to itself, so that the next attack is not the weaker for it.
struct Restore {
    endpoint: Endpoint,
    tier: Tier,
    attacker: Tenant,
    state: String,
    admin: RefCell<Client>,
}

impl Restore {
    fn new(endpoint: &Endpoint, tier: Tier, attacker: &Tenant) -> Self {
        let mut restore = Self {
            endpoint: endpoint.clone(),
            tier,
            attacker: attacker.clone(),
            state: String::new(),
            admin: RefCell::new(endpoint.admin_of(&attacker.place.database)),
        };
        restore.state = restore.state();
        restore
    }

    fn role(&self) -> &str {
        &self.attacker.place.login.as_ref().unwrap().role
    }

    /// What the role could change of itself, and what it could drop.
    fn state(&self) -> String {
        let role = self.role();
        let values = self.admin.borrow_mut().values(&format!(
            "select concat_ws(' ', rolpassword, rolconnlimit, \
                (select string_agg(setconfig::text, ' ' order by setdatabase) from pg_db_role_setting where setrole = a.oid), \
                has_database_privilege(a.oid, current_database(), 'connect')) \
             from pg_authid a where rolname = '{role}'"
        ));
        values.join(" ")
    }

    fn restore(&self) {
        if self.state() != self.state {
            self.repair_role();
        }
        let place = &self.attacker.place;
        let mut database = self.admin.borrow_mut();
        if self.tier.is_row() {
            database.exec(&format!(
                "begin; select set_config('pgusher.tenant', '{0}', true); \
                 delete from data.orders where tenant_id = '{0}'; delete from data.accounts where tenant_id = '{0}'; \
                 insert into data.accounts (tenant_id, id, secret) values ('{0}', 101, 'mine'), ('{0}', 102, 'mine too'); commit",
                place.token
            ));
            return;
        }
        let (role, schema) = (self.role(), place.schema.as_deref().unwrap());
        let made = database.value(&format!(
            "select concat_ws(' ', (select count(*) from pg_class where relnamespace = n and relkind <> 'i'), \
                (select count(*) from pg_proc where pronamespace = n), \
                (select count(*) from pg_type where typnamespace = n), \
                (select count(*) from pg_largeobject_metadata where lomowner = '{role}'::regrole)) \
             from to_regnamespace('{schema}') n"
        ));
        if made != "2 0 4 0" {
            database.exec(&format!(
                "drop schema if exists {schema} cascade; create schema {schema} authorization {role}; \
                 set role {role}; set search_path = {schema}; {TABLES}; reset role; \
                 select lo_unlink(oid) from pg_largeobject_metadata where lomowner = '{role}'::regrole"
            ));
        }
        database.exec(&format!(
            "delete from {schema}.orders; delete from {schema}.accounts; \
             insert into {schema}.accounts values (101, 'mine'), (102, 'mine too')"
        ));
    }

    fn repair_role(&self) {
        let role = self.role();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let admin = admin(&self.endpoint);
        let repaired = provisioning::repair(&admin, Profile::Strict, &self.attacker.place);
        runtime.block_on(repaired).unwrap();
        // A verifier has a salt, so the state is never the same again: the role's own is put back.
        let password = self.state.split(' ').next().unwrap();
        let mut database = self.admin.borrow_mut();
        database.exec(&format!("alter role {role} password '{password}'"));
        database.exec(&format!(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = '{role}'"
        ));
    }
}

/// The application's tables in a database of the row tier, as ISOLATION.md section 3 has them.
fn protect_by_hand(admin: &mut Client) {
    admin.exec(
        "create table data.accounts (id bigint not null, secret text, \
            tenant_id text not null default ctl.tenant(), primary key (tenant_id, id)); \
         create index on data.accounts (tenant_id, secret); \
         create table data.orders (id bigint not null, account_id bigint, \
            tenant_id text not null default ctl.tenant(), primary key (tenant_id, id), \
            foreign key (tenant_id, account_id) references data.accounts (tenant_id, id)); \
         grant select on data.accounts to pgusher_data",
    );
    for table in ["accounts", "orders"] {
        let second = if table == "accounts" { "secret" } else { "account_id" };
        let columns = format!("id, {second}, tenant_id");
        admin.exec(&format!(
            "alter table data.{table} owner to pgusher_data; \
             alter table data.{table} enable row level security, force row level security, \
                alter id set statistics 0, alter {second} set statistics 0, alter tenant_id set statistics 0; \
             create policy tenant on data.{table} to public using (tenant_id = (select ctl.tenant())) \
                with check (tenant_id = (select ctl.tenant())); \
             grant select ({columns}), insert ({columns}), update ({columns}) on data.{table} to pgusher_view; \
             grant select (tenant_id, id), delete on data.{table} to pgusher_del; \
             create view app.{table} with (security_barrier) as select {columns} from data.{table}; \
             alter view app.{table} owner to pgusher_view; \
             alter view app.{table} alter tenant_id set default ctl.tenant(); \
             grant select, insert, update, delete on app.{table} to public; \
             create function ctl.del_{table}() returns trigger language plpgsql security definer \
                set search_path = pg_catalog, pg_temp as \
                $$ begin delete from data.{table} where tenant_id = old.tenant_id and id = old.id; \
                   if not found then return null; end if; return old; end $$; \
             alter function ctl.del_{table}() owner to pgusher_del; \
             revoke all on function ctl.del_{table}() from public; \
             create trigger del instead of delete on app.{table} for each row execute function ctl.del_{table}()"
        ));
    }
}
