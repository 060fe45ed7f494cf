//! What a month costs whom: what was used, by the prices of `proxy.toml`.

mod charge;
mod csv;
mod month;
mod used;

pub use charge::{Amounts, Quantities};
pub use month::{CostMonth, NoMonth};

use super::{Actor, Control, ControlError, Role};
use crate::{
    config::{Micros, Prices},
    tenant::ClusterName,
};
use serde::Serialize;
use sqlx::PgConnection;
use std::sync::Arc;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// Tenants of one report.
const TENANTS_MAX: usize = 100_000;

/// Stands where a cluster's cost is nobody's. No id has parentheses.
const UNUSED: &str = "(unused)";

/// Stands before the sums.
const TOTAL: &str = "(total)";

/// What a month costs one tenant; or a cluster that nobody used; or all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct CostLine {
    /// The tenant; `(unused)` for a cluster that nobody used; `(total)`.
    pub tenant: String,
    /// The plan that it has now; `null` where its record is gone, or is not in the registry.
    pub plan: Option<String>,
    /// The cluster that it is on now; `null` likewise.
    pub cluster: Option<String>,
    /// Whether the plan is to be paid.
    #[serde(skip)]
    is_plan_due: bool,
    /// What it used.
    pub quantities: Quantities,
    /// What that costs.
    pub amounts: Amounts,
    /// All of it.
    #[schema(value_type = String, example = "12.50")]
    pub total: Micros,
}

/// What a month costs whom. Amounts are decimal texts in the currency, exact to six decimals: each is rounded
/// there, half a millionth upwards, and sums are sums of what stands above them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct CostReport {
    /// Which: `2026-11`, in UTC.
    #[schema(value_type = String, example = "2026-11")]
    pub month: CostMonth,
    /// Of all amounts.
    pub currency: String,
    /// Tenants in the order of their names, then clusters that nobody used.
    pub lines: Vec<CostLine>,
    /// The sums.
    pub total: CostLine,
}

/// Whose costs.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    begin: OffsetDateTime,
    end: OffsetDateTime,
    /// Since when what was used counts.
    from: OffsetDateTime,
    tenant: Option<&'a str>,
}

impl Control {
    /// What a month costs each tenant, also those that are gone; what a proxy has not written yet is not in
    /// it. Needs an operator with the role `viewer`. Three queries, and a line in memory for each tenant.
    ///
    /// # Errors
    /// [`ControlError`]; [`ControlError::Invalid`] where there are no prices, or too many tenants.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn costs(&self, actor: &Actor, month: CostMonth) -> Result<CostReport, ControlError> {
        actor.may_operate(Role::Viewer)?;
        let prices = self.known_prices()?;
        let (begin, end) = month.span();
        let asked = Asked {
            begin,
            end,
            from: begin,
            tenant: None,
        };
        let mut db = self.registry.pool.acquire().await?;
        let mut lines = used::lines(&mut db, asked).await?;
        charge::charge(&prices, &mut lines, month.hours());
        for (cluster, cost) in &prices.clusters {
            charge::share_cluster(cluster.as_str(), *cost, &mut lines);
        }
        Ok(report(month, &prices, lines))
    }

    /// The same for one tenant. Needs the role `viewer`.
    ///
    /// # Errors
    /// The same; [`ControlError::NotFound`] for a tenant that there is not and that used nothing then.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn tenant_costs(
        &self,
        actor: &Actor,
        tenant: &str,
        month: CostMonth,
    ) -> Result<CostReport, ControlError> {
        actor.may(Role::Viewer, tenant)?;
        let prices = self.known_prices()?;
        let (begin, end) = month.span();
        let mut db = self.registry.pool.acquire().await?;
        // Whoever had its name before is not its business.
        let from = match &actor.tenant {
            Some(_) => used::made_in_hour(&mut db, tenant)
                .await?
                .map_or(begin, |at| at.max(begin)),
            None => begin,
        };
        let asked = Asked {
            begin,
            end,
            from,
            tenant: Some(tenant),
        };
        let mut lines = used::lines(&mut db, asked).await?;
        let Some(line) = lines.first_mut() else {
            return Err(ControlError::NotFound {
                what: "tenant",
                id: tenant.to_owned(),
            });
        };
        share_of(&mut db, &prices, line, asked).await?;
        charge::charge(&prices, &mut lines, month.hours());
        Ok(report(month, &prices, lines))
    }

    fn known_prices(&self) -> Result<Arc<Prices>, ControlError> {
        self.prices
            .load_full()
            .ok_or_else(|| ControlError::Invalid {
                field: "prices".to_owned(),
                problem: "proxy.toml has none in [prices]; give it a currency, and what use costs"
                    .to_owned(),
            })
    }
}

/// One tenant's share of its cluster, where that costs something.
async fn share_of(
    db: &mut PgConnection,
    prices: &Prices,
    line: &mut CostLine,
    asked: Asked<'_>,
) -> Result<(), ControlError> {
    let cluster = line
        .cluster
        .as_deref()
        .and_then(|name| ClusterName::new(name).ok());
    let Some((cluster, cost)) = cluster.and_then(|name| prices.clusters.get_key_value(&name))
    else {
        return Ok(());
    };
    let mut times = used::times_of(db, cluster.as_str(), asked).await?;
    for (tenant, time) in &mut times {
        if *tenant == line.tenant {
            *time = line.quantities.server_time_us;
        }
    }
    let weights: Vec<_> = times.iter().map(|(_, time)| *time).collect();
    let shares = cost.shares(&weights).unwrap_or_default();
    let mut shares = times.iter().zip(shares);
    let own = shares.find(|((tenant, _), _)| *tenant == line.tenant);
    line.amounts.cluster = own.map(|(_, share)| share).unwrap_or_default();
    Ok(())
}

fn report(month: CostMonth, prices: &Prices, mut lines: Vec<CostLine>) -> CostReport {
    let mut total = CostLine {
        tenant: TOTAL.to_owned(),
        ..CostLine::default()
    };
    for line in &mut lines {
        line.total = line.amounts.sum();
        total.quantities.add(&line.quantities);
        total.amounts.add(&line.amounts);
        total.total += line.total;
    }
    CostReport {
        month,
        currency: prices.currency.to_string(),
        lines,
        total,
    }
}
