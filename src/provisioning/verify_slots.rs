//! Verifies a tenant of the variant `shared` as an attacker: in slots that are bound to it, against
//! another tenant in a slot of its own.

use super::{
    Admin, Check, Hole, Outcome, Place, Profile, ProvisioningError, Report, Variant,
    admin::{Attempt, Session},
    attacks::When,
    attempts::{Attackers, Bindings, Victim},
    canary,
    names::new_token,
    unmake,
    verify::{QUERY, check, is_unharmed, look, open},
    visit::{self, Visit, hand_over},
};
use crate::tenant::{SlotKey, Tier};

/// What a session can leave. Some of it is refused, which is as well.
const LEAVINGS: &[&str] = &[
    "SET work_mem = '1234kB'",
    "SET search_path = ctl",
    "SELECT pg_catalog.set_config('app.pgusher_verify', 'left', false)",
    "PREPARE pgusher_verify AS SELECT 1",
    "BEGIN; DECLARE pgusher_verify CURSOR WITH HOLD FOR SELECT 1; COMMIT",
    "LISTEN pgusher_verify",
    "SET ROLE NONE",
    "CREATE TEMP TABLE pgusher_verify (i int)",
    "SELECT pg_catalog.setseed(0.5)",
];

/// What of it is there.
const LOOK: &str = "SELECT 'the setting ' || name FROM pg_catalog.pg_settings
        WHERE source = 'session' AND name <> 'backtrace_functions'
    UNION ALL SELECT 'a setting of its own'
        WHERE nullif(pg_catalog.current_setting('app.pgusher_verify', true), '') IS NOT NULL
    UNION ALL SELECT 'the cursor ' || name FROM pg_catalog.pg_cursors WHERE is_holdable
    UNION ALL SELECT 'the statement ' || name FROM pg_catalog.pg_prepared_statements WHERE from_sql
    UNION ALL SELECT 'the channel ' || name FROM pg_catalog.pg_listening_channels() AS name
    UNION ALL SELECT 'the role ' || current_user WHERE current_user <> session_user
    UNION ALL SELECT 'the table ' || relname FROM pg_catalog.pg_class
        WHERE relnamespace = pg_catalog.pg_my_temp_schema() AND relnamespace <> 0";

/// Everything that is seen through the canary's view.
const ROWS: &str = "SELECT t::text FROM ctl.canary AS t";

const PREPARE: &str = "BEGIN; INSERT INTO ctl.canary (id, secret) VALUES (4, 'prepared');
    PREPARE TRANSACTION 'pgusher_verify'";

/// Tries everything that the tenant of a slot could try against another one, and looks at the rules
/// that make it fail. It takes a second or so, and writes the refusals into PostgreSQL's log. The slots
/// of a running proxy are left alone; `key` is one that the database knows.
///
/// # Errors
/// [`ProvisioningError`] when it can't be tried: no slot can be leased, a cluster that is gone. What
/// succeeds is in the report.
///
/// # Cancel safety
/// A row of the other tenant's may be left behind; a later verification removes it.
pub async fn verify_in_slots(
    admin: &Admin,
    profile: Profile,
    place: &Place,
    key: &SlotKey,
) -> Result<Report, ProvisioningError> {
    let Report { mut checks, holes } = look(admin, profile, place).await?;
    let mut session = admin.connect(&place.database).await?;
    canary::remove_left_rows(&mut session).await?;
    session.end().await;
    let canary = Place {
        tier: Tier::Row,
        variant: Variant::Shared,
        database: place.database.clone(),
        schema: None,
        token: new_token()?,
        login: None,
        read_only_login: None,
        connection_limit: -1,
    };
    let attacked = attack(admin, place, &canary, (key, &holes)).await;
    unmake(admin, &canary).await?;
    checks.splice(0..0, attacked?);
    Ok(Report { checks, holes })
}

/// Tries what matters when a tenant is made. Slots must be made in its database.
///
/// # Errors
/// [`ProvisioningError::Leaks`] when something succeeds that no hole tells; else as
/// [`verify_in_slots`].
///
/// # Cancel safety
/// Cancel safe: nothing is left.
pub async fn try_in_slots(
    admin: &Admin,
    place: &Place,
    key: &SlotKey,
    holes: &[Hole],
) -> Result<(), ProvisioningError> {
    let nobody = "";
    let mut attackers = attackers(admin, place, key, nobody).await?;
    let victim = Victim::always_there(place);
    let checks = attackers
        .attack(place, &victim, When::Making, holes)
        .await?;
    attackers.end().await;
    let leaks: Vec<Check> = checks.into_iter().filter(Check::is_leak).collect();
    if leaks.is_empty() {
        Ok(())
    } else {
        Err(ProvisioningError::Leaks(leaks))
    }
}

