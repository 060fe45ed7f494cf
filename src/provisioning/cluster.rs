//! What every cluster needs before the first tenant.

use super::{
    Admin, Hole, Profile, ProvisioningError,
    admin::{MAINTENANCE, Session},
    database,
    harden::{self, Kind},
    shared,
    text::ONE_AT_A_TIME,
};

const CLUSTER: &str = include_str!("sql/cluster.sql");

/// The tenants' own databases, and who writes there.
const OWN: &str = "SELECT datname::text, rolname::text FROM pg_catalog.pg_database
    JOIN pg_catalog.pg_roles ON rolname = 't_' || substr(datname, 3)
    WHERE datallowconn AND datname ~ '^d_[a-z2-7]{20}$' AND pg_catalog.pg_has_role(datdba, 'USAGE')
    ORDER BY datname";

/// Makes the roles that own what tenants share, and hardens `template1`, so that every database
/// made from it is. Idempotent; run it again after an upgrade of PostgreSQL.
///
/// # Errors
/// [`ProvisioningError`]. What an admin that is no superuser can't close is no error: it is
/// returned.
///
/// # Cancel safety
/// What was done stays; run it again.
pub async fn harden_cluster(
    admin: &Admin,
    profile: Profile,
) -> Result<Vec<Hole>, ProvisioningError> {
    let mut session = admin.connect(MAINTENANCE).await?;
    make_roles(&mut session).await?;
    let statements = harden::statements(Kind::Cluster, profile);
    session
        .run("harden the database postgres", &statements)
        .await?;
    session.end().await;
    // Databases are made from it: it is left as soon as may be.
    let mut session = admin.connect("template1").await?;
    session
        .run("harden the database template1", &statements)
        .await?;
    let holes = harden::holes(&mut session, Kind::Cluster, profile).await;
    session.end().await;
    holes
}

/// Hardens the databases that tenants have or share again: after an upgrade of PostgreSQL, which
/// brings new functions, and where somebody has opened what was closed. One after the other, some
/// tens of milliseconds each. Idempotent. What stays open in each is returned.
///
/// # Errors
/// [`ProvisioningError`]; those before are hardened.
///
/// # Cancel safety
/// What was done stays; run it again.
pub async fn harden_databases(
    admin: &Admin,
    profile: Profile,
) -> Result<Vec<(String, Vec<Hole>)>, ProvisioningError> {
    let mut found = Vec::new();
    for (database, tier) in shared::databases(admin).await? {
        let holes = shared::prepare_database(admin, profile, &database, tier).await?;
        found.push((database, holes));
    }
    let mut session = admin.connect(MAINTENANCE).await?;
    let own: Vec<(String, String)> = session.rows("look for tenants' databases", OWN).await?;
    session.end().await;
    for (name, writer) in own {
        match harden_own(admin, profile, &name, &writer).await {
            Ok(holes) => found.extend(holes.map(|holes| (name, holes))),
            // The tenant may have gone meanwhile.
            Err(error) if admin.connect_if_there(&name).await?.is_some() => return Err(error),
            Err(_) => {}
        }
    }
    Ok(found)
}

async fn harden_own(
    admin: &Admin,
    profile: Profile,
    name: &str,
    writer: &str,
) -> Result<Option<Vec<Hole>>, ProvisioningError> {
    let Some(mut session) = admin.connect_if_there(name).await? else {
        return Ok(None);
    };
    let statements = database::harden_statements(profile, writer);
    session
        .run("harden a tenant's database", &statements)
        .await?;
    let holes = harden::holes(&mut session, Kind::Own, profile).await?;
    session.end().await;
    Ok(Some(holes))
}

/// The roles that own what tenants share.
pub(super) async fn make_roles(session: &mut Session) -> Result<(), ProvisioningError> {
    let statements = format!("{ONE_AT_A_TIME}{CLUSTER}");
    session.run("make the cluster's roles", &statements).await
}
