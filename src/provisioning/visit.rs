//! Slots that verification has for itself: leased, bound and given back as the proxy does.

use super::{Admin, ProvisioningError, admin::Session, names::new_token};
use crate::{
    sql::quoted_literal,
    tenant::{Login, SLOT_RESET, ScramVerifier, Secret, SlotKey},
};

/// How long a token is good for, in seconds. It is used at once, but for those that are tried again.
const TOKEN_LIFETIME_SECS: i64 = 600;

/// Which slots.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// They read and write.
    Writer,
    /// They only read.
    Reader,
}

/// A slot. It is nobody else's while the session lasts.
pub(super) struct Visit {
    pub(super) session: Session,
    pub(super) role: String,
    pub(super) pid: i32,
    /// PostgreSQL's clock at login.
    clock: i64,
}

impl Visit {
    /// Leases a slot and logs in as it. It takes none of a running proxy's: each has its own.
    pub(super) async fn begin(
        admin: &Admin,
        database: &str,
        key: &SlotKey,
        kind: Kind,
    ) -> Result<Self, ProvisioningError> {
        let password = Secret::new(format!("{}{}", new_token()?, new_token()?));
        let verifier = ScramVerifier::of_random(&password).to_string();
        let kind = match kind {
            Kind::Writer => 's',
            Kind::Reader => 'q',
        };
        let lease = format!("SELECT ctl.lease('{kind}', {})", quoted_literal(&verifier));
        let mut lessor = admin.connect_as(&key.lease, database).await?;
        let leased = lessor.rows::<(String,)>("lease a slot", &lease).await;
        lessor.end().await;
        let role = leased?.into_iter().next().map(|(role,)| role);
        let role = role.ok_or(ProvisioningError::Place("it has no slot"))?;
        let login = Login {
            role: role.as_str().into(),
            password: Some(password),
        };
        let mut session = admin.connect_as(&login, database).await?;
        let claim = "SELECT ctl.claim(), pg_catalog.pg_backend_pid()";
        let claimed: Vec<(i64, i32)> = session.rows("claim a slot", claim).await?;
        // Who works in the database must not wait behind an attack.
        let limit = "SET lock_timeout = '1s'";
        session.run_once("set a setting of its own", limit).await?;
        let (clock, pid) = claimed.first().copied().unwrap_or_default();
        Ok(Self {
            session,
            role,
            pid,
            clock,
        })
    }

    /// What binds it to this tenant: the arguments of `ctl.bind`.
    pub(super) fn binding(&self, key: &SlotKey, token: &str) -> String {
        let expiry = self.clock + TOKEN_LIFETIME_SECS;
        key.binding(token, (self.pid.unsigned_abs(), &self.role), expiry)
    }

    /// Binds it for the first time.
    pub(super) async fn bind(
        &mut self,
        key: &SlotKey,
        token: &str,
    ) -> Result<(), ProvisioningError> {
        let bind = format!("SELECT ctl.bind({})", self.binding(key, token));
        self.session.run_once("bind a slot", &bind).await
    }
}

/// Takes a slot from its tenant and gives it to another, as the proxy does: in one Query.
pub(super) async fn hand_over(
    session: &mut Session,
    binding: &str,
) -> Result<(), ProvisioningError> {
    let sql = format!("{SLOT_RESET}SELECT ctl.bind({binding})");
    session.run_once("hand a slot over", &sql).await
}
