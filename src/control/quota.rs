//! Where a tenant stands: its limits, and how much of them is used.

use super::{Actor, Control, ControlError, TenantView};
use crate::tenant::{Limits, Plan, Terms};
use serde::Serialize;
use time::{Date, OffsetDateTime, Time};
use utoipa::ToSchema;

/// What is said of what nobody counts.
const NOT_COUNTED: &str = "this is not counted yet";
const OF_THE_MONTH: &str = "of this month in UTC, as the proxies have written it";
const MEASURED: &str =
    "as measured last; with all of it used the tenant may only read and free space";
const IN_EACH_PROXY: &str = "in each proxy";
const TOLD: &str = "it is told, not enforced";

/// How much of something there is.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct QuotaView {
    /// `api_calls` and `transactions` (of the month), `storage_bytes`, `users`, `client_connections`,
    /// `server_connections`, and the tenant's other limits by their names.
    pub name: &'static str,
    /// At most; `null` where there is no limit.
    pub max: Option<u64>,
    /// In use; `null` where it is not counted.
    pub current: Option<u64>,
    /// `max - current`.
    pub available: Option<u64>,
    /// `current` of `max`.
    pub percentage: Option<f64>,
    /// `ok`; `soft` from 80 %; `hard` when it is used up.
    pub state: &'static str,
    /// When it begins again.
    #[serde(with = "time::serde::rfc3339::option")]
    pub resets_at: Option<OffsetDateTime>,
    /// Whether more is refused.
    pub enforced: bool,
    /// How it is counted, or that it is not.
    pub note: Option<&'static str>,
}

impl QuotaView {
    /// So much of so much.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a percentage is no exact number"
    )]
    pub fn new(name: &'static str, (max, current): (Option<u64>, Option<u64>)) -> Self {
        let both = max.zip(current);
        let percentage = both.filter(|(max, _)| *max > 0);
        Self {
            name,
            max,
            current,
            available: both.map(|(max, current)| max.saturating_sub(current)),
            percentage: percentage.map(|(max, current)| current as f64 * 100.0 / max as f64),
            state: match percentage {
                Some((max, current)) if current >= max => "hard",
                Some((max, current)) if u128::from(current) * 5 >= u128::from(max) * 4 => "soft",
                _ => "ok",
            },
            resets_at: None,
            enforced: false,
            note: current.is_none().then_some(NOT_COUNTED),
        }
    }

    /// What the proxy holds the tenant to, if it is limited.
    #[must_use]
    pub fn held(self, note: &'static str) -> Self {
        Self {
            enforced: self.max.is_some(),
            note: Some(note),
            ..self
        }
    }
}

/// A tenant's plan, and all that follows from it and from its own words.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct QuotasView {
    /// The plan's name.
    pub plan: String,
    /// When its trial ends; `null`: it is on none.
    #[serde(with = "time::serde::rfc3339::option")]
    pub trial_ends_at: Option<OffsetDateTime>,
    /// One for each limit.
    pub quotas: Vec<QuotaView>,
}

