//! `…/subscription`, `…/quota`, `…/usage`, `…/analytics`, `…/activity`, `…/health`: what is known.
//!
//! What nobody counts yet is `null`, and the note says so: no number is invented.

use super::{
    Look,
    extract::{At, Caller, Given, PageQuery},
    live::LiveTenant,
    problem::{Problem, Problems},
};
use crate::control::{
    Counts, EventView, Health, Listed, Month, Plan, TenantView, UsageBy, UsedIn, plan,
};
use crate::tenant::Limits;
use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// What is said of what nobody counts.
const NOT_COUNTED: &str = "this is not counted yet";
const OF_THIS_PROCESS: &str = "of this process alone, now";
const OF_THE_MONTH: &str =
    "of this month in UTC, as the proxies have written it; more is not refused";
const MEASURED: &str = "as measured last; more is not refused";
const MEASURED_AND_HELD: &str =
    "as measured last; with all of it used the tenant may only read and free space";

pub(super) fn routes() -> OpenApiRouter<Look> {
    OpenApiRouter::new()
        .routes(routes!(subscription))
        .routes(routes!(quota))
        .routes(routes!(usage))
        .routes(routes!(analytics))
        .routes(routes!(activity))
        .routes(routes!(health))
}

/// What a tenant has agreed on.
#[derive(Debug, Serialize, ToSchema)]
struct Subscription {
    /// The plan's name.
    plan: String,
    /// What it includes; `null` for `custom` and other names that are agreed on elsewhere.
    limits: Option<Plan>,
    /// The tenant's status.
    status: String,
    /// Since when there is the tenant.
    #[serde(with = "time::serde::rfc3339")]
    since: OffsetDateTime,
    /// How often it is paid for: not known here.
    cycle: Option<String>,
    /// When its trial ends: not known here.
    trial_ends_at: Option<String>,
    /// What is missing, and why.
    note: &'static str,
}

/// A tenant's plan
#[utoipa::path(get, path = "/api/tenants/{id}/subscription", tag = "figures", operation_id = "get_subscription",
    params(("id" = String, Path, description = "The tenant")),
    responses((status = 200, description = "As it is now", body = Subscription), Problems))]
async fn subscription(
    State(look): State<Look>,
    Caller(actor): Caller,
    at: At,
) -> Result<Json<Subscription>, Problem> {
    let view = look.control.tenant(&actor, &at.tenant).await?;
    Ok(Json(Subscription {
        limits: plan(&view.plan),
        plan: view.plan,
        status: view.status,
        since: view.created_at,
        cycle: None,
        trial_ends_at: None,
        note: "cycle and trial are not kept yet",
    }))
}

/// How much of something there is.
#[derive(Debug, Serialize, ToSchema)]
struct Quota {
    /// `users`, `client_connections`, `server_connections`, `api_calls`, `transactions`, `storage_bytes`.
    name: &'static str,
    /// At most; `null` where nothing is agreed on.
    max: Option<u64>,
    /// In use; `null` where it is not counted.
    current: Option<u64>,
    /// `max - current`.
    available: Option<u64>,
    /// `current` of `max`.
    percentage: Option<f64>,
    /// Whether more is refused.
    enforced: bool,
    /// How it is counted, or that it is not.
    note: Option<&'static str>,
}

impl Quota {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a percentage is no exact number"
    )]
    fn new(name: &'static str, (max, current): (Option<u64>, Option<u64>)) -> Self {
        let both = max.zip(current);
        let percentage = both.filter(|(max, _)| *max > 0);
        Self {
            name,
            max,
            current,
            available: both.map(|(max, current)| max.saturating_sub(current)),
            percentage: percentage.map(|(max, current)| current as f64 * 100.0 / max as f64),
            enforced: false,
            note: current.is_none().then_some(NOT_COUNTED),
        }
    }
}

/// A tenant's limits, and how much of them is used.
#[derive(Debug, Serialize, ToSchema)]
struct Quotas {
    /// The plan's name.
    plan: String,
    /// One for each limit.
    quotas: Vec<Quota>,
}

/// A tenant's limits, and how much of them is used
#[utoipa::path(get, path = "/api/tenants/{id}/quota", tag = "figures", operation_id = "get_quota",
    params(("id" = String, Path, description = "The tenant")),
    responses((status = 200, description = "As it is now", body = Quotas), Problems))]
