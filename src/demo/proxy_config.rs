//! The `proxy.toml` of the demo: tenants and cluster stand in the registry.

use serde::Serialize;
use std::path::Path;

use super::{certificate::Certificate, folder::write_private, sql::url, state::State};

/// Where everything listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listening {
    pub(super) proxy: u16,
    pub(super) admin: u16,
    pub(super) primary: u16,
    pub(super) replica: u16,
}

/// The login and the database of the registry.
pub(super) const REGISTRY: &str = "pgusher_registry";

#[derive(Serialize)]
struct File<'a> {
    proxy: Proxy<'a>,
    admin: Admin,
    registry: Registry,
    secrets: Secrets,
    templates: Templates,
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
struct Registry {
    url: String,
    snapshot: &'static str,
}

#[derive(Serialize)]
struct Secrets {
    master_key_file: &'static str,
}

#[derive(Serialize)]
struct Templates {
    directory: &'static str,
}

/// The master key, beside the file.
pub(super) const MASTER_KEY: &str = "master.key";
/// The tenants' tables, beside the file.
pub(super) const TEMPLATES: &str = "templates";

/// Writes the file; it holds a password, so it is ours alone.
pub(super) fn write(
    path: &Path,
    listening: Listening,
    certificate: &Certificate,
    state: &State,
) -> anyhow::Result<()> {
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
        registry: Registry {
            url: url(
                REGISTRY,
                &state.registry_password,
                listening.primary,
                REGISTRY,
            ),
            snapshot: "registry.snapshot",
        },
        secrets: Secrets {
            master_key_file: MASTER_KEY,
        },
        templates: Templates {
            directory: TEMPLATES,
        },
    };
    write_private(path, toml::to_string(&file)?.as_bytes())
}
