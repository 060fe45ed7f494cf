//! What a tenant may use in a month, by its plan.

use serde::Serialize;
use utoipa::ToSchema;

/// A gigabyte, as storage is counted.
const GB: u64 = 1_000_000_000;

/// A preset plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Plan {
    /// `starter`, `professional` or `enterprise`.
    pub name: &'static str,
    /// People.
    pub users: u64,
    /// Queries through the proxy, in a month.
    pub api_calls_per_month: u64,
    /// Bytes of storage.
    pub storage_bytes: u64,
    /// Transactions, in a month.
    pub transactions_per_month: u64,
}

/// The presets. A tenant's plan may have any other name: its limits are then agreed on elsewhere.
pub const PLANS: [Plan; 3] = [
    Plan {
        name: "starter",
        users: 10,
        api_calls_per_month: 10_000,
        storage_bytes: 5 * GB,
        transactions_per_month: 1_000,
    },
    Plan {
        name: "professional",
        users: 100,
        api_calls_per_month: 100_000,
        storage_bytes: 50 * GB,
        transactions_per_month: 10_000,
    },
    Plan {
        name: "enterprise",
        users: 1_000,
        api_calls_per_month: 1_000_000,
        storage_bytes: 500 * GB,
        transactions_per_month: 100_000,
    },
];

/// The preset of this name; `None` for `custom` and any other.
pub fn plan(name: &str) -> Option<Plan> {
    PLANS.into_iter().find(|plan| plan.name == name)
}
