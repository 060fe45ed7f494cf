//! A figure: one thing measured, for every proxy, in every round.

use std::collections::BTreeMap;

use crate::args::Case;
use crate::budget::Budget;
use crate::proxy::Kind;
use crate::stats::Spread;

/// One number of one proxy in one round.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
}

impl Sample {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, value: f64) -> Self {
        Self {
            name: name.into(),
            unit,
            value,
        }
    }
}

/// All numbers of one name.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) case: Case,
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) samples: BTreeMap<Kind, Vec<f64>>,
}

/// Whether a budget is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// There is no budget, or pgusher wasn't measured.
    Open,
}

/// What the rounds say about a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Judgement {
    /// By the median.
    pub(crate) verdict: Verdict,
    /// Whether all rounds agree.
    pub(crate) is_unanimous: bool,
}

impl Figure {
    /// Median and spread of a proxy.
    pub(crate) fn spread(&self, kind: Kind) -> Option<Spread> {
        Spread::of(self.samples.get(&kind)?)
    }

    /// Subject divided by reference, round by round.
    pub(crate) fn ratio(&self, subject: Kind, reference: Kind) -> Option<Spread> {
        let (subject, reference) = (self.samples.get(&subject)?, self.samples.get(&reference)?);
        let pairs = subject
            .iter()
            .zip(reference)
            .filter(|(_, reference)| **reference > 0.0);
        Spread::of(
            &pairs
                .map(|(subject, reference)| subject / reference)
                .collect::<Vec<_>>(),
        )
    }

    pub(crate) fn budget(&self) -> Option<Budget> {
        Budget::of(&self.name)
    }

    /// Judges pgusher.
    pub(crate) fn judgement(&self) -> Judgement {
        let judged = self.budget().and_then(|budget| {
            let measured = match budget {
                Budget::Ratio { .. } => self.ratio(Kind::Pgusher, Kind::Pgbouncer)?,
                Budget::Value { .. } => self.spread(Kind::Pgusher)?,
            };
            let [median, min, max] =
                [measured.median, measured.min, measured.max].map(|value| budget.is_met_by(value));
            let verdict = if median {
                Verdict::Met
            } else {
                Verdict::Missed
            };
            Some(Judgement {
                verdict,
                is_unanimous: min == max,
            })
        });
        judged.unwrap_or(Judgement {
            verdict: Verdict::Open,
            is_unanimous: true,
        })
    }
}
