//! Monthly quotas: what is counted, and how much of it is used.

use super::Calendar;

/// What of a month is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Monthly {
    /// Statements.
    pub queries: u64,
    /// Transactions.
    pub transactions: u64,
}

impl Monthly {
    fn each(self, other: Self, of: fn(u64, u64) -> u64) -> Self {
        Self {
            queries: of(self.queries, other.queries),
            transactions: of(self.transactions, other.transactions),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    pub(super) fn less(self, other: Self) -> Self {
        self.each(other, u64::saturating_sub)
    }

    pub(super) fn of(self, quota: Quota) -> u64 {
        match quota {
            Quota::Queries => self.queries,
            Quota::Transactions => self.transactions,
        }
    }
}

/// What is limited by the month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    /// Statements.
    Queries,
    /// Transactions.
    Transactions,
}

impl Quota {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Transactions, Self::Queries];

    /// The name in `proxy.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queries => "queries_per_month",
            Self::Transactions => "transactions_per_month",
        }
    }

    /// What it counts.
    pub fn what(self) -> &'static str {
        match self {
            Self::Queries => "queries",
            Self::Transactions => "transactions",
        }
    }

    pub(super) fn bit(self) -> u64 {
        1 << self as u64
    }
}

/// How much of a quota is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Less than 80 %.
    Ok,
    /// 80 % or more.
    Soft,
    /// All of it.
    Hard,
}

impl Level {
    /// Of so much.
    pub fn of(used: u64, max: u64) -> Self {
        if used >= max {
            Self::Hard
        } else if u128::from(used) * 5 >= u128::from(max) * 4 {
            Self::Soft
        } else {
            Self::Ok
        }
    }

    /// `ok`, `soft`, `hard`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Soft => "soft",
            Self::Hard => "hard",
        }
    }
}

/// Where a tenant stands with one quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Which.
    pub quota: Quota,
    /// In this month (UTC), at all proxies as far as is known here.
    pub used: u64,
    /// At most.
    pub max: u64,
    /// The month.
    pub month: Calendar,
}

impl Standing {
    /// How much of it is used.
    pub fn level(&self) -> Level {
        Level::of(self.used, self.max)
    }
}
