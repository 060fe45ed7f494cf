//! What quantities cost.

use super::{CostLine, UNUSED};
use crate::config::{Micros, Prices};
use serde::Serialize;
use utoipa::ToSchema;

const MILLION: u128 = 1_000_000;
const GB: u128 = 1_000_000_000;
/// Microseconds.
const HOUR: u128 = 3_600_000_000;

/// What was used in a month.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Quantities {
    /// Statements.
    pub queries: u64,
    /// Transactions.
    pub transactions: u64,
    /// Bytes from clients.
    pub client_bytes: u64,
    /// Bytes to clients.
    pub server_bytes: u64,
    /// Microseconds for which servers were lent.
    pub server_time_us: u64,
    /// Storage: bytes times the hours for which they were there.
    pub byte_hours: u64,
    /// The same in gigabytes for the whole month, rounded.
    #[schema(value_type = String, example = "1.25")]
    pub gb_months: Micros,
}

impl Quantities {
    pub(super) fn add(&mut self, more: &Self) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.queries, more.queries);
        add(&mut self.transactions, more.transactions);
        add(&mut self.client_bytes, more.client_bytes);
        add(&mut self.server_bytes, more.server_bytes);
        add(&mut self.server_time_us, more.server_time_us);
        add(&mut self.byte_hours, more.byte_hours);
        self.gb_months += more.gb_months;
    }

    /// Hours for which servers were lent, rounded.
    pub fn server_hours(&self) -> Micros {
        Micros::new(MILLION).times(self.server_time_us.into(), HOUR)
    }
}

/// What that costs, part by part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Amounts {
    /// Of statements.
    #[schema(value_type = String, example = "12.50")]
    pub queries: Micros,
    /// Of transactions.
    #[schema(value_type = String, example = "12.50")]
    pub transactions: Micros,
    /// Of bytes from clients.
    #[schema(value_type = String, example = "12.50")]
    pub bytes_in: Micros,
    /// Of bytes to clients.
    #[schema(value_type = String, example = "12.50")]
    pub bytes_out: Micros,
    /// Of the time of servers.
    #[schema(value_type = String, example = "12.50")]
    pub server_time: Micros,
    /// Of storage.
    #[schema(value_type = String, example = "12.50")]
    pub storage: Micros,
    /// Of the plan.
    #[schema(value_type = String, example = "12.50")]
    pub plan: Micros,
    /// The share of the cluster's cost.
    #[schema(value_type = String, example = "12.50")]
    pub cluster: Micros,
}

impl Amounts {
    /// In the order of the fields.
    pub fn all(&self) -> [Micros; 8] {
        [
            self.queries,
            self.transactions,
            self.bytes_in,
            self.bytes_out,
            self.server_time,
            self.storage,
            self.plan,
            self.cluster,
        ]
    }

    /// What was used, without the plan and the cluster.
    pub fn of_use(&self) -> Micros {
        self.all().into_iter().take(6).sum()
    }

    pub(super) fn sum(&self) -> Micros {
        self.all().into_iter().sum()
    }

    pub(super) fn add(&mut self, more: &Self) {
        self.queries += more.queries;
        self.transactions += more.transactions;
        self.bytes_in += more.bytes_in;
        self.bytes_out += more.bytes_out;
        self.server_time += more.server_time;
        self.storage += more.storage;
        self.plan += more.plan;
        self.cluster += more.cluster;
    }
}

/// What of a quantity is paid for. A free allowance of one millionth is `unit` of the quantity.
fn above(quantity: u64, free: Micros, unit: u128) -> u128 {
    u128::from(quantity).saturating_sub(free.get().saturating_mul(unit))
}

/// Charges each tenant for what it used and for its plan, which stands in its line where it is to be paid.
pub(super) fn charge(prices: &Prices, lines: &mut [CostLine], hours: u64) {
    let gb_month = GB * u128::from(hours);
    let free = &prices.free;
    for line in lines {
        let used = &mut line.quantities;
        used.gb_months = Micros::new(MILLION).times(used.byte_hours.into(), gb_month);
        let amounts = &mut line.amounts;
        let queries = used.queries.saturating_sub(free.queries);
        amounts.queries = prices.per_million_queries.times(queries.into(), MILLION);
        let transactions = used.transactions.saturating_sub(free.transactions);
        amounts.transactions = prices
            .per_million_transactions
            .times(transactions.into(), MILLION);
        let bytes = above(used.client_bytes, free.gb_in, GB / MILLION);
        amounts.bytes_in = prices.per_gb_in.times(bytes, GB);
        let bytes = above(used.server_bytes, free.gb_out, GB / MILLION);
        amounts.bytes_out = prices.per_gb_out.times(bytes, GB);
        let time = above(used.server_time_us, free.server_hours, HOUR / MILLION);
        amounts.server_time = prices.per_server_hour.times(time, HOUR);
        let storage = above(used.byte_hours, free.gb_months, gb_month / MILLION);
        amounts.storage = prices.per_gb_month.times(storage, gb_month);
        let plan = line.plan.as_deref().filter(|_| line.is_plan_due);
        let plan = plan.and_then(|plan| prices.plans.get(plan));
        amounts.plan = plan.copied().unwrap_or_default();
    }
}

