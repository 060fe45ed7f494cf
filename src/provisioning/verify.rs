//! Verifies a place as an attacker: with the tenant's own logins, against another tenant that is
//! made for the purpose and has a secret.

use super::{
    Admin, Check, Hole, Outcome, Place, Profile, ProvisioningError, Report, Variant,
    admin::{Attempt, MAINTENANCE, Session},
    attacks::When,
    attempts::{Attackers, Victim},
    audit, canary,
    harden::{self, Kind},
    names::new_token,
    plan, shared, unmake,
};
use crate::{
    sql::{quoted_literal, quoted_name},
    tenant::Tier,
};

/// What the canary's last query has in it.
pub(super) const QUERY: &str = "SELECT pg_catalog.pg_backend_pid() AS pgusher_canary_query";

/// Tries everything that a tenant could try against another one, and looks at the rules that make
/// it fail. It takes a second or so, and writes the refusals into PostgreSQL's log.
///
/// # Errors
/// [`ProvisioningError`] when it can't be tried: a role that can't log in, a cluster that is gone.
/// What succeeds is in the report.
///
/// # Cancel safety
/// The other tenant, which is empty, may be left behind; a later verification removes it.
pub async fn verify(
    admin: &Admin,
    profile: Profile,
    place: &Place,
) -> Result<Report, ProvisioningError> {
    let Report { mut checks, holes } = look(admin, profile, place).await?;
    if place.variant == Variant::Own {
        canary::remove_left(admin).await?;
        let canary = canary::place(place.tier, &place.database, place.schema.as_deref())?;
        let attacked = attack(admin, profile, place, &canary, &holes).await;
        unmake(admin, &canary).await?;
        checks.splice(0..0, attacked?);
    }
    Ok(Report { checks, holes })
}

/// What is seen without an attack: whether hardening and the rules hold, and the holes.
pub(super) async fn look(
    admin: &Admin,
    profile: Profile,
    place: &Place,
) -> Result<Report, ProvisioningError> {
    plan::check(place)?;
    let mut session = admin.connect(&place.database).await?;
    let found = harden::look(&mut session, Kind::of(place.tier), profile).await?;
    let mut checks = vec![found.check()];
    checks.extend(audit::audit(&mut session, place).await?);
    session.end().await;
    Ok(Report {
        checks,
        holes: found.holes,
    })
}

async fn attack(
    admin: &Admin,
    profile: Profile,
    place: &Place,
    canary: &Place,
    holes: &[Hole],
) -> Result<Vec<Check>, ProvisioningError> {
    canary::make(admin, profile, canary).await?;
    let (Some(login), secret) = (&canary.login, new_token()?) else {
        return Ok(Vec::new());
    };
    let mut session = admin.connect_as(login, &canary.database).await?;
    let (table, base) = canary::keep_secret(&mut session, canary, &secret).await?;
    let pid: Vec<(i32,)> = session.rows("look at itself", QUERY).await?;
    let victim = Victim {
        role: login.role.to_string(),
        token: canary.token.to_string(),
        table: table.clone(),
        base,
        pid: pid.first().map_or(0, |(pid,)| *pid),
        binding: None,
    };
    let Some(mut attackers) = Attackers::of(admin, place).await? else {
        return Ok(Vec::new());
    };
    let mut checks = vec![attackers.works(place).await?];
    let attacked = attackers
        .attack(place, &victim, When::Verifying, holes)
        .await?;
    checks.extend(attacked);
    checks.extend(log_in_elsewhere(admin, place, canary, holes).await?);
    attackers.end().await;
    checks.push(is_unharmed(&mut session, &table, &secret).await);
    session.end().await;
    Ok(checks)
}

/// Whether the canary has its secret still, and its session.
pub(super) async fn is_unharmed(session: &mut Session, table: &str, secret: &str) -> Check {
    let unharmed = format!(
        "SELECT count(*) FROM {table} WHERE secret = {}",
        quoted_literal(secret)
    );
    let left = session
        .rows::<(i64,)>("look at the canary", &unharmed)
        .await;
    let outcome = match left {
        Ok(rows) if rows == [(1,)] => Outcome::Closed,
        Ok(_) => open("its secret is changed or gone"),
        Err(error) => open(&format!("its session does not go on: {error}")),
    };
    check(
        "unharmed",
        "harm another tenant's session or rows by any of this",
        outcome,
    )
}