async fn quota(
    State(look): State<Look>,
    Caller(actor): Caller,
    at: At,
) -> Result<Json<Quotas>, Problem> {
    let view = look.control.tenant(&actor, &at.tenant).await?;
    let counts = look.control.counts(&actor, &at.tenant).await?;
    let live = look.live.tenant(&at.tenant);
    let users = u64::try_from(counts.users).unwrap_or(0);
    let plan = plan(&view.plan);
    let month = look.control.month(&actor, &at.tenant).await?;
    let of_plan = |of: fn(&Plan) -> u64| plan.as_ref().map(of);
    let counted = |name, both: (Option<u64>, Option<u64>), note| {
        let quota = Quota::new(name, both);
        let note = quota.note.or(Some(note));
        Quota { note, ..quota }
    };
    let queries = (of_plan(|plan| plan.api_calls_per_month), month.queries);
    let transactions = of_plan(|plan| plan.transactions_per_month);
    let transactions = (transactions, month.transactions);
    let mut quotas = connections(&view, live);
    quotas.extend([
        Quota::new("users", (of_plan(|plan| plan.users), Some(users))),
        counted("api_calls", queries, OF_THE_MONTH),
        counted("transactions", transactions, OF_THE_MONTH),
        storage_quota(&view, &month),
    ]);
    let plan = view.plan;
    Ok(Json(Quotas { plan, quotas }))
}

/// What a tenant's data may take: it is held to `max_storage_bytes`; what its plan has is told.
fn storage_quota(view: &TenantView, month: &Month) -> Quota {
    let limit = view.max_storage_bytes;
    let limit = limit
        .and_then(|limit| u64::try_from(limit).ok())
        .filter(|limit| *limit > 0);
    let planned = plan(&view.plan).map(|plan| plan.storage_bytes);
    let note = match limit {
        Some(_) => MEASURED_AND_HELD,
        None => MEASURED,
    };
    let quota = Quota::new("storage_bytes", (limit.or(planned), month.storage_bytes));
    Quota {
        enforced: limit.is_some(),
        note: quota.note.or(Some(note)),
        ..quota
    }
}

/// The limits that the proxy holds a tenant to.
fn connections(view: &TenantView, live: LiveTenant) -> Vec<Quota> {
    let defaults = Limits::default();
    let limit = |value: Option<i32>, default: u32| {
        let given = value.and_then(|value| u64::try_from(value).ok());
        Some(given.unwrap_or(u64::from(default)))
    };
    let clients = limit(view.max_client_connections, defaults.max_client_connections);
    let servers = limit(view.pool_size, defaults.pool_size);
    let clients = Quota::new("client_connections", (clients, Some(live.clients)));
    let used = live.servers_active + live.servers_idle;
    // The limit is one for each role: one that reads and writes, one that reads.
    let servers = servers.map(|servers| servers * 2);
    let servers = Quota::new("server_connections", (servers, Some(used)));
    let held = |quota| Quota {
        enforced: true,
        note: Some(OF_THIS_PROCESS),
        ..quota
    };
    vec![held(clients), held(servers)]
}

/// What a tenant uses.
#[derive(Debug, Serialize, ToSchema)]
struct Usage {
    /// Sessions and servers of this process, now.
    now: LiveTenant,
    /// Queries in this month.
    api_calls: Option<u64>,
    /// Transactions in this month.
    transactions: Option<u64>,
    /// Bytes of storage.
    storage_bytes: Option<u64>,
    /// What was used by days or hours (UTC); `null` where the query has no `by`.
    parts: Option<Vec<UsedIn>>,
    /// What is missing, and why.
    note: &'static str,
}

/// Which parts of what was used.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UsageQuery {
    /// How long the parts are; without it, none are told.
    #[param(inline)]
    by: Option<UsageBy>,
    /// From the hour of this time; by days this month, by hours 24 hours where it is not given.
    #[serde(default, with = "time::serde::rfc3339::option")]
    from: Option<OffsetDateTime>,
    /// Up to this time; now where it is not given.
    #[serde(default, with = "time::serde::rfc3339::option")]
    to: Option<OffsetDateTime>,
}

