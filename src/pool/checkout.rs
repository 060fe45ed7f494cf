//! A server, lent to one session.

use super::{
    ReplicaPool, Run, TenantPool,
    dialer::{Pooled, give_back},
    slots::SlotPool,
};
use crate::{
    sessions::{Order, SessionHandle},
    tenant::{Scope, TenantId},
    upstream::{Server, Settings, UpstreamError, Welcome},
    wire::{Refusal, SqlState},
};
use deadpool::managed::Object;
use std::{sync::Arc, time::Instant};

/// Why a session gets no server.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// None became free in time.
    #[error("no server became free within query_wait_timeout")]
    Wait {
        /// Whether the cluster's budget was the limit, and not the tenant's pool.
        by_budget: bool,
    },
    /// A new one could not be made.
    #[error("no server could be made")]
    Upstream(#[from] UpstreamError),
    /// The session was told to stop waiting.
    #[error("the session was told to stop waiting")]
    Ordered(Order),
    /// Nobody is the cluster's primary, and none has come within `failover_hold`.
    #[error("the cluster has no primary")]
    NoPrimary {
        /// Whether the operator has paused the cluster.
        is_paused: bool,
    },
    /// No replica answers, and the primary may not help out.
    #[error("no replica answers")]
    NoReplica,
    /// The tenant is gone.
    #[error("the pool is closed")]
    Closed,
}

impl CheckoutError {
    /// What the client is told.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Wait { by_budget: true } => UpstreamError::Budget.refusal().with_detail(
                "No server connection became free within query_wait_timeout; try again later.",
            ),
            Self::Wait { by_budget: false } => Refusal::error(
                SqlState::TOO_MANY,
                "no server connection became free within query_wait_timeout",
            )
            .with_detail("All pool_size server connections of the tenant are in use."),
            Self::Upstream(error) => error.refusal(),
            Self::Ordered(order) => order.refusal(),
            Self::NoPrimary { is_paused: true } => Refusal::error(
                SqlState::NOT_NOW,
                "the tenant's PostgreSQL cluster is paused at the moment",
            )
            .with_detail("It has not been resumed within failover_hold; try again later."),
            Self::NoPrimary { is_paused: false } => Refusal::error(
                SqlState::NOT_NOW,
                "the tenant's PostgreSQL cluster has no primary at the moment",
            )
            .with_detail("No server has become the primary within failover_hold; try again later."),
            Self::NoReplica => Refusal::error(
                SqlState::NOT_NOW,
                "no replica of the tenant's PostgreSQL cluster can be used at the moment",
            )
            .with_detail("replica_fallback is off, so the primary does not answer reads."),
            Self::Closed => Order::Gone.refusal(),
        }
    }
}

/// A server that one session holds. Dropped without [`Checkout::release`], it is closed: that is
/// what a panic, an abort and a forgotten path all come to.
#[must_use = "dropping a checkout closes its server"]
#[derive(Debug)]
pub struct Checkout {
    object: Option<Object<super::dialer::Dialer>>,
    session: Arc<SessionHandle>,
    /// Where it is, when it is not on the primary.
    replica: Option<Arc<ReplicaPool>>,
}

impl Checkout {
    /// Binds a server to a session, and checks for the last time that it is the session's own.
    ///
    /// # Panics
    /// When the server belongs to another tenant or scope: nothing may be relayed then.
    pub(super) fn new(
        mut object: Object<super::dialer::Dialer>,
        session: &Arc<SessionHandle>,
        (tenant, scope): (&TenantId, Scope),
    ) -> Self {
        object.place.lent();
        let identity = object.server.identity();
        assert!(
            identity.tenant == *tenant && identity.scope == scope && session.scope == scope,
            "a server of another tenant or scope was lent"
        );
        assert!(
            session.tenant.load().id == *tenant,
            "a session used another tenant's pool"
        );
        session.hold(identity);
        // The moment is known already: the pool has asked the clock.
        let metrics = Object::metrics(&object);
        session
            .counters
            .lent(metrics.recycled.unwrap_or(metrics.created));
        Self {
            object: Some(object),
            session: Arc::clone(session),
            replica: None,
        }
    }