impl Control {
    /// The plan that a tenant's name for it means; `None`: it has no limits.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn plan_of(&self, tenant: &TenantView) -> Result<Option<Plan>, ControlError> {
        let mut db = self.registry.pool.acquire().await?;
        let plans = self.plans_in_force(&mut db).await?;
        Ok(plans.get(&tenant.plan).cloned())
    }

    /// Where a tenant stands with its quotas, as the proxies have written it. Needs the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn quotas(&self, actor: &Actor, id: &str) -> Result<QuotasView, ControlError> {
        let view = self.tenant(actor, id).await?;
        let counts = self.counts(actor, id).await?;
        let month = self.month(actor, id).await?;
        let plan = self.plan_of(&view).await?;
        let own = (
            number(view.queries_per_month),
            number(view.transactions_per_month),
        );
        let terms = Terms::new((&view.plan, plan.as_ref()), own);
        let users = (terms.users, u64::try_from(counts.users).ok());
        let limit = |limit: Option<std::num::NonZeroU64>| limit.map(std::num::NonZeroU64::get);
        let monthly = |name, numbers| QuotaView {
            resets_at: Some(next_month(OffsetDateTime::now_utc())),
            ..QuotaView::new(name, numbers)
        };
        let queries = monthly("api_calls", (limit(terms.queries_per_month), month.queries));
        let transactions = (limit(terms.transactions_per_month), month.transactions);
        let bytes = given(view.max_storage_bytes, plan.as_ref(), |plan| {
            plan.storage_bytes
        });
        let bytes = bytes.filter(|bytes| *bytes > 0);
        let storage = QuotaView::new("storage_bytes", (bytes, month.storage_bytes));
        let note = storage.note.unwrap_or(MEASURED);
        let storage = storage.held(note);
        let users = QuotaView {
            note: Some(TOLD),
            ..QuotaView::new("users", users)
        };
        let is_metered = self.is_metered;
        let counted = |quota: QuotaView| {
            let note = if is_metered {
                OF_THE_MONTH
            } else {
                NOT_COUNTED
            };
            quota.held(note)
        };
        let mut quotas = connections(&view, plan.as_ref());
        quotas.extend([
            users,
            counted(queries),
            counted(monthly("transactions", transactions)),
            storage,
        ]);
        quotas.extend(rates(&view, plan.as_ref()));
        Ok(QuotasView {
            plan: view.plan,
            trial_ends_at: view.trial_ends_at,
            quotas,
        })
    }
}

fn number<T: TryInto<u64>>(value: Option<T>) -> Option<u64> {
    value.and_then(|value| value.try_into().ok())
}

/// A tenant's own number, else its plan's.
fn given<T: TryInto<u64>>(
    own: Option<T>,
    plan: Option<&Plan>,
    of: fn(&Plan) -> Option<u64>,
) -> Option<u64> {
    number(own).or_else(|| plan.and_then(of))
}

/// The limits that each proxy holds a tenant to.
fn connections(view: &TenantView, plan: Option<&Plan>) -> Vec<QuotaView> {
    let defaults = Limits::default();
    let clients = given(view.max_client_connections, plan, |plan| {
        plan.max_client_connections
    });
    let clients = clients.unwrap_or(defaults.max_client_connections.into());
    let servers = given(view.pool_size, plan, |plan| plan.pool_size);
    // The limit is one for each role: one that reads and writes, one that reads.
    let servers = servers.unwrap_or(defaults.pool_size.into()) * 2;
    [
        ("client_connections", clients),
        ("server_connections", servers),
    ]
    .map(|(name, max)| QuotaView::new(name, (Some(max), None)).held(IN_EACH_PROXY))
    .into()
}

fn rates(view: &TenantView, plan: Option<&Plan>) -> Vec<QuotaView> {
    [
        (
            "max_concurrent_queries",
            given(view.max_concurrent_queries, plan, |plan| {
                plan.max_concurrent_queries
            }),
        ),
        (
            "transactions_per_second",
            given(view.transactions_per_second, plan, |plan| {
                plan.transactions_per_second
            }),
        ),
        (
            "transactions_per_hour",
            given(view.transactions_per_hour, plan, |plan| {
                plan.transactions_per_hour
            }),
        ),
        (
            "bytes_per_second",
            given(view.bytes_per_second, plan, |plan| plan.bytes_per_second),
        ),
        (
            "logins_per_second",
            given(view.logins_per_second, plan, |plan| plan.logins_per_second),
        ),
    ]
    .map(|(name, max)| QuotaView::new(name, (max.filter(|max| *max > 0), None)).held(IN_EACH_PROXY))
    .into()
}

fn next_month(now: OffsetDateTime) -> OffsetDateTime {
    let (year, month) = (now.year(), now.month());
    let year = year + i32::from(month == time::Month::December);
    let first = Date::from_calendar_date(year, month.next(), 1);
    first.map_or(now, |day| day.with_time(Time::MIDNIGHT).assume_utc())
}
