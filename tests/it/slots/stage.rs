//! A server with slots, and a proxy inside this process that serves tenants through them.

use crate::harness::{Client, Connect, Postgres, connect::Address as At, eventually, port};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use pgusher::{
    admission::{Admission, Quotas},
    auth::{Authenticator, Decoy, Throttle},
    frontend::{Arrivals, Door, Frontend, bind},
    net::BufferPool,
    pool::{self, Lane, Lanes, Pools},
    provisioning::prepare_slots,
    sessions::{Predecessors, Sessions, watchdog},
    tenant::{
        Address, ApiKey, Cluster, ClusterName, Directory, KeyId, Limits, Login, Lookup, Pinning,
        Placement, PoolMode, Reads, Scope, ScramVerifier, Secret, SlotKey, Slots, Standbys, Status,
        Tenant, TenantId, Tier, Timeouts, UpstreamTls,
    },
    tls::ServerTls,
    upstream::{Endpoint, Server, Slot, SlotPlace},
};
use sqlx::Connection as _;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::{runtime::Builder, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The database that all tenants share.
pub const DATABASE: &str = "rows";

/// Who reads and writes, and who only reads: both are the secrets of one tenant's keys.
pub const KEYS: [(&str, Scope); 2] = [
    ("pgu_k1_reads-and-writes", Scope::ReadWrite),
    ("pgu_k2_only-reads", Scope::ReadOnly),
];

/// A server of this module's own: it is hardened.
pub struct Rows {
    postgres: Postgres,
    pub key: SlotKey,
}

impl Rows {
    /// The one that all tests here share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Rows> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// One of a test's own.
    pub fn start() -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let logs = tracing_subscriber::fmt().with_env_filter(filter);
        logs.with_test_writer().try_init().ok();
        let mut postgres = Postgres::start();
        let mut admin = postgres.admin();
        admin.exec("alter system set max_prepared_transactions = 0");
        admin.exec("alter system set track_functions = 'pl'");
        admin.exec("create database rows");
        drop(admin);
        postgres.stop();
        postgres.run();
        let rows = Self {
            key: SlotKey::random(None),
            postgres,
        };
        rows.admin().exec(include_str!("rows.sql"));
        let port = rows.postgres.endpoint().port();
        let url = format!("postgres://admin@127.0.0.1:{port}/{DATABASE}?sslmode=disable");
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut db = sqlx::PgConnection::connect(&url).await.unwrap();
            for _ in 0..2 {
                prepare_slots(&mut db, 1, &rows.key).await.unwrap();
            }
        });
        rows
    }

    fn address(&self) -> Address {
        Address::Tcp {
            host: "127.0.0.1".into(),
            port: self.postgres.endpoint().port(),
        }
    }

    /// A server whose database `rows` has what slots need, with this key.
    pub fn around(postgres: Postgres, key: SlotKey) -> Self {
        Self { postgres, key }
    }

    /// The server.
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// Ends the server.
    pub fn stop(&mut self) {
        self.postgres.stop();
    }

    /// A superuser's connection to the shared database.
    pub fn admin(&self) -> Client {
        self.postgres.endpoint().admin_of(DATABASE)
    }

    /// A direct connection, past any proxy.
    pub fn direct(&self) -> Connect {
        Connect::to(self.postgres.endpoint().address()).database(DATABASE)
    }

    /// Whose slot a process is.
    pub fn role_of(&self, pid: &str) -> String {
        let sql = format!("select usename from pg_stat_activity where pid = {pid}");
        self.admin().value(&sql)
    }

    /// A token that binds the slot of this role and process to a tenant.
    pub fn bind_sql(&self, id: &str, (pid, role): (&str, &str), expiry: u64) -> String {
        use hmac::{Hmac, KeyInit as _, Mac as _};
        let token = token(id);
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(self.key.expose()).unwrap();
        mac.update(format!("{token}.{pid}.{expiry}.{role}").as_bytes());
        let mac = mac.finalize().into_bytes();
        let base64 = STANDARD.encode(mac);
        format!("select ctl.bind('{token}', {expiry}, decode('{base64}', 'base64'))")
    }

    /// The pids of slots that are connected.
    pub fn slots(&self) -> Vec<String> {
        self.admin().values(
            "select pid from pg_stat_activity where usename ~ '^[sq]_[0-9]+$' order by usename",
        )
    }
}

