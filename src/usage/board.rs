//! Which tenants use most, told apart; the others together.
//!
//! Whoever sums what is told, or its growth, over all lines has everything once. A tenant's line begins at
//! zero when the tenant comes onto the board: what it used before stays in the line of the others. When it
//! leaves, its line ends, and what it uses from then on grows the others' line, without a jump: what its own
//! line has told stays out of there. So each line only ever grows while it is there.

use super::{Book, Meter, Reading, meter::Look};
use crate::tenant::TenantId;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

/// So long a tenant that is in use stays on the board, whoever uses more; and so long one that is not,
/// while nobody needs its place.
const STAY: Duration = Duration::from_hours(1);

/// What is told of a tenant, or of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Which; `None`: the others.
    pub tenant: Option<TenantId>,
    /// What was used since its line began.
    pub reading: Reading,
    /// Sessions that are open now.
    pub clients: u64,
}

/// What is told at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    /// Of all tenants, since the start of the process.
    pub all: Reading,
    /// Tenants in the order of their names, the others last.
    pub lines: Vec<Line>,
}

#[derive(Debug)]
struct Shown {
    /// Held, so that the book keeps it.
    _meter: Arc<Meter>,
    since: Instant,
    /// What was counted when the line began.
    base: Reading,
    /// What was told last.
    told: Reading,
    clients: u64,
    score: f64,
    idle: Duration,
}

impl Shown {
    fn new(meter: Arc<Meter>, now: Instant) -> Self {
        let look = meter.look(now);
        Self {
            _meter: meter,
            since: now,
            base: look.reading,
            told: Reading::default(),
            clients: look.clients,
            score: look.score,
            idle: look.idle,
        }
    }

    fn follow(&mut self, look: &Look) {
        self.told = look.reading.above(&self.base);
        (self.clients, self.score, self.idle) = (look.clients, look.score, look.idle);
    }

    fn may_be_displaced(&self, now: Instant) -> bool {
        !self.idle.is_zero() || now.saturating_duration_since(self.since) >= STAY
    }
}

/// Which tenants are told apart.
#[derive(Debug, Default)]
pub struct Board {
    shown: BTreeMap<TenantId, Shown>,
    /// What was told in lines that have ended.
    ended: Reading,
}

impl Board {
    /// Looks at all tenants: those `places` that use most servers' time of late have lines of their own.
    /// Takes a microsecond or less for each tenant; memory for each one that has a line.
    pub fn look(&mut self, book: &Book, places: usize, now: Instant) -> Lines {
        let (meters, forgotten) = book.all();
        let (mut all, mut clients) = (forgotten, 0);
        let mut before: BTreeMap<TenantId, Reading> = BTreeMap::new();
        let mut ranked = Vec::new();
        for (tenant, meter) in meters {
            let look = meter.look(now);
            all.add(&look.reading);
            clients += look.clients;
            if let Some(shown) = self.shown.get_mut(&tenant) {
                // A line that ends now ends with what it told before.
                before.insert(tenant.clone(), shown.told);
                shown.follow(&look);
            }
            if look.score > 0.0 && look.idle < STAY {
                ranked.push((look.score, tenant, meter));
            }
        }
        ranked.sort_unstable_by(|(a, tenant, _), (b, other, _)| {
            b.total_cmp(a).then_with(|| tenant.cmp(other))
        });
        ranked.truncate(places);
        for tenant in self.elect(&ranked, places, now) {
            if let Some(told) = before.get(&tenant) {
                self.ended.add(told);
            }
        }
        Lines {
            lines: self.lines(&all, clients),
            all,
        }
    }

    /// Gives the places to who is to have them. Who left.
    fn elect(
        &mut self,
        ranked: &[(f64, TenantId, Arc<Meter>)],
        places: usize,
        now: Instant,
    ) -> Vec<TenantId> {
        let wanted: HashSet<&TenantId> = ranked.iter().map(|(_, tenant, _)| tenant).collect();
        let mut by_score: Vec<(f64, TenantId)> = self
            .shown
            .iter()
            .map(|(tenant, shown)| (shown.score, tenant.clone()))
            .collect();
        by_score.sort_unstable_by(|(a, tenant), (b, other)| {
            a.total_cmp(b).then_with(|| other.cmp(tenant))
        });
        let surplus = by_score.len().saturating_sub(places);
        let mut left: Vec<TenantId> = Vec::new();
        let mut displaceable = Vec::new();
        for (at, (_, tenant)) in by_score.into_iter().enumerate() {
            let Some(shown) = self.shown.get(&tenant) else {
                continue;
            };
            if at < surplus || shown.idle >= STAY {
                self.shown.remove(&tenant);
                left.push(tenant);
            } else if !wanted.contains(&tenant) && shown.may_be_displaced(now) {
                displaceable.push(tenant);
            }
        }
        let mut displaceable = displaceable.into_iter();
        for (_, tenant, meter) in ranked {
            if self.shown.contains_key(tenant) {
                continue;
            }
            if self.shown.len() >= places {
                let Some(displaced) = displaceable.next() else {
                    break;
                };
                self.shown.remove(&displaced);
                left.push(displaced);
            }
            let shown = Shown::new(Arc::clone(meter), now);
            self.shown.insert(tenant.clone(), shown);
        }
        left
    }

    fn lines(&self, all: &Reading, clients: u64) -> Vec<Line> {
        let mut lines = Vec::with_capacity(self.shown.len() + 1);
        let (mut told, mut shown_clients) = (self.ended, 0);
        for (tenant, shown) in &self.shown {
            told.add(&shown.told);
            shown_clients += shown.clients;
            lines.push(Line {
                tenant: Some(tenant.clone()),
                reading: shown.told,
                clients: shown.clients,
            });
        }
        lines.push(Line {
            tenant: None,
            reading: all.above(&told),
            clients: clients.saturating_sub(shown_clients),
        });
        lines
    }
}

#[cfg(test)]
mod tests;
