//! Finds how many statements should run on a server: the fewest with which those that wait get as much
//! done as with more.
//!
//! Nothing is known of the server's cores or disks, nor of what a statement costs when it is alone. So two
//! limits are compared by what is done under each, in short windows that take turns: *pairs* of a lower
//! and a higher limit, in the order A B B A, so that what changes slowly changes both alike. What is done
//! is counted in work: the statements that began, each worth what its tenant's take on average, of those
//! tenants only whose clients waited. If the higher one gets more done, it is worth
//! it: the statements wait for something that is not the server's processors (a lock, a clock, a disk), or
//! there are processors left. If not, the lower one keeps the queue here, where it is fair.
//!
//! What was found is let run and a quarter more, rounded up: to hand a place on takes a moment, in which a core would have
//! nothing to do. Whoever tries less compares it with that, so many small steps don't add up to a big one.
//!
//! Only what gets slower when more run is held back. It begins without holding anything back, halves, and
//! goes to a higher limit that is worth it by doubling. When both directions bring nothing it rests, longer each
//! time, and looks again at once when the work changes. While nobody waits, for a place or for a server, there
//! is no flood: nothing is tried, and soon there is no limit any more. Statements of which too few end to be
//! counted are not held back at all, nor are those that are over in a moment.
//!
//! This is arithmetic: it knows no clock, no sockets and no tasks. See `finding` for those.

mod evidence;
#[cfg(test)]
mod simulated;

use self::evidence::Evidence;
pub(super) use self::evidence::Verdict;
use std::{collections::HashMap, time::Duration};

/// Few, as statements go.
const FEW: u32 = 8;

/// A window while nothing is tried.
const REST_WINDOW: Duration = Duration::from_millis(250);

/// A window of a trial takes at least and at most so long.
const WINDOW_MIN: Duration = Duration::from_millis(100);
const WINDOW_MAX: Duration = Duration::from_secs(2);

/// A window takes so many times as long as a statement.
const STATEMENTS_PER_WINDOW: f64 = 4.0;

/// In a window, so many statements are to begin.
const STARTS_PER_WINDOW: f64 = 40.0;

/// When nobody has waited for so long, what was found holds no more.
const LOOSE: Duration = Duration::from_secs(10);

/// Seconds. What would take longer among a few is not held back, and not tried with less.
const LONG: f64 = 2.0;

/// Seconds. What would take less among a few is not held back either, if all of it computed: a queue of such
/// statements keeps nobody waiting for long, wherever it is, and to queue here costs as much as they do. The cores
/// are not known, so this is only how many get done: 3,200 in a second.
const SHORT: f64 = 0.0025;

/// Seconds. But what takes so long now does queue.
const SLOW: f64 = 0.02;

/// What ran before a window is to be over.
const SETTLE_MIN: Duration = Duration::from_millis(5);
const SETTLE_MAX: Duration = Duration::from_millis(1500);

/// Between two trials in the same direction that bring nothing; so many times as long as the last took.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(5);
const PAUSE_TIMES: u32 = 20;

/// How often it looks for a moment whether much more could be done.
const GLANCE_INTERVAL: Duration = Duration::from_secs(20);

/// Pairs of a look that is sure of itself.
const PAIRS_CAREFUL: u32 = 8;

/// The work has changed when so many times as much is begun, or less.
const CHANGE: f64 = 1.4;

/// And that is no chance when it is so many times the root of what is counted.
const CHANCE: f64 = 3.0;

/// Where the limit may be; both are at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) floor: u32,
    pub(super) ceiling: u32,
}

impl Bounds {
    fn hold(self, limit: u32) -> u32 {
        limit.min(self.ceiling).max(self.floor).max(1)
    }

    /// So many and a quarter more, rounded up.
    fn roomy(self, limit: u32) -> u32 {
        self.hold(limit.saturating_add(limit.div_ceil(4)))
    }
}

