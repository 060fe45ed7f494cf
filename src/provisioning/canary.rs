//! Tenants that verification makes for itself.

use super::{
    Admin, Place, Plan, Profile, ProvisioningError, Variant,
    admin::{MAINTENANCE, Session},
    names::new_token,
    unmake,
};
use crate::{
    sql::{quoted_literal, quoted_name},
    tenant::{Login, Secret, Tier},
};
use std::time::{SystemTime, UNIX_EPOCH};

/// A tenant that is there so long was left by a verification that was killed.
const AGE_MAX_SECONDS: u32 = 600;
/// How many of those are removed at once.
const LEFT_MAX: u32 = 10;

const LEFT: &str = include_str!("sql/left.sql");

/// A tenant of this tier, in this database if it is shared, with names and passwords of its own.
pub(super) fn place(
    tier: Tier,
    database: &str,
    schema: Option<&str>,
) -> Result<Place, ProvisioningError> {
    let password = || Ok(Secret::new(format!("{}{}", new_token()?, new_token()?)));
    let token = new_token()?;
    let [writer, reader] = [password()?, password()?];
    let login = |prefix: &str, password| Login {
        role: format!("{prefix}_{token}").into(),
        password: Some(password),
    };
    Ok(Place {
        tier,
        variant: Variant::Own,
        database: match tier {
            Tier::Database => format!("d_{token}").into(),
            Tier::Schema | Tier::Row => database.into(),
        },
        schema: match tier {
            Tier::Database => Some(schema.unwrap_or("app").into()),
            Tier::Schema => Some(format!("t_{token}").into()),
            Tier::Row => None,
        },
        login: Some(login("t", writer)),
        read_only_login: Some(login("r", reader)),
        connection_limit: 5,
        token,
    })
}

/// Makes it, with a note on its role that says what it is.
pub(super) async fn make(
    admin: &Admin,
    profile: Profile,
    place: &Place,
) -> Result<(), ProvisioningError> {
    let plan = Plan::of(profile, place)?;
    if let (Some(mut session), Some(login)) = (plan.go(admin, 1).await?, &place.login) {
        let note = format!(
            "DO $note$ BEGIN EXECUTE format('COMMENT ON ROLE {} IS %L',
                'pgusher canary ' || extract(epoch FROM now())::bigint || ' {} ' || {}); END $note$",
            quoted_name(&login.role),
            place.tier,
            quoted_literal(&place.database)
        );
        session.run("note what a role is for", &note).await?;
        session.end().await;
    }
    plan.run_all(admin).await
}

/// Writes a secret as the canary itself. Returns where it is read, and the table and its schema.
pub(super) async fn keep_secret(
    session: &mut Session,
    canary: &Place,
    secret: &str,
) -> Result<(String, (String, String)), ProvisioningError> {
    let secret = quoted_literal(secret);
    let (statements, table, base) = if let Some(schema) = &canary.schema {
        let table = format!("{}.canary", quoted_name(schema));
        let statements = format!(
            "CREATE TABLE {table} (tenant_id text, id int, secret text);
             INSERT INTO {table} VALUES ('', 1, {secret});
             ANALYZE {table}"
        );
        (statements, table.clone(), (table, schema.to_string()))
    } else {
        let table = "ctl.canary".to_owned();
        let statements = format!("INSERT INTO {table} (id, secret) VALUES (1, {secret})");
        let base = ("data.canary".to_owned(), "data".to_owned());
        (statements, table, base)
    };
    let step = "keep a secret as another tenant";
    session.run(step, &statements).await?;
    Ok((table, base))
}

/// A secret of a tenant that is served through slots: it has no role, so it says itself what it is.
pub(super) fn dated_secret() -> Result<String, ProvisioningError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs());
    Ok(format!("pgusher canary {seconds} {}", new_token()?))
}

/// Removes the rows of those that earlier verifications left when they were killed.
pub(super) async fn remove_left_rows(session: &mut Session) -> Result<(), ProvisioningError> {
    let remove = format!(
        "DELETE FROM data.canary WHERE secret ~ '^pgusher canary [0-9]{{1,12}} '
            AND extract(epoch FROM now()) - split_part(secret, ' ', 3)::bigint > {AGE_MAX_SECONDS}"
    );
    session.run("remove what was left", &remove).await
}

/// Removes those that earlier verifications left when they were killed.
pub(super) async fn remove_left(admin: &Admin) -> Result<(), ProvisioningError> {
    let mut session = admin.connect(MAINTENANCE).await?;
    let query = format!("{LEFT} AND age > {AGE_MAX_SECONDS} LIMIT {LEFT_MAX}");
    let found = session.rows("look for what was left", &query).await;
    session.end().await;
    let left: Vec<(String, String, String)> = match found {
        // Who is no superuser can't read comments in a cluster that one has hardened.
        Err(error) if error.code() == Some("42501") => return Ok(()),
        other => other?,
    };
    for (token, tier, database) in left {
        let Ok(tier) = tier.parse::<Tier>() else {
            continue;
        };
        let mut left = place(tier, &database, None)?;
        let of_token = |prefix: &str| -> Box<str> { format!("{prefix}_{token}").into() };
        if let (Some(writer), Some(reader)) = (&mut left.login, &mut left.read_only_login) {
            (writer.role, reader.role) = (of_token("t"), of_token("r"));
        }
        left.schema = left.schema.map(|schema| match tier {
            Tier::Schema => of_token("t"),
            _ => schema,
        });
        left.database = database.into();
        left.token = token.into();
        unmake(admin, &left).await?;
    }
    Ok(())
}
