//! The `proxy.toml` of the demo.

use serde::Serialize;
use std::path::Path;

use super::{
    certificate::Certificate,
    folder::write_private,
    state::{Access, DemoTenant},
};
use crate::tenant::{Scope, Tier};

/// Where everything listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listening {
    pub(super) proxy: u16,
    pub(super) admin: u16,
    pub(super) primary: u16,
    pub(super) replica: u16,
}

#[derive(Serialize)]
struct File<'a> {
    proxy: Proxy<'a>,
    admin: Admin,
    clusters: [Cluster; 1],
    tenants: Vec<Tenant<'a>>,
}

#[derive(Serialize)]
struct Proxy<'a> {
    listen: String,
    tls_mode: &'static str,
    tls_cert: &'a Path,
    tls_key: &'a Path,
    shutdown_timeout: &'static str,
    log_level: &'static str,
}

#[derive(Serialize)]
struct Admin {
    listen: String,
}

#[derive(Serialize)]
struct Cluster {
    name: &'static str,
    primary: String,
    replicas: [String; 1],
    max_server_connections: u32,
}

#[derive(Serialize)]
struct Tenant<'a> {
    id: &'a str,
    cluster: &'static str,
    tier: &'static str,
    database: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<&'a str>,
    role: &'a str,
    password: &'a str,
    read_only_role: &'a str,
    read_only_password: &'a str,
    pool_mode: &'static str,
    pool_size: u32,
    keys: [Key<'a>; 2],
}

#[derive(Serialize)]
struct Key<'a> {
    id: &'static str,
    verifier: &'a str,
    scope: &'static str,
}

const CLUSTER: &str = "main";

/// Writes the file; it holds passwords, so it is ours alone.
pub(super) fn write(
    path: &Path,
    listening: Listening,
    certificate: &Certificate,
    tenants: &[DemoTenant],
) -> anyhow::Result<()> {
    let upstream = |port| format!("postgres://127.0.0.1:{port}");
    let file = File {
        proxy: Proxy {
            listen: format!("127.0.0.1:{}", listening.proxy),
            tls_mode: "allow",
            tls_cert: &certificate.leaf,
            tls_key: &certificate.key,
            shutdown_timeout: "3s",
            log_level: "warn",
        },
        admin: Admin {
            listen: format!("127.0.0.1:{}", listening.admin),
        },
        clusters: [Cluster {
            name: CLUSTER,
            primary: upstream(listening.primary),
            replicas: [upstream(listening.replica)],
            max_server_connections: 90,
        }],
        tenants: tenants.iter().map(tenant).collect(),
    };
    write_private(path, toml::to_string(&file)?.as_bytes())
}

fn tenant(tenant: &DemoTenant) -> Tenant<'_> {
    Tenant {
        id: &tenant.id,
        cluster: CLUSTER,
        tier: tenant.tier.as_str(),
        database: &tenant.database,
        schema: (tenant.tier == Tier::Schema).then_some(tenant.schema.as_str()),
        role: &tenant.owner.role,
        password: &tenant.owner.password,
        read_only_role: &tenant.reader.role,
        read_only_password: &tenant.reader.password,
        pool_mode: tenant.pool_mode.as_str(),
        pool_size: 20,
        keys: [
            key("main", &tenant.owner, Scope::ReadWrite),
            key("reader", &tenant.reader, Scope::ReadOnly),
        ],
    }
}

fn key<'a>(id: &'static str, access: &'a Access, scope: Scope) -> Key<'a> {
    Key {
        id,
        verifier: &access.verifier,
        scope: scope.as_str(),
    }
}
