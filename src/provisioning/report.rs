//! What verification found.

use super::Hole;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How an attack went, or what a rule of the audit says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was refused, or found nothing.
    Closed,
    /// It succeeded.
    Open {
        /// What was seen, or could be done.
        how: String,
    },
    /// There is nothing of the kind in this tier.
    NotApplicable,
}

/// One attack that was tried, or one rule that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// A short name that stays: `read_rows`.
    pub name: String,
    /// What it is about, in a sentence.
    pub what: String,
    /// How it went.
    pub outcome: Outcome,
    /// The hole that it went through, where it is a known one.
    pub hole: Option<String>,
}

impl Check {
    /// Whether it found something that no hole tells.
    pub fn is_leak(&self) -> bool {
        matches!(self.outcome, Outcome::Open { .. }) && self.hole.is_none()
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Closed => write!(f, "{}: closed", self.name),
            Outcome::Open { how } => write!(f, "{}: {how}", self.name),
            Outcome::NotApplicable => write!(f, "{}: not applicable", self.name),
        }
    }
}

/// What verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Everything that was tried, in order.
    pub checks: Vec<Check>,
    /// What is known to be open: by the profile, or as the admin could not close it.
    pub holes: Vec<Hole>,
}

impl Report {
    /// Whether nothing is open but what the holes tell.
    pub fn holds(&self) -> bool {
        self.open().next().is_none()
    }

    /// The checks that found something that no hole tells.
    pub fn open(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.is_leak())
    }
}