/// Slots that are bound to the tenant.
async fn attackers(
    admin: &Admin,
    place: &Place,
    key: &SlotKey,
    victim: &str,
) -> Result<Attackers, ProvisioningError> {
    let mut writer = Visit::begin(admin, &place.database, key, visit::Kind::Writer).await?;
    writer.bind(key, &place.token).await?;
    let mut reader = Visit::begin(admin, &place.database, key, visit::Kind::Reader).await?;
    reader.bind(key, &place.token).await?;
    let bindings = Bindings {
        own: writer.binding(key, &place.token),
        right: writer.binding(key, victim),
    };
    let role = writer.role.clone();
    Ok(Attackers::in_slots(
        (writer.session, &role),
        reader.session,
        bindings,
    ))
}

async fn attack(
    admin: &Admin,
    place: &Place,
    canary: &Place,
    (key, holes): (&SlotKey, &[Hole]),
) -> Result<Vec<Check>, ProvisioningError> {
    let mut visit = Visit::begin(admin, &place.database, key, visit::Kind::Writer).await?;
    visit.bind(key, &canary.token).await?;
    let binding = visit.binding(key, &canary.token);
    let secret = canary::dated_secret()?;
    let mut session = visit.session;
    let (table, base) = canary::keep_secret(&mut session, canary, &secret).await?;
    session.run_once("look at itself", QUERY).await?;
    let victim = Victim {
        role: visit.role,
        token: canary.token.to_string(),
        table: table.clone(),
        base,
        pid: visit.pid,
        binding: Some(binding),
    };
    let mut attackers = attackers(admin, place, key, &canary.token).await?;
    let mut checks = vec![attackers.works(place).await?];
    let attacked = attackers
        .attack(place, &victim, When::Verifying, holes)
        .await?;
    checks.extend(attacked);
    checks.push(prepare(attackers.writer(), holes).await?);
    let right = attackers.right_binding().to_owned();
    checks.extend(give_away(attackers.writer(), &right, &secret).await?);
    attackers.end().await;
    checks.push(is_unharmed(&mut session, &table, &secret).await);
    session.end().await;
    Ok(checks)
}

/// Leaves a transaction that outlives the session, with its locks.
async fn prepare(session: &mut Session, holes: &[Hole]) -> Result<Check, ProvisioningError> {
    const HOLE: &str = "prepared_transactions";
    let prepared = session
        .run_once("leave a prepared transaction", PREPARE)
        .await;
    let outcome = match prepared {
        Ok(()) => {
            let undo = "ROLLBACK PREPARED 'pgusher_verify'";
            session.run_once("take it back", undo).await?;
            open("it can")
        }
        Err(error) => {
            session.run_once("end a transaction", "ROLLBACK").await?;
            match error.code() {
                // max_prepared_transactions is 0.
                Some("55000" | "42501") => Outcome::Closed,
                Some(_) => open(&error.to_string()),
                None => return Err(error),
            }
        }
    };
    let is_known = holes.iter().any(|hole| hole.name == HOLE) && outcome != Outcome::Closed;
    let what = "leave a transaction with its locks when it goes";
    Ok(Check {
        hole: is_known.then(|| HOLE.to_owned()),
        ..check("slot_prepares", what, outcome)
    })
}

/// Leaves what a session can leave, and hands the slot over as the proxy does: what is there then?
async fn give_away(
    session: &mut Session,
    right: &str,
    secret: &str,
) -> Result<Vec<Check>, ProvisioningError> {
    for leaving in LEAVINGS {
        match session.run_once("leave something", leaving).await {
            Err(error) if error.code().is_none() => return Err(error),
            _ => {}
        }
    }
    hand_over(session, right).await?;
    let left = found(session.attempt_to_find(LOOK, &[]).await?);
    let rows: Vec<(String,)> = session
        .rows("look at its rows", "SELECT secret FROM ctl.canary")
        .await?;
    let is_right = matches!(rows.as_slice(), [(found,)] if found == secret);
    let serves = if is_right {
        Outcome::Closed
    } else {
        open("it does not see its own row alone")
    };
    session
        .run_once("take everything back", "DISCARD ALL")
        .await?;
    let unbound = found(session.attempt_to_find(ROWS, &["PU002"]).await?);
    Ok(vec![
        check(
            "slot_leavings",
            "leave something for the tenant that has the slot next",
            left,
        ),
        check(
            "slot_serves",
            "a slot that is handed over serves its new tenant, and shows it nobody else's rows",
            serves,
        ),
        check("slot_unbound", "read rows behind DISCARD ALL", unbound),
    ])
}

fn found(attempt: Attempt) -> Outcome {
    match attempt {
        Attempt::Failed => Outcome::Closed,
        Attempt::Succeeded(found) => open(&format!("it can: {found}")),
        Attempt::Unclear(error) => open(&format!("not refused, failed otherwise: {error}")),
    }
}
