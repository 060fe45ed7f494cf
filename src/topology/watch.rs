//! The tasks that ask the servers.

use super::{
    Lsn, Topology,
    known::Heard,
    node::Node,
    position::Asked,
    probe::{Fault, Prober, Sample},
};
use crate::tenant::Watch;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout_at},
};

/// The pause between two probes of a server that does not answer: it doubles, up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// While there is no primary, sessions wait for one.
const PAUSE_WITHOUT_PRIMARY: Duration = Duration::from_millis(500);
/// Whoever wakes a probe does not have it ask more often than this.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// A server that is ejected again so soon after it came back stays out for a pause that doubles.
const PROBATION: Duration = Duration::from_secs(10);

/// Between two samples: a tenant that writes all the time costs the primary a thousand of them a second
/// at most.
const SAMPLE_PAUSE: Duration = Duration::from_millis(1);
/// So many probes find the same WAL in memory before it is had written out.
const UNFLUSHED_PROBES: u32 = 2;

impl Topology {
    /// Asks all servers for ever, each from a task of its own. Without [`Cluster::watch`] it asks
    /// nobody, and waits.
    ///
    /// From here on until each server has answered once or failed to (at most `watch_timeout`),
    /// [`Topology::has_primary`] is false: the configured primary may be an old one.
    ///
    /// [`Cluster::watch`]: crate::tenant::Cluster::watch
    ///
    /// # Cancel safety
    /// Dropping it ends all tasks and their connections.
    pub async fn watch(self: Arc<Self>) {
        let Some(watch) = self.cluster.watch.clone().map(Arc::new) else {
            return std::future::pending().await;
        };
        self.begin();
        loop {
            let mut tasks = JoinSet::new();
            for at in 0..self.nodes.len() {
                tasks.spawn(Arc::clone(&self).probe(at, Arc::clone(&watch)));
            }
            tasks.spawn(Arc::clone(&self).sample(Arc::clone(&watch)));
            // They don't end, but for a fault of ours: then all begin again.
            let ended = tasks.join_next().await;
            tracing::error!(cluster = %self.cluster.name, ?ended, "a task of the watch ended");
            sleep(PAUSE_FIRST).await;
        }
    }

    /// Asks one server for ever.
    async fn probe(self: Arc<Self>, at: usize, watch: Arc<Watch>) {
        let Some(node) = self.nodes.get(at) else {
            return;
        };
        let mut prober = Prober::new(node.address(), &self.cluster, &watch);
        let mut patience = Patience::default();
        let mut unflushed = Unflushed::default();
        loop {
            let began = Instant::now();
            let asked = node.begin_probe();
            let answer = ask(&mut prober, node).await;
            let pause = match answer {
                Ok(answer) => {
                    let may_return = patience.answered(node.is_out.load(Ordering::SeqCst));
                    self.heard(&Heard {
                        at,
                        answer,
                        asked,
                        may_return,
                    });
                    if answer.standing.is_primary
                        && unflushed.is_stuck(answer.lsn, answer.flushed)
                        && let Err(fault) = prober.flush().await
                    {
                        tracing::debug!(cluster = %self.cluster.name, %fault, "not written out");
                    }
                    self.cluster.standbys.watch_interval
                }
                Err(fault) => {
                    self.missed(at, &fault);
                    let pause = patience.missed();
                    if self.has_primary() {
                        pause
                    } else {
                        pause.min(PAUSE_WITHOUT_PRIMARY)
                    }
                }
            };
            sleep_until(began + PAUSE_MIN).await;
            timeout_at(began + pause, node.wake.notified()).await.ok();
        }
    }

    /// Samples the primary's position for those who have written, as long as there are any.
    async fn sample(self: Arc<Self>, watch: Arc<Watch>) {
        loop {
            let (era, at) = {
                let _known = self.known.lock();
                (
                    self.positions.queue.era(),
                    self.primary.load(Ordering::SeqCst),
                )
            };
            let Some(node) = self.nodes.get(at) else {
                return;
            };
            let mut prober = Prober::new(node.address(), &self.cluster, &watch);
            self.sample_of(&mut prober, era).await;
        }
    }

