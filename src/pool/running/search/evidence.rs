//! What pairs of windows say about two limits.

use super::{Part, Seen};
use std::collections::HashSet;

/// The higher limit is worth it when so much more is done, as a logarithm: 4 %.
const WORTH: f64 = 0.04;

/// So much as nothing.
const NOTHING: f64 = 0.02;

/// How far two windows of the same limit are from each other, at least.
const SPREAD_MIN: f64 = 0.04;

/// What runs at the same time as more is held back only if it takes so much longer for that, as a logarithm.
const SLOWER: f64 = 0.1;

/// So many times the error of the mean is taken for sure.
const SURE: f64 = 2.0;

/// More than that apart, and nothing can be said yet.
const UNCLEAR: f64 = 0.1;

/// Even then it comes to an end.
const PAIRS_MAX: u32 = 10;

/// And nothing is said when they are so far apart.
const BLURRED: f64 = 0.25;

/// At first sight it is worth it when so much more is done.
const MUCH: f64 = 0.15;

/// So many pairs are a first look.
pub(super) const QUICK: u32 = 3;

/// Fewer statements than that in a pair say nothing.
pub(super) const STARTS_MIN: f64 = 8.0;

/// In so many pairs.
const UNKNOWN_MAX: u32 = 2;

/// What a trial says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pool::running) enum Verdict {
    /// Nothing yet.
    Open,
    /// More is done under the higher limit.
    Worth,
    /// As much is done under the lower one.
    Enough,
    /// Nobody waited under the lower one.
    Loose,
    /// Windows of the same limit are too far from each other.
    Unclear,
    /// Too few statements to say anything.
    Unknown,
}

/// Statements under one limit: how many, and how long they ran together, in seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Side {
    starts: f64,
    ran: f64,
}

impl Side {
    fn add(&mut self, part: &Part, seen: &Seen) {
        self.starts += part.starts;
        self.ran += part.busy * seen.length.as_secs_f64();
    }
}

/// What pairs have said until now.
#[derive(Debug)]
pub(super) struct Evidence {
    pairs_max: u32,
    /// What is tried is the lower limit: if that is far too low, it is not tried again.
    is_fall: bool,
    pairs: u32,
    sum: f64,
    squares: f64,
    /// Statements under the lower and the higher limit.
    sides: [Side; 2],
    loose: u32,
    unknown: u32,
}

impl Evidence {
    pub(super) fn new(pairs_max: u32, is_fall: bool) -> Self {
        Self {
            pairs_max,
            is_fall,
            pairs: 0,
            sum: 0.0,
            squares: 0.0,
            sides: [Side::default(); 2],
            loose: 0,
            unknown: 0,
        }
    }

    /// Takes a pair in.
    pub(super) fn add(&mut self, low: &Seen, high: &Seen) {
        if !low.waits {
            self.loose += 1;
            return;
        }
        let compared = compared(low, high);
        let Some(gain) = gain(&compared, [low, high]) else {
            self.unknown += 1;
            return;
        };
        self.pairs += 1;
        self.sum += gain;
        self.squares += gain * gain;
        let [under, over] = &mut self.sides;
        for [less, more] in &compared {
            under.add(less, low);
            over.add(more, high);
        }
    }

    /// Whether statements take longer when more run.
    fn is_slower(&self) -> bool {
        let [low, high] = self.sides.map(|side| side.ran / side.starts.max(1.0));
        high > low * SLOWER.exp()
    }

    /// How much more is done under the higher limit, and how far off that may be.
    pub(super) fn gain(&self) -> (f64, f64) {
        let count = f64::from(self.pairs.max(1));
        let mean = self.sum / count;
        let variance = (self.squares - self.sum * mean).max(0.0) / (count - 1.0).max(1.0);
        (mean, SURE * variance.sqrt().max(SPREAD_MIN) / count.sqrt())
    }

    pub(super) fn verdict(&self) -> Verdict {
        match self.by_gain() {
            // More would get done only if more came.
            Verdict::Enough if !self.is_slower() => Verdict::Worth,
            verdict => verdict,
        }
    }

    fn by_gain(&self) -> Verdict {
        if self.unknown >= UNKNOWN_MAX {
            return Verdict::Unknown;
        }
        if self.loose >= UNKNOWN_MAX {
            return Verdict::Loose;
        }
        if self.pairs_max == 1 && self.pairs == 1 {
            return if self.sum > MUCH {
                Verdict::Worth
            } else {
                Verdict::Enough
            };
        }
        if self.is_fall && self.pairs == 1 && self.sum > MUCH {
            return Verdict::Worth;
        }
        if self.pairs < 2 {
            return Verdict::Open;
        }
        let (mean, error) = self.gain();
        let is_quick = self.pairs_max <= QUICK;
        let worth = if is_quick {
            MUCH
        } else {
            WORTH.max(error / 2.0)
        };
        if mean - error > WORTH {
            Verdict::Worth
        } else if mean + error < NOTHING || is_quick && mean < WORTH && error < MUCH {
            // A first look is corrected by the next.
            Verdict::Enough
        } else if self.pairs < self.pairs_max || error > UNCLEAR && self.pairs < PAIRS_MAX {
            Verdict::Open
        } else if error > BLURRED {
            Verdict::Unclear
        } else if mean > worth {
            Verdict::Worth
        } else if mean < WORTH {
            Verdict::Enough
        } else {
            Verdict::Unclear
        }
    }
}

/// What tenants did of which one waited, under the lower and the higher limit. Those of which little was seen are
/// taken together.
fn compared(low: &Seen, high: &Seen) -> Vec<[Part; 2]> {
    let all: HashSet<_> = low.parts.keys().chain(high.parts.keys()).collect();
    let mut compared = Vec::new();
    let mut rest = [Part::default(); 2];
    for id in all {
        let both = [low, high].map(|seen| seen.parts.get(id).copied().unwrap_or_default());
        if !both.iter().any(|part| part.waits) {
            continue;
        }
        if both.iter().map(|part| part.starts).sum::<f64>() < STARTS_MIN {
            let ([a, b], [c, d]) = (&rest, &both);
            rest = [a.with(c), b.with(d)];
        } else {
            compared.push(both);
        }
    }
    compared.push(rest);
    compared
}

/// How much more is done under the higher limit, as a logarithm; `None`: too little to say.
fn gain(compared: &[[Part; 2]], seen: [&Seen; 2]) -> Option<f64> {
    let [short, long] = seen.map(|seen| seen.length.as_secs_f64().max(1e-6));
    let (mut less, mut more, mut starts) = (0.0, 0.0, 0.0);
    for [under, over] in compared {
        let both = under.starts + over.starts;
        // What one of its statements takes: the same for both.
        let ran = under.busy * short + over.busy * long;
        let takes = (ran / f64::max(both, 1.0)).max(1e-6);
        less += (under.starts + 0.5) / short * takes;
        more += (over.starts + 0.5) / long * takes;
        starts += both;
    }
    (starts >= STARTS_MIN).then(|| f64::ln(more / less))
}
