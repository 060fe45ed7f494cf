//! What the servers said, and what follows from it.

use super::{
    Lsn, Topology,
    figures::FOREIGN,
    lag::Samples,
    node::{Asked, Node},
    probe::{Answer, Fault},
    roles::{Standing, is_of, primary_of, system_of},
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// What is known of the servers. Only probes change it.
#[derive(Debug)]
pub(super) struct Known {
    servers: Vec<Server>,
    samples: Samples,
    /// The identifier of the cluster.
    system: Option<i64>,
    /// Every server has answered once or failed to: before, an old primary could be the first to
    /// answer.
    is_settled: bool,
    /// It was said once who the primary is.
    is_decided: bool,
}

#[derive(Debug, Clone, Default)]
struct Server {
    /// `None`: it does not answer.
    standing: Option<Standing>,
    /// What it said last.
    timeline: u32,
    lsn: Lsn,
    /// It works, and does not say what it is.
    is_refusing: bool,
    is_heard: bool,
    /// What was told to the log last, so that it is told once.
    told: Option<&'static str>,
}

impl Known {
    pub(super) fn of(count: usize) -> Self {
        Self {
            servers: vec![Server::default(); count],
            samples: Samples::default(),
            system: None,
            is_settled: false,
            is_decided: false,
        }
    }

    /// Whether every server has answered once, or failed to.
    pub(super) fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// The servers of this cluster that answer.
    fn standings(&self) -> impl Iterator<Item = (usize, Standing)> {
        let servers = self.servers.iter().enumerate();
        let answering = servers.filter_map(|(at, server)| Some((at, server.standing?)));
        answering.filter(|(_, standing)| is_of(standing, self.system))
    }

    fn settle(&mut self) {
        self.is_settled |= self.servers.iter().all(|server| server.is_heard);
        if self.is_settled && self.system.is_none() {
            let standings: Vec<_> = self.servers.iter().map(|server| server.standing).collect();
            self.system = system_of(&standings);
        }
    }
}

/// What a probe found, and when it was sent.
pub(super) struct Heard {
    pub(super) at: usize,
    pub(super) answer: Answer,
    pub(super) asked: Asked,
    /// Whether it may take reads again, if it was kept out.
    pub(super) may_return: bool,
}

impl Topology {
    /// Nobody is trusted until all were asked: called before anybody uses what will be watched, as the
    /// configured primary may be an old one.
    pub fn begin(&self) {
        let mut known = self.known.lock();
        *known = Known::of(self.nodes.len());
        self.publish(&mut known, None);
    }

    /// A server answered.
    pub(super) fn heard(&self, heard: &Heard) {
        let Some(node) = self.nodes.get(heard.at) else {
            return;
        };
        let now = Instant::now();
        let standing = heard.answer.standing;
        let mut known = self.known.lock();
        let Some(server) = known.servers.get_mut(heard.at) else {
            return;
        };
        server.standing = Some(standing);
        server.timeline = standing.timeline;
        server.lsn = heard.answer.lsn;
        server.is_refusing = false;
        server.is_heard = true;
        self.decide(&mut known);
        let is_ours = known.is_settled && is_of(&standing, known.system);
        let is_primary = heard.at == self.primary.load(Ordering::SeqCst);
        let told = if !is_ours {
            node.is_standby.store(false, Ordering::SeqCst);
            if known.is_settled {
                node.eject(FOREIGN);
            }
            None
        } else if standing.is_primary {
            node.is_standby.store(false, Ordering::SeqCst);
            node.set_replayed(Lsn::default());
            if is_primary && self.has_primary() {
                known.samples.add(now, heard.answer.lsn);
                self.floor.store(heard.answer.lsn.0, Ordering::SeqCst);
            }
            (!is_primary).then_some("it is a primary that was left behind, and is not used")
        } else {
            let lag = known.samples.lag(now, heard.answer.lsn);
            self.standby(node, heard, lag);
            let is_on = node.timeline.load(Ordering::SeqCst) == self.common.timeline();
            (!is_on).then_some("it is not known to be on the primary's timeline, and gets no reads")
        };
        self.tell(&mut known, heard.at, told);
    }

    /// Whoever reads [`Node::is_eligible`] sees where it stands before it sees that it is in.
    fn standby(&self, node: &Arc<Node>, heard: &Heard, lag: Duration) {
        let Answer { standing, lsn, .. } = heard.answer;
        let rules = &self.cluster.standbys;
        let bytes = self.floor().0.saturating_sub(lsn.0);
        node.figures.lags(bytes, lag);
        let is_behind = rules.lag_bytes_max.is_some_and(|max| bytes > max)
            || rules.lag_max.is_some_and(|max| lag > max);
        // On another timeline it is nowhere.
        let is_on = standing.timeline == self.common.timeline();
        if !is_on || node.timeline.load(Ordering::SeqCst) != standing.timeline {
            node.set_replayed(Lsn::default());
        }
        node.timeline.store(standing.timeline, Ordering::SeqCst);
        if is_on {
            node.set_replayed(lsn);
        }
        if node.is_behind.swap(is_behind, Ordering::SeqCst) != is_behind {
            let (cluster, server) = (node.figures.cluster(), node.address());
            tracing::info!(cluster, %server, is_behind, bytes, "the lag passed its limit");
        }
        let was_standby = node.is_standby.swap(true, Ordering::SeqCst);
        if heard.may_return {
            node.let_in();
        }
        if !was_standby {
            self.common.changed();
        }
        node.end_probe(heard.asked);
    }

    /// A server did not say what it is.
    pub(super) fn missed(&self, at: usize, fault: &Fault) {
        let Some(node) = self.nodes.get(at) else {
            return;
        };
        let mut known = self.known.lock();
        let Some(server) = known.servers.get_mut(at) else {
            return;
        };
        server.standing = None;
        server.is_refusing = matches!(fault, Fault::Refused { .. });
        server.is_heard = true;
        if server.told.replace(fault.reason()) != Some(fault.reason()) {
            let (cluster, server) = (node.figures.cluster(), node.address());
            tracing::warn!(cluster, %server, %fault, "it does not say what it is");
        }
        node.set_replayed(Lsn::default());
        self.decide(&mut known);
        if at != self.primary.load(Ordering::SeqCst) {
            node.eject(fault.reason());
        }
        node.is_standby.store(false, Ordering::SeqCst);
    }

    /// Says it once.
    fn tell(&self, known: &mut Known, at: usize, told: Option<&'static str>) {
        let (Some(server), Some(node)) = (known.servers.get_mut(at), self.nodes.get(at)) else {
            return;
        };
        if server.told == told {
            return;
        }
        server.told = told;
        if let Some(told) = told {
            let (cluster, server) = (node.figures.cluster(), node.address());
            tracing::warn!(cluster, %server, "{told}");
        }
    }

    /// Finds out who the primary is.
    fn decide(&self, known: &mut Known) {
        known.settle();
        if !known.is_settled {
            return;
        }
        let seen = known.standings().map(|(_, standing)| standing.timeline);
        let highest = seen.fold(self.common.timeline(), u32::max);
        let before = self.common.timeline.swap(highest, Ordering::SeqCst);
        if before != highest {
            known.samples.clear();
            // What was sampled before, and replayed by others, may lie beyond the fork.
            self.positions.queue.begin_era();
            for node in &self.nodes {
                if node.timeline.load(Ordering::SeqCst) != highest {
                    node.set_replayed(Lsn::default());
                }
            }
        }
        let present = self.primary.load(Ordering::SeqCst);
        let chosen = primary_of(known.standings(), highest, present);
        // One that works and does not say what it is: full, or nobody may watch it. It is what it was.
        let refuses = |at: &usize| {
            let server = known.servers.get(*at);
            let is_left = |it: &Server| it.timeline != 0 && it.timeline < highest;
            server.is_some_and(|it| it.is_refusing && !is_left(it))
        };
        let chosen = chosen.or_else(|| Some(present).filter(refuses));
        self.publish(known, chosen);
        known.is_decided = true;
    }

    /// Tells the data plane who the primary is. First that what was known of the history counts no
    /// more, then where to write: a write there asks for a sample there.
    fn publish(&self, known: &mut Known, chosen: Option<usize>) {
        let present = self.primary.load(Ordering::SeqCst);
        let had_primary = self.has_primary();
        let is_moved = chosen.is_some_and(|at| at != present);
        if let Some(at) = chosen.filter(|at| *at != present) {
            self.positions.queue.begin_era();
            known.samples.clear();
            // Should it come back as a standby, it begins slowly.
            self.primary().is_out.store(true, Ordering::SeqCst);
            if let Some(node) = self.nodes.get(at) {
                node.is_standby.store(false, Ordering::SeqCst);
                node.is_out.store(false, Ordering::SeqCst);
                node.set_replayed(Lsn::default());
            }
            self.primary.store(at, Ordering::SeqCst);
            self.failovers.increment(u64::from(known.is_decided));
        }
        // Lags are told from what it said last, until it says more.
        let server = chosen.and_then(|at| known.servers.get(at));
        if let Some(lsn) = server.filter(|_| !had_primary || is_moved).map(|it| it.lsn) {
            self.floor.store(lsn.0, Ordering::SeqCst);
        }
        self.has_primary.store(chosen.is_some(), Ordering::SeqCst);
        if !is_moved && chosen.is_some() == had_primary {
            return;
        }
        let (cluster, server) = (&self.cluster.name, self.primary().address());
        let timeline = self.common.timeline();
        match chosen {
            Some(_) if is_moved && known.is_decided => {
                tracing::warn!(%cluster, %server, timeline, "promoted");
            }
            Some(_) if is_moved => {
                tracing::warn!(%cluster, %server, timeline, "it is the primary, not the configured one");
            }
            Some(_) => tracing::info!(%cluster, %server, timeline, "the primary answers"),
            None if known.is_settled => tracing::warn!(%cluster, %server, "the primary is lost"),
            None => {}
        }
        self.common.changed();
    }
}
