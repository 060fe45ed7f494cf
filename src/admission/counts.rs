//! The counts behind admission.

use super::Bars;
use crate::{
    auth::Authenticated,
    limits::{Forgetful, Limiters, Restraints},
    net::Peer,
    tenant::{KeyId, KeyUses, Tenant, TenantId, TooOften},
    wire::{Refusal, SqlState},
};
use arc_swap::ArcSwap;
use ipnet::IpNet;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

/// Clients of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quotas {
    /// Clients in all.
    pub max_client_connections: u32,
    /// Of these, kept for operators.
    pub reserved_client_connections: u32,
    /// Where operators come from.
    pub operator_addresses: Vec<IpNet>,
}

impl Quotas {
    fn limit_for(&self, peer: Peer) -> u32 {
        let is_operator = |ip| self.operator_addresses.iter().any(|net| net.contains(&ip));
        if self.operator_addresses.is_empty() || peer.ip().is_some_and(is_operator) {
            return self.max_client_connections;
        }
        self.max_client_connections
            .saturating_sub(self.reserved_client_connections)
    }
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// That of the process.
    Process,
    /// That of the tenant.
    Tenant(u32),
    /// That of the key.
    Key(u32),
    /// That of the key's hour.
    Hour(TooOften),
    /// None: the tenant is barred for so long.
    Barred(Duration),
}

impl Full {
    /// What the client is told.
    pub fn refusal(self) -> Refusal {
        let (whose, limit) = match self {
            Self::Process => {
                let text = "sorry, too many clients: max_client_connections of pgusher is reached";
                return Refusal::fatal(SqlState::TOO_MANY, text);
            }
            Self::Hour(TooOften { limit, wait }) => {
                let text = "too many connections in an hour: rate_limit_per_hour of the API key is reached";
                let wait = humantime::format_duration(wait);
                return Refusal::fatal(SqlState::QUOTA, text)
                    .with_detail(format!("The limit is {limit}. Try again in {wait}."));
            }
            Self::Barred(wait) => {
                let text = "the tenant is barred: it held up others with a lock";
                let wait = humantime::format_duration(wait);
                return Refusal::fatal(SqlState::QUOTA, text)
                    .with_detail(format!("Try again in {wait}."));
            }
            Self::Tenant(limit) => ("the tenant", limit),
            Self::Key(limit) => ("the API key", limit),
        };
        let text = format!("too many connections: max_client_connections of {whose} is reached");
        Refusal::fatal(SqlState::TOO_MANY, text).with_detail(format!("The limit is {limit}."))
    }
}

type Count = Arc<AtomicU32>;

/// One client in a count.
#[derive(Debug)]
struct Place(Count);

