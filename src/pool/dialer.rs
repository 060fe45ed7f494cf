//! deadpool's view of a server connection: how it is made, and whether it may be lent again.

use super::{
    Budget,
    budget::{Account, Grant, Place, Source, Verdict},
    pids::OwnPid,
    slots::{Lent, SlotPool},
};
use crate::{
    notify::Lender,
    tenant::{Cluster, Scope, Tenant},
    topology::Node,
    upstream::{Endpoint, Server, Settings, UpstreamError, Welcome, dial},
};
use arc_swap::ArcSwapOption;
use deadpool::managed::{Manager, Metrics, Object, RecycleError, RecycleResult};
use rand::RngExt as _;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};
use tokio::io::{AsyncRead as _, ReadBuf};

/// How long a server may take to say that it lives.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// A read waits so long for a place on a replica; then it may still go to the primary.
const REPLICA_WAIT: Duration = Duration::from_millis(250);

/// Who listens for a tenant's sessions waits so long for a place, and is told to try again.
const LISTENER_WAIT: Duration = Duration::from_secs(5);

/// Everything that a server connection of one pool is made from. A change makes a new pool inside.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) tenant: Arc<Tenant>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) scope: Scope,
    pub(super) budget: Arc<Budget>,
    /// The tenant's part in it.
    pub(super) account: Arc<Account>,
    /// What the newest server said about itself.
    pub(super) welcome: Arc<ArcSwapOption<Welcome>>,
    /// Where its servers come from, for a tenant without a login of its own.
    pub(super) slots: Option<Arc<SlotPool>>,
    /// The replica that it leads to; `None` for the primary.
    pub(super) node: Option<Arc<Node>>,
}

/// Makes and checks server connections.
#[derive(Debug)]
pub(super) struct Dialer(pub(super) Arc<Route>);

/// A server connection in a pool.
#[derive(Debug)]
pub(super) struct Pooled {
    /// The connection.
    pub(super) server: Server,
    /// What it said about itself when it was logged in.
    pub(super) welcome: Arc<Welcome>,
    pub(super) expires: Option<Instant>,
    /// The last probe of the replica that was sent before the connection stood.
    pub(super) asked: u64,
    /// Its process id, for notifications; a slot's is nobody's.
    pub(super) own_pid: Option<OwnPid>,
    pub(super) place: Place,
    /// A slot goes back to where it came from, never to the tenant's own pool.
    pub(super) lent: Option<Lent>,
}

impl Lender for Pooled {
    fn server(&mut self) -> &mut Server {
        &mut self.server
    }
}

impl Pooled {
    /// Closes the server; its place is free.
    pub(super) fn close(self) -> Place {
        let Self { server, place, .. } = self;
        drop(server);
        place
    }

    /// Becomes a server that starts with a client's own settings. It is that client's alone: its
    /// place is given back, the server never.
    pub(super) async fn dedicate(
        &mut self,
        route: &Route,
        own: &Arc<Settings>,
    ) -> Result<(), UpstreamError> {
        // A slot can't start with them: they are put on it like any others.
        if self.lent.is_some() {
            return Ok(());
        }
        let (mut server, _) = dial(&route.endpoint, &route.tenant, (route.scope, own)).await?;
        server.applied = Arc::clone(own);
        server.is_dedicated = true;
        self.place.serves(server.identity().key.pid);
        self.own_pid = Some(route.own(&server));
        self.server = server;
        Ok(())
    }
}

impl Route {
    /// Whether connections of the two differ in where they lead, as whom or how.
    pub(super) fn leads_elsewhere_than(&self, other: &Self) -> bool {
        let how = |route: &Self| {
            let cluster = &route.cluster;
            (
                cluster.primary.clone(),
                cluster.tls.clone(),
                cluster.client_certificate.clone(),
                route.tenant.placement.clone(),
            )
        };
        how(self) != how(other)
    }

    fn own(&self, server: &Server) -> OwnPid {
        let pids = self.budget.pids();
        pids.own(server.identity().key.pid, &self.tenant.id)
    }
}

impl Dialer {
    /// A server of the tenant's own, or a slot that serves it.
    async fn make(route: Arc<Route>) -> Result<Pooled, UpstreamError> {
        let Some(slots) = &route.slots else {
            let source = Source::of(&route);
            let at_most = route.node.as_ref().map(|_| REPLICA_WAIT);
            return Self::take(route, source, at_most).await;
        };
        let pooled = slots.take(&route.tenant, (route.scope, &route.account));
        let pooled = pooled.await;
        let pooled = pooled.inspect_err(|error| warn(&route, error))?;
        route.welcome.store(Some(Arc::clone(&pooled.welcome)));
        Ok(pooled)
    }

    /// A new server, for no pool.
    pub(super) async fn dial(route: Arc<Route>) -> Result<Pooled, UpstreamError> {
        if route.slots.is_some() {
            return Err(UpstreamError::Login("slots don't listen"));
        }
        let mut pooled = Self::take(route, Source::NONE, Some(LISTENER_WAIT)).await?;
        // It is no turn of anybody's.
        pooled.place.rests();
        Ok(pooled)
    }

