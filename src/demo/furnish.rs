//! Making the cluster's record and the tenants, with the same use cases that an operator has.

use anyhow::Context as _;
use std::{fs, path::Path, sync::Arc};

use super::{
    folder::{Folder, write_private},
    postgres::SUPERUSER,
    progress::Progress,
    proxy_config::{Listening, MASTER_KEY, TEMPLATES},
    sql::Target,
    state::{DemoTenant, ROSTER, State},
};
use crate::{
    config::Config,
    control::{Actor, Control, NewCluster, NewTenant, NewToken, Role, TenantChange},
    crypto::Keyring,
    provisioning::Variant,
    registry::Registry,
    tenant::{PoolMode, Secret, Tier},
};

/// The cluster's name in the registry.
const CLUSTER: &str = "main";

const TABLES: [(&str, &str, &str); 3] = [
    (
        "database",
        "0001_accounts.sql",
        include_str!("templates/database/0001_accounts.sql"),
    ),
    (
        "schema",
        "0001_accounts.sql",
        include_str!("templates/schema/0001_accounts.sql"),
    ),
    (
        "row",
        "0001_accounts.sql",
        include_str!("templates/row/0001_accounts.sql"),
    ),
];

/// Writes what `proxy.toml` refers to: the master key, if there is none, and the tenants' tables.
pub(super) fn write_files(folder: &Folder) -> anyhow::Result<()> {
    let key = folder.path().join(MASTER_KEY);
    if !key.exists() {
        write_private(&key, Keyring::new_line(1)?.expose().as_bytes())?;
    }
    for (tier, name, text) in TABLES {
        let directory = folder.path().join(TEMPLATES).join(tier);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(name), text)?;
    }
    Ok(())
}

/// The use cases over the registry that `proxy.toml` names.
///
/// # Errors
/// When the file is wrong or the registry does not answer.
pub(super) async fn control(config: &Path) -> anyhow::Result<Control> {
    let config = Config::load(config)?;
    let registry = config.registry.as_ref().context("no registry")?;
    let source = config.master_key.as_ref().context("no master key")?;
    let registry = Registry::new(registry, Arc::new(source.load()?))?;
    registry.migrate().await?;
    Ok(Control::new(registry, &config))
}

/// Adds the cluster, makes the tenants and a token for the admin API; says what was made in `state`.
pub(super) async fn furnish(
    control: &Control,
    state: &mut State,
    (listening, progress): (Listening, &Progress),
) -> anyhow::Result<()> {
    let actor = Actor::operator();
    let url = |port| format!("postgres://127.0.0.1:{port}");
    progress.step("hardening the cluster");
    let cluster = NewCluster {
        name: CLUSTER.to_owned(),
        primary_url: url(listening.primary),
        replica_urls: vec![url(listening.replica)],
        admin_role: SUPERUSER.to_owned(),
        admin_password: Some(Secret::new(state.superuser_password.clone())),
        ..NewCluster::default()
    };
    control.add_cluster(&actor, cluster).await?;
    for (id, tier, variant) in ROSTER {
        progress.step(&format!("making tenant {id}"));
        let tenant = make(control, &actor, (id, tier, variant)).await;
        let tenant = tenant.with_context(|| format!("can't make tenant {id}"))?;
        state.tenants.push(tenant);
    }
    let token = NewToken {
        name: "demo".to_owned(),
        role: Role::Admin,
        tenant: None,
        expires_at: None,
    };
    let token = control.create_token(&actor, token).await?;
    token.secret.expose().clone_into(&mut state.admin_token);
    Ok(())
}

async fn make(
    control: &Control,
    actor: &Actor,
    (id, tier, variant): (&str, Tier, Variant),
) -> anyhow::Result<DemoTenant> {
    let new = NewTenant {
        id: id.to_owned(),
        tier: tier.to_string(),
        variant: (variant == Variant::Shared).then(|| "shared".to_owned()),
        cluster: Some(CLUSTER.to_owned()),
        change: TenantChange::default(),
    };
    let made = control.create_tenant(actor, new).await?;
    Ok(DemoTenant {
        id: id.to_owned(),
        tier,
        variant,
        pool_mode: PoolMode::Transaction,
        key: made.key.secret.expose().to_owned(),
        read_only_key: made.read_only_key.secret.expose().to_owned(),
    })
}

/// Tells the registry where the servers are, as their ports may have changed since the last start.
pub(super) async fn move_cluster(control: &Control, listening: Listening) -> anyhow::Result<()> {
    let url = |port| format!("postgres://127.0.0.1:{port}");
    let (primary, replicas) = (url(listening.primary), [url(listening.replica)]);
    let actor = Actor::operator();
    let moved = control.move_cluster(&actor, CLUSTER, (&primary, &replicas));
    moved.await?;
    Ok(())
}

/// Something to look at: each tenant writes it through the proxy, with the same statements in every
/// tier, none of which says who it is.
pub(super) async fn fill(port: u16, tenant: &DemoTenant) -> anyhow::Result<()> {
    let target = Target {
        port,
        user: &tenant.id,
        password: &tenant.key,
        database: &tenant.id,
    };
    let client = target.connect().await?;
    client.batch_execute(&sample(&tenant.id)).await?;
    Ok(())
}

/// What an application of the tenant writes.
pub(super) fn sample(id: &str) -> String {
    format!(
        "BEGIN;
         INSERT INTO accounts (id, secret)
             SELECT n, '{id}: secret of account ' || n FROM generate_series(1, 5) AS n;
         INSERT INTO orders (account_id, item)
             SELECT 1 + n % 5, '{id}: item ' || n FROM generate_series(1, 12) AS n;
         COMMIT"
    )
}
