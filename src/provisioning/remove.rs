//! Removes a place, whatever there is of it.

use super::{
    Admin, Place, ProvisioningError,
    admin::{MAINTENANCE, Session},
    logins,
    text::{ONE_AT_A_TIME, fill},
};
use crate::{
    sql::{quoted_literal, quoted_name},
    tenant::Tier,
};

const REMOVE_ROWS: &str = include_str!("sql/remove_rows.sql");
const DROP_OWNED: &str = include_str!("sql/drop_owned.sql");
const DROP_ROLES: &str = include_str!("sql/drop_roles.sql");
const DEPENDENT: &str = include_str!("sql/dependent.sql");
const OBJECTS: &str = include_str!("sql/objects.sql");

/// Removes a place: sessions, database, schema or rows, and roles. Idempotent, and good for what is
/// half made. There is no way back.
///
/// # Errors
/// [`ProvisioningError`]; what was removed before stays removed.
///
/// # Cancel safety
/// Run it again.
pub async fn unmake(admin: &Admin, place: &Place) -> Result<(), ProvisioningError> {
    logins::lock_out(admin, place).await?;
    match place.tier {
        Tier::Database => drop_database(admin, place).await?,
        Tier::Schema | Tier::Row => {
            // Without the database nothing of it is there but its roles.
            if let Some(mut session) = admin.connect_if_there(&place.database).await? {
                match place.tier {
                    Tier::Row => remove_rows(&mut session, place).await?,
                    _ => drop_schema(&mut session, place).await?,
                }
                session.end().await;
            }
        }
    }
    drop_roles(admin, place).await
}

async fn drop_database(admin: &Admin, place: &Place) -> Result<(), ProvisioningError> {
    let mut session = admin.connect(MAINTENANCE).await?;
    let database = quoted_name(&place.database);
    let drop = format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)");
    session.run("drop the tenant's database", &drop).await?;
    session.end().await;
    Ok(())
}

async fn drop_schema(session: &mut Session, place: &Place) -> Result<(), ProvisioningError> {
    let Some(schema) = &place.schema else {
        return Ok(());
    };
    let step = "drop the tenant's schema";
    let drop = format!("DROP SCHEMA IF EXISTS {} CASCADE", quoted_name(schema));
    loop {
        match session.run(step, &drop).await {
            // More objects than locks: a part of them first.
            Err(error) if error.code() == Some("53200") => {
                let query = fill(OBJECTS, &[("schema_text", &quoted_literal(schema))]);
                let drops: Vec<(String,)> = session.rows(step, &query).await?;
                if drops.is_empty() {
                    return Err(error);
                }
                for (drop,) in drops {
                    session.run(step, &drop).await?;
                }
            }
            done => return done,
        }
    }
}

async fn remove_rows(session: &mut Session, place: &Place) -> Result<(), ProvisioningError> {
    let remove = fill(
        REMOVE_ROWS,
        &[("token_text", &quoted_literal(&place.token))],
    );
    session.run("remove the tenant's rows", &remove).await
}

/// Roles can own or be granted something in any database: another tenant may have granted its own
/// things to them.
async fn drop_roles(admin: &Admin, place: &Place) -> Result<(), ProvisioningError> {
    let roles = logins::role_array(place);
    let values = [("roles", roles.as_str())];
    let mut session = admin.connect(MAINTENANCE).await?;
    let databases: Vec<(String,)> = session
        .rows("look for what the roles have", &fill(DEPENDENT, &values))
        .await?;
    let owned = format!("{ONE_AT_A_TIME}{}", fill(DROP_OWNED, &values));
    for (database,) in databases {
        if let Some(mut session) = admin.connect_if_there(&database).await? {
            session.run("drop what the roles have", &owned).await?;
            session.end().await;
        }
    }
    // What is shared, such as the right to connect, goes with what is here.
    let statements = owned + &fill(DROP_ROLES, &values);
    session.run("drop the tenant's roles", &statements).await?;
    session.end().await;
    Ok(())
}