/// Shares a cluster's cost out among its tenants, by the time that servers were lent to them. Where they
/// used none it has a line of its own.
pub(super) fn share_cluster(cluster: &str, cost: Micros, lines: &mut Vec<CostLine>) {
    let is_there = |line: &CostLine| line.cluster.as_deref() == Some(cluster);
    let there = lines.iter().filter(|line| is_there(line));
    let times: Vec<_> = there.map(|line| line.quantities.server_time_us).collect();
    let Some(shares) = cost.shares(&times) else {
        let mut unused = CostLine {
            tenant: UNUSED.to_owned(),
            cluster: Some(cluster.to_owned()),
            ..CostLine::default()
        };
        unused.amounts.cluster = cost;
        lines.push(unused);
        return;
    };
    let there = lines.iter_mut().filter(|line| is_there(line));
    for (line, share) in there.zip(shares) {
        line.amounts.cluster = share;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::path::Path;

    fn prices(text: &str) -> Prices {
        let text = format!("[prices]\ncurrency = \"EUR\"\n{text}\n");
        let config = Config::parse(&text, Path::new("")).unwrap();
        (*config.prices.unwrap()).clone()
    }

    fn line(tenant: &str, cluster: &str, server_time_us: u64) -> CostLine {
        let mut line = CostLine {
            tenant: tenant.to_owned(),
            cluster: Some(cluster.to_owned()),
            ..CostLine::default()
        };
        line.quantities.server_time_us = server_time_us;
        line
    }

    #[test]
    fn each_quantity_has_its_price_and_its_allowance() {
        let prices = prices(
            "per_million_queries = 0.2\nper_million_transactions = 1\nper_gb_in = 0.01\n\
             per_gb_out = 0.09\nper_server_hour = \"0.05\"\nper_gb_month = 0.25\n\
             plan = { pro = 49.0 }\n[prices.free]\nqueries = 1000000\ngb_out = 1.5\n\
             server_hours = 2\ngb_months = 1",
        );
        let mut tenant = line("a", "main", 5 * 3_600_000_000);
        tenant.plan = Some("pro".to_owned());
        tenant.is_plan_due = true;
        tenant.quantities.queries = 3_500_000;
        tenant.quantities.transactions = 1;
        tenant.quantities.client_bytes = 250_000_000;
        tenant.quantities.server_bytes = 2_500_000_000;
        tenant.quantities.byte_hours = 3 * 1_000_000_000 * 720;
        let mut lines = [
            tenant.clone(),
            CostLine {
                is_plan_due: false,
                ..tenant
            },
        ];
        charge(&prices, &mut lines, 720);
        let amounts = lines[0].amounts.all().map(|amount| amount.to_string());
        let told = [
            "0.50", "0.000001", "0.0025", "0.09", "0.15", "0.50", "49.00", "0.00",
        ];
        assert_eq!(amounts, told);
        assert_eq!(lines[0].quantities.gb_months.to_string(), "3.00");
        assert_eq!(lines[0].quantities.server_hours().to_string(), "5.00");
        assert_eq!(lines[0].amounts.of_use().to_string(), "1.242501");
        assert!(lines[1].amounts.plan.is_zero());
    }

    #[test]
    fn a_cluster_is_paid_by_who_used_it_to_the_last_unit_or_by_nobody() {
        let cost = Micros::parse("100").unwrap();
        let mut lines = vec![
            line("a", "main", 1),
            line("b", "other", 50),
            line("c", "main", 1),
            line("d", "main", 1),
        ];
        share_cluster("main", cost, &mut lines);
        let shares: Vec<_> = lines
            .iter()
            .map(|line| line.amounts.cluster.get())
            .collect();
        assert_eq!(shares, [33_333_334, 0, 33_333_333, 33_333_333]);
        share_cluster("idle", cost, &mut lines);
        let unused = lines.last().unwrap();
        assert_eq!((&*unused.tenant, unused.amounts.cluster), (UNUSED, cost));
        assert_eq!(unused.cluster.as_deref(), Some("idle"));
    }
}
