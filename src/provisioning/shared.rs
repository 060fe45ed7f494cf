//! Databases that several tenants share.

use super::{
    Admin, Hole, Profile, ProvisioningError,
    admin::{MAINTENANCE, Session},
    cluster, database,
    harden::{self, Kind},
    row,
    text::ONE_AT_A_TIME,
};
use crate::{sql::quoted_name, tenant::Tier};

/// Raised with every change of what preparing does: databases prepared by an earlier pgusher are
/// prepared again.
const LEVEL: i32 = 3;

const MARK: &str = include_str!("sql/mark.sql");

/// Makes the database that tenants of a tier share, and hardens it. Idempotent: making the first
/// tenant there calls it, and so does the first one after an upgrade of PostgreSQL or pgusher.
///
/// # Errors
/// [`ProvisioningError::Place`] for the tier `database`; else what PostgreSQL says. What an admin
/// that is no superuser can't close is returned.
///
/// # Cancel safety
/// What was done stays; run it again.
pub async fn prepare_database(
    admin: &Admin,
    profile: Profile,
    database: &str,
    tier: Tier,
) -> Result<Vec<Hole>, ProvisioningError> {
    let kind = match tier {
        Tier::Database => return Err(ProvisioningError::Place("its database is not shared")),
        Tier::Schema => Kind::Schemas,
        Tier::Row => Kind::Rows,
    };
    let mut session = prepare(admin, profile, database, kind).await?;
    let holes = harden::holes(&mut session, kind, profile).await;
    session.end().await;
    holes
}

/// A connection to a shared database that is prepared.
pub(super) async fn open(
    admin: &Admin,
    profile: Profile,
    database: &str,
    kind: Kind,
) -> Result<Session, ProvisioningError> {
    if let Some(mut session) = admin.connect_if_there(database).await? {
        if is_prepared(&mut session, profile, kind).await? {
            return Ok(session);
        }
        session.end().await;
    }
    prepare(admin, profile, database, kind).await
}

/// Databases that may be shared by tenants; their own, of which there may be thousands, are not.
const DATABASES: &str = "SELECT datname::text FROM pg_catalog.pg_database
    WHERE datallowconn AND NOT datistemplate AND datname !~ '^d_[a-z2-7]{20}$'
      AND pg_catalog.has_database_privilege(oid, 'CONNECT')
    ORDER BY datname LIMIT 100";

/// The databases that tenants share, and their tiers.
pub(super) async fn databases(admin: &Admin) -> Result<Vec<(String, Tier)>, ProvisioningError> {
    let mut session = admin.connect(MAINTENANCE).await?;
    let found: Vec<(String,)> = session.rows("look for shared databases", DATABASES).await?;
    session.end().await;
    let mut databases = Vec::new();
    for (database,) in found {
        if let Some(tier) = tier_of(admin, &database).await? {
            databases.push((database, tier));
        }
    }
    Ok(databases)
}

/// Whose database it is; `None` for one that we did not prepare.
async fn tier_of(admin: &Admin, database: &str) -> Result<Option<Tier>, ProvisioningError> {
    let Some(mut session) = admin.connect_if_there(database).await? else {
        return Ok(None);
    };
    let step = "look what a database is for";
    let found = session
        .rows::<(String,)>(step, "SELECT kind FROM pgusher.prepared")
        .await;
    session.end().await;
    let kinds = match found {
        Ok(kinds) => kinds,
        // Somebody else's.
        Err(error) if matches!(error.code(), Some("42P01" | "3F000" | "42501" | "42703")) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    Ok(kinds.first().and_then(|(kind,)| match kind.as_str() {
        "schemas" => Some(Tier::Schema),
        "rows" => Some(Tier::Row),
        _ => None,
    }))
}

async fn is_prepared(
    session: &mut Session,
    profile: Profile,
    kind: Kind,
) -> Result<bool, ProvisioningError> {
    let found: Result<Vec<(bool,)>, _> = session
        .rows(
            "look whether the database is prepared",
            &format!(
                "SELECT {} FROM pgusher.prepared",
                mark(profile, kind).join(" AND ")
            ),
        )
        .await;
    match found {
        Ok(rows) => Ok(rows.first().is_some_and(|(is_so,)| *is_so)),
        Err(error) if matches!(error.code(), Some("42P01" | "3F000")) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What the mark of a prepared database says.
fn mark(profile: Profile, kind: Kind) -> [String; 4] {
    let profile = profile.as_str();
    let kind = match kind {
        Kind::Cluster | Kind::Own => "own",
        Kind::Schemas => "schemas",
        Kind::Rows => "rows",
    };
    [
        format!("level = {LEVEL}"),
        format!("profile = '{profile}'"),
        format!("kind = '{kind}'"),
        // A new PostgreSQL brings new functions.
        "server_version = current_setting('server_version_num')::int".to_owned(),
    ]
}

async fn prepare(
    admin: &Admin,
    profile: Profile,
    name: &str,
    kind: Kind,
) -> Result<Session, ProvisioningError> {
    let mut session = admin.connect(MAINTENANCE).await?;
    cluster::make_roles(&mut session).await?;
    database::make(&mut session, name).await?;
    let quoted = quoted_name(name);
    let open = format!(
        "{ONE_AT_A_TIME}REVOKE ALL ON DATABASE {quoted} FROM PUBLIC;
         ALTER DATABASE {quoted} ALLOW_CONNECTIONS true"
    );
    session.run("open the shared database", &open).await?;
    session.end().await;
    let mut session = admin.connect(name).await?;
    let statements = [
        harden::statements(kind, profile).as_str(),
        if kind == Kind::Rows { row::PREPARE } else { "" },
        MARK,
        "UPDATE pgusher.prepared SET ",
        &mark(profile, kind).join(", "),
    ]
    .concat();
    session
        .run("prepare the shared database", &statements)
        .await?;
    Ok(session)
}