impl Place {
    fn take(count: &Count, limit: u32) -> Option<Self> {
        let take = |taken: u32| (taken < limit).then_some(taken + 1);
        count
            .fetch_update(SeqCst, SeqCst, take)
            .ok()
            .map(|_| Self(Arc::clone(count)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Proof of a place in the process's count; nothing more is known of the client.
#[must_use = "the place is free again when this is dropped"]
#[derive(Debug)]
pub struct Entered {
    _place: Place,
}

/// Proof that there is room for a client, with its places.
#[must_use = "the places are free again when this is dropped"]
#[derive(Debug)]
pub struct Admitted {
    authenticated: Authenticated,
    _places: (Entered, Place, Option<Place>),
}

impl Admitted {
    /// Who it is.
    pub fn authenticated(&self) -> &Authenticated {
        &self.authenticated
    }
}

/// All counts.
pub struct Admission {
    quotas: ArcSwap<Quotas>,
    process: Count,
    tenants: Mutex<Forgetful<TenantId, Count>>,
    keys: Mutex<Forgetful<(TenantId, KeyId), Count>>,
    uses: Arc<KeyUses>,
    bars: Bars,
    limiters: Limiters,
}

impl Admission {
    /// Nobody is here yet. Uses of keys are counted and kept in `uses`.
    pub fn new(quotas: Quotas, uses: Arc<KeyUses>) -> Self {
        Self {
            quotas: ArcSwap::from_pointee(quotas),
            process: Count::default(),
            tenants: Mutex::default(),
            keys: Mutex::default(),
            uses,
            bars: Bars::default(),
            limiters: Limiters::default(),
        }
    }

    /// What restrains who has proved itself.
    pub fn restraints(&self, tenant: &Tenant, key: &KeyId) -> Arc<Restraints> {
        self.limiters.of(tenant, key)
    }

    /// Who trespasses again is barred, each time for twice as long.
    pub fn bars(&self) -> &Bars {
        &self.bars
    }

    /// Changes the limits of the process. Who is here stays.
    pub fn set_quotas(&self, quotas: Quotas) {
        self.quotas.store(Arc::new(quotas));
    }

    /// Clients that are here.
    pub fn count(&self) -> u32 {
        self.process.load(SeqCst)
    }

    /// Whether there is a place in the process now.
    ///
    /// # Errors
    /// [`Full::Process`].
    pub fn look(&self, peer: Peer) -> Result<(), Full> {
        let limit = self.quotas.load().limit_for(peer);
        if self.count() < limit {
            Ok(())
        } else {
            Err(Full::Process)
        }
    }

    /// Takes a place in the process.
    ///
    /// # Errors
    /// [`Full::Process`].
    pub fn enter(&self, peer: Peer) -> Result<Entered, Full> {
        let limit = self.quotas.load().limit_for(peer);
        let place = Place::take(&self.process, limit).ok_or(Full::Process)?;
        Ok(Entered { _place: place })
    }

    /// Takes the tenant's and the key's place, and counts a use of the key.
    ///
    /// # Errors
    /// [`Full`] names the limit that is reached.
    pub fn admit(&self, entered: Entered, authenticated: Authenticated) -> Result<Admitted, Full> {
        let (tenant, key) = (authenticated.tenant(), authenticated.key());
        self.bars.pass(&tenant.id).map_err(Full::Barred)?;
        let limit = tenant.limits.max_client_connections;
        let count = count_of(&self.tenants, tenant.id.clone());
        let tenant_place = Place::take(&count, limit).ok_or(Full::Tenant(limit))?;
        let key_place = match key.max_client_connections {
            None => None,
            Some(limit) => {
                let count = count_of(&self.keys, (tenant.id.clone(), key.id.clone()));
                Some(Place::take(&count, limit).ok_or(Full::Key(limit))?)
            }
        };
        if let Some(limit) = key.rate_limit_per_hour {
            let counted = self.uses.count((&tenant.id, &key.id), limit);
            counted.map_err(Full::Hour)?;
        }
        if key.is_recorded {
            self.uses.note(&tenant.id, &key.id);
        }
        Ok(Admitted {
            authenticated,
            _places: (entered, tenant_place, key_place),
        })
    }
}

/// The count of a name. Names without clients are forgotten when the map has grown.
fn count_of<K: std::hash::Hash + Eq>(counts: &Mutex<Forgetful<K, Count>>, name: K) -> Count {
    let mut counts = counts.lock();
    if let Some(count) = counts.get(&name) {
        return Arc::clone(count);
    }
    counts.forget(|count| Arc::strong_count(count) == 1);
    Arc::clone(counts.entry(name).or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(max: u32, reserved: u32, operators: &[&str]) -> Quotas {
        Quotas {
            max_client_connections: max,
            reserved_client_connections: reserved,
            operator_addresses: operators.iter().map(|net| net.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn the_last_places_are_for_operators() {
        let peer = |ip: &str| Peer::Tcp(std::net::SocketAddr::new(ip.parse().unwrap(), 1));
        let admission = Admission::new(quotas(2, 1, &["192.0.2.0/24"]), Arc::default());
        let first = admission.enter(peer("10.0.0.1"));
        assert!(first.is_ok());
        assert_eq!(admission.enter(peer("10.0.0.1")).err(), Some(Full::Process));
        let operator = admission.enter(peer("192.0.2.7"));
        assert!(operator.is_ok());
        assert!(admission.enter(peer("192.0.2.7")).is_err());
        drop(first);
        assert_eq!(admission.count(), 1);
    }

    #[test]
    fn without_operators_nothing_is_reserved() {
        let admission = Admission::new(quotas(1, 5, &[]), Arc::default());
        assert!(admission.enter(Peer::Unix).is_ok());
    }
}
