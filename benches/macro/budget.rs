//! The budgets of the design: how pgusher has to compare with PgBouncer, or what it may take.

use std::fmt::{self, Display};

/// A bound on a figure of pgusher.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Budget {
    /// On the ratio to PgBouncer.
    Ratio { bound: Bound },
    /// On the figure itself, in its unit.
    Value { bound: Bound },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

const fn ratio_up_to(most: f64) -> Budget {
    Budget::Ratio {
        bound: Bound::AtMost(most),
    }
}

const fn ratio_from(least: f64) -> Budget {
    Budget::Ratio {
        bound: Bound::AtLeast(least),
    }
}

const fn up_to(most: f64) -> Budget {
    Budget::Value {
        bound: Bound::AtMost(most),
    }
}

/// By the names that the cases give their figures at full size.
const BUDGETS: &[(&str, Budget)] = &[
    ("prepared c16: CPU per 100k transactions", ratio_up_to(0.85)),
    ("prepared c64: CPU per 100k transactions", ratio_up_to(0.75)),
    ("simple c16: CPU per 100k transactions", ratio_up_to(1.0)),
    ("extended c16: CPU per 100k transactions", ratio_up_to(0.95)),
    ("simple c1: latency p50", ratio_up_to(1.0)),
    ("extended c1: latency p50", ratio_up_to(1.0)),
    ("prepared c1: latency p50", ratio_up_to(1.0)),
    ("prepared c64: throughput", ratio_from(1.3)),
    ("extended c64: throughput", ratio_from(1.3)),
    ("prepared c16: syscalls per transaction", up_to(4.5)),
    ("SCRAM: CPU per login", ratio_up_to(1.0)),
    ("TLS (P-256) and SCRAM: CPU per login", ratio_up_to(0.65)),
    ("TLS (RSA-2048) and SCRAM: CPU per login", ratio_up_to(0.65)),
    ("10000 idle: memory per client", up_to(4.0)),
    (
        "10000 idle after a query each: memory per client",
        up_to(4.0),
    ),
    ("10000 left: resident memory", up_to(40.0)),
    ("COPY TO: CPU per GB", ratio_up_to(0.6)),
    ("COPY FROM: CPU per GB", ratio_up_to(0.6)),
    ("SELECT: CPU per GB", ratio_up_to(0.6)),
    ("COPY TO: peak memory growth", up_to(1.0)),
    ("COPY FROM: peak memory growth", up_to(1.0)),
    ("SELECT: peak memory growth", up_to(1.0)),
    ("one huge value received: peak memory growth", up_to(1.0)),
    ("one huge value sent: peak memory growth", up_to(1.0)),
    ("stalled reader: peak memory growth", up_to(1.0)),
    ("10000 tenants: start to first query", up_to(1.0)),
    ("10000 tenants: resident memory", up_to(100.0)),
    // "The same" as with one tenant, with 5 % for noise.
    (
        "10000 tenants: CPU per transaction, against one tenant",
        up_to(1.05),
    ),
    (
        "quiet tenant beside 20 ms queries: p50 against alone",
        up_to(1.2),
    ),
    (
        "quiet tenant beside 20 ms queries: p99 against alone",
        up_to(1.5),
    ),
    (
        "quiet tenant beside point selects: p50 against alone",
        up_to(1.2),
    ),
    (
        "quiet tenant beside point selects: p99 against alone",
        up_to(1.5),
    ),
];

impl Budget {
    /// The budget of the figure of this name.
    pub(crate) fn of(figure: &str) -> Option<Self> {
        BUDGETS
            .iter()
            .find(|(name, _)| *name == figure)
            .map(|(_, budget)| *budget)
    }

    pub(crate) fn is_met_by(self, measured: f64) -> bool {
        let (Self::Ratio { bound } | Self::Value { bound }) = self;
        match bound {
            Bound::AtMost(most) => measured <= most,
            Bound::AtLeast(least) => measured >= least,
        }
    }
}

impl Display for Budget {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ratio { bound } => write!(to, "{bound} ×"),
            Self::Value { bound } => write!(to, "{bound}"),
        }
    }
}

impl Display for Bound {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(to, "≤ {most}"),
            Self::AtLeast(least) => write!(to, "≥ {least}"),
        }
    }
}