    /// A server that another client has given back, or a new one; waits for it in order.
    async fn take(
        route: Arc<Route>,
        source: Source,
        at_most: Option<Duration>,
    ) -> Result<Pooled, UpstreamError> {
        let granted = route.budget.take_within(&route.account, source, at_most);
        match granted.await.ok_or(UpstreamError::Budget)? {
            Grant::Place(place) => Self::connect(route, place).await,
            Grant::Server(mut pooled) => match Self(Arc::clone(&route)).check(&mut pooled).await {
                Ok(()) => Ok(*pooled),
                Err(reason) => {
                    tracing::debug!(tenant = %route.tenant.id, reason, "server closed");
                    Self::connect(route, pooled.close()).await
                }
            },
        }
    }

    async fn connect(route: Arc<Route>, mut place: Place) -> Result<Pooled, UpstreamError> {
        let turn = route.budget.connects().acquire().await;
        let dialled = dial(
            &route.endpoint,
            &route.tenant,
            (route.scope, &Settings::default()),
        )
        .await;
        drop(turn);
        let result = if dialled.is_ok() { "ok" } else { "failed" };
        metrics::counter!("pgusher_upstream_connects_total", "result" => result).increment(1);
        let (server, welcome) = dialled.inspect_err(|error| warn(&route, error))?;
        place.serves(server.identity().key.pid);
        let welcome = Arc::new(welcome);
        route.welcome.store(Some(Arc::clone(&welcome)));
        let expires = expiry(route.tenant.timeouts.server_lifetime);
        Ok(Pooled {
            own_pid: Some(route.own(&server)),
            server,
            welcome,
            expires,
            asked: route.node.as_ref().map_or(0, |node| node.asked()),
            place,
            lent: None,
        })
    }

    /// Whether the server may be lent: it is clean, young enough, and has said nothing while idle.
    async fn check(&self, pooled: &mut Pooled) -> Result<(), &'static str> {
        if !pooled.server.is_clean() {
            return Err("it is not clean");
        }
        if pooled
            .expires
            .is_some_and(|expires| Instant::now() >= expires)
        {
            return Err("it is too old");
        }
        if has_something_to_say(&mut pooled.server).await {
            // It may have told of a changed setting: the next client hears it from a new server.
            self.0.welcome.store(None);
            return Err("it closed or spoke while idle");
        }
        let check_delay = self.0.tenant.timeouts.server_check_delay;
        if check_delay.is_some_and(|delay| pooled.server.returned_at.elapsed() >= delay) {
            let asked = Box::pin(pooled.server.ask("", CHECK_TIMEOUT)).await;
            return asked
                .map(drop)
                .map_err(|_error| "it did not answer the check");
        }
        Ok(())
    }
}

impl Manager for Dialer {
    type Type = Pooled;
    type Error = UpstreamError;

    fn create(&self) -> impl Future<Output = Result<Pooled, UpstreamError>> + Send {
        // Boxed: dialling is rare, and its state would make every session's future large.
        let dialling: Pin<Box<dyn Future<Output = _> + Send>> =
            Box::pin(Self::make(Arc::clone(&self.0)));
        dialling
    }

    async fn recycle(&self, pooled: &mut Pooled, _: &Metrics) -> RecycleResult<UpstreamError> {
        self.check(pooled).await.map_err(|reason| {
            tracing::debug!(tenant = %self.0.tenant.id, reason, "idle server closed");
            RecycleError::message(reason)
        })
    }
}

/// Gives a server back while places are scarce: to its pool, or to who is next.
pub(super) fn give_back(mut object: Object<Dialer>) {
    let Some(pool) = Object::pool(&object) else {
        return;
    };
    let source = Source::of(&pool.manager().0);
    let budget = Arc::clone(object.place.budget());
    match budget.judge(&mut object.place, source) {
        Verdict::Keep => drop(object),
        Verdict::Close => drop(Object::take(object)),
        // Who has left meanwhile leaves its turn to the next.
        Verdict::Hand(waiter) => {
            let server = Grant::Server(Box::new(Object::take(object)));
            drop(waiter.grant(server));
        }
        Verdict::Move(waiter) => {
            let place = Object::take(object).close();
            drop(waiter.grant(Grant::Place(place)));
        }
    }
}

fn warn(route: &Route, error: &UpstreamError) {
    if matches!(error, UpstreamError::Budget) {
        return;
    }
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(
        tenant = %route.tenant.id, upstream = %route.endpoint.address, %error,
        cause = cause.as_deref().unwrap_or_default(),
        "server connection failed"
    );
}

/// When a server that is made now is too old; not all at the same time.
pub(super) fn expiry(lifetime: Option<Duration>) -> Option<Instant> {
    lifetime.map(|lifetime| Instant::now() + lifetime.mul_f64(rand::rng().random_range(0.8..=1.0)))
}

/// Whether an idle server has closed or sent something. A look at readiness that is already
/// known: no system call unless there is something to read.
pub(super) async fn has_something_to_say(server: &mut Server) -> bool {
    let mut byte = [0; 1];
    // Unconstrained: the look must be a real one, even at the end of the task's budget.
    tokio::task::coop::unconstrained(std::future::poll_fn(|cx| {
        let mut room = ReadBuf::new(&mut byte);
        let polled = Pin::new(&mut server.stream).poll_read(cx, &mut room);
        Poll::Ready(polled.is_ready())
    }))
    .await
}
