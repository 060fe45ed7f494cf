//! What use costs.

use super::Micros;
use crate::tenant::ClusterName;
use std::collections::BTreeMap;

/// What use costs in a month. Amounts are of the currency, a gigabyte is 1,000,000,000 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prices {
    /// Three letters.
    pub currency: Box<str>,
    /// Of a million statements.
    pub per_million_queries: Micros,
    /// Of a million transactions.
    pub per_million_transactions: Micros,
    /// Of a gigabyte from clients.
    pub per_gb_in: Micros,
    /// Of a gigabyte to clients.
    pub per_gb_out: Micros,
    /// Of an hour for which a server was lent.
    pub per_server_hour: Micros,
    /// Of a gigabyte of storage for the whole month.
    pub per_gb_month: Micros,
    /// Of each plan, for a month or a part of it.
    pub plans: BTreeMap<Box<str>, Micros>,
    /// Of each cluster for a month, shared by its tenants.
    pub clusters: BTreeMap<ClusterName, Micros>,
    /// What each tenant has for nothing.
    pub free: Free,
}

/// What each tenant has for nothing in each month.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Free {
    /// Statements.
    pub queries: u64,
    /// Transactions.
    pub transactions: u64,
    /// Gigabytes from clients.
    pub gb_in: Micros,
    /// Gigabytes to clients.
    pub gb_out: Micros,
    /// Hours for which servers are lent.
    pub server_hours: Micros,
    /// Gigabytes of storage for the whole month.
    pub gb_months: Micros,
}
