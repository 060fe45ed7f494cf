//! Has the limit of a server found: does what [`Search`] says, and shows it what is done meanwhile.
//!
//! Nothing is noted on the way of a statement for it: how many have begun is read off what server
//! connections count anyway, some times in a window.

use super::{
    Running,
    runner::Kind,
    search::{Bounds, Part, Search, Seen, Step},
};
use crate::tenant::RunningLimit;
use std::{
    collections::HashMap,
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

/// How often it is looked in a window.
const LOOKS: u32 = 8;

/// Between two looks it takes at least so long, and so many times as long as a look.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(5);
const LOOK_PART: u32 = 20;

/// So long it is looked at nothing while nothing runs.
const SLEEP: Duration = Duration::from_secs(1);

/// What is known of it.
#[derive(Debug)]
pub(super) struct Finding {
    aim: RunningLimit,
    /// Somebody looks for it.
    is_sought: bool,
}

impl Default for Finding {
    fn default() -> Self {
        Self {
            aim: RunningLimit::Fixed(0),
            is_sought: false,
        }
    }
}

impl Finding {
    fn bounds(&self) -> Option<Bounds> {
        match self.aim {
            RunningLimit::Fixed(_) => None,
            RunningLimit::Found { floor, ceiling } => Some(Bounds { floor, ceiling }),
        }
    }
}

/// Nobody looks any more when this is dropped.
struct Seeking(Weak<Running>);

impl Seeking {
    /// Everybody knows it already.
    fn is_told(&mut self) {
        self.0 = Weak::new();
    }
}

impl Drop for Seeking {
    fn drop(&mut self) {
        if let Some(running) = self.0.upgrade() {
            running.finding.lock().is_sought = false;
        }
    }
}

impl Running {
    /// Changes where the limit comes from. Who waits goes on at once where there is room now, and who runs
    /// goes on.
    pub(crate) fn follow(self: &Arc<Self>, aim: RunningLimit) {
        let mut finding = self.finding.lock();
        let has_changed = finding.aim != aim;
        finding.aim = aim;
        if let RunningLimit::Fixed(limit) = aim {
            self.set_limit(limit);
        } else if has_changed && !finding.is_sought {
            let bounds = finding.bounds();
            self.set_limit(bounds.map_or(0, |bounds| Search::new(bounds).limit()));
        }
        let bounds = finding.bounds().filter(|_| !finding.is_sought);
        let runtime = tokio::runtime::Handle::try_current();
        if let (Some(bounds), Ok(runtime)) = (bounds, runtime) {
            finding.is_sought = true;
            // A runtime that ends drops the task here.
            drop(finding);
            runtime.spawn(seek(Seeking(Arc::downgrade(self)), bounds));
        }
    }

    /// Whether the limit is found.
    pub(super) fn is_found(&self) -> bool {
        self.finding.lock().bounds().is_some()
    }

    /// Lets so many run as is tried, unless the limit is given meanwhile: then nobody looks any more.
    fn tries(self: &Arc<Self>, search: &mut Search) -> Option<Step> {
        let mut finding = self.finding.lock();
        let Some(bounds) = finding.bounds() else {
            finding.is_sought = false;
            return None;
        };
        search.set_bounds(bounds);
        let step = search.step();
        self.set_limit(step.limit);
        Some(step)
    }
}

/// Looks for the limit until it is given, or nobody uses the server any more.
///
/// # Cancel safety
/// Cancel safe: the limit that was tried last stays.
async fn seek(mut seeking: Seeking, bounds: Bounds) {
    let mut search = Search::new(bounds);
    let mut is_empty = false;
    loop {
        let Some(running) = seeking.0.upgrade() else {
            return;
        };
        let Some(step) = running.tries(&mut search) else {
            seeking.is_told();
            return;
        };
        // A moment in which nothing runs says little.
        let is_idle = is_empty && search.is_resting() && running.used() == 0;
        drop(running);
        if is_idle {
            tokio::time::sleep(SLEEP).await;
            search.learn(&Seen {
                length: SLEEP,
                ..Seen::default()
            });
            continue;
        }
        tokio::time::sleep(step.settle).await;
        let Some(seen) = watch(&seeking.0, step.window).await else {
            return;
        };
        is_empty = seen.is_empty();
        if let Some(outcome) = search.learn(&seen) {
            let limit = search.limit();
            tracing::debug!(limit, ?outcome, "running statements compared");
        }
    }
}

/// What is done in a window. `None`: the server is used no more.
///
/// # Cancel safety
/// Cancel safe: nothing was changed.
async fn watch(running: &Weak<Running>, window: Duration) -> Option<Seen> {
    let began = Instant::now();
    let mut watched = Watched::default();
    watched.look(&*running.upgrade()?);
    watched.forget();
    let pause = (window / LOOKS).max(LOOK_INTERVAL_MIN);
    let mut took = Duration::ZERO;
    while began.elapsed() < window {
        tokio::time::sleep(pause.max(took * LOOK_PART)).await;
        let at = Instant::now();
        watched.look(&*running.upgrade()?);
        took = at.elapsed();
    }
    Some(watched.seen(began.elapsed()))
}

/// What was counted in a window.
#[derive(Debug, Default)]
struct Watched {
    looks: u32,
    /// In so many of them somebody waited: for a place, and for anything.
    waits: u32,
    crowds: u32,
    /// What had begun on each server connection, as it was seen last.
    begun: HashMap<usize, u64>,
    tallies: HashMap<u64, Tally>,
}

/// What was counted of a tenant.
#[derive(Debug, Default)]
struct Tally {
    starts: u64,
    /// Sums over all looks.
    busy: u32,
    /// One of its clients waited.
    waits: bool,
}

impl Watched {
    fn look(&mut self, running: &Running) {
        self.looks += 1;
        for runner in running.runners() {
            let (_, kind) = runner.state();
            let begun = runner.begun();
            let at = Arc::as_ptr(&runner) as usize;
            let before = self.begun.insert(at, begun).unwrap_or_default();
            let tally = self.tallies.entry(runner.account().party().id).or_default();
            // Where another connection was, it begins anew.
            tally.starts += begun.checked_sub(before).unwrap_or(begun);
            tally.busy += u32::from(kind != Kind::Out);
        }
        let waiting = running.waiting();
        let is_crowded = !waiting.is_empty() || running.awaited.load(Relaxed) > 0;
        self.waits += u32::from(!waiting.is_empty());
        self.crowds += u32::from(is_crowded);
        for id in waiting {
            self.tallies.entry(id).or_default().waits = true;
        }
    }

    /// What was before the window.
    fn forget(&mut self) {
        (self.looks, self.waits, self.crowds) = (0, 0, 0);
        self.tallies.clear();
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn seen(self, length: Duration) -> Seen {
        let looks = self.looks.max(1);
        let part = |tally: &Tally| Part {
            starts: tally.starts as f64,
            busy: f64::from(tally.busy) / f64::from(looks),
            waits: tally.waits,
        };
        let parts = self.tallies.iter().map(|(id, tally)| (*id, part(tally)));
        Seen {
            length,
            waits: 2 * self.waits > looks,
            is_crowded: 2 * self.crowds > looks,
            parts: parts.collect(),
        }
    }
}

impl Running {
    /// Its server connections.
    fn runners(&self) -> Vec<Arc<super::Runner>> {
        let runners = self.runners.lock();
        runners.iter().filter_map(Weak::upgrade).collect()
    }

    /// The tenants that wait.
    fn waiting(&self) -> Vec<u64> {
        self.ledger.lock().turns.waiting_ids().collect()
    }
}
