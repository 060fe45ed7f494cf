//! Tenants as `pgusher tenant create` makes them, behind the proxy that finds them in the registry.

use crate::{
    attack::Tier,
    door::Door,
    harness::{
        Client, Mode, Postgres, Proxy, ProxyFile,
        office::Office,
        postgres::{ADMIN, Endpoint},
    },
    scene::{Stage, Who},
};
use pgusher::{
    provisioning::{self, Admin, Place, Profile, Variant},
    tenant::{self, Address, Login, Secret, UpstreamTls},
};
use serde_json::Value;
use std::{cell::RefCell, fs, time::Duration};

/// The application's tables, for an attacker that has dropped its own.
const TABLES: &str = "create table accounts (id bigint primary key, secret text); \
    create table orders (id bigint primary key, account_id bigint references accounts, item text)";

/// The application's tables, as templates.
const TEMPLATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/demo/templates");

/// How long the victim waits before it counts as locked out: a slow machine is no attack.
const PATIENCE: Duration = Duration::from_mins(1);

/// How each tier is attacked: in each mode of a pool with a key that writes, and with keys that
/// only read.
const ATTACKERS: [(Mode, bool); 4] = [
    (Mode::Transaction, false),
    (Mode::Session, false),
    (Mode::Statement, false),
    (Mode::Transaction, true),
];

/// A tenant with its place.
#[derive(Clone)]
struct Tenant {
    id: String,
    key: String,
    read_only_key: String,
    place: Place,
    holes: Vec<String>,
}

struct Pair {
    tier: Tier,
    mode: Mode,
    only_reads: bool,
    attacker: Tenant,
    victim: Tenant,
}

/// Two hardened clusters, one of them for tenants that share logins, and a proxy for pairs of
/// tenants.
pub struct Guarded {
    main: Postgres,
    slots: Postgres,
    office: Office,
    proxy: Proxy,
    pairs: Vec<Pair>,
}

impl Guarded {
    /// Makes it all, with the commands that an operator has.
    pub fn start() -> Self {
        let (main, mut slots) = (Postgres::start(), Postgres::start());
        slots
            .admin()
            .exec("alter system set max_prepared_transactions = 0");
        slots.stop();
        slots.run();
        let office = Office::new(Postgres::shared().endpoint());
        let file = office.path().join("proxy.toml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(
            &file,
            format!("{text}[templates]\ndirectory = \"{TEMPLATES}\"\n"),
        )
        .unwrap();
        for (name, postgres) in [("main", &main), ("slots", &slots)] {
            // The harness's own, open to all.
            postgres.admin().exec("drop database shared");
            let url = postgres.endpoint().url();
            let add = ["cluster", "add", name, "--primary", &url];
            let more = ["--admin-role", ADMIN, "--max-server-connections", "250"];
            office.run(&[&add[..], &more].concat()).succeeded();
        }
        let mut pairs = Vec::new();
        for tier in [Tier::Database, Tier::Schema, Tier::Row, Tier::Shared] {
            for (mode, only_reads) in ATTACKERS {
                let id = |who| format!("{who}-{}-{}", tier.name(), pairs.len());
                let (attacker, victim) = (id("attacker"), id("victim"));
                pairs.push(Pair {
                    tier,
                    mode,
                    only_reads,
                    attacker: create(&office, &attacker, tier, mode),
                    victim: create(&office, &victim, tier, mode),
                });
            }
        }
        let key = fs::read_to_string(office.path().join("master.key")).unwrap();
        // Who holds others up is ended, but not kept out: it has more to try.
        let proxy = Proxy::with(ProxyFile::bare())
            .registry(&office.url(), &key)
            .set_registry("lock_watch_penalty", "0s");
        Self {
            main,
            slots,
            proxy: proxy.start(),
            office,
            pairs,
        }
    }

    /// How many pairs of tenants there are.
    pub fn count(&self) -> usize {
        self.pairs.len()
    }