    /// The same for a server on a replica.
    pub(super) fn on_replica(
        object: Object<super::dialer::Dialer>,
        session: &Arc<SessionHandle>,
        whose: (&TenantId, Scope),
        pool: &Arc<ReplicaPool>,
    ) -> Self {
        let mut checkout = Self::new(object, session, whose);
        checkout.replica = Some(Arc::clone(pool));
        checkout
    }

    /// The replica that the server is on.
    pub fn replica(&self) -> Option<&Arc<ReplicaPool>> {
        self.replica.as_ref()
    }

    /// The server.
    pub fn server(&mut self) -> &mut Server {
        &mut self.pooled().server
    }

    /// What the session runs on it, where the cluster bounds that, or may while it is lent. What has not
    /// ended when it is dropped counts no more.
    pub fn run(&self, is_for_long: bool) -> Option<Run> {
        let runner = self.object.as_ref()?.place.runner();
        (is_for_long || runner.is_limited()).then(|| Run::new(runner))
    }

    /// What the server said about itself when it was logged in.
    pub fn welcome(&mut self) -> Arc<Welcome> {
        Arc::clone(&self.pooled().welcome)
    }

    fn pooled(&mut self) -> &mut Pooled {
        self.object
            .as_mut()
            .expect("a checkout holds its server until it is consumed")
    }

    /// Takes a server that starts with the client's own settings in place of this one, so that its
    /// RESET returns to them. It is closed at the end.
    ///
    /// # Errors
    /// [`UpstreamError`].
    ///
    /// # Panics
    /// Never: the server is there until the checkout is consumed.
    ///
    /// # Cancel safety
    /// Drop the checkout when the future is dropped.
    pub async fn dedicate(&mut self, own: &Arc<Settings>) -> Result<(), UpstreamError> {
        let object = self.object.as_mut().expect("a checkout holds its server");
        let pool = Object::pool(object).ok_or(UpstreamError::Login("the pool is gone"))?;
        object.dedicate(&pool.manager().0, own).await?;
        self.session.hold(object.server.identity());
        Ok(())
    }

    /// Whether what is known of the replica is younger than the connection: one that has restarted may be
    /// less far than it was.
    pub fn is_known(&mut self) -> bool {
        let Some(replica) = self.replica.clone() else {
            return false;
        };
        replica.node().answered() > self.pooled().asked
    }

    /// Notes that the server's connection was lost.
    pub fn failed(&self) {
        if let Some(replica) = &self.replica {
            replica.node().failed();
        }
    }

    /// Gives a clean server back; one that is not clean is closed. No cancel reaches it any more.
    pub fn release(mut self, pool: &TenantPool) {
        self.session.let_go();
        let server = self.server();
        if !server.is_clean() {
            return;
        }
        let now = Instant::now();
        server.returned_at = now;
        self.session.counters.returned(now);
        let Some(mut object) = self.object.take() else {
            return;
        };
        if object.lent.is_some() {
            SlotPool::give_back(Object::take(object));
        } else if object.place.is_scarce() {
            give_back(object);
        } else {
            object.place.rests();
            drop(object);
        }
        match &self.replica {
            Some(replica) => replica.returned(),
            None => pool.returned(),
        }
    }

    /// Lets cancels of the session reach the server again.
    pub fn unshield(&mut self) {
        let identity = Arc::clone(self.server().identity());
        self.session.hold(&identity);
    }

    /// Makes sure that no new cancel reaches the server, so that it can be cleaned.
    pub fn shield(&self) {
        self.session.let_go();
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            self.session.let_go();
            self.session.counters.returned(Instant::now());
            drop(Object::take(object));
        }
    }
}
