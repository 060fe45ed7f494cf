//! What pairs of windows say about two limits.

use super::Seen;

/// The higher limit is worth it when so much more is done, as a logarithm: 4 %.
const WORTH: f64 = 0.04;

/// So much as nothing.
const NOTHING: f64 = 0.02;

/// How far two windows of the same limit are from each other, at least.
const SPREAD_MIN: f64 = 0.04;

/// So many times the error of the mean is taken for sure.
const SURE: f64 = 2.0;

/// More than that apart, and nothing can be said yet.
const UNCLEAR: f64 = 0.1;

/// Even then it comes to an end.
const PAIRS_MAX: u32 = 16;

/// At first sight it is worth it when so much more is done.
const MUCH: f64 = 0.15;

/// So many pairs are a first look.
pub(super) const QUICK: u32 = 3;

/// Fewer statements than that in a pair say nothing.
const STARTS_MIN: f64 = 8.0;

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
    Idle,
    /// Nobody waited under the lower one.
    Loose,
    /// Windows of the same limit are too far from each other.
    Unclear,
    /// Too few statements to say anything.
    Unknown,
}

/// What pairs have said until now.
#[derive(Debug)]
pub(super) struct Evidence {
    pairs_max: u32,
    pairs: u32,
    sum: f64,
    squares: f64,
    loose: u32,
    unknown: u32,
}

impl Evidence {
    pub(super) fn new(pairs_max: u32) -> Self {
        Self {
            pairs_max,
            pairs: 0,
            sum: 0.0,
            squares: 0.0,
            loose: 0,
            unknown: 0,
        }
    }

    /// Takes a pair in.
    pub(super) fn takes(&mut self, low: &Seen, high: &Seen) {
        if !low.waits() {
            self.loose += 1;
        } else if let Some(gain) = gain(low, high) {
            self.pairs += 1;
            self.sum += gain;
            self.squares += gain * gain;
        } else {
            self.unknown += 1;
        }
    }

    /// How much more is done under the higher limit, and how far off that may be.
    pub(super) fn gain(&self) -> (f64, f64) {
        let count = f64::from(self.pairs.max(1));
        let mean = self.sum / count;
        let variance = (self.squares - self.sum * mean).max(0.0) / (count - 1.0).max(1.0);
        (mean, SURE * variance.sqrt().max(SPREAD_MIN) / count.sqrt())
    }

    pub(super) fn verdict(&self) -> Verdict {
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
                Verdict::Idle
            };
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
            Verdict::Idle
        } else if self.pairs < self.pairs_max || error > UNCLEAR && self.pairs < PAIRS_MAX {
            Verdict::Open
        } else if mean > worth {
            Verdict::Worth
        } else if mean < WORTH {
            Verdict::Idle
        } else {
            Verdict::Unclear
        }
    }
}

/// How much more is done under the higher limit, as a logarithm; `None`: too little to say.
fn gain(low: &Seen, high: &Seen) -> Option<f64> {
    let (mut less, mut more, mut starts) = (0.0, 0.0, 0.0);
    let (short, long) = (low.length.as_secs_f64(), high.length.as_secs_f64());
    for (id, under) in low.parts.iter().filter(|(_, part)| part.waits) {
        let over = high.parts.get(id).copied().unwrap_or_default();
        let both = under.starts + over.starts;
        // What one of its statements takes: the same for both.
        let takes = (under.busy * short + over.busy * long) / f64::max(both, 1.0);
        let takes = takes.max(1e-6);
        less += (under.starts + 0.5) / short.max(1e-6) * takes;
        more += (over.starts + 0.5) / long.max(1e-6) * takes;
        starts += both;
    }
    (starts >= STARTS_MIN).then(|| (more / less).ln())
}