/// What a tenant did in a window.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Part {
    /// Statements that began.
    pub(super) starts: f64,
    /// How many ran, on average.
    pub(super) busy: f64,
    /// Whether one of its clients waited for a place.
    pub(super) waits: bool,
}

impl Part {
    /// Both together.
    fn with(self, other: &Self) -> Self {
        Self {
            starts: self.starts + other.starts,
            busy: self.busy + other.busy,
            waits: self.waits || other.waits,
        }
    }
}

/// What was seen in a window.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) length: Duration,
    /// Whether somebody waited for a place, most of the time.
    pub(super) waits: bool,
    /// Whether somebody waited for a place or for a server, most of the time.
    pub(super) is_crowded: bool,
    /// By tenant.
    pub(super) parts: HashMap<u64, Part>,
}

impl Seen {
    fn starts(&self) -> f64 {
        self.parts.values().map(|part| part.starts).sum()
    }

    fn busy(&self) -> f64 {
        self.parts.values().map(|part| part.busy).sum()
    }

    /// What a statement takes of the tenant with the slowest, in seconds: of those that wait, if any do. Tenants
    /// of which little was seen are taken together. `None`: none began.
    fn slowest(&self) -> Option<f64> {
        let length = self.length.as_secs_f64();
        let takes = |part: &Part| part.busy * length / part.starts;
        let is_looked_at = |part: &&Part| part.waits || !self.waits;
        let (many, few): (Vec<_>, Vec<_>) = self
            .parts
            .values()
            .filter(is_looked_at)
            .copied()
            .partition(|part| part.starts >= evidence::STARTS_MIN);
        let rest = few.iter().fold(Part::default(), Part::with);
        let rest = (rest.starts >= 1.0).then_some(rest);
        many.iter().chain(&rest).map(takes).reduce(f64::max)
    }

    /// Whether nothing began, nor ran.
    pub(super) fn is_empty(&self) -> bool {
        self.starts() == 0.0 && self.busy() == 0.0
    }

    /// Statements that began in a second.
    fn rate(&self) -> f64 {
        self.starts() / self.length.as_secs_f64().max(1e-6)
    }
}

/// What to do next: let so many run, wait until what ran before is over, and look for so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) limit: u32,
    pub(super) settle: Duration,
    pub(super) window: Duration,
}

/// Which way a trial looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Down,
    Up,
    /// Up, for a moment.
    Glance,
}

/// When to look in one direction again.
#[derive(Debug, Clone, Copy)]
struct Pause {
    left: Duration,
    next: Duration,
}

impl Pause {
    const NONE: Self = Self {
        left: Duration::ZERO,
        next: PAUSE_MIN,
    };

    fn passes(&mut self, time: Duration) {
        self.left = self.left.saturating_sub(time);
    }

    /// It brought nothing, and took so long.
    fn grows(&mut self, took: Duration) {
        self.left = self.next;
        self.next = (self.next * 2).max(took * PAUSE_TIMES).min(PAUSE_MAX);
    }
}

/// Two limits that are compared: what is let run now, or is found where that is too near, and another.
#[derive(Debug)]
struct Trial {
    way: Way,
    /// What is found if the other is the better one.
    to: u32,
    low: u32,
    high: u32,
    evidence: Evidence,
    /// The first window of a pair.
    first: Option<Seen>,
    /// Windows that are over.
    windows: u32,
    took: Duration,
}

impl Trial {
    fn limit_of(&self, window: u32) -> u32 {
        let is_other = matches!(window % 4, 1 | 2);
        match (self.way, is_other) {
            (Way::Up | Way::Glance, false) | (Way::Down, true) => self.low,
            (Way::Up | Way::Glance, true) | (Way::Down, false) => self.high,
        }
    }

    /// Which one it is in a pair: whether the window is of the lower limit.
    fn is_low(&self, window: u32) -> bool {
        self.limit_of(window) == self.low
    }
}

