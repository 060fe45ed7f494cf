//! Plans: bundles of limits and monthly quotas, and what of them a tenant has agreed on.

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    num::NonZeroU64,
    time::{Duration, SystemTime},
};
use utoipa::ToSchema;

/// A gigabyte, as storage is counted.
const GB: u64 = 1_000_000_000;

/// A bundle of limits. What is absent is the tenant's default; 0 is no limit, as in `proxy.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "a field is named as in proxy.toml")]
pub struct Plan {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_client_connections: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guaranteed_servers: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_queries: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_waiting: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transactions_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transactions_per_hour: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logins_per_second: Option<u64>,
    /// Statements in a month (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queries_per_month: Option<u64>,
    /// Transactions in a month (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transactions_per_month: Option<u64>,
    /// Bytes of storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_bytes: Option<u64>,
    /// People; told, not enforced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users: Option<u64>,
    /// Days from the making of a tenant to the end of its trial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial_days: Option<u64>,
}

impl Plan {
    /// The most of a month's statements or transactions, or bytes.
    pub const QUOTA_MAX: u64 = 1_000_000_000_000_000;

    /// What is given, by name.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = [
            ("max_client_connections", self.max_client_connections),
            ("pool_size", self.pool_size),
            ("weight", self.weight),
            ("guaranteed_servers", self.guaranteed_servers),
            ("max_concurrent_queries", self.max_concurrent_queries),
            ("max_waiting", self.max_waiting),
            ("transactions_per_second", self.transactions_per_second),
            ("transactions_per_hour", self.transactions_per_hour),
            ("bytes_per_second", self.bytes_per_second),
            ("logins_per_second", self.logins_per_second),
            ("queries_per_month", self.queries_per_month),
            ("transactions_per_month", self.transactions_per_month),
            ("storage_bytes", self.storage_bytes),
            ("users", self.users),
            ("trial_days", self.trial_days),
        ];
        let given = all.into_iter();
        given.filter_map(|(name, value)| Some((name, value?)))
    }

    /// What is out of its bounds: name, value, least, most.
    pub fn out_of_bounds(&self) -> impl Iterator<Item = (&'static str, u64, u64, u64)> {
        let given = self.given().map(|(name, value)| {
            let (min, max) = bounds(name);
            (name, value, min, max)
        });
        given.filter(|(_, value, min, max)| !(min..=max).contains(&value))
    }

    /// Whether a plan may have this name: 1 to 63 of `a-z`, `0-9`, `_`, `-`; `custom` is none.
    pub fn is_name(name: &str) -> bool {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        (1..=63).contains(&name.len()) && name.chars().all(allowed) && name != CUSTOM
    }

    /// When the trial of a tenant that is made now ends.
    pub fn trial_from(&self, now: SystemTime) -> Option<SystemTime> {
        let days = self.trial_days.filter(|days| *days > 0)?;
        now.checked_add(Duration::from_hours(24).saturating_mul(u32::try_from(days).ok()?))
    }
}

fn bounds(name: &str) -> (u64, u64) {
    match name {
        "max_client_connections" => (1, 1_000_000),
        "pool_size" => (1, 10_000),
        "weight" => (1, 1000),
        "guaranteed_servers" => (0, 10_000),
        "transactions_per_hour" => (0, 1_000_000_000),
        "bytes_per_second" => (0, 1_000_000_000_000),
        "queries_per_month" | "transactions_per_month" | "storage_bytes" => (0, Plan::QUOTA_MAX),
        "trial_days" => (0, 3650),
        _ => (0, 1_000_000),
    }
}

/// The plan of who has none: nothing is limited by it.
pub const CUSTOM: &str = "custom";

/// The plans that there are, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plans(BTreeMap<String, Plan>);

impl Default for Plans {
    /// The presets.
    fn default() -> Self {
        let preset = |name: &str, [users, queries, storage, transactions]: [u64; 4]| Plan {
            name: name.to_owned(),
            users: Some(users),
            queries_per_month: Some(queries),
            storage_bytes: Some(storage * GB),
            transactions_per_month: Some(transactions),
            ..Plan::default()
        };
        let mut plans = Self(BTreeMap::new());
        plans.put([
            preset("starter", [10, 10_000, 5, 1_000]),
            preset("professional", [100, 100_000, 50, 10_000]),
            preset("enterprise", [1_000, 1_000_000, 500, 100_000]),
        ]);
        plans
    }
}