    fn endpoint(&self, tier: Tier) -> &Endpoint {
        match tier {
            Tier::Shared => self.slots.endpoint(),
            Tier::Database | Tier::Schema | Tier::Row => self.main.endpoint(),
        }
    }

    /// The stages for a pair, one after the other.
    pub fn stages(&self, number: usize) -> Vec<Stage> {
        let pair = &self.pairs[number];
        let endpoint = self.endpoint(pair.tier);
        let [canary, guess] = [format!("canary{number}x"), format!("guess {number}")];
        let rows = format!("(1, '{canary}'), (2, '{guess}')");
        furnish(endpoint, pair.tier, &pair.victim, &rows);
        if pair.tier.is_row() {
            many_rows(endpoint, &pair.victim, &guess);
        }
        let mut stages = vec![self.stage(number, Who::Other)];
        if pair.only_reads {
            stages.push(self.stage(number, Who::OwnReader));
        }
        stages
    }

    fn stage(&self, number: usize, who: Who) -> Stage {
        let pair = &self.pairs[number];
        let (tier, victim) = (pair.tier, &pair.victim);
        let attacker = match who {
            Who::Other => &pair.attacker,
            Who::OwnReader => victim,
        };
        let endpoint = self.endpoint(tier);
        let door = |tenant: &Tenant, key: &str| Door::new(self.proxy.port(), &tenant.id, None, key);
        let key = if pair.only_reads {
            &attacker.read_only_key
        } else {
            &attacker.key
        };
        let victims = door(victim, &victim.key).patience(PATIENCE);
        let restore = Restore::new(endpoint, pair, who);
        let mode = pair.mode.name();
        let label = if pair.only_reads { "reader" } else { mode };
        // A slot that is never the attacker's own.
        let slot = if pair.only_reads { "s_1" } else { "q_1" };
        let name = |login: Option<&Login>| {
            login.map_or_else(|| slot.to_owned(), |login| login.role.to_string())
        };
        let role = |tenant: &Tenant| name(tenant.place.login.as_ref());
        let me = match (tier, pair.only_reads) {
            (Tier::Shared, _) => "current_user".into(),
            (_, true) => name(attacker.place.read_only_login.as_ref()),
            (_, false) => role(attacker),
        };
        let schema = |tenant: &Tenant| tenant.place.schema.as_deref().unwrap_or("app").to_owned();
        let table = match tier {
            Tier::Database => format!("{}.{}.accounts", victim.place.database, schema(victim)),
            Tier::Schema => format!("{}.accounts", schema(victim)),
            Tier::Row | Tier::Shared => "data.accounts".into(),
        };
        // What can be named at all.
        let shown = if tier.is_row() {
            "accounts".to_owned()
        } else {
            table.clone()
        };
        let mut stage = Stage::new(
            (label, tier),
            endpoint,
            (door(attacker, key), victims),
            Box::new(move || restore.restore()),
        );
        stage.who = who;
        stage.holes.clone_from(&victim.holes);
        stage
            .name("canary", format!("canary{number}x"))
            .name("guess", format!("guess {number}"))
            .name("mark", format!("mark of {number}"))
            .name("id", &*victim.id)
            .name("role", role(victim))
            .name("login", role(victim))
            .name("me", me)
            .name("schema", schema(victim))
            .name("myschema", schema(attacker))
            .name("db", &*victim.place.database)
            .name("mydb", &*attacker.place.database)
            .name("shown", shown)
            .name("table", table)
            .name("tenant", &*victim.place.token)
            .name("port", endpoint.port().to_string())
            .name("lo", (990_100 + number).to_string())
            .name("gid", format!("gid {number}"))
            .name("lock", (880_100 + number).to_string())
    }

    /// What the proxy has logged.
    pub fn log(&self) -> String {
        self.proxy.log()
    }

    /// The proxy still runs, and its log has no panic; verification finds nothing that is open and
    /// not told, whatever was done to the tenants.
    pub fn is_well(&mut self) {
        let log = self.proxy.log();
        assert!(self.proxy.is_alive(), "the proxy ended: {log}");
        assert!(!log.contains("panicked"), "the proxy's log: {log}");
        // One of each tier.
        for pair in self.pairs.iter().filter(|pair| pair.only_reads) {
            let run = self.office.run(&["tenant", "verify", &pair.victim.id]);
            assert!(run.is_success, "{}: {}{}", pair.victim.id, run.out, run.err);
        }
    }
}