/// What a comparison has said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outcome {
    pub(super) low: u32,
    pub(super) high: u32,
    pub(super) verdict: Verdict,
    /// How much more is done under the higher limit, as a logarithm, and how sure that is.
    pub(super) gain: f64,
    pub(super) error: f64,
}

/// A count, rounded up.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what does not fit becomes the nearest that does"
)]
fn rounded_up(count: f64) -> u32 {
    count.ceil() as u32
}

/// Looks for the limit.
#[derive(Debug)]
pub(super) struct Search {
    bounds: Bounds,
    /// What was found.
    limit: u32,
    trial: Option<Trial>,
    down: Pause,
    up: Pause,
    glance: Duration,
    /// Half as many were too few: try three quarters.
    is_fine: bool,
    /// The first look at this limit is over.
    is_careful: bool,
    /// What began in a second, and how many ran, lately.
    rate: f64,
    busy: f64,
    /// What a statement takes.
    statement_seconds: f64,
    /// The rate that the pauses are for.
    known_rate: f64,
    /// Nobody has waited for so long.
    loose: Duration,
    /// The limit has changed: until what ran before is over.
    settle: Duration,
    /// Windows in a row in which the work was another.
    changes: u32,
}

impl Search {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            limit: bounds.ceiling,
            trial: None,
            down: Pause::NONE,
            up: Pause::NONE,
            glance: GLANCE_INTERVAL,
            is_fine: false,
            is_careful: false,
            rate: 0.0,
            busy: 0.0,
            statement_seconds: 0.0,
            known_rate: 0.0,
            loose: Duration::ZERO,
            settle: Duration::ZERO,
            changes: 0,
        }
    }

    /// What is let run while nothing is tried.
    pub(super) fn limit(&self) -> u32 {
        self.bounds.roomy(self.limit)
    }

    /// It may be elsewhere.
    pub(super) fn set_bounds(&mut self, bounds: Bounds) {
        if self.bounds != bounds {
            self.bounds = bounds;
            self.trial = None;
            self.moves_to(bounds.hold(self.limit), None);
        }
    }

    /// What to do now.
    pub(super) fn step(&self) -> Step {
        let Some(trial) = &self.trial else {
            return Step {
                limit: self.limit(),
                settle: self.settle,
                window: REST_WINDOW,
            };
        };
        let limit = trial.limit_of(trial.windows);
        let was = trial.windows.checked_sub(1).map(|it| trial.limit_of(it));
        let settle = if was.unwrap_or(self.limit()) == limit {
            Duration::ZERO
        } else {
            self.settle_for(trial.high)
        };
        Step {
            limit,
            settle,
            window: self.window(),
        }
    }

    /// Takes in what was seen while the step was done. `Some`: two limits have been compared.
    pub(super) fn learn(&mut self, seen: &Seen) -> Option<Outcome> {
        if let Some(trial) = self.trial.take() {
            return self.tries(trial, seen);
        }
        self.rests(seen);
        None
    }

    /// So that what ran before is over, mostly.
    fn settle_for(&self, high: u32) -> Duration {
        // The more run, the longer each may take.
        let more = f64::from(high) / f64::from(self.limit());
        let takes = self.statement_seconds * more.max(1.0);
        Duration::from_secs_f64((1.5 * takes).min(10.0)).clamp(SETTLE_MIN, SETTLE_MAX)
    }

    fn window(&self) -> Duration {
        let enough = STARTS_PER_WINDOW / self.rate.max(1e-3);
        let window = (STATEMENTS_PER_WINDOW * self.statement_seconds).max(enough);
        Duration::from_secs_f64(window.min(10.0)).clamp(WINDOW_MIN, WINDOW_MAX)
    }

    fn rests(&mut self, seen: &Seen) {
        self.settle = Duration::ZERO;
        self.notes(seen);
        if !seen.is_crowded {
            return self.loosen(seen.length);
        }
        self.loose = Duration::ZERO;
        for pause in [&mut self.up, &mut self.down] {
            pause.passes(seen.length);
        }
        self.glance = self.glance.saturating_sub(seen.length);
        let (limit, bounds) = (self.limit, self.bounds);
        let more = bounds.hold(limit.saturating_mul(2));
        // What is not reached is no limit.
        let from = if seen.waits {
            limit
        } else {
            limit.min(rounded_up(self.busy))
        };
        let less = bounds.hold(self.less(from));
        let may_rise = seen.waits && self.limit() < bounds.ceiling;
        let may_fall = bounds.roomy(less) < self.limit() && less < from && self.is_worth_a_queue();
        if may_rise && self.is_worth_no_queue() {
            self.moves_to(more, None);
            // What is seen without it may say otherwise.
            self.down.left = GLANCE_INTERVAL;
        } else if may_rise && self.up.left.is_zero() {
            self.begins(Way::Up, more);
        } else if may_rise && self.glance.is_zero() {
            self.begins(Way::Glance, more);
        } else if may_fall && self.down.left.is_zero() {
            self.begins(Way::Down, less);
        }
    }

    /// Whether nothing is tried.
    pub(super) fn is_resting(&self) -> bool {
        self.trial.is_none()
    }

    /// What a statement would take if few ran and all of them computed, in seconds.
    fn takes_among_few(&self) -> f64 {
        let few = f64::from(FEW);
        self.statement_seconds * few / self.busy.max(few)
    }

    /// The same, in seconds, also where fewer run: what computes takes so long however many run now.
    fn takes_if_computing(&self) -> f64 {
        self.statement_seconds * f64::from(FEW) / self.busy.max(1.0)
    }

    /// A lower limit may be tried: what waits here is neither over in a moment nor too long to be seen.
    fn is_worth_a_queue(&self) -> bool {
        let alone = self.takes_among_few();
        let is_short = alone < SHORT / 2.0 || self.takes_if_computing() < SHORT;
        alone <= LONG && (!is_short || self.statement_seconds >= SLOW)
    }

    /// A limit that was found is given up. Less is asked for than by [`Self::is_worth_a_queue`], so that the two
    /// don't take turns.
    fn is_worth_no_queue(&self) -> bool {
        let is_short = self.statement_seconds < SHORT;
        self.takes_among_few() > LONG || is_short && self.takes_if_computing() < SHORT / 2.0
    }

    /// Nobody has waited, for so long: who comes next is not to wait because of what was found for others.
    fn loosen(&mut self, time: Duration) {
        self.loose += time;
        if self.loose >= LOOSE && self.limit < self.bounds.ceiling {
            self.loose = Duration::ZERO;
            self.moves_to(self.bounds.ceiling, None);
        }
    }

    /// What to try below so many.
    fn less(&self, from: u32) -> u32 {
        match self.is_fine {
            true => from * 3 / 4,
            // Far from where most limits are, a big step is a small risk.
            false if !self.is_careful && from > 2 * FEW => (from / 4).max(FEW),
            false => from / 2,
        }
    }

    /// Keeps in mind how much there is to do, and looks again when that is another work.
    fn notes(&mut self, seen: &Seen) {
        if self.rate == 0.0 {
            self.start_from(seen);
            self.known_rate = self.rate;
        }
        self.smooths(seen);
        let length = seen.length.as_secs_f64();
        let (starts, known) = (seen.starts(), self.known_rate * length);
        let apart = (starts - known).abs();
        let is_other = starts.max(known) > CHANGE * starts.min(known)
            && apart > CHANCE * starts.max(known).sqrt();
        self.changes = if is_other { self.changes + 1 } else { 0 };
        if self.changes >= 2 && seen.is_crowded {
            self.start_from(seen);
            self.looks_anew();
        }
    }

    fn start_from(&mut self, seen: &Seen) {
        (self.rate, self.busy) = (seen.rate(), seen.busy());
        self.statement_seconds = seen.slowest().unwrap_or(self.statement_seconds);
    }

    fn smooths(&mut self, seen: &Seen) {
        self.rate += 0.3 * (seen.rate() - self.rate);
        self.busy += 0.3 * (seen.busy() - self.busy);
        let takes = seen.slowest().unwrap_or(self.statement_seconds);
        self.statement_seconds += 0.3 * (takes - self.statement_seconds);
    }

    fn looks_anew(&mut self) {
        self.changes = 0;
        self.known_rate = self.rate;
        (self.up, self.down) = (Pause::NONE, Pause::NONE);
        (self.is_fine, self.is_careful) = (false, false);
    }

    fn begins(&mut self, way: Way, to: u32) {
        let (low, high) = match way {
            Way::Down => (to, self.limit()),
            Way::Up | Way::Glance => self.upwards(to),
        };
        let pairs = match way {
            Way::Glance => 1,
            _ if self.is_careful => PAIRS_CAREFUL,
            _ => evidence::QUICK,
        };
        self.glance = GLANCE_INTERVAL;
        self.trial = Some(Trial {
            way,
            to,
            low,
            high,
            evidence: Evidence::new(pairs, way == Way::Down),
            first: None,
            windows: 0,
            took: Duration::ZERO,
        });
    }

    /// What to compare to look up.
    fn upwards(&self, to: u32) -> (u32, u32) {
        let (now, high) = (self.limit(), self.bounds.roomy(to));
        // Of two that are near each other neither is slower.
        let is_near = high < now.saturating_add(now.div_ceil(4));
        (if is_near { self.limit } else { now }, high)
    }

    fn tries(&mut self, mut trial: Trial, seen: &Seen) -> Option<Outcome> {
        let window = trial.windows;
        trial.windows += 1;
        trial.took += seen.length;
        if trial.limit_of(window) == self.limit() {
            self.smooths(seen);
        }
        let Some(first) = trial.first.take() else {
            trial.first = Some(seen.clone());
            self.trial = Some(trial);
            return None;
        };
        let (low, high) = if trial.is_low(window) {
            (seen, &first)
        } else {
            (&first, seen)
        };
        trial.evidence.add(low, high);
        let verdict = trial.evidence.verdict();
        if verdict == Verdict::Open {
            self.trial = Some(trial);
            return None;
        }
        self.ends(&trial, verdict);
        let (gain, error) = trial.evidence.gain();
        let Trial { low, high, .. } = trial;
        Some(Outcome {
            low,
            high,
            verdict,
            gain,
            error,
        })
    }

    fn ends(&mut self, trial: &Trial, verdict: Verdict) {
        self.known_rate = self.rate;
        let to = match (verdict, trial.way) {
            // That of which nothing can be said is not held back.
            (Verdict::Worth | Verdict::Unknown, Way::Up) | (Verdict::Enough, Way::Down) => trial.to,
            _ => self.limit,
        };
        if to != self.limit {
            return self.moves_to(to, Some(trial));
        }
        match trial.way {
            Way::Up => self.up.grows(trial.took),
            Way::Glance if verdict == Verdict::Worth => self.looks_anew(),
            Way::Glance => {}
            Way::Down if self.is_fine || trial.to == self.bounds.hold(self.limit * 3 / 4) => {
                self.is_careful = true;
                self.down.grows(trial.took);
            }
            Way::Down => self.is_fine = true,
        }
    }

    fn moves_to(&mut self, limit: u32, trial: Option<&Trial>) {
        self.settle = self.settle_for(self.bounds.roomy(limit));
        self.limit = limit;
        (self.up, self.down) = (Pause::NONE, Pause::NONE);
        // Half of it is what it came from.
        self.is_fine = trial.is_some_and(|trial| trial.way == Way::Up);
        if let Some(trial) = trial {
            let back = match trial.way {
                Way::Up => &mut self.down,
                Way::Down | Way::Glance => &mut self.up,
            };
            back.grows(trial.took);
        }
        // What is done now is something else.
        self.rate = 0.0;
        self.changes = 0;
    }
}
