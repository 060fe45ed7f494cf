//! A tenant that holds up others is stopped where its sessions are.

use crate::{
    control::{Officer, Server},
    frontend::Frontend,
    sessions::{Order, SessionHandle},
    tenant::{ClusterName, TenantId},
};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long PostgreSQL may take to take a cancel.
const CANCEL_TIME_MAX: Duration = Duration::from_secs(5);

/// Knows the sessions, and bars tenants.
pub(super) struct LockOfficer {
    pub(super) frontend: Arc<Frontend>,
    /// How long a tenant is barred at first.
    pub(super) penalty: Duration,
}

impl LockOfficer {
    fn holder(&self, server: &Server, pid: u32) -> Option<Arc<SessionHandle>> {
        let mut holder = None;
        self.frontend.sessions.for_each(|session| {
            if session.holds(pid, &server.address) {
                holder = Some(Arc::clone(session));
            }
        });
        holder
    }
}

impl Officer for LockOfficer {
    fn is_tenants(&self, server: &Server, pid: u32) -> bool {
        let owner = self.frontend.pools.owner_of(&server.cluster, pid);
        owner.is_some() || self.holder(server, pid).is_some()
    }

    fn closed(&self, cluster: &ClusterName) -> Vec<(u32, Duration)> {
        self.frontend.pools.closed(cluster)
    }

    fn stop(&self, server: &Server, pid: u32) -> Option<TenantId> {
        let holder = self.holder(server, pid);
        if let Some(session) = &holder {
            end(session);
        }
        let tenant = match holder {
            Some(session) => session.tenant.load().id.clone(),
            None => self.frontend.pools.owner_of(&server.cluster, pid)?,
        };
        let bars = self.frontend.admission.bars();
        if let Some(barred) = bars.strike(&tenant, self.penalty) {
            let barred = humantime::format_duration(Duration::from_secs(barred.as_secs() + 1));
            tracing::warn!(%tenant, %barred, "a tenant that holds up others again is kept out");
            for session in self.frontend.sessions.of_tenant(&tenant) {
                session.give(Order::Trespassed);
            }
        }
        Some(tenant)
    }
}

/// Ends a session. Its statement is cancelled beside that: who has to tell its client first may have to
/// wait until that listens.
fn end(session: &SessionHandle) {
    let cancel = session.begin_cancel();
    session.give(Order::Trespassed);
    let Some(cancel) = cancel else { return };
    tokio::spawn(async move {
        match timeout(CANCEL_TIME_MAX, cancel.deliver()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "a session that holds up others is not cancelled");
            }
            Err(_elapsed) => {
                tracing::warn!("a session that holds up others is not cancelled: no answer");
            }
        }
    });
}
