//! As whom a template is applied to a tenant that may have code of its own.
//!
//! What a template does can run the tenant's code: a trigger of its table, an operator in its
//! schema, a check. A role that the admin has taken on (`SET ROLE`) would be no protection: such
//! code takes it off again and is the admin. So the template is applied by a session that has
//! logged in as nobody else: a role made for this run, a member of the tenant's role and of nothing
//! that has a privilege.

use crate::{
    provisioning::{
        Admin, Place, ProvisioningError,
        admin::Session,
        text::{ONE_AT_A_TIME, fill},
    },
    sql::{quoted_literal, quoted_name},
    tenant::{Login, Secret},
};
use rand::{TryRng as _, rngs::SysRng};
use std::fmt::Write as _;

const MAKE: &str = include_str!("../sql/visitor_make.sql");
const DROP: &str = include_str!("../sql/visitor_drop.sql");
const TERMINATE: &str = include_str!("../sql/terminate.sql");

/// The visitor of a place.
pub(super) struct Visitor<'a> {
    place: &'a Place,
    role: String,
    owner: &'a str,
}

impl<'a> Visitor<'a> {
    /// Who visits this place.
    ///
    /// # Errors
    /// [`ProvisioningError::Place`] when the place has no login.
    pub(super) fn of(place: &'a Place) -> Result<Self, ProvisioningError> {
        let login = place.login.as_ref();
        let login = login.ok_or(ProvisioningError::Place("it has no login"))?;
        Ok(Self {
            place,
            role: format!("m_{}", place.token),
            owner: &login.role,
        })
    }

    /// Logs in as the tenant, with its schema as the search path.
    pub(super) async fn enter(
        &self,
        admin: &Admin,
        session: &mut Session,
    ) -> Result<Session, ProvisioningError> {
        let password = password()?;
        let bytes = password.expose().as_bytes();
        let verifier = quoted_literal(&postgres_protocol::password::scram_sha_256(bytes));
        let make = self.fill(MAKE, &verifier);
        session
            .run("make the role that applies templates", &make)
            .await?;
        let login = Login {
            role: self.role.as_str().into(),
            password: Some(password),
        };
        let mut visit = admin.connect_as(&login, &self.place.database).await?;
        let schema = self.place.schema.as_deref().unwrap_or_default();
        let settings = format!(
            "SET search_path = {}; SET ROLE {}; {}",
            quoted_name(schema),
            quoted_name(self.owner),
            super::LIMITS
        );
        visit.run("become the tenant", &settings).await?;
        Ok(visit)
    }

    /// Ends what is left of a visit: this one's, or that of a run that was killed.
    pub(super) async fn leave(&self, session: &mut Session) -> Result<(), ProvisioningError> {
        let roles = format!("ARRAY[{}]::text[]", quoted_literal(&self.role));
        let terminate = fill(TERMINATE, &[("roles", &roles)]);
        session
            .run("end the sessions that applied templates", &terminate)
            .await?;
        let drop = format!("{ONE_AT_A_TIME}{}", self.fill(DROP, ""));
        session
            .run("drop the role that applied templates", &drop)
            .await
    }

    fn fill(&self, template: &str, verifier: &str) -> String {
        fill(
            template,
            &[
                ("visitor", &quoted_name(&self.role)),
                ("visitor_text", &quoted_literal(&self.role)),
                ("role", &quoted_name(self.owner)),
                ("verifier", verifier),
            ],
        )
    }
}

fn password() -> Result<Secret, ProvisioningError> {
    let mut bytes = [0; 32];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|_error| ProvisioningError::Randomness)?;
    let mut text = String::with_capacity(64);
    for byte in bytes {
        write!(text, "{byte:02x}").ok();
    }
    Ok(Secret::new(text))
}
