//! Tier `database`: a database of its own.

use super::{
    Place, Profile, ProvisioningError,
    admin::{MAINTENANCE, Session},
    harden::{self, Kind},
    logins,
    plan::Step,
    schema,
    text::fill,
};
use crate::sql::{quoted_literal, quoted_name};

const LARGE_OBJECTS: &str = include_str!("sql/large_objects.sql");

/// The steps. The database lets nobody in until PUBLIC has lost its rights there.
pub(super) fn steps(profile: Profile, place: &Place) -> Vec<Step> {
    let database = quoted_name(&place.database);
    let mut inside = match &place.login {
        Some(login) => harden_statements(profile, &login.role),
        None => harden::statements(Kind::Own, profile),
    };
    inside += &schema::statements(place);
    let open = format!(
        "REVOKE ALL ON DATABASE {database} FROM PUBLIC;\n{}ALTER DATABASE {database} ALLOW_CONNECTIONS true;\n{}",
        logins::connect_statements(place),
        logins::setting_statements(place),
    );
    vec![
        Step::new(
            "make the tenant's roles",
            MAINTENANCE,
            logins::role_statements(place),
        ),
        Step::make_database(),
        Step::new("open the tenant's database to it", MAINTENANCE, open),
        Step::new("prepare the tenant's database", &place.database, inside),
    ]
}

/// The statements that harden the database of the tenant whose role this is.
pub(super) fn harden_statements(profile: Profile, writer: &str) -> String {
    harden::statements(Kind::Own, profile) + &fill(LARGE_OBJECTS, &[("role", &quoted_name(writer))])
}

/// Makes a database that nobody can connect to yet, if it is not there.
pub(super) async fn make(session: &mut Session, database: &str) -> Result<(), ProvisioningError> {
    let step = "make a database";
    let found = format!(
        "SELECT pg_catalog.pg_has_role(datdba, 'USAGE') FROM pg_catalog.pg_database WHERE datname = {}",
        quoted_literal(database)
    );
    let found: Vec<(bool,)> = session.rows(step, &found).await?;
    match found.first() {
        Some((true,)) => return Ok(()),
        Some((false,)) => return Err(ProvisioningError::NameTaken(format!("database {database}"))),
        None => {}
    }
    let create = format!(
        "CREATE DATABASE {} TEMPLATE template1 STRATEGY wal_log ALLOW_CONNECTIONS false",
        quoted_name(database)
    );
    match session.run(step, &create).await {
        // Somebody else has made it at the same time.
        Err(error) if error.code() == Some("42P04") => Ok(()),
        done => done,
    }
}