/// What a tenant uses
#[utoipa::path(get, path = "/api/tenants/{id}/usage", tag = "figures", operation_id = "get_usage",
    params(("id" = String, Path, description = "The tenant"), UsageQuery),
    responses((status = 200, description = "As it is now", body = Usage), Problems))]
async fn usage(
    State(look): State<Look>,
    Caller(actor): Caller,
    at: At,
    Given(query): Given<UsageQuery>,
) -> Result<Json<Usage>, Problem> {
    look.control.tenant(&actor, &at.tenant).await?;
    let now = OffsetDateTime::now_utc();
    let parts = match query.by {
        Some(by) => {
            let span = (
                query.from.unwrap_or_else(|| by.since(now)),
                query.to.unwrap_or(now),
            );
            let usage = look.control.usage(&actor, &at.tenant, span, by).await?;
            Some(usage.parts)
        }
        None => None,
    };
    let month = look.control.month(&actor, &at.tenant).await?;
    Ok(Json(Usage {
        now: look.live.tenant(&at.tenant),
        api_calls: month.queries,
        transactions: month.transactions,
        storage_bytes: month.storage_bytes,
        parts,
        note: "what is null is not known; \"now\" is of this process alone; the month is that of UTC, as the proxies have written it",
    }))
}

/// A tenant in figures.
#[derive(Debug, Serialize, ToSchema)]
struct Analytics {
    /// Its status.
    status: String,
    /// Its plan.
    plan: String,
    /// What it has.
    counts: Counts,
    /// People who were active in the last 30 days.
    active_users_30d: Option<u64>,
    /// Queries in this month.
    api_calls: Option<u64>,
    /// Transactions in this month.
    transactions: Option<u64>,
    /// Bytes of storage.
    storage_bytes: Option<u64>,
    /// What is missing, and why.
    note: &'static str,
}

/// A tenant in figures
#[utoipa::path(get, path = "/api/tenants/{id}/analytics", tag = "figures", operation_id = "get_analytics",
    params(("id" = String, Path, description = "The tenant")),
    responses((status = 200, description = "As it is now", body = Analytics), Problems))]
async fn analytics(
    State(look): State<Look>,
    Caller(actor): Caller,
    at: At,
) -> Result<Json<Analytics>, Problem> {
    let view = look.control.tenant(&actor, &at.tenant).await?;
    let month = look.control.month(&actor, &at.tenant).await?;
    Ok(Json(Analytics {
        counts: look.control.counts(&actor, &at.tenant).await?,
        status: view.status,
        plan: view.plan,
        active_users_30d: None,
        api_calls: month.queries,
        transactions: month.transactions,
        storage_bytes: month.storage_bytes,
        note: "what is null is not known",
    }))
}

/// What happened to a tenant
///
/// The newest first. It outlives the tenant.
#[utoipa::path(get, path = "/api/tenants/{id}/activity", tag = "figures", operation_id = "list_activity",
    params(("id" = String, Path, description = "The tenant"), PageQuery),
    responses((status = 200, description = "As it is now", body = Listed<EventView>), Problems))]
async fn activity(
    State(look): State<Look>,
    Caller(actor): Caller,
    at: At,
    Given(page): Given<PageQuery>,
) -> Result<Json<Listed<EventView>>, Problem> {
    Ok(Json(
        look.control
            .activity(&actor, &at.tenant, page.into())
            .await?,
    ))
}

/// A tenant's health, with its sessions.
#[derive(Debug, Serialize, ToSchema)]
struct TenantHealth {
    #[serde(flatten)]
    health: Health,
    /// Sessions and servers of this process, now.
    now: LiveTenant,
}

/// Whether a tenant's clients can work
///
/// Asks its cluster.
#[utoipa::path(get, path = "/api/tenants/{id}/health", tag = "figures", operation_id = "get_health",
    params(("id" = String, Path, description = "The tenant")),
    responses((status = 200, description = "As it is now", body = TenantHealth), Problems))]
async fn health(
    State(look): State<Look>,
    Caller(actor): Caller,
    at: At,
) -> Result<Json<TenantHealth>, Problem> {
    let health = look.control.health(&actor, &at.tenant).await?;
    let now = look.live.tenant(&at.tenant);
    Ok(Json(TenantHealth { health, now }))
}