/// Makes a tenant, and reads what the registry has of it.
fn create(office: &Office, id: &str, tier: Tier, mode: Mode) -> Tenant {
    let (kind, variant, cluster) = match tier {
        Tier::Shared => ("row", "shared", "slots"),
        Tier::Database | Tier::Schema | Tier::Row => (tier.name(), "own", "main"),
    };
    let mode = format!("pool_mode={}", mode.name());
    let mut words = vec!["tenant", "create", id, "--tier", kind, "--cluster", cluster];
    // All pairs at once must find slots: there are 20.
    let size = if tier == Tier::Shared { 2 } else { 4 };
    let size = format!("pool_size={size}");
    words.extend(["--set", &mode, "--set", &size]);
    if tier == Tier::Shared {
        words.extend(["--variant", variant]);
    }
    let told = office.json(&words);
    let key = |which: &str| told[which]["key"].as_str().unwrap().to_owned();
    let mut registry = office.admin();
    let mut field = |column: &str| {
        registry.value(&format!(
            "select coalesce(({column})::text, '') from pgusher.tenant where id = '{id}'"
        ))
    };
    let holes: Value = serde_json::from_str(&field("open_holes")).unwrap();
    let holes = holes.as_array().unwrap().iter();
    let login = |role: String| Login {
        role: role.into(),
        password: Some(Secret::new("for a while".to_owned())),
    };
    let schema = field("schema_name");
    let place = Place {
        tier: kind.parse::<tenant::Tier>().unwrap(),
        variant: if tier == Tier::Shared {
            Variant::Shared
        } else {
            Variant::Own
        },
        database: field("database_name").into(),
        schema: (!schema.is_empty()).then(|| schema.into()),
        token: field("token").into(),
        login: (tier != Tier::Shared).then(|| login(field("role"))),
        read_only_login: (tier != Tier::Shared).then(|| login(field("read_only_role"))),
        connection_limit: -1,
    };
    Tenant {
        id: id.to_owned(),
        key: key("key"),
        read_only_key: key("read_only_key"),
        place,
        holes: holes
            .map(|hole| hole["name"].as_str().unwrap().to_owned())
            .collect(),
    }
}

fn admin(endpoint: &Endpoint) -> Admin {
    Admin {
        address: Address::Tcp {
            host: "127.0.0.1".into(),
            port: endpoint.port(),
        },
        tls: UpstreamTls::Disable,
        role: ADMIN.into(),
        password: None,
        connect_timeout: Duration::from_mins(1),
    }
}

/// The rows of a tenant, put there by the admin.
fn furnish(endpoint: &Endpoint, tier: Tier, tenant: &Tenant, rows: &str) {
    let place = &tenant.place;
    let mut admin = endpoint.admin_of(&place.database);
    if tier.is_row() {
        let token = &place.token;
        admin.exec(&format!(
            "insert into data.accounts (id, secret, tenant_id) select *, '{token}' from (values {rows}) v"
        ));
    } else {
        let schema = place.schema.as_deref().unwrap();
        admin.exec(&format!(
            "insert into {schema}.accounts (id, secret) values {rows}"
        ));
    }
}

/// Enough for statistics to tell, if anybody kept them.
fn many_rows(endpoint: &Endpoint, victim: &Tenant, guess: &str) {
    let mut admin = endpoint.admin_of(&victim.place.database);
    let token = &victim.place.token;
    admin.exec(&format!(
        "insert into data.accounts (id, secret, tenant_id) \
            select 20000 + n, '{guess}', '{token}' from generate_series(1, 900) n"
    ));
    admin.exec("analyze data.accounts, data.orders");
}

