//! A tenant, its cluster and one of its sessions.

use pgusher::{
    limits::Limiters,
    net::{BufferPool, Peer},
    pool::{Lane, Lanes, Pools, TenantPool},
    sessions::SessionHandle,
    tenant::{
        Address, ApiKey, Caps, Cluster, ClusterName, KeyId, Limits, Login, Placement, PoolMode,
        Reads, Scope, ScramVerifier, Standbys, Status, Tenant, TenantId, Tier, Timeouts,
        UpstreamTls,
    },
    wire::CancelKey,
};
use std::{sync::Arc, time::Duration};
use tokio::runtime::Runtime;

/// A tenant with its own database and these keys.
pub fn tenant(verifiers: Vec<ScramVerifier>) -> Arc<Tenant> {
    let keys = verifiers.into_iter().map(|verifier| {
        Arc::new(ApiKey {
            id: KeyId::new("k").unwrap(),
            verifier,
            scope: Scope::ReadWrite,
            allow: Vec::new(),
            not_before: None,
            expires: None,
            max_client_connections: None,
            rate_limit_per_hour: None,
            caps: Caps::default(),
            is_recorded: false,
        })
    });
    Arc::new(Tenant {
        id: TenantId::new("t").unwrap(),
        status: Status::Active,
        placement: Placement {
            cluster: ClusterName::new("c").unwrap(),
            tier: Tier::Database,
            database: "t".into(),
            schema: None,
            login: Login {
                role: "t".into(),
                password: None,
            },
            read_only_login: None,
            slots: None,
        },
        pool_mode: PoolMode::Transaction,
        pinning: pgusher::tenant::Pinning::Allow,
        limits: Limits::default(),
        storage_used: None,
        terms: pgusher::tenant::Terms::default(),
        timeouts: Timeouts::default(),
        reads: Reads::default(),
        settings: Vec::new(),
        forced: Vec::new(),
        keys: keys.collect(),
    })
}

/// A pool of the tenant's servers on this port.
pub fn pool(tenant: &Arc<Tenant>, port: u16, runtime: &Runtime) -> Arc<TenantPool> {
    let cluster = Arc::new(Cluster {
        name: ClusterName::new("c").unwrap(),
        primary: Address::Tcp {
            host: "127.0.0.1".into(),
            port,
        },
        replicas: Vec::new(),
        standbys: Standbys::default(),
        is_paused: false,
        watch: None,
        max_server_connections: 90,
        reserved_servers: 0,
        max_parallel_connects: 8,
        max_running_statements: 0,
        adaptive_running_statements: false,
        min_running_statements: 2,
        connect_timeout: Duration::from_secs(5),
        tls: UpstreamTls::Disable,
        client_certificate: None,
    });
    let pools = Arc::new(Pools::default());
    let lane = Lane::new(runtime.handle().clone(), Arc::default());
    let home = Lanes::new(lane, Vec::new()).home(&tenant.id);
    let pool = pools.pool(tenant, &cluster, Scope::ReadWrite, &home);
    pool.unwrap()
}

/// A session of the tenant.
pub fn session(tenant: &Arc<Tenant>) -> Arc<SessionHandle> {
    let key = KeyId::new("k").unwrap();
    Arc::new(SessionHandle::new(
        cancel_key(),
        Arc::clone(tenant),
        (key.clone(), Scope::ReadWrite),
        Peer::Unix,
        (Arc::default(), Limiters::default().of(tenant, &key)),
    ))
}

/// Some key.
pub fn cancel_key() -> CancelKey {
    CancelKey {
        pid: 7,
        secret: [0, 0, 0, 9].into(),
    }
}

/// Buffers as the program has them.
pub fn buffers() -> BufferPool {
    BufferPool::new(64, 8)
}

/// A runtime on this thread, where allocations are counted.
pub fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}
