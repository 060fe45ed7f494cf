//! `[prices]`.

use super::{Check, Checked};
use crate::{
    config::{Free, Micros, Prices, error::Fault, location::At, raw, units::Price},
    tenant::ClusterName,
};
use std::{collections::BTreeMap, sync::Arc};

fn or_zero(price: Option<Price>) -> Micros {
    price.map(|Price(price)| price).unwrap_or_default()
}

impl Check<'_> {
    pub(super) fn prices(&mut self, prices: raw::Prices) -> Checked<Option<Arc<Prices>>> {
        if prices == raw::Prices::default() {
            return Ok(None);
        }
        let at = At::top("prices");
        let currency = match prices.currency {
            Some(text) if text.len() == 3 && text.bytes().all(|it| it.is_ascii_uppercase()) => {
                Ok(text.into_boxed_str())
            }
            Some(value) => self.problem(at.key("currency"), Fault::Currency { value }),
            None => self.problem(
                at.key("currency"),
                Fault::Missing("write three letters, such as \"EUR\""),
            ),
        };
        let mut clusters = BTreeMap::new();
        for (name, Price(price)) in &prices.clusters {
            match ClusterName::new(name) {
                Ok(cluster) => drop(clusters.insert(cluster, *price)),
                Err(source) => {
                    let value = name.clone();
                    let table = at.key("clusters");
                    self.note(table.key(name), Fault::Id { value, source });
                }
            }
        }
        let plans = prices.plan.into_iter();
        let free = prices.free;
        Ok(Some(Arc::new(Prices {
            currency: currency?,
            per_million_queries: or_zero(prices.per_million_queries),
            per_million_transactions: or_zero(prices.per_million_transactions),
            per_gb_in: or_zero(prices.per_gb_in),
            per_gb_out: or_zero(prices.per_gb_out),
            per_server_hour: or_zero(prices.per_server_hour),
            per_gb_month: or_zero(prices.per_gb_month),
            plans: plans
                .map(|(plan, Price(price))| (plan.into_boxed_str(), price))
                .collect(),
            clusters,
            free: Free {
                queries: free.queries.unwrap_or_default(),
                transactions: free.transactions.unwrap_or_default(),
                gb_in: or_zero(free.gb_in),
                gb_out: or_zero(free.gb_out),
                server_hours: or_zero(free.server_hours),
                gb_months: or_zero(free.gb_months),
            },
        })))
    }
}
