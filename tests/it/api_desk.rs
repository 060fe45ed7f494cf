//! What the tests of the admin API share: a proxy with a registry, and tenants in it.

use crate::harness::{
    Postgres, eventually,
    http::Http,
    office::Office,
    port,
    postgres::{ADMIN, Endpoint},
    proxy::PROGRAM,
};
use std::{
    fs::{self, File},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

/// A PostgreSQL for registries and tenants, of these tests alone: adding a cluster hardens it.
pub fn postgres() -> &'static Postgres {
    static OWN: OnceLock<Postgres> = OnceLock::new();
    OWN.get_or_init(Postgres::start)
}

/// A proxy with a registry of its own and an admin listener.
pub struct Desk {
    pub office: Office,
    child: Child,
    port: u16,
    /// Of an operator with the role `admin`.
    token: String,
}

impl Desk {
    pub fn new() -> Self {
        Self::at(postgres().endpoint())
    }

    /// With the registry in this PostgreSQL.
    pub fn at(endpoint: &Endpoint) -> Self {
        let office = Office::new(endpoint);
        let (port, listen) = (port::free(), port::free());
        let file = office.path().join("proxy.toml");
        let toml = fs::read_to_string(&file).unwrap();
        let more = format!(
            "[proxy]\nlisten = \"127.0.0.1:{listen}\"\nworkers = 1\nlog_level = \"debug\"\n\
             [admin]\nlisten = \"127.0.0.1:{port}\"\n"
        );
        fs::write(&file, toml + &more).unwrap();
        let token = office.json(&["token", "create", "--role", "admin", "--name", "tests"]);
        let token = token["token"].as_str().unwrap().to_owned();
        let log = File::create(office.path().join("log")).unwrap();
        let child = Command::new(PROGRAM)
            .args(["serve", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut desk = Self {
            office,
            child,
            port,
            token,
        };
        eventually("the admin API answers", || {
            let ended = desk.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", desk.log());
            std::net::TcpStream::connect(("127.0.0.1", desk.port)).is_ok()
                && desk.operator().get("/api/tenants").status == 200
        });
        desk
    }

    /// With a cluster, which is the PostgreSQL of the tests.
    pub fn with_cluster() -> Self {
        let desk = Self::new();
        let url = postgres().endpoint().url();
        desk.office.admin().exec(&format!(
            "insert into pgusher.cluster (name, primary_url, admin_role) values ('main', '{url}', '{ADMIN}')"
        ));
        desk
    }

    /// The log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.office.path().join("log")).unwrap()
    }

    /// The admin listener's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Who has no token.
    pub fn nobody(&self) -> Http {
        Http::new(self.port)
    }

    /// An operator with the role `admin`.
    pub fn operator(&self) -> Http {
        self.nobody().token(&self.token)
    }

    /// Somebody with a new token of this role, for a tenant or for all.
    pub fn with_role(&self, role: &str, tenant: Option<&str>) -> Http {
        let mut arguments = vec!["token", "create", "--role", role];
        arguments.extend(tenant.iter().flat_map(|tenant| ["--tenant", tenant]));
        let token = self.office.json(&arguments);
        self.nobody().token(token["token"].as_str().unwrap())
    }

    /// A tenant that is active as far as the registry knows; there is nothing of it in the cluster.
    pub fn tenant(&self, id: &str) {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let letters =
            (0..5).map(|at| char::from(b'a' + u8::try_from(number >> (4 * at) & 15).unwrap()));
        let token = format!("{}{}", "t".repeat(15), letters.collect::<String>());
        self.office.admin().exec(&format!(
            "insert into pgusher.tenant (id, name, tier, status, cluster, database_name, schema_name, \
             token, role, scram_salt) values ('{id}', 'The {id}', 'schema', 'active', 'main', 'd', \
             't_{token}', '{token}', 't_{token}', '\\x00112233445566778899aabbccddeeff')"
        ));
    }

    /// The value of a query in the registry.
    pub fn value(&self, sql: &str) -> String {
        self.office.admin().value(sql)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!(
                "the proxy's last words:\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
    }
}
