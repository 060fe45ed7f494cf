//! Login roles: made, repaired, locked out and let in again.

use super::{
    Admin, Place, Plan, Profile, ProvisioningError,
    admin::{MAINTENANCE, Session},
    plan,
    text::fill,
};
use crate::{
    sql::{quoted_literal, quoted_name},
    tenant::{Login, Secret, Tier},
};
use std::time::{Duration, Instant};

const ROLE: &str = include_str!("sql/roles.sql");
const SETTINGS: &str = include_str!("sql/settings.sql");
const NOLOGIN: &str = include_str!("sql/nologin.sql");
const TERMINATE: &str = include_str!("sql/terminate.sql");
const ROLL_BACK: &str = include_str!("sql/roll_back.sql");

/// How long a hot standby may lag behind a tenant's lock-out, and the pause between two looks.
const REPLAY_TIME_MAX: Duration = Duration::from_secs(15);
const REPLAY_PAUSE: Duration = Duration::from_millis(50);

/// Disk space of one session's temporary files.
const TEMP_FILE_LIMIT: &str = "1GB";

/// The tenant's logins, and whether each only reads.
pub(super) fn logins(place: &Place) -> impl Iterator<Item = (&Login, bool)> {
    let writer = place.login.iter().map(|login| (login, false));
    let reader = place.read_only_login.iter().map(|login| (login, true));
    writer.chain(reader)
}

/// The statements that make the tenant's roles, or set their passwords and limits where they are
/// made already. PostgreSQL gets verifiers, never passwords: it may log what it is sent.
pub(super) fn role_statements(place: &Place) -> String {
    let mut statements = String::new();
    let limit = place.connection_limit.to_string();
    for (login, _) in logins(place) {
        let verifier = verifier(login.password.as_ref());
        let values = [
            ("role", quoted_name(&login.role)),
            ("role_text", quoted_literal(&login.role)),
            ("limit", limit.clone()),
            ("verifier", verifier),
        ];
        statements += &fill_all(ROLE, &values);
    }
    statements
}

/// The statements that give the tenant's roles the settings that they should have, and no other.
pub(super) fn setting_statements(place: &Place) -> String {
    let mut statements = String::new();
    for (login, is_read_only) in logins(place) {
        let schema = match place.tier {
            // There the database says it.
            Tier::Row => None,
            Tier::Schema | Tier::Database => place.schema.as_deref(),
        };
        let values = [
            ("role", quoted_name(&login.role)),
            ("role_text", quoted_literal(&login.role)),
            ("database", quoted_name(&place.database)),
            ("search_path_text", quoted_literal(schema.unwrap_or(""))),
            ("temp_file_limit", TEMP_FILE_LIMIT.to_owned()),
            ("is_read_only", is_read_only.to_string()),
        ];
        statements += &fill_all(SETTINGS, &values);
    }
    statements
}

/// The statements that let the tenant's roles connect to its database.
pub(super) fn connect_statements(place: &Place) -> String {
    let database = quoted_name(&place.database);
    let grant = |(login, is_read_only): (&Login, bool)| {
        let role = quoted_name(&login.role);
        // Temporary tables of shared databases would stay in their catalogue.
        let privileges = match place.tier {
            Tier::Database | Tier::Schema if !is_read_only => "CONNECT, TEMP",
            _ => "CONNECT",
        };
        format!("GRANT {privileges} ON DATABASE {database} TO {role};\n")
    };
    logins(place).map(grant).collect()
}

fn fill_all(template: &str, values: &[(&str, String)]) -> String {
    let values: Vec<(&str, &str)> = values
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    fill(template, &values)
}

fn verifier(password: Option<&Secret>) -> String {
    password.map_or_else(
        || "NULL".to_owned(),
        |password| {
            let password = password.expose().as_bytes();
            quoted_literal(&postgres_protocol::password::scram_sha_256(password))
        },
    )
}

/// Gives the tenant's roles the passwords of the place. Sessions that are open go on.
///
/// # Errors
/// [`ProvisioningError`]; 42704 in [`ProvisioningError::Refused`] when a role is missing.
///
/// # Cancel safety
/// Both passwords are set or none is; which, is not known.
pub async fn set_passwords(admin: &Admin, place: &Place) -> Result<(), ProvisioningError> {
    plan::check(place)?;
    let set = |(login, _): (&Login, bool)| {
        let role = quoted_name(&login.role);
        let verifier = verifier(login.password.as_ref());
        format!("ALTER ROLE {role} PASSWORD {verifier};\n")
    };
    let statements: String = logins(place).map(set).collect();
    run(admin, "set passwords", &statements).await
}

/// Undoes what a tenant has done to its own roles (any role may change its password and its
/// settings, and drop what was granted to it): passwords, settings and the right to connect.
///
/// # Errors
/// [`ProvisioningError`].
///
/// # Cancel safety
/// Run it again.
pub async fn repair(
    admin: &Admin,
    profile: Profile,
    place: &Place,
) -> Result<(), ProvisioningError> {
    Plan::of(profile, place)?.run_all(admin).await
}