    /// Until another server is the primary.
    async fn sample_of(&self, prober: &mut Prober<'_>, era: u64) {
        let queue = &self.positions.queue;
        let mut changes = self.changes();
        loop {
            tokio::select! {
                () = queue.asked() => {}
                _ = changes.changed() => {}
            }
            if queue.era() != era {
                return;
            }
            if !self.has_primary() {
                changes.changed().await.ok();
                continue;
            }
            let asked = queue.take();
            if asked.is_empty() {
                continue;
            }
            let sampled = sampled(prober).await;
            if self.give(asked, era, &sampled) {
                sleep(SAMPLE_PAUSE).await;
            } else {
                self.suspect_primary();
                sleep(PAUSE_MIN * 5).await;
            }
        }
    }

    /// Gives the sample to who asked, if it is the primary's.
    fn give(&self, asked: Asked, era: u64, sampled: &Result<Sample, Fault>) -> bool {
        let timeline = self.common.timeline();
        match sampled {
            Ok(sample) if sample.timeline == timeline && self.positions.queue.era() == era => {
                asked.answer(era, sample.lsn);
                true
            }
            other => {
                if let Err(fault) = other {
                    tracing::debug!(cluster = %self.cluster.name, %fault, "no sample");
                }
                false
            }
        }
    }
}

/// Asks, and once more on a new connection when the one that stood has broken: the server may have
/// ended just that one.
async fn ask(prober: &mut Prober<'_>, node: &Node) -> Result<super::probe::Answer, Fault> {
    let was_connected = prober.is_connected();
    match prober.ask().await {
        Err(Fault::Unreachable(_)) if was_connected => {
            // It may have restarted, and be less far.
            node.set_replayed(Lsn::default());
            prober.ask().await
        }
        other => other,
    }
}

async fn sampled(prober: &mut Prober<'_>) -> Result<Sample, Fault> {
    let was_connected = prober.is_connected();
    match prober.sample().await {
        Err(Fault::Unreachable(_)) if was_connected => prober.sample().await,
        other => other,
    }
}

/// WAL that a primary keeps in memory. A position in it is reached by no standby until it is written
/// out, which the next commit does; and while a transaction goes on that has written, there may be none.
#[derive(Debug, Default)]
struct Unflushed {
    waiting: Lsn,
    probes: u32,
}

impl Unflushed {
    /// Whether a position that an earlier probe saw has not been written out since: then somebody has to
    /// commit.
    fn is_stuck(&mut self, inserted: Lsn, flushed: Lsn) -> bool {
        if flushed >= self.waiting {
            self.waiting = inserted;
            self.probes = 0;
            return false;
        }
        self.probes += 1;
        self.probes >= UNFLUSHED_PROBES
    }
}

/// How long is waited for a server.
#[derive(Debug, Default)]
struct Patience {
    misses: u32,
    /// Since when it answers though it is kept out, and for how long it stays out.
    out: Option<(Instant, Duration)>,
    /// How often it was ejected soon after it came back.
    strikes: u32,
    back_at: Option<Instant>,
}

impl Patience {
    /// It does not answer: the pause until it is asked again.
    fn missed(&mut self) -> Duration {
        let pause = doubled(self.misses);
        self.misses = self.misses.saturating_add(1);
        pause.mul_f64(rand::random_range(0.8..1.2)).min(PAUSE_MAX)
    }

    /// It answers: whether it may take reads again.
    fn answered(&mut self, is_out: bool) -> bool {
        self.misses = 0;
        if !is_out {
            self.out = None;
            return true;
        }
        let now = Instant::now();
        let (since, pause) = *self.out.get_or_insert_with(|| {
            let is_soon = self.back_at.is_some_and(|back| now < back + PROBATION);
            self.strikes = if is_soon { self.strikes + 1 } else { 0 };
            let pause = self.strikes.checked_sub(1).map_or(Duration::ZERO, doubled);
            (now, pause)
        });
        let may_return = now >= since + pause;
        if may_return {
            self.out = None;
            self.back_at = Some(now);
        }
        may_return
    }
}

fn doubled(times: u32) -> Duration {
    PAUSE_FIRST
        .saturating_mul(1 << times.min(10))
        .min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_writes_out_is_stuck() {
        let mut unflushed = Unflushed::default();
        assert!(!unflushed.is_stuck(Lsn(10), Lsn(8)));
        assert!(!unflushed.is_stuck(Lsn(10), Lsn(8)));
        assert!(unflushed.is_stuck(Lsn(10), Lsn(8)));
        assert!(!unflushed.is_stuck(Lsn(12), Lsn(12)));
        // Where others commit, what is in memory is always another.
        for at in 13..20 {
            assert!(!unflushed.is_stuck(Lsn(at), Lsn(at - 1)));
        }
    }
}