/// Verifies a cluster: the rules that all of its tenants stand on, and every attack of a new tenant
/// against another new one, in a database of their own and in each database that is shared.
///
/// # Errors
/// As [`verify`].
///
/// # Cancel safety
/// As [`verify`].
pub async fn verify_cluster(admin: &Admin, profile: Profile) -> Result<Report, ProvisioningError> {
    let mut session = admin.connect(MAINTENANCE).await?;
    let found = harden::look(&mut session, Kind::Cluster, profile).await?;
    let mut report = Report {
        checks: vec![found.check()],
        holes: found.holes,
    };
    report
        .checks
        .extend(audit::audit_cluster(&mut session).await?);
    session.end().await;
    let mut places = vec![canary::place(Tier::Database, "", None)?];
    for (database, tier) in shared::databases(admin).await? {
        places.push(canary::place(tier, &database, None)?);
    }
    for place in places {
        let verified = match canary::make(admin, profile, &place).await {
            Ok(()) => verify(admin, profile, &place).await,
            Err(error) => Err(error),
        };
        unmake(admin, &place).await?;
        let verified = verified?;
        let of_tier = |mut check: Check| {
            check.name = format!("{}.{}", place.tier, check.name);
            check
        };
        report
            .checks
            .extend(verified.checks.into_iter().map(of_tier));
        for hole in verified.holes {
            if !report.holes.contains(&hole) {
                report.holes.push(hole);
            }
        }
    }
    Ok(report)
}

pub(super) fn check(name: &str, what: &str, outcome: Outcome) -> Check {
    Check {
        name: name.to_owned(),
        what: what.to_owned(),
        outcome,
        hole: None,
    }
}

pub(super) fn open(how: &str) -> Outcome {
    Outcome::Open {
        how: how.to_owned(),
    }
}

/// Logs in with the tenant's login where it has nothing to do.
async fn log_in_elsewhere(
    admin: &Admin,
    place: &Place,
    canary: &Place,
    holes: &[Hole],
) -> Result<Vec<Check>, ProvisioningError> {
    let Some(login) = &place.login else {
        return Ok(Vec::new());
    };
    let elsewhere = [
        (
            "login_victim",
            "log in to another tenant's database",
            &*canary.database,
            None,
        ),
        (
            "login_postgres",
            "log in to the database postgres",
            MAINTENANCE,
            Some("database_access"),
        ),
        (
            "login_template",
            "log in to the database template1",
            "template1",
            Some("database_access"),
        ),
    ];
    let mut checks = Vec::new();
    for (name, what, database, hole) in elsewhere {
        let mut found = check(name, what, Outcome::NotApplicable);
        if database != &*place.database {
            found.outcome = match admin.connect_as(login, database).await {
                Ok(session) => {
                    session.end().await;
                    open("it can")
                }
                Err(ProvisioningError::NotLetIn { .. }) => Outcome::Closed,
                Err(error) if error.code() == Some("42501") => Outcome::Closed,
                Err(error) => return Err(error),
            };
            let is_open = matches!(found.outcome, Outcome::Open { .. });
            let is_known = |hole: &&str| is_open && holes.iter().any(|known| known.name == **hole);
            found.hole = hole.filter(is_known).map(str::to_owned);
        }
        checks.push(found);
    }
    Ok(checks)
}

impl Attackers {
    /// Whether the tenant can do its own work: else that nothing else succeeds would say nothing.
    pub(super) async fn works(&mut self, place: &Place) -> Result<Check, ProvisioningError> {
        let own = match &place.schema {
            Some(schema) => {
                let schema = quoted_name(schema);
                format!(
                    "CREATE TABLE {schema}.pgusher_verify (i int); INSERT INTO {schema}.pgusher_verify VALUES (1)"
                )
            }
            None => "INSERT INTO ctl.canary (id, secret) VALUES (2, 'own')".to_owned(),
        };
        let outcome = match self.writer().attempt(&own, &[]).await? {
            Attempt::Succeeded(_) => Outcome::Closed,
            Attempt::Failed => open("it may not write what is its own"),
            Attempt::Unclear(error) => open(&error),
        };
        Ok(check("works", "the tenant can do its own work", outcome))
    }
}