/// A tenant as the proxy knows it.
pub fn tenant(id: &str, key: &SlotKey) -> Tenant {
    static VERIFIERS: OnceLock<Vec<ScramVerifier>> = OnceLock::new();
    let verifiers = VERIFIERS.get_or_init(verifiers);
    let api_key = |(at, (_, scope)): (usize, &(&str, Scope))| {
        Arc::new(ApiKey {
            id: KeyId::new(&format!("k{}", at + 1)).unwrap(),
            verifier: verifiers[at].clone(),
            scope: *scope,
            allow: Vec::new(),
            not_before: None,
            expires: None,
            max_client_connections: None,
            rate_limit_per_hour: None,
            caps: pgusher::tenant::Caps::default(),
            is_recorded: false,
        })
    };
    let nobody = Login {
        role: "nobody".into(),
        password: None,
    };
    Tenant {
        id: TenantId::new(id).unwrap(),
        status: Status::Active,
        placement: Placement {
            cluster: ClusterName::new("main").unwrap(),
            tier: Tier::Row,
            database: DATABASE.into(),
            schema: None,
            login: nobody,
            read_only_login: None,
            slots: Some(Slots {
                token: token(id).into(),
                key: Arc::new(key.clone()),
            }),
        },
        pool_mode: PoolMode::Transaction,
        pinning: Pinning::Allow,
        limits: Limits::default(),
        storage_used: None,
        terms: pgusher::tenant::Terms::default(),
        timeouts: Timeouts::default(),
        reads: Reads::default(),
        settings: Vec::new(),
        forced: Vec::new(),
        keys: KEYS.iter().enumerate().map(api_key).collect(),
    }
}

/// A key that is proved fast: the usual one, with one round of PBKDF2.
pub fn quick_key() -> Arc<ApiKey> {
    static KEY: OnceLock<Arc<ApiKey>> = OnceLock::new();
    let key = KEY.get_or_init(|| {
        let tenant = tenant("nobody", &SlotKey::random(None));
        let mut key = ApiKey::clone(&tenant.keys[0]);
        key.verifier = ScramVerifier::of_random(&Secret::new(KEYS[0].0.to_owned()));
        Arc::new(key)
    });
    Arc::clone(key)
}

/// What its rows are marked by.
pub fn token(id: &str) -> String {
    let letters = id.bytes().map(|b| match b {
        b'0'..=b'9' => char::from(b - b'0' + b'a'),
        b'a'..=b'z' => char::from(b),
        _ => '2',
    });
    format!("{:7<20}", letters.collect::<String>())
}

/// Of the keys, with one salt.
fn verifiers() -> Vec<ScramVerifier> {
    let text = |secret| crate::harness::scram::verifier(secret, b"slots");
    KEYS.map(|(secret, _)| text(secret).parse().unwrap())
        .to_vec()
}

struct Known {
    tenants: HashMap<String, Arc<Tenant>>,
    cluster: Arc<Cluster>,
    changes: watch::Sender<u64>,
}

impl Directory for Known {
    fn tenant<'a>(&'a self, id: &'a str) -> Lookup<'a> {
        let found = self.tenants.get(id).cloned();
        Box::pin(async { Ok(found) })
    }

