//! Who asks a pool for a server of the primary: served, or waiting for one, for a place in the budget, for
//! another password, or for another primary.

use super::{
    Checkout, CheckoutError, TenantPool,
    dialer::{Dialer, Route},
    inside::Inside,
    tenant_pool::has_waiters,
};
use crate::{sessions::SessionHandle, upstream::UpstreamError};
use deadpool::managed::{PoolError, Timeouts};
use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::{Duration, Instant},
};

/// How long a client waits for a server where its tenant sets no limit.
const WAIT_MAX: Duration = Duration::from_hours(1);

/// While all of a database's slots are just being closed: so long until the next try.
const SLOT_RETRY: Duration = Duration::from_millis(50);

/// While a cluster has no primary that answers: at most so long until the next try.
const FAILOVER_RETRY: Duration = Duration::from_millis(50);

/// A password that PostgreSQL refuses may have been changed there a moment ago: so long the new one
/// is waited for before the client is told.
const NEW_PASSWORD_WAIT: Duration = Duration::from_secs(5);

/// What a pool inside says to who asks for a server.
type Answer = Result<deadpool::managed::Object<Dialer>, PoolError<UpstreamError>>;

impl TenantPool {
    /// Lends a server. At once when one is idle; else makes one, or waits in order.
    ///
    /// # Errors
    /// [`CheckoutError`] says what the client is told.
    ///
    /// # Cancel safety
    /// Cancel safe: a place in the queue is given up.
    pub async fn checkout(&self, session: &Arc<SessionHandle>) -> Result<Checkout, CheckoutError> {
        loop {
            if let Some(checkout) = self.ask(session).await? {
                return Ok(checkout);
            }
        }
    }

    /// The same; `None` when the cluster was paused while the session waited.
    async fn ask(&self, session: &Arc<SessionHandle>) -> Result<Option<Checkout>, CheckoutError> {
        // Most of the time a server is idle, and this first poll is all that happens.
        let mut inside = self.inside.load();
        if inside.has_no_primary() {
            let waited = Instant::now();
            let held = Box::pin(self.hold(session)).await;
            session.counters.waited(waited.elapsed());
            held?;
            inside = self.inside.load();
        }
        let timeouts = Timeouts {
            wait: None,
            create: None,
            recycle: None,
        };
        let mut get = pin!(inside.servers.timeout_get(&timeouts));
        let polled = std::future::poll_fn(|cx| Poll::Ready(get.as_mut().poll(cx))).await;
        if let Poll::Ready(Ok(object)) = polled {
            return Ok(Some(Checkout::new(
                object,
                session,
                (self.tenant(), self.scope()),
            )));
        }
        let waited = Instant::now();
        let wait_max = inside.route.tenant.timeouts.query_wait.unwrap_or(WAIT_MAX);
        let first = match polled {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        };
        let asked = Arc::clone(&inside);
        let waiting: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(async move {
            let object = tokio::select! {
                biased;
                order = session.ordered() => Err(CheckoutError::Ordered(order)),
                object = async {
                    let first = match first {
                        Some(answer) => answer,
                        None => get.await,
                    };
                    self.persist((first, asked)).await
                } => object,
                () = tokio::time::sleep(wait_max) => {
                    let by_budget = self.inside.load().route.account.is_waiting();
                    Err(CheckoutError::Wait { by_budget })
                }
            };
            object
        });
        let route = &inside.route;
        let is_crowded = has_waiters(&inside.servers) || route.budget.is_scarce();
        let awaits = is_crowded.then(|| route.budget.running().awaits());
        let object = waiting.await;
        drop(awaits);
        let waited = waited.elapsed();
        session.counters.waited(waited);
        let Some(object) = object? else {
            return Ok(None);
        };
        metrics::histogram!("pgusher_checkout_wait_seconds").record(waited);
        Ok(Some(Checkout::new(
            object,
            session,
            (self.tenant(), self.scope()),
        )))
    }

