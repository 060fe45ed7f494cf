//! What a client is told about a limit.

use crate::{
    usage::Quota,
    wire::{Refusal, SqlState},
};
use std::{fmt, time::Duration};

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Key,
    Tenant,
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "the API key",
            Self::Tenant => "the tenant",
        })
    }
}

/// A limit, by its name in `proxy.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    ConcurrentQueries,
    Waiting,
    Transactions,
    HourlyTransactions,
    Bytes,
    Logins,
    Month(Quota),
    Trial,
}

impl Limit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ConcurrentQueries => "max_concurrent_queries",
            Self::Waiting => "max_waiting",
            Self::Transactions => "transactions_per_second",
            Self::HourlyTransactions => "transactions_per_hour",
            Self::Bytes => "bytes_per_second",
            Self::Logins => "logins_per_second",
            Self::Month(quota) => quota.name(),
            Self::Trial => "trial_ends_at",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::ConcurrentQueries => "concurrent queries",
            Self::Waiting => "waiting clients",
            Self::Transactions | Self::HourlyTransactions => "transactions",
            Self::Bytes => "bytes",
            Self::Logins => "logins",
            Self::Month(quota) => quota.what(),
            Self::Trial => "days of trial",
        }
    }

    /// Counts a client that waits because of it.
    pub(super) fn waited(self) {
        self.count("waited");
    }

    pub(super) fn count(self, result: &'static str) {
        metrics::counter!("pgusher_limited_total", "limit" => self.name(), "result" => result)
            .increment(1);
    }

    /// A refusal because of it.
    pub(super) fn refused(self, sqlstate: SqlState, whose: Whose, value: u64) -> Refusal {
        self.count("refused");
        let (what, name) = (self.what(), self.name());
        let text = format!("too many {what}: {name} of {whose}, {value}, is reached");
        Refusal::error(sqlstate, text)
    }
}

/// No place became free in time (53300).
pub(super) fn no_place(whose: Whose, limit: u32, waited: Duration) -> Refusal {
    let refusal = Limit::ConcurrentQueries.refused(SqlState::TOO_MANY, whose, limit.into());
    let waited = humantime::format_duration(Duration::from_millis(waited.as_millis() as u64));
    refusal.with_detail(format!(
        "No transaction of {whose} ended within query_wait_timeout, {waited}. Keep transactions short, \
         run fewer at the same time, or try again later."
    ))
}

/// No more may wait (53300).
pub(super) fn no_turn(limit: u32, (whose, running): (Whose, Option<u32>)) -> Refusal {
    let refusal = Limit::Waiting.refused(SqlState::TOO_MANY, Whose::Tenant, limit.into());
    let running = running.unwrap_or_default();
    refusal.with_detail(format!(
        "They wait for max_concurrent_queries of {whose}, which is {running}. Run fewer transactions at \
         the same time, or try again later."
    ))
}

/// It would be too early (53400).
pub(super) fn too_early(limit: Limit, whose: Whose, value: u64, wait: Duration) -> Refusal {
    let wait = humantime::format_duration(Duration::from_secs(wait.as_secs() + 1));
    limit
        .refused(SqlState::QUOTA, whose, value)
        .with_detail(format!("Try again in {wait}."))
}

/// What a client is told that waits long (a NOTICE).
pub(super) fn waiting(whose: Whose, limit: u32) -> String {
    format!(
        "still waiting: max_concurrent_queries of {whose}, {limit}, is reached; others' transactions must end first"
    )
}
