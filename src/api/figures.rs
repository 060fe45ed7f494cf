//! `…/subscription`, `…/quota`, `…/usage`, `…/analytics`, `…/activity`, `…/health`: what is known.
//!
//! What nobody counts is `null`, and the note says so: no number is invented.

use super::{
    Look,
    extract::{At, Caller, Given, PageQuery},
    live::LiveTenant,
    problem::{Problem, Problems},
};
use crate::{
    control::{Counts, EventView, Health, Listed, QuotaView, QuotasView, UsageBy, UsedIn},
    tenant::Plan,
};
use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

const OF_THIS_PROCESS: &str = "of this process alone, now";

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
    /// What it includes; `null` for `custom` and names that nobody has given a meaning.
    limits: Option<Included>,
    /// Whether its limits and quotas are enforced.
    enforced: bool,
    /// The tenant's status.
    status: String,
    /// Since when there is the tenant.
    #[serde(with = "time::serde::rfc3339")]
    since: OffsetDateTime,
    /// How long its quotas are for: months in UTC.
    cycle: &'static str,
    /// When its trial ends; `null`: it is on none.
    #[serde(with = "time::serde::rfc3339::option")]
    trial_ends_at: Option<OffsetDateTime>,
    /// What is missing, and why.
    note: &'static str,
}

/// What a plan includes.
#[derive(Debug, Serialize, ToSchema)]
struct Included {
    #[serde(flatten)]
    plan: Plan,
    /// As `queries_per_month`.
    api_calls_per_month: Option<u64>,
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
    let plan = look.control.plan_of(&view).await?;
    Ok(Json(Subscription {
        enforced: plan.is_some(),
        limits: plan.map(|plan| Included {
            api_calls_per_month: plan.queries_per_month,
            plan,
        }),
        trial_ends_at: view.trial_ends_at,
        plan: view.plan,
        status: view.status,
        since: view.created_at,
        cycle: "monthly",
        note: "users are told, not enforced; what the tenant says itself stands over its plan",
    }))
}

/// A tenant's limits, and how much of them is used
#[utoipa::path(get, path = "/api/tenants/{id}/quota", tag = "figures", operation_id = "get_quota",
    params(("id" = String, Path, description = "The tenant")),
    responses((status = 200, description = "As it is now", body = QuotasView), Problems))]
async fn quota(
    State(look): State<Look>,
    Caller(actor): Caller,
    at: At,
) -> Result<Json<QuotasView>, Problem> {
    let mut view = look.control.quotas(&actor, &at.tenant).await?;
    let live = look.live.tenant(&at.tenant);
    for quota in &mut view.quotas {
        let current = match quota.name {
            "client_connections" => live.clients,
            "server_connections" => live.servers_active + live.servers_idle,
            _ => continue,
        };
        let numbers = (quota.max, Some(current));
        *quota = QuotaView::new(quota.name, numbers).held(OF_THIS_PROCESS);
    }
    Ok(Json(view))
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
