//! Whose transactions are open on the primary of a cluster.

use super::{
    Admin, ProvisioningError,
    admin::{MAINTENANCE, Session},
};

const STEP: &str = "look for open transactions";

/// Whether a server takes writes.
const IS_PRIMARY: &str = "SELECT NOT pg_catalog.pg_is_in_recovery()";

/// Every open transaction has a lock on its own virtual id, and every login sees those, one without
/// the right to `pg_stat_activity`, too. Slots are members of `pgusher_tenants` as well.
const OPEN: &str = "SELECT r.rolname::text, count(*), EXISTS (
        SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
        WHERE m.member = r.oid AND g.rolname = 'pgusher_tenants')
    FROM pg_catalog.pg_lock_status() l
        JOIN pg_catalog.pg_stat_get_activity(NULL) a ON a.pid = l.pid
        JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid
    WHERE l.locktype = 'virtualxid' AND l.granted AND l.mode = 'ExclusiveLock'
        AND a.pid <> pg_catalog.pg_backend_pid()
    GROUP BY r.oid, r.rolname";

/// A look at the open transactions of a primary, again and again.
#[derive(Debug)]
pub struct OpenTransactions(Session);

impl OpenTransactions {
    /// Logs in at the first of these servers that is the primary; `None` when none is.
    ///
    /// # Errors
    /// [`ProvisioningError`], of the last one that could not be asked, when none is the primary.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn connect(servers: &[Admin]) -> Result<Option<Self>, ProvisioningError> {
        let mut failure = None;
        for admin in servers {
            match Self::of(admin).await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    async fn of(admin: &Admin) -> Result<Option<Self>, ProvisioningError> {
        let mut session = admin.connect(MAINTENANCE).await?;
        let answers: Vec<(bool,)> = session.rows(STEP, IS_PRIMARY).await?;
        if answers.iter().any(|(is_primary,)| *is_primary) {
            return Ok(Some(Self(session)));
        }
        session.end().await;
        Ok(None)
    }

    /// Roles with their open transactions, and whether the role was made for a tenant. Backends
    /// without a role are PostgreSQL's own.
    ///
    /// # Errors
    /// [`ProvisioningError`].
    ///
    /// # Cancel safety
    /// Drop it when the future is dropped.
    pub async fn roles(&mut self) -> Result<Vec<(String, i64, bool)>, ProvisioningError> {
        self.0.rows(STEP, OPEN).await
    }

    /// Says goodbye.
    pub async fn end(self) {
        self.0.end().await;
    }
}
