//! What a pool is made from, replaced as a whole when its tenant or cluster changes.

use super::{
    Budget,
    dialer::{Dialer, Route},
    slots::SlotPool,
};
use crate::{
    tenant::{Cluster, Scope, Tenant},
    tls,
    upstream::{Endpoint, Said, Settings, UpstreamError},
};
use deadpool::{
    Runtime,
    managed::{Pool, PoolConfig, QueueMode},
};
use moka::sync::Cache;
use std::sync::Arc;

/// Where a pool's servers come from.
pub(super) struct Source {
    /// The cluster's connections.
    pub(super) budget: Arc<Budget>,
    /// The slots of its database, for a tenant without a login of its own.
    pub(super) slots: Option<Arc<SlotPool>>,
}

/// What a server made of a client's settings: those to carry, and what it said of them.
pub(super) type Confirmed = (Arc<Settings>, Said);

/// Sets of settings that are remembered as confirmed.
const CONFIRMED_MAX: u64 = 1000;

/// What a change of the tenant or its cluster replaces.
pub(super) struct Inside {
    pub(super) route: Arc<Route>,
    pub(super) servers: Pool<Dialer>,
    pub(super) confirmed: Cache<Arc<Settings>, Confirmed>,
}

impl Inside {
    pub(super) fn new(
        tenant: &Arc<Tenant>,
        cluster: &Arc<Cluster>,
        source: &Source,
        scope: Scope,
    ) -> Result<Self, UpstreamError> {
        let endpoint = match &source.slots {
            Some(slots) => slots.endpoint(),
            None => endpoint(cluster)?,
        };
        let common = source.slots.as_ref().map(|slots| slots.common(scope));
        let route = Arc::new(Route {
            tenant: Arc::clone(tenant),
            cluster: Arc::clone(cluster),
            endpoint,
            scope,
            budget: Arc::clone(&source.budget),
            welcome: common.map(|c| c.welcome.clone()).unwrap_or_default(),
            slots: source.slots.clone(),
        });
        let share = source.slots.as_ref().map(|slots| slots.share(scope));
        let max = tenant.limits.pool_size as usize;
        let config = PoolConfig {
            queue_mode: QueueMode::Lifo,
            ..PoolConfig::new(share.map_or(max, |share| max.min(share)))
        };
        let servers = Pool::builder(Dialer(Arc::clone(&route)))
            .config(config)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_error| UpstreamError::Login("the pool could not be made"))?;
        let confirmed = common.map_or_else(confirmed, |common| common.confirmed.clone());
        Ok(Self {
            route,
            servers,
            confirmed,
        })
    }
}

/// What was confirmed of settings; nothing yet.
pub(super) fn confirmed() -> Cache<Arc<Settings>, Confirmed> {
    Cache::builder().max_capacity(CONFIRMED_MAX).build()
}

/// Where a cluster's primary is.
pub(super) fn endpoint(cluster: &Cluster) -> Result<Arc<Endpoint>, UpstreamError> {
    let connector =
        tls::connector(cluster).map_err(|error| UpstreamError::TlsSettings(error.to_string()))?;
    Ok(Arc::new(Endpoint {
        address: cluster.primary.clone(),
        tls: cluster.tls.clone(),
        connector,
        connect_timeout: cluster.connect_timeout,
    }))
}
