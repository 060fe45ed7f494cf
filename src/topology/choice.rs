//! Which server gets the next read.

use super::node::Node;
use crate::tenant::{Address, Standbys};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Who takes a read.
#[derive(Debug, Clone)]
pub enum Pick {
    /// This replica.
    Replica(Arc<Node>),
    /// The weights gave this one to the primary.
    Primary,
    /// No replica is eligible.
    Nobody,
}

/// A turn of a server of weight 1 with its full share, in virtual time. A server of weight 1000 that
/// begins slowly still has a fraction of a thousandth.
const TURN: u64 = 1 << 36;
/// Nobody is further ahead than a few turns: who seems to be was away while the time ran around.
const AHEAD_MAX: u64 = 1 << 44;
/// A server is passed over that has so many times the reads of the least loaded one, and so many more.
const LOAD_RATIO: u64 = 2;
const LOAD_MORE: u64 = 4;
/// So often is tried to take a turn that others take at the same time.
const TRIES_MAX: u32 = 8;

/// Turns by weight: each server stands at a virtual time, and the one that stands earliest is next. Its
/// turn moves it on by the reciprocal of its weight. Who was away stands at the present when it comes
/// back, and does not catch up.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The present: where the last one stood that was chosen.
    now: AtomicU64,
    /// Where the primary stands.
    primary: AtomicU64,
}

/// Who competes for a turn.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) node: &'a Arc<Node>,
    pub(super) weight: u32,
}

/// What the choice of one read rests on.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) standbys: &'a Standbys,
    pub(super) among: Option<&'a [Address]>,
    /// Whether the primary competes, too.
    pub(super) has_primary: bool,
}

impl Rules<'_> {
    fn allows(&self, node: &Node) -> bool {
        let is_among = |among: &[Address]| among.contains(node.address());
        node.is_eligible() && self.among.is_none_or(is_among)
    }

    fn is_near(&self, node: &Node) -> bool {
        self.standbys.region.is_some() && node.region == self.standbys.region
    }
}

impl Turns {
    pub(super) fn pick<'a>(
        &self,
        rules: &Rules<'_>,
        servers: impl Iterator<Item = Candidate<'a>> + Clone,
    ) -> Pick {
        let allowed = servers.filter(|one| rules.allows(one.node));
        let has_near = allowed.clone().any(|one| rules.is_near(one.node));
        let competing = allowed.filter(|one| !has_near || rules.is_near(one.node));
        for _ in 0..TRIES_MAX {
            let present = self.now.load(Ordering::Relaxed);
            let ahead = |one: &Candidate<'_>| ahead(&one.node.turn, present);
            let Some(first) = competing.clone().min_by_key(ahead) else {
                return Pick::Nobody;
            };
            let weight = rules.standbys.primary_weight;
            let is_primarys = weight > 0
                && rules.has_primary
                && self::ahead(&self.primary, present) < ahead(&first);
            if is_primarys {
                if self.take(&self.primary, present, TURN / u64::from(weight)) {
                    return Pick::Primary;
                }
                continue;
            }
            let share = first.node.share(rules.standbys.slow_start);
            let turn = TURN / u64::from(first.weight.max(1)) * 1000 / share.max(1);
            if self.take(&first.node.turn, present, turn) {
                return Pick::Replica(Arc::clone(relief(first, competing)));
            }
        }
        // Everybody wants a turn at this instant: any will do.
        let least = competing.min_by_key(|one| one.node.outstanding());
        least.map_or(Pick::Nobody, |one| Pick::Replica(Arc::clone(one.node)))
    }

    /// Takes the turn of who stands there, unless another read has taken it.
    fn take(&self, place: &AtomicU64, present: u64, turn: u64) -> bool {
        let stands = place.load(Ordering::Relaxed);
        let at = present.wrapping_add(distance(stands, present));
        let next = at.wrapping_add(turn);
        let order = Ordering::Relaxed;
        let is_taken = place.compare_exchange(stands, next, order, order).is_ok();
        if is_taken {
            self.now.compare_exchange(present, at, order, order).ok();
        }
        is_taken
    }
}

/// How far ahead of the present one stands; who stands behind it stands at it.
fn ahead(place: &AtomicU64, present: u64) -> u64 {
    distance(place.load(Ordering::Relaxed), present)
}

fn distance(stands: u64, present: u64) -> u64 {
    let ahead = stands.wrapping_sub(present);
    if ahead > AHEAD_MAX { 0 } else { ahead }
}

/// Who takes the turn of the first: the least loaded one, when the first has clearly more to do. The
/// first's turn is over all the same, so that it does not catch up later.
fn relief<'a>(
    first: Candidate<'a>,
    competing: impl Iterator<Item = Candidate<'a>> + Clone,
) -> &'a Arc<Node> {
    let heaviest = competing.clone().map(|one| one.weight).max().unwrap_or(1);
    // As if all were of the heaviest's weight.
    let load = |one: &Candidate<'_>| {
        u64::from(one.node.outstanding()) * u64::from(heaviest) / u64::from(one.weight.max(1))
    };
    let Some(least) = competing.min_by_key(load) else {
        return first.node;
    };
    if load(&first) > LOAD_RATIO * load(&least) + LOAD_MORE {
        least.node
    } else {
        first.node
    }
}