    fn cluster(&self, _: &ClusterName) -> Option<Arc<Cluster>> {
        Some(Arc::clone(&self.cluster))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// A proxy. It ends when this is dropped.
pub struct Stage {
    address: SocketAddr,
    pub pools: Arc<Pools>,
    ended: CancellationToken,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

/// Names no other test has: so many tenants.
pub fn ids(count: usize) -> Vec<String> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let first = NEXT.fetch_add(count as u64, Ordering::Relaxed);
    (first..)
        .take(count)
        .map(|n| format!("tenant-{n}"))
        .collect()
}

impl Stage {
    /// A proxy with so many slots, for tenants that this changes.
    pub fn of(ids: &[String], slots: u32, change: impl Fn(&mut Tenant)) -> Self {
        Self::on(Rows::shared(), ids, slots, change)
    }

    /// The same, on this server.
    pub fn on(rows: &Rows, ids: &[String], slots: u32, change: impl Fn(&mut Tenant)) -> Self {
        let mut key = rows.key.clone();
        key.connections = slots;
        let made = |id: &String| {
            let mut tenant = tenant(id, &key);
            change(&mut tenant);
            (id.clone(), Arc::new(tenant))
        };
        let cluster = Cluster {
            name: ClusterName::new("main").unwrap(),
            primary: rows.address(),
            replicas: Vec::new(),
            standbys: Standbys::default(),
            is_paused: false,
            watch: None,
            max_server_connections: 60,
            reserved_servers: 0,
            max_parallel_connects: 8,
            max_running_statements: 0,
            adaptive_running_statements: false,
            min_running_statements: 2,
            connect_timeout: Duration::from_secs(10),
            tls: UpstreamTls::Disable,
            client_certificate: None,
        };
        Self::serve(Known {
            tenants: ids.iter().map(made).collect(),
            cluster: Arc::new(cluster),
            changes: watch::Sender::new(0),
        })
    }

    fn serve(known: Known) -> Self {
        let ended = CancellationToken::new();
        let lane = || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let handle = runtime.handle().clone();
            let ended = ended.clone();
            thread::spawn(move || runtime.block_on(ended.cancelled()));
            handle
        };
        let lanes = Lanes::new(
            Lane::new(lane(), Arc::default()),
            vec![Lane::new(lane(), Arc::default())],
        );
        let doors = lane();
        let directory = Arc::new(known);
        let decoy = Decoy::random();
        let authenticator = Authenticator::new(directory.clone(), decoy, Throttle::new(1000));
        let (pools, sessions) = (Arc::new(Pools::default()), Arc::new(Sessions::default()));
        doors.spawn(watchdog::run(Arc::clone(&sessions)));
        doors.spawn(pool::janitor(Arc::clone(&pools)));
        let frontend = Arc::new(Frontend {
            directory,
            authenticator,
            admission: Admission::new(
                Quotas {
                    max_client_connections: 20_000,
                    reserved_client_connections: 0,
                    operator_addresses: Vec::new(),
                },
                Arc::default(),
            ),
            pools: Arc::clone(&pools),
            sessions,
            tls: Arc::new(ServerTls::default()),
            buffers: BufferPool::new(64, 8),
            door: arc_swap::ArcSwap::from_pointee(Door {
                login_timeout: Duration::from_mins(1),
                tls_offered: false,
                tls_required: false,
                allow_plaintext_password: true,
            }),
            arrivals: Arrivals::default(),
            lanes,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            retired: CancellationToken::new(),
            predecessors: Predecessors::default(),
        });
        let address = SocketAddr::from(([127, 0, 0, 1], port::free()));
        let _guard = doors.enter();
        let bound = bind(Ok(address), false).unwrap();
        doors.spawn(bound.serve(frontend, TaskTracker::new()));
        Self {
            address,
            pools,
            ended,
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// A client that reads and writes.
    pub fn connect(&self, id: &str) -> Connect {
        Connect::to(At::Tcp(self.address))
            .user(id)
            .password(KEYS[0].0)
    }

    /// A client that reads.
    pub fn reader(&self, id: &str) -> Connect {
        self.connect(id).password(KEYS[1].0)
    }

    /// A client that has logged in.
    pub fn client(&self, id: &str) -> Client {
        self.connect(id).login()
    }

    /// A slot made for a tenant, past the proxy's own.
    pub fn new_slot(id: &str) -> Server {
        let rows = Rows::shared();
        let tenant = tenant(id, &rows.key);
        let place = SlotPlace {
            endpoint: Arc::new(Endpoint {
                address: rows.address(),
                tls: UpstreamTls::Disable,
                connector: None,
                connect_timeout: Duration::from_secs(10),
            }),
            database: DATABASE.into(),
            key: Arc::new(rows.key.clone()),
        };
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (slot, _) = Slot::dial(&place, Scope::ReadWrite).await.unwrap();
            slot.bind(&tenant).await.unwrap()
        })
    }

    /// Waits until so many slots serve nobody.
    pub fn is_idle(&self, count: usize) {
        eventually("the slots are given back", || {
            self.pools.idle_slots() == count
        });
    }
}