impl Plans {
    /// Adds plans; those of the same names are replaced.
    pub fn put(&mut self, plans: impl IntoIterator<Item = Plan>) {
        let named = plans.into_iter().map(|plan| (plan.name.clone(), plan));
        self.0.extend(named);
    }

    /// The plan of this name; `None` for `custom`, and for names that nobody has given a meaning.
    pub fn get(&self, name: &str) -> Option<&Plan> {
        self.0.get(name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Plan> {
        self.0.values()
    }

    /// The names that a tenant may be given.
    pub fn names(&self) -> Vec<String> {
        let names = self.0.keys().map(String::as_str).chain([CUSTOM]);
        names.map(str::to_owned).collect()
    }
}

/// What a tenant has agreed on, its own words over its plan's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// The plan's name.
    pub plan: Box<str>,
    /// Statements in a month (UTC), at all proxies; more transactions are refused (53400).
    pub queries_per_month: Option<NonZeroU64>,
    /// Transactions in a month (UTC), at all proxies; more are refused (53400).
    pub transactions_per_month: Option<NonZeroU64>,
    /// People that the plan gives; told, not enforced.
    pub users: Option<u64>,
    /// When its trial ends: from then on logins and transactions are refused (53400).
    pub trial_ends_at: Option<SystemTime>,
    /// Since when there is the tenant; what was used under its name before is not its own.
    pub made_at: Option<SystemTime>,
}

impl Terms {
    /// Of a tenant that says so much itself; 0 is no limit. What it does not say, the plan does.
    pub fn new(
        (name, plan): (&str, Option<&Plan>),
        (queries, transactions): (Option<u64>, Option<u64>),
    ) -> Self {
        let planned = |of: fn(&Plan) -> Option<u64>| plan.and_then(of);
        let limit = |value: Option<u64>| value.and_then(NonZeroU64::new);
        Self {
            plan: name.into(),
            queries_per_month: limit(queries.or(planned(|plan| plan.queries_per_month))),
            transactions_per_month: limit(
                transactions.or(planned(|plan| plan.transactions_per_month)),
            ),
            users: planned(|plan| plan.users),
            trial_ends_at: None,
            made_at: None,
        }
    }

    /// Whether anything of it may refuse a transaction.
    pub fn restrains_transactions(&self) -> bool {
        self.has_quota() || self.trial_ends_at.is_some()
    }

    /// Whether a month is limited.
    pub fn has_quota(&self) -> bool {
        self.queries_per_month.is_some() || self.transactions_per_month.is_some()
    }

    /// When its trial has ended by then: that time.
    pub fn trial_over(&self, now: SystemTime) -> Option<SystemTime> {
        self.trial_ends_at.filter(|end| *end <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_of_the_same_name_takes_the_presets_place() {
        let mut plans = Plans::default();
        assert_eq!(
            plans.names(),
            ["enterprise", "professional", "starter", "custom"]
        );
        let starter = plans.get("starter").unwrap();
        assert_eq!(starter.transactions_per_month, Some(1000));
        assert_eq!(starter.storage_bytes, Some(5_000_000_000));
        plans.put([Plan {
            name: "starter".to_owned(),
            users: Some(3),
            ..Plan::default()
        }]);
        let starter = plans.get("starter").unwrap();
        assert_eq!(
            (starter.users, starter.transactions_per_month),
            (Some(3), None)
        );
        assert_eq!(plans.get("custom"), None);
    }

    #[test]
    fn a_tenants_own_words_stand_over_its_plans() {
        let plans = Plans::default();
        let starter = ("starter", plans.get("starter"));
        let count = |limit: Option<NonZeroU64>| limit.map(NonZeroU64::get);
        let terms = Terms::new(starter, (None, Some(0)));
        assert_eq!(count(terms.queries_per_month), Some(10_000));
        assert_eq!(count(terms.transactions_per_month), None);
        let terms = Terms::new(starter, (Some(5), None));
        assert_eq!(count(terms.queries_per_month), Some(5));
        assert_eq!(count(terms.transactions_per_month), Some(1000));
        assert!(!Terms::new(("custom", None), (None, None)).restrains_transactions());
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let plan = Plan {
            pool_size: Some(0),
            weight: Some(1001),
            users: Some(5),
            ..Plan::default()
        };
        let faults: Vec<_> = plan.out_of_bounds().collect();
        assert_eq!(
            faults,
            [("pool_size", 0, 1, 10_000), ("weight", 1001, 1, 1000)]
        );
        assert!(Plan::is_name("team-2") && !Plan::is_name("custom") && !Plan::is_name("Team"));
    }
}