    /// Goes on asking while the budget is used up, the pool inside is being replaced, or the
    /// password is being changed; until the cluster is paused, which is waited for by another limit.
    async fn persist(
        &self,
        first: (Answer, Arc<Inside>),
    ) -> Result<Option<deadpool::managed::Object<Dialer>>, CheckoutError> {
        let (mut answer, mut asked) = first;
        let mut held_since = None;
        loop {
            let is_paused = self.inside.load().route.cluster.is_paused;
            match answer {
                Ok(object) if is_paused => {
                    // It was being made meanwhile: nothing may begin there any more.
                    drop(deadpool::managed::Object::take(object));
                    return Ok(None);
                }
                Ok(object) => {
                    if held_since.is_some() {
                        count_hold("served");
                    }
                    return Ok(Some(object));
                }
                Err(PoolError::Backend(UpstreamError::Budget)) => {
                    // The pool inside is another, or slots are just being closed.
                    if Arc::ptr_eq(&self.inside.load(), &asked) {
                        tokio::time::sleep(SLOT_RETRY).await;
                    }
                }
                Err(PoolError::Backend(error)) if may_hold(&error, &asked) => {
                    let now = Instant::now();
                    let since = *held_since.get_or_insert(now);
                    let hold = self.config().reads.failover_hold;
                    if now.duration_since(since) >= hold {
                        count_hold("expired");
                        return Err(self.no_primary());
                    }
                    let pause = FAILOVER_RETRY.min(hold);
                    drop(tokio::time::timeout(pause, self.replaced.notified()).await);
                }
                Err(PoolError::Backend(error)) => {
                    if !(error.is_wrong_password() && self.is_replaced(&asked.route).await) {
                        return Err(error.into());
                    }
                }
                Err(PoolError::Closed) if !self.is_closed.load(Relaxed) => {}
                Err(_) => return Err(CheckoutError::Closed),
            }
            let inside = self.inside.load_full();
            if inside.route.cluster.is_paused {
                return Ok(None);
            }
            asked = Arc::clone(&inside);
            answer = inside.servers.timeout_get(&Timeouts::default()).await;
        }
    }

    fn no_primary(&self) -> CheckoutError {
        let is_paused = self.inside.load().route.cluster.is_paused;
        CheckoutError::NoPrimary { is_paused }
    }

    /// Waits for a primary, as long as the tenant's `failover_hold` is.
    async fn hold(&self, session: &Arc<SessionHandle>) -> Result<(), CheckoutError> {
        let mut limit = self.config().reads.failover_hold;
        let inside = self.inside.load_full();
        if inside.topology.as_ref().is_some_and(|it| it.is_settling()) {
            // Nobody is lost yet.
            limit = limit.max(inside.route.cluster.standbys.watch_timeout * 2);
        }
        let found = async {
            loop {
                // From here on nothing is missed.
                let mut replaced = pin!(self.replaced.notified());
                replaced.as_mut().enable();
                let inside = self.inside.load_full();
                let roles = inside.topology.as_ref().map(|it| it.changes());
                if !inside.has_no_primary() {
                    return;
                }
                let changed = async {
                    match roles {
                        Some(mut roles) => drop(roles.changed().await),
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = changed => {}
                    () = replaced => {}
                    () = tokio::time::sleep(FAILOVER_RETRY) => {}
                }
            }
        };
        tokio::select! {
            biased;
            order = session.ordered() => Err(CheckoutError::Ordered(order)),
            () = found => {
                count_hold("served");
                Ok(())
            }
            () = tokio::time::sleep(limit) => {
                count_hold("expired");
                Err(self.no_primary())
            }
        }
    }

    /// Waits a while for another route than the one that was asked.
    async fn is_replaced(&self, asked: &Arc<Route>) -> bool {
        let replaced = async {
            loop {
                let mut told = pin!(self.replaced.notified());
                // From here on nothing is missed.
                told.as_mut().enable();
                if !Arc::ptr_eq(&self.inside.load().route, asked) {
                    return;
                }
                told.await;
            }
        };
        let waited = tokio::time::timeout(NEW_PASSWORD_WAIT, replaced).await;
        waited.is_ok()
    }
}

/// Whether a primary that can't be reached may be replaced by another in a moment.
fn may_hold(error: &UpstreamError, asked: &Inside) -> bool {
    let topology = asked.topology.as_ref().filter(|_| error.is_unreachable());
    topology
        .inspect(|topology| topology.suspect_primary())
        .is_some()
}

fn count_hold(result: &'static str) {
    metrics::counter!("pgusher_failover_holds_total", "result" => result).increment(1);
}
