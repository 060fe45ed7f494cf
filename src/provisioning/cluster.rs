//! What every cluster needs before the first tenant.

use super::{
    Admin, Hole, Profile, ProvisioningError,
    admin::{MAINTENANCE, Session},
    harden::{self, Kind},
    text::ONE_AT_A_TIME,
};

const CLUSTER: &str = include_str!("sql/cluster.sql");

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

/// The roles that own what tenants share.
pub(super) async fn make_roles(session: &mut Session) -> Result<(), ProvisioningError> {
    let statements = format!("{ONE_AT_A_TIME}{CLUSTER}");
    session.run("make the cluster's roles", &statements).await
}
