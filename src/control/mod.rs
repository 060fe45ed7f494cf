//! What operators and tenants may do, once: the command line, the admin API and every later surface
//! call these use cases. Each takes an [`Actor`], checks that it may, does it, and writes an event.

mod activity;
mod actor;
mod api_key;
mod audit;
mod change;
mod checks;
mod clusters;
mod costs;
mod create;
mod dump;
mod entries;
mod error;
mod fullness;
mod hardening;
mod history;
mod idempotency;
mod key_change;
mod keys;
mod lifecycle;
mod locks;
mod members;
mod moves;
mod names;
mod new_key;
mod new_tenant;
mod pause;
mod place;
mod plans;
mod probe;
mod quota;
mod secret;
mod secrets;
mod standbys;
mod storage;
mod sweep;
mod sweeper;
mod templates;
mod tenants;
mod tokens;
mod turn;
mod usage;
mod verifier;
mod view;

pub use activity::{Counts, Health, PublicInfo};
pub use actor::{Actor, Role};
pub use api_key::{MintError, Minted, mint};
pub use audit::{Break, Head, Verified};
pub use change::{Patch, PoolChange, TenantChange};
pub use clusters::NewCluster;
pub use costs::{Amounts, CostLine, CostMonth, CostReport, NoMonth, Quantities};
pub use entries::{EntryKind, EntryView, NewEntry};
pub use error::ControlError;
pub use idempotency::{Begun, RequestHash};
pub use key_change::KeyChange;
pub use keys::CreatedKey;
pub use lifecycle::Termination;
pub use locks::{Officer, Server};
pub use members::{MemberView, NewMember};
pub use new_key::NewKey;
pub use new_tenant::{CreatedTenant, NewTenant};
pub use pause::Paused;
pub use plans::{PlanOrigin, PlanView};
pub use quota::{QuotaView, QuotasView};
pub use secrets::Rotated;
pub use standbys::StandbysChange;
pub use sweep::Swept;
pub use templates::{
    FailedTenant, MigratedTenant, Migration, MigrationOutcome, Progress, Protection,
};
pub use tokens::{CreatedToken, NewToken, TokenView};
pub use usage::{Month, UsageBy, UsageView, Used, UsedIn};
pub use verifier::verifier;
pub use view::{
    ClusterView, EventView, KeyView, Listed, Page, TenantView, cluster_record, key_record,
    tenant_record,
};

use crate::{
    config::{Config, Prices},
    registry::Registry,
    tenant::{KeyUses, Plans},
};
use arc_swap::{ArcSwap, ArcSwapOption};
use std::{path::PathBuf, sync::Arc};
use tokio::sync::Semaphore;

/// The use cases. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    /// The system of record.
    pub registry: Registry,
    /// The directory of the tenants' SQL templates.
    pub templates: Option<PathBuf>,
    /// Where clients connect, for the URLs that are shown: `127.0.0.1:6432`.
    pub proxy: String,
    /// Uses of API keys, counted together with those of the data plane where there is one.
    pub uses: Arc<KeyUses>,
    /// Whether what tenants use is written to the registry.
    pub is_metered: bool,
    /// The presets and the plans of `proxy.toml`.
    pub plans: Arc<ArcSwap<Plans>>,
    /// What use costs, as proxy.toml says it now.
    pub prices: Arc<ArcSwapOption<Prices>>,
    turns: Arc<Semaphore>,
}

impl Control {
    /// The use cases over this registry.
    pub fn new(registry: Registry, config: &Config) -> Self {
        let listen = config
            .proxy
            .listen
            .iter()
            .find_map(|listen| match &listen.address {
                crate::config::ListenAddress::Tcp(address) => Some(*address),
                crate::config::ListenAddress::Unix(_) => None,
            });
        let proxy = listen.map_or_else(
            || "127.0.0.1:6432".to_owned(),
            |address| {
                if address.ip().is_unspecified() {
                    format!("127.0.0.1:{}", address.port())
                } else {
                    address.to_string()
                }
            },
        );
        Self {
            registry,
            templates: config.templates.clone(),
            proxy,
            uses: Arc::default(),
            plans: Arc::new(ArcSwap::from_pointee(config.all_plans())),
            is_metered: config.usage.flush_interval.is_some(),
            prices: Arc::new(ArcSwapOption::new(config.prices.clone())),
            turns: Arc::new(Semaphore::new(turn::TURNS)),
        }
    }
}