/// Undoes what an attacker did to itself, so that the next attack is not the weaker for it.
struct Restore {
    endpoint: Endpoint,
    tier: Tier,
    who: Who,
    attacker: Tenant,
    state: Vec<String>,
    objects: RefCell<String>,
    admin: RefCell<Client>,
}

impl Restore {
    fn new(endpoint: &Endpoint, pair: &Pair, who: Who) -> Self {
        let attacker = match who {
            Who::Other => &pair.attacker,
            Who::OwnReader => &pair.victim,
        };
        let mut restore = Self {
            endpoint: endpoint.clone(),
            tier: pair.tier,
            who,
            attacker: attacker.clone(),
            state: Vec::new(),
            objects: RefCell::default(),
            admin: RefCell::new(endpoint.admin_of(&attacker.place.database)),
        };
        restore.state = restore.state();
        restore
    }

    fn role(&self) -> &str {
        self.attacker
            .place
            .login
            .as_ref()
            .map_or("", |login| &login.role)
    }

    /// What the roles could change of themselves, and what they could drop: a line each, the name
    /// and the verifier first.
    fn state(&self) -> Vec<String> {
        let token = &self.attacker.place.token;
        self.admin.borrow_mut().values(&format!(
            "select concat_ws(' ', rolname, rolpassword, rolconnlimit, \
                (select string_agg(setconfig::text, ' ' order by setdatabase) from pg_db_role_setting where setrole = a.oid), \
                has_database_privilege(a.oid, current_database(), 'connect')) \
             from pg_authid a where rolname in ('t_{token}', 'r_{token}') order by rolname"
        ))
    }

    fn restore(&self) {
        let state = self.state();
        if state != self.state {
            self.repair_roles(&state);
        }
        if self.who == Who::OwnReader {
            return;
        }
        let place = &self.attacker.place;
        let mut database = self.admin.borrow_mut();
        if self.tier.is_row() {
            database.exec(&format!(
                "delete from data.orders where tenant_id = '{0}'; delete from data.accounts where tenant_id = '{0}'; \
                 insert into data.accounts (tenant_id, id, secret) values ('{0}', 101, 'mine'), ('{0}', 102, 'mine too')",
                place.token
            ));
            return;
        }
        let (role, schema) = (self.role(), place.schema.as_deref().unwrap());
        let objects = format!(
            "select concat_ws(' ', (select count(*) from pg_class where relnamespace = n and relkind <> 'i'), \
                (select count(*) from pg_proc where pronamespace = n), \
                (select count(*) from pg_type where typnamespace = n), \
                (select count(*) from pg_largeobject_metadata where lomowner = '{role}'::regrole)) \
             from to_regnamespace('{schema}') n"
        );
        let found = database.value(&objects);
        let mut known = self.objects.borrow_mut();
        if known.is_empty() {
            known.clone_from(&found);
        } else if found != *known {
            database.exec(&format!(
                "drop schema if exists {schema} cascade; create schema {schema} authorization {role}; \
                 set role {role}; set search_path = {schema}; {TABLES}; reset role; \
                 select lo_unlink(oid) from pg_largeobject_metadata where lomowner = '{role}'::regrole"
            ));
            *known = database.value(&objects);
        }
        database.exec(&format!(
            "delete from {schema}.orders; delete from {schema}.accounts; \
             insert into {schema}.accounts (id, secret) values (101, 'mine'), (102, 'mine too')"
        ));
    }

    fn repair_roles(&self, state: &[String]) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let admin = admin(&self.endpoint);
        let repaired = provisioning::repair(&admin, Profile::Strict, &self.attacker.place);
        runtime.block_on(repaired).unwrap();
        let mut database = self.admin.borrow_mut();
        // A verifier has a salt, so the state is never the same again: the role's own is put back.
        for line in &self.state {
            let mut words = line.split(' ');
            let (role, verifier) = (words.next().unwrap(), words.next().unwrap());
            database.exec(&format!("alter role {role} password '{verifier}'"));
            if !state.contains(line) {
                database.exec(&format!(
                    "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = '{role}'"
                ));
            }
        }
    }
}
