//! Whose statements have their places for long, or have more of them than their share: others don't wait
//! for those.
//!
//! - A tenant that has less than its share (by weight, of those that run or wait; at least one) does not
//!   wait while another has more: a statement of the one that has most beyond its share is *excused*. It
//!   runs on, beyond the limit, and counts for its own tenant alone, which gets no place for it before it
//!   has ended. No more are excused by this than may run, so there are at most twice as many.
//! - After [`OVERSTAY`] a statement is taken to wait for something (a lock, a clock): it is excused for any
//!   tenant that has less than its share.
//! - Of such statements of a tenant whose own clients wait, one a second counts no more at all: what they
//!   wait for may be among those clients.
//! - A statement that waits for its client, for data to copy or to be rid of rows, counts no more until
//!   that comes back.

use super::{
    Ledger, Running,
    runner::{Kind, Runner},
    waiting::Waiter,
};
use std::{
    collections::HashMap,
    sync::{Arc, Weak, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

/// A statement that runs for longer is taken to wait for something.
pub(super) const OVERSTAY: Duration = Duration::from_secs(1);

/// How often it is looked while somebody waits; less often where that takes long.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A look takes at most this part of the time.
const LOOK_PART: u32 = 20;

/// A statement that runs and counts for its tenant.
struct Present {
    runner: Arc<Runner>,
    tenant: u64,
    entry: u64,
    kind: Kind,
    age: Duration,
}

/// A tenant that runs something or waits.
#[derive(Default)]
struct Tally {
    weight: u32,
    runs: u32,
    /// Of these, those that count for others, too.
    counted: u32,
}

/// Who is there.
struct Scene {
    present: Vec<Present>,
    tallies: HashMap<u64, Tally>,
    weights: u64,
    max: u32,
    excused: u32,
}

impl Scene {
    /// What a tenant may have of the places.
    fn share(&self, id: u64) -> u32 {
        let weight = self.tallies.get(&id).map_or(1, |it| u64::from(it.weight));
        let share = u64::from(self.max) * weight / self.weights.max(1);
        u32::try_from(share).unwrap_or(self.max).max(1)
    }

    fn runs(&self, id: u64) -> u32 {
        self.tallies.get(&id).map_or(0, |it| it.runs)
    }

    /// The statement that is excused for a tenant, if there is one.
    fn victim(&self, id: u64) -> Option<usize> {
        let present = self.present.iter().enumerate();
        let is_full = self.excused >= self.max;
        let may = present.filter_map(|(at, it)| {
            let counted = self.tallies.get(&it.tenant).map_or(0, |it| it.counted);
            let beyond = match counted.saturating_sub(self.share(it.tenant)) {
                _ if is_full => 0,
                beyond => beyond,
            };
            let is_one = it.kind == Kind::Counted && it.tenant != id;
            let may = is_one && (beyond > 0 || it.age >= OVERSTAY);
            may.then_some(((beyond, it.age), at))
        });
        may.max().map(|(_, at)| at)
    }

    /// The oldest statement of a tenant, if it is taken to wait for something.
    fn overstaying(&self, id: u64) -> Option<&Present> {
        let own = self.present.iter().filter(|it| it.tenant == id);
        let oldest = own.max_by_key(|it| it.age);
        oldest.filter(|it| it.age >= OVERSTAY)
    }
}

/// Notes that nobody looks any more.
struct Watching(Weak<Running>);

impl Watching {
    /// Everybody knows it already.
    fn is_told(&mut self) {
        self.0 = Weak::new();
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(running) = self.0.upgrade() {
            running.ledger.lock().is_watched = false;
        }
    }
}

impl Running {
    /// Has who overstays looked after as long as somebody waits.
    pub(super) fn look_after(self: &Arc<Self>) {
        let running = Arc::downgrade(self);
        let mut watching = Watching(Weak::clone(&running));
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            let mut pause = LOOK_INTERVAL;
            loop {
                tokio::time::sleep(pause).await;
                let Some(running) = running.upgrade() else {
                    return;
                };
                let began = Instant::now();
                if !running.look(began) {
                    watching.is_told();
                    return;
                }
                pause = LOOK_INTERVAL.max(began.elapsed() * LOOK_PART);
            }
        });
    }

    /// Looks at what runs; whether somebody waits still.
    pub(super) fn look(&self, now: Instant) -> bool {
        let mut ledger = self.ledger.lock();
        if ledger.turns.waiting() > 0 {
            let mut scene = self.scene(&mut ledger, now);
            let waiting: Vec<_> = ledger.turns.waiting_ids().collect();
            for id in waiting {
                while self.has_placed(&mut ledger, &mut scene, id) {}
                if ledger.turns.is_waiting(id) {
                    self.forgive_one(&mut ledger, &scene, (id, now));
                }
            }
            self.settle_by(&mut ledger);
        }
        ledger.is_watched = ledger.turns.waiting() > 0;
        ledger.is_watched
    }

    /// Lets the first that waits of a tenant in, if that has less than its share.
    pub(super) fn place_first(&self, ledger: &mut Ledger, id: u64) {
        let mut scene = self.scene(ledger, Instant::now());
        self.has_placed(ledger, &mut scene, id);
    }

    fn has_placed(&self, ledger: &mut Ledger, scene: &mut Scene, id: u64) -> bool {
        if !ledger.turns.is_waiting(id) || scene.runs(id) >= scene.share(id) {
            return false;
        }
        let Some(at) = scene.victim(id) else {
            return false;
        };
        let Some(victim) = scene.present.get_mut(at) else {
            return false;
        };
        let is_excused = victim
            .runner
            .recount(victim.entry, Kind::Counted, Kind::Excused);
        victim.kind = Kind::Excused;
        let tenant = victim.tenant;
        if let Some(tally) = scene.tallies.get_mut(&tenant) {
            tally.counted -= 1;
        }
        if is_excused {
            count("excused");
            ledger.excuse(tenant);
            scene.excused += 1;
            self.used.fetch_sub(1, SeqCst);
            self.grant_next(ledger, id);
            if let Some(tally) = scene.tallies.get_mut(&id) {
                tally.runs += 1;
                tally.counted += 1;
            }
        }
        // Else it has ended meanwhile: who is next gets its place.
        true
    }

    /// Once a second, what overstays of a tenant whose own clients wait counts no more.
    fn forgive_one(&self, ledger: &mut Ledger, scene: &Scene, (id, now): (u64, Instant)) {
        let last = ledger.forgiven.get(&id);
        if last.is_some_and(|last| now.saturating_duration_since(*last) < OVERSTAY) {
            return;
        }
        if let Some(oldest) = scene.overstaying(id)
            && self.forgive(ledger, oldest)
        {
            count("forgiven");
            ledger.forgiven.insert(id, now);
        }
    }

    fn forgive(&self, ledger: &mut Ledger, present: &Present) -> bool {
        let (entry, kind) = (present.entry, present.kind);
        let is_forgiven = present.runner.recount(entry, kind, Kind::Forgiven);
        match kind {
            Kind::Counted if is_forgiven => drop(self.used.fetch_sub(1, SeqCst)),
            Kind::Excused if is_forgiven => ledger.take_back(present.tenant),
            _ => {}
        }
        is_forgiven
    }

    /// What runs now. What waits for its client is counted no more.
    fn scene(&self, ledger: &mut Ledger, now: Instant) -> Scene {
        let mut scene = Scene {
            present: Vec::new(),
            tallies: HashMap::new(),
            weights: 0,
            max: self.max(),
            excused: 0,
        };
        let runners: Vec<_> = self
            .runners
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for runner in runners {
            let (entry, kind) = runner.state();
            if matches!(kind, Kind::Out | Kind::Forgiven) {
                continue;
            }
            let (age, is_idle) = runner.aged(entry, now);
            let party = runner.account().party();
            let present = Present {
                runner,
                tenant: party.id,
                entry,
                kind,
                age,
            };
            if is_idle && self.forgive(ledger, &present) {
                continue;
            }
            let tally = scene.tallies.entry(party.id).or_default();
            tally.weight = party.weight;
            tally.runs += 1;
            tally.counted += u32::from(kind == Kind::Counted);
            scene.excused += u32::from(kind == Kind::Excused);
            scene.present.push(present);
        }
        for id in ledger.turns.waiting_ids() {
            let party = ledger.turns.first_of(id).map(Waiter::party);
            let tally = scene.tallies.entry(id).or_default();
            tally.weight = party.map_or(1, |party| party.weight);
        }
        let weights = scene.tallies.values().map(|it| u64::from(it.weight));
        scene.weights = weights.sum();
        scene
    }
}

fn count(result: &'static str) {
    metrics::counter!("pgusher_limited_total", "limit" => "max_running_statements", "result" => result)
        .increment(1);
}

impl Runner {
    /// How long an entry has been there, as far as was seen, and whether it waits for its client.
    fn aged(&self, entry: u64, now: Instant) -> (Duration, bool) {
        let mut seen = self.seen.lock();
        if seen.entry != entry {
            seen.entry = entry;
            seen.since = now;
            seen.idle = None;
        }
        let wait = self.client_wait();
        let known = seen.idle.filter(|(known, _)| Some(*known) == wait);
        seen.idle = wait.map(|wait| known.unwrap_or((wait, now)));
        let passed = |since: Instant| now.saturating_duration_since(since);
        let is_idle = seen
            .idle
            .is_some_and(|(_, since)| passed(since) >= LOOK_INTERVAL);
        (passed(seen.since), is_idle)
    }
}
