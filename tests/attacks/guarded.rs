//! Tenants as pgusher makes them, behind the proxy.

use crate::{
    attack::Tier,
    door::Door,
    harness::{
        Client, Mode, Postgres, port,
        postgres::{ADMIN, Endpoint},
        proxy::PROGRAM,
        scram,
        wait::eventually,
    },
    scene::Stage,
    slots::{self, Rows},
};
use pgusher::{
    provisioning::{self, Admin, Place, Profile, Variant, templates},
    tenant::{self, Address, Login, PoolMode, Secret, SlotKey, UpstreamTls},
};
use sqlx::Connection as _;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

/// The application's tables, for an attacker that has dropped its own.
const TABLES: &str = "create table accounts (id bigint primary key, secret text); \
    create table orders (id bigint primary key, account_id bigint references accounts, item text)";

/// The application's tables, as templates.
const TEMPLATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/demo/templates");

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
    rows: Rows,
    slots: slots::Stage,
    pairs: Vec<(Tier, [Tenant; 2])>,
}

impl Guarded {
    /// Makes it all.
    #[expect(clippy::too_many_lines, reason = "the scene is set once")]
    pub fn start() -> Self {
        let postgres = Postgres::start();
        // The harness's own, open to all.
        postgres.admin().exec("drop database shared");
        let admin = admin(postgres.endpoint());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime
            .block_on(provisioning::harden_cluster(&admin, Profile::Strict))
            .unwrap();
        let (mut pairs, mut told) = (Vec::new(), BTreeMap::new());
        for tier in [Tier::Database, Tier::Schema, Tier::Row] {
            for mode in MODES {
                let pair = ["attacker", "victim"].map(|who| tenant_of(who, tier, mode));
                for tenant in &pair {
                    let made = provisioning::make(&admin, Profile::Strict, &tenant.place);
                    let holes = runtime.block_on(made).unwrap();
                    told.extend(holes.into_iter().map(|hole| (hole.name, hole.what)));
                    let applied = templates::apply(&admin, &tenant.place, Path::new(TEMPLATES));
                    runtime.block_on(applied).unwrap();
                }
                pairs.push((tier, pair));
            }
        }
        println!("told to be open: {told:#?}");
        let rows = runtime.block_on(slotted());
        let ids: Vec<_> = MODES
            .iter()
            .flat_map(|mode| {
                let pair = ["attacker", "victim"].map(|who| tenant_of(who, Tier::Shared, *mode));
                pairs.push((Tier::Shared, pair.clone()));
                pair.map(|tenant| tenant.id)
            })
            .collect();
        let slots = slots::Stage::on(&rows, &ids, 20, |tenant| {
            let id = tenant.id.to_string();
            tenant.pool_mode = match id.rsplit('-').next() {
                Some("session") => PoolMode::Session,
                Some("statement") => PoolMode::Statement,
                _ => PoolMode::Transaction,
            };
            // The stage gives all tenants the same key.
            let mut key = (*tenant.keys[0]).clone();
            key.verifier = scram::verifier(&key_of(&id), b"slots").parse().unwrap();
            tenant.keys = vec![Arc::new(key)];
        });
        let folder = tempfile::tempdir().unwrap();
        let port = port::free();
        fs::write(
            folder.path().join("proxy.toml"),
            file(port, &postgres, &pairs),
        )
        .unwrap();
        let proxy = Command::new(PROGRAM)
            .args(["serve", "--config"])
            .arg(folder.path().join("proxy.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        eventually("the proxy listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self {
            postgres,
            folder,
            port,
            proxy,
            rows,
            slots,
            pairs,
        }
    }

    /// How many pairs of tenants there are.
    pub fn pairs(&self) -> Vec<(usize, Tier, &'static str)> {
        let pairs = self.pairs.iter().enumerate();
        pairs
            .map(|(number, (tier, pair))| (number, *tier, pair[0].mode.name()))
            .collect()
    }

    /// A stage for a pair.
    pub fn stage(&self, number: usize) -> Stage {
        let (tier, [attacker, victim]) = self.pairs[number].clone();
        let is_slotted = tier == Tier::Shared;
        let endpoint = if is_slotted {
            self.rows.postgres().endpoint()
        } else {
            self.postgres.endpoint()
        };
        let [canary, guess] = [format!("canary{number}x"), format!("guess {number}")];
        furnish(
            endpoint,
            tier,
            &victim,
            &format!("(1, '{canary}'), (2, '{guess}')"),
        );
        if tier.is_row() {
            many_rows(endpoint, &victim, &guess);
        }
        let port = if is_slotted {
            self.slots.port()
        } else {
            self.port
        };
        let door = |tenant: &Tenant| Door::new(port, &tenant.id, None, &tenant.key);
        let doors = (door(&attacker), door(&victim));
        let restore = Rc::new(Restore::new(endpoint, tier, &attacker));
        let label = victim.mode.name();
        let role = |tenant: &Tenant| {
            tenant
                .place
                .login
                .as_ref()
                .map_or_else(|| "s_1".to_owned(), |login| login.role.to_string())
        };
        let schema = |tenant: &Tenant| tenant.place.schema.as_deref().unwrap_or("app").to_owned();
        let table = match tier {
            Tier::Database => format!("{}.app.accounts", victim.place.database),
            Tier::Schema => format!("{}.accounts", schema(&victim)),
            _ => "data.accounts".into(),
        };
        Stage::new(
            (label, tier),
            endpoint,
            doors,
            Box::new(move || restore.restore()),
        )
        .name("canary", canary)
        .name("guess", guess)
        .name("mark", format!("mark of {number}"))
        .name("id", &*victim.id)
        .name("role", role(&victim))
        .name("login", role(&victim))
        .name(
            "me",
            if is_slotted {
                "current_user".into()
            } else {
                role(&attacker)
            },
        )
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
        address: Address::Tcp {
            host: "127.0.0.1".into(),
            port: endpoint.port(),
        },
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
        Tier::Database => (
            tenant::Tier::Database,
            format!("d_{token}"),
            Some("app".into()),
        ),
        Tier::Schema => (
            tenant::Tier::Schema,
            "schemas".into(),
            Some(format!("t_{token}").into()),
        ),
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
    let mut id = format!("{who}-{}-{}", tier.name(), mode.name());
    let mut key = format!("pgu_k{who}_the-secret-of-{who}");
    let mut place = place;
    if tier == Tier::Shared {
        // It becomes the token, of 20 letters.
        id = format!("{}-in-{}", &who[..3], mode.name());
        key = key_of(&id);
        place.token = slots::token(&id).into();
        place.variant = Variant::Shared;
        place.login = None;
        place.read_only_login = None;
    }
    Tenant {
        id,
        key,
        mode,
        place,
    }
}

/// The key of a tenant that uses slots.
fn key_of(id: &str) -> String {
    format!("pgu_k1_of-{id}")
}

fn file(port: u16, postgres: &Postgres, pairs: &[(Tier, [Tenant; 2])]) -> String {
    let mut file = format!(
        "[proxy]\nlisten = \"127.0.0.1:{port}\"\nworkers = 2\nauth_failures_per_minute = 100000\n\
         [[clusters]]\nname = \"main\"\nprimary = \"{}\"\nmax_server_connections = 250\n",
        postgres.endpoint().url()
    );
    let through_logins = pairs.iter().filter(|(tier, _)| *tier != Tier::Shared);
    for tenant in through_logins.flat_map(|(_, pair)| pair) {
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

/// A PostgreSQL with slots in a database of the row tier.
async fn slotted() -> Rows {
    let mut postgres = Postgres::start();
    let mut superuser = postgres.admin();
    superuser.exec("drop database shared");
    superuser.exec("alter system set max_prepared_transactions = 0");
    drop(superuser);
    postgres.stop();
    postgres.run();
    let admin = admin(postgres.endpoint());
    provisioning::harden_cluster(&admin, Profile::Strict)
        .await
        .unwrap();
    let place = tenant_of("nobody", Tier::Shared, Mode::Session).place;
    provisioning::make(&admin, Profile::Strict, &place)
        .await
        .unwrap();
    templates::apply(&admin, &place, Path::new(TEMPLATES))
        .await
        .unwrap();
    let key = SlotKey::random(None);
    let port = postgres.endpoint().port();
    let url = format!(
        "postgres://{ADMIN}@127.0.0.1:{port}/{}?sslmode=disable",
        slots::DATABASE
    );
    let mut db = sqlx::PgConnection::connect(&url).await.unwrap();
    provisioning::prepare_slots(&mut db, 1, &key).await.unwrap();
    Rows::around(postgres, key)
}

/// Undoes what an attacker did to itself, so that the next attack is not the weaker for it.
struct Restore {
    endpoint: Endpoint,
    tier: Tier,
    attacker: Tenant,
    state: String,
    objects: RefCell<String>,
    admin: RefCell<Client>,
}

impl Restore {
    fn new(endpoint: &Endpoint, tier: Tier, attacker: &Tenant) -> Self {
        let mut restore = Self {
            endpoint: endpoint.clone(),
            tier,
            attacker: attacker.clone(),
            state: String::new(),
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

    fn repair_role(&self) {
        let role = self.role();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
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
