//! The steps that make a place: each is one transaction in one database, and can be done again.

use super::{
    Admin, Place, Profile, ProvisioningError, Variant,
    admin::{MAINTENANCE, Session},
    cluster, database,
    harden::Kind,
    logins, names, row, schema, shared,
    text::ONE_AT_A_TIME,
};
use crate::tenant::Tier;

/// What a step does.
#[derive(Debug)]
pub(super) enum Work {
    /// Statements in one transaction.
    Statements(String),
    /// The tenant's own database, closed to everybody.
    MakeDatabase,
}

/// One step.
#[derive(Debug)]
pub struct Step {
    /// What it does, as in "PostgreSQL refused to …".
    pub what: &'static str,
    database: Box<str>,
    work: Work,
}

/// The steps that make a place. After `kill -9` between or in any of them, they are run again from
/// the first: what is there stays.
#[derive(Debug)]
pub struct Plan {
    place: Place,
    profile: Profile,
    steps: Vec<Step>,
}

impl Plan {
    /// The plan for a place.
    ///
    /// # Errors
    /// [`ProvisioningError::Place`].
    pub fn of(profile: Profile, place: &Place) -> Result<Self, ProvisioningError> {
        check(place)?;
        let steps = match place.tier {
            Tier::Database => database::steps(profile, place),
            Tier::Schema => schema::steps(place),
            Tier::Row => row::steps(place),
        };
        Ok(Self {
            place: place.clone(),
            profile,
            steps,
        })
    }

    /// What will be done.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Does everything but the verification.
    ///
    /// # Errors
    /// [`ProvisioningError`]; the steps before stay done.
    ///
    /// # Cancel safety
    /// Run it again.
    pub async fn run_all(&self, admin: &Admin) -> Result<(), ProvisioningError> {
        if let Some(session) = self.go(admin, self.steps.len()).await? {
            session.end().await;
        }
        Ok(())
    }

    /// Does so many of the steps, from the first.
    ///
    /// # Errors
    /// As [`Plan::run_all`].
    ///
    /// # Cancel safety
    /// Run it again.
    pub async fn run(&self, admin: &Admin, count: usize) -> Result<(), ProvisioningError> {
        if let Some(session) = self.go(admin, count).await? {
            session.end().await;
        }
        Ok(())
    }

    /// Does so many of the steps, and returns the connection of the last one.
    pub(super) async fn go(
        &self,
        admin: &Admin,
        count: usize,
    ) -> Result<Option<Session>, ProvisioningError> {
        let mut current: Option<(&str, Session)> = None;
        for step in self.steps.iter().take(count) {
            let mut session = match current.take() {
                Some((database, session)) if database == &*step.database => session,
                other => {
                    if let Some((_, session)) = other {
                        session.end().await;
                    }
                    self.open(admin, &step.database).await?
                }
            };
            self.step(&mut session, step).await?;
            current = Some((&step.database, session));
        }
        Ok(current.map(|(_, session)| session))
    }

    /// A database that several tenants share is made when the first of them is.
    async fn open(&self, admin: &Admin, database: &str) -> Result<Session, ProvisioningError> {
        let kind = match self.place.tier {
            Tier::Database => return admin.connect(database).await,
            Tier::Schema => Kind::Schemas,
            Tier::Row => Kind::Rows,
        };
        shared::open(admin, self.profile, database, kind).await
    }

    async fn step(&self, session: &mut Session, step: &Step) -> Result<(), ProvisioningError> {
        match &step.work {
            Work::MakeDatabase => database::make(session, &self.place.database).await,
            Work::Statements(statements) => match session.run(step.what, statements).await {
                // The cluster was never hardened.
                Err(error) if error.code() == Some("42704") => {
                    cluster::make_roles(session).await?;
                    session.run(step.what, statements).await
                }
                done => done,
            },
        }
    }
}

impl Step {
    pub(super) fn new(what: &'static str, database: &str, statements: String) -> Self {
        Self {
            what,
            database: database.into(),
            work: Work::Statements(statements),
        }
    }

    pub(super) fn make_database() -> Self {
        Self {
            what: "make the tenant's database",
            database: MAINTENANCE.into(),
            work: Work::MakeDatabase,
        }
    }

    /// The step that changes the row of the database itself in the catalogue, one tenant after the
    /// other.
    pub(super) fn let_connect(place: &Place) -> Self {
        let statements = format!("{ONE_AT_A_TIME}{}", logins::connect_statements(place));
        Self::new(
            "let the tenant's roles connect",
            &place.database,
            statements,
        )
    }
}

/// Whether the place has what its tier needs.
pub(super) fn check(place: &Place) -> Result<(), ProvisioningError> {
    let wrong = |what| Err(ProvisioningError::Place(what));
    if !names::is_token(&place.token) {
        return wrong("its token is not [a-z2-7]{20}");
    }
    if place.database.is_empty() || place.database.len() > 63 {
        return wrong("the name of its database is not 1 to 63 bytes long");
    }
    if ["postgres", "template0", "template1"].contains(&&*place.database) {
        return wrong("its database is PostgreSQL's own");
    }
    if place.variant == Variant::Shared && place.tier != Tier::Row {
        return wrong("only tier row has the variant shared");
    }
    match place.tier {
        Tier::Database | Tier::Schema if place.login.is_none() => return wrong("it has no login"),
        Tier::Database | Tier::Schema => {
            let schema = place.schema.as_deref().unwrap_or("");
            if schema.is_empty() || schema.len() > 63 || schema.starts_with("pg_") {
                return wrong("the name of its schema is not 1 to 63 bytes long");
            }
        }
        Tier::Row if place.variant == Variant::Own && place.login.is_none() => {
            return wrong("it has no login");
        }
        Tier::Row => {}
    }
    if !place.is_made_here() {
        return wrong("its roles are not t_ and r_ with its token");
    }
    Ok(())
}