/// Closes the place to its tenant: nobody logs in, sessions that are open end, transactions that
/// are prepared are rolled back. Idempotent.
///
/// # Errors
/// [`ProvisioningError`].
///
/// # Cancel safety
/// Run it again.
pub async fn lock_out(admin: &Admin, place: &Place) -> Result<(), ProvisioningError> {
    plan::check(place)?;
    let mut session = admin.connect(MAINTENANCE).await?;
    lock_out_on(&mut session, place).await?;
    session.end().await;
    roll_back(admin, place).await
}

/// Closes the place at a hot standby whose primary has locked it out: waits until the standby knows,
/// as nobody could log in there any more from then on, and ends the sessions that are open.
///
/// # Errors
/// [`ProvisioningError`]; [`ProvisioningError::Unreachable`] also when the standby does not hear of
/// it in time. The sessions that were open have ended all the same.
///
/// # Cancel safety
/// Run it again.
pub async fn lock_out_of_standby(standby: &Admin, place: &Place) -> Result<(), ProvisioningError> {
    plan::check(place)?;
    let roles = role_array(place);
    let can_login = format!(
        "SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname = ANY ({roles}) AND rolcanlogin"
    );
    let mut session = standby.connect(MAINTENANCE).await?;
    let end = Instant::now() + REPLAY_TIME_MAX;
    let is_known = loop {
        let open: Vec<(String,)> = session.rows("look who can log in", &can_login).await?;
        if open.is_empty() || Instant::now() >= end {
            break open.is_empty();
        }
        tokio::time::sleep(REPLAY_PAUSE).await;
    };
    let terminate = fill(TERMINATE, &[("roles", &roles)]);
    session.run("end the tenant's sessions", &terminate).await?;
    session.end().await;
    if is_known {
        return Ok(());
    }
    Err(ProvisioningError::Unreachable {
        address: standby.address.to_string(),
        reason: format!(
            "it has not heard within {} that the tenant is locked out",
            humantime::format_duration(REPLAY_TIME_MAX)
        ),
    })
}

/// NOLOGIN first, so that nobody comes back while the sessions end.
pub(super) async fn lock_out_on(
    session: &mut Session,
    place: &Place,
) -> Result<(), ProvisioningError> {
    let roles = role_array(place);
    let values = [("roles", roles.as_str())];
    session
        .run("lock the tenant's roles out", &fill(NOLOGIN, &values))
        .await?;
    session
        .run("end the tenant's sessions", &fill(TERMINATE, &values))
        .await
}

/// Rolls back what the tenant's roles have prepared in its database.
async fn roll_back(admin: &Admin, place: &Place) -> Result<(), ProvisioningError> {
    let Some(mut session) = admin.connect_if_there(&place.database).await? else {
        return Ok(());
    };
    let query = fill(ROLL_BACK, &[("roles", &role_array(place))]);
    let prepared: Vec<(String, String)> = session
        .rows("look for prepared transactions", &query)
        .await?;
    for (transaction, role) in prepared {
        // Who is no superuser may roll it back only as who prepared it.
        let role = quoted_name(&role);
        let transaction = quoted_literal(&transaction);
        session
            .run("become the tenant's role", &format!("SET ROLE {role}"))
            .await?;
        let rolled_back = session
            .run_once(
                "roll back a prepared transaction",
                &format!("ROLLBACK PREPARED {transaction}"),
            )
            .await;
        session.run("be the admin again", "RESET ROLE").await?;
        rolled_back?;
    }
    session.end().await;
    Ok(())
}

/// Opens the place to its tenant again.
///
/// # Errors
/// [`ProvisioningError`].
///
/// # Cancel safety
/// Run it again.
pub async fn let_in(admin: &Admin, place: &Place) -> Result<(), ProvisioningError> {
    plan::check(place)?;
    let let_in =
        |(login, _): (&Login, bool)| format!("ALTER ROLE {} LOGIN;\n", quoted_name(&login.role));
    let statements: String = logins(place).map(let_in).collect();
    run(admin, "let the tenant in", &statements).await
}

async fn run(admin: &Admin, step: &'static str, statements: &str) -> Result<(), ProvisioningError> {
    if statements.is_empty() {
        return Ok(());
    }
    let mut session = admin.connect(MAINTENANCE).await?;
    session.run(step, statements).await?;
    session.end().await;
    Ok(())
}

/// The names of the tenant's roles as an SQL array of texts.
pub(super) fn role_array(place: &Place) -> String {
    // Also who applied templates in a run that was killed.
    let visitor = format!("m_{}", place.token);
    let roles = logins(place).map(|(login, _)| &*login.role);
    let names: Vec<String> = roles
        .chain(std::iter::once(visitor.as_str()))
        .map(quoted_literal)
        .collect();
    format!("ARRAY[{}]::text[]", names.join(", "))
}
