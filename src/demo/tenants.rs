//! Making the tenants' places: hardened databases, roles, schemas, and something to look at.

use anyhow::Context as _;
use tokio_postgres::Client;

use super::{
    postgres::Server,
    sql::{self, Target},
    state::{DemoTenant, State},
};
use crate::tenant::Tier;

const CLUSTER: &str = include_str!("sql/00_cluster.sql");
const HARDEN_DATABASE: &str = include_str!("sql/10_harden_database.sql");
const HARDEN_SHARED: &str = include_str!("sql/11_harden_shared.sql");
const TENANT_ROLES: &str = include_str!("sql/20_tenant_roles.sql");
const TENANT_SCHEMA: &str = include_str!("sql/30_tenant_schema.sql");
const OWN_DATABASE: &str = include_str!("sql/31_own_database.sql");
const SAMPLE: &str = include_str!("sql/40_sample.sql");

/// What the whole cluster needs, the replica's login first of all.
pub(super) async fn prepare_cluster(primary: &Server, state: &State) -> anyhow::Result<()> {
    let client = connect(primary, "postgres").await?;
    let values = [("replication_password", state.replication_password.as_str())];
    sql::run(&client, "prepare the cluster", CLUSTER, &values).await?;
    let template = connect(primary, "template1").await?;
    harden(&template, "template1").await
}

/// Makes every tenant's place.
pub(super) async fn provision(primary: &Server, state: &State) -> anyhow::Result<()> {
    let operator = connect(primary, "postgres").await?;
    let shared = &state.shared_database;
    create_database(&operator, shared).await?;
    let client = connect(primary, shared).await?;
    harden(&client, shared).await?;
    sql::run(&client, "harden the shared database", HARDEN_SHARED, &[]).await?;
    for tenant in &state.tenants {
        provision_one(primary, &operator, tenant)
            .await
            .with_context(|| format!("tenant {}", tenant.id))?;
    }
    Ok(())
}

async fn provision_one(
    primary: &Server,
    operator: &Client,
    tenant: &DemoTenant,
) -> anyhow::Result<()> {
    let values = [
        ("tenant", tenant.id.as_str()),
        ("database", &tenant.database),
        ("schema", &tenant.schema),
        ("role", &tenant.owner.role),
        ("password", &tenant.owner.password),
        ("read_only_role", &tenant.reader.role),
        ("read_only_password", &tenant.reader.password),
    ];
    sql::run(operator, "create its roles", TENANT_ROLES, &values).await?;
    if tenant.tier == Tier::Database {
        create_database(operator, &tenant.database).await?;
    }
    let client = connect(primary, &tenant.database).await?;
    if tenant.tier == Tier::Database {
        harden(&client, &tenant.database).await?;
    }
    sql::run(&client, "create its schema", TENANT_SCHEMA, &values).await?;
    if tenant.tier == Tier::Database {
        sql::run(&client, "close large objects", OWN_DATABASE, &values).await?;
    }
    sql::run(&client, "create its tables", SAMPLE, &values).await
}

async fn create_database(operator: &Client, database: &str) -> anyhow::Result<()> {
    let values = [("database", database)];
    let create = "CREATE DATABASE {database} TEMPLATE template1";
    sql::run(operator, "create a database", create, &values).await
}

async fn harden(client: &Client, database: &str) -> anyhow::Result<()> {
    let what = format!("harden {database}");
    sql::run(client, &what, HARDEN_DATABASE, &[]).await
}

async fn connect(primary: &Server, database: &str) -> anyhow::Result<Client> {
    let target = Target {
        database,
        ..primary.superuser()
    };
    let client = target.connect().await;
    client.with_context(|| format!("can't connect to database {database}"))
}
