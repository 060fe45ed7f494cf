//! `/api/tenants`: tenants and their lifecycle.

use super::{
    Look,
    extract::{Asked, At, Caller, Given, MayAsk, PageQuery},
    problem::{Problem, Problems},
    shown::{ShownTenant, shown},
};
use crate::control::{
    Control, Listed, NewTenant, PoolChange, Role, TenantChange, TenantView, Termination,
};
use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// How long the data of a removed tenant stays where nothing is said: a week.
const GRACE_SECONDS: u64 = 7 * 24 * 3600;

pub(super) fn routes() -> OpenApiRouter<Look> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, change, remove))
        .routes(routes!(suspend))
        .routes(routes!(resume))
        .routes(routes!(pool, resize, resize_by_post))
}

/// All tenants
///
/// In the order of their ids. A tenant's own token sees itself alone.
#[utoipa::path(get, path = "/api/tenants", tag = "tenants", params(PageQuery),
    responses((status = 200, description = "As it is now", body = Listed<TenantView>), Problems))]
async fn list(
    State(control): State<Control>,
    Caller(actor): Caller,
    Given(page): Given<PageQuery>,
) -> Result<Json<Listed<TenantView>>, Problem> {
    Ok(Json(control.list_tenants(&actor, page.into()).await?))
}

/// Makes a tenant
///
/// Its place in the cluster is made, and two keys, which are shown only now. Needs an operator with
/// the role `admin`.
#[utoipa::path(post, path = "/api/tenants", tag = "tenants", operation_id = "create_tenant",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key and request give the same answer, for a day")),
    request_body = NewTenant,
    responses((status = 201, description = "It is made", body = ShownTenant), Problems))]
async fn create(
    State(control): State<Control>,
    Caller(actor): Caller,
    Asked(new): Asked<NewTenant>,
) -> Result<Response, Problem> {
    let created = control.create_tenant(&actor, new).await?;
    let place = HeaderValue::try_from(format!("/api/tenants/{}", created.tenant.id));
    let mut response = (StatusCode::CREATED, shown(created.reveal())).into_response();
    if let Ok(place) = place {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// One tenant
#[utoipa::path(get, path = "/api/tenants/{id}", tag = "tenants", operation_id = "get_tenant",
    params(("id" = String, Path, description = "The tenant")),
    responses((status = 200, description = "As it is now", body = TenantView), Problems))]
async fn get(
    State(control): State<Control>,
    Caller(actor): Caller,
    at: At,
) -> Result<Json<TenantView>, Problem> {
    Ok(Json(control.tenant(&actor, &at.tenant).await?))
}

/// Changes a tenant
///
/// Fields that are not given stay, `null` is the default. Needs an operator with the role `admin`.
#[utoipa::path(put, path = "/api/tenants/{id}", tag = "tenants", operation_id = "change_tenant",
    params(("id" = String, Path, description = "The tenant")), request_body = TenantChange,
    responses((status = 200, description = "As it is now", body = TenantView), Problems))]
async fn change(
    State(control): State<Control>,
    Caller(actor): Caller,
    at: At,
    Asked(change): Asked<TenantChange>,
) -> Result<Json<TenantView>, Problem> {
    Ok(Json(
        control.update_tenant(&actor, &at.tenant, change).await?,
    ))
}

/// How a tenant ends.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Removal {
    /// How long its data stays; 0: it goes now. A week where nothing is said.
    #[param(maximum = 31_536_000)]
    grace_seconds: Option<u64>,
}

/// Ends a tenant
///
/// Its sessions end and its logins are refused at once; its data goes after the grace. A final dump
/// is made with `pgusher tenant delete --dump`. Needs an operator with the role `admin`.
#[utoipa::path(delete, path = "/api/tenants/{id}", tag = "tenants", operation_id = "remove_tenant",
    params(("id" = String, Path, description = "The tenant"), Removal),
    responses((status = 204, description = "It is ended"), Problems))]
async fn remove(
    State(control): State<Control>,
    Caller(actor): Caller,
    at: At,
    Given(removal): Given<Removal>,
) -> Result<StatusCode, Problem> {
    let seconds = removal.grace_seconds.unwrap_or(GRACE_SECONDS);
    if seconds > 365 * 24 * 3600 {
        return Err(Problem::invalid("grace_seconds", "it is more than a year"));
    }
    let how = Termination {
        grace: Duration::from_secs(seconds),
        // A path on this machine is the command line's to give.
        dump: None,
    };
    control.terminate(&actor, &at.tenant, how).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Why something is done.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct Reason {
    /// For the event, and for who asks later.
    #[schema(max_length = 1000)]
    reason: String,
}

/// Suspends a tenant
///
/// Its sessions end and its logins are refused. Needs an operator with the role `admin`.
#[utoipa::path(post, path = "/api/tenants/{id}/suspend", tag = "tenants", operation_id = "suspend_tenant",
    params(("id" = String, Path, description = "The tenant"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and request give the same answer, for a day")),
    request_body = Option<Reason>,
    responses((status = 200, description = "As it is now", body = TenantView), Problems))]
async fn suspend(
    State(control): State<Control>,
    Caller(actor): Caller,
    at: At,
    MayAsk(Reason { reason }): MayAsk<Reason>,
) -> Result<Json<TenantView>, Problem> {
    if reason.len() > 1000 {
        return Err(Problem::invalid("reason", "it has more than 1000 bytes"));
    }
    Ok(Json(control.suspend(&actor, &at.tenant, &reason).await?))
}

/// Serves a suspended tenant again
///
/// Needs an operator with the role `admin`.
#[utoipa::path(post, path = "/api/tenants/{id}/resume", tag = "tenants", operation_id = "resume_tenant",
    params(("id" = String, Path, description = "The tenant"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and request give the same answer, for a day")),
    responses((status = 200, description = "As it is now", body = TenantView), Problems))]
async fn resume(
    State(control): State<Control>,
    Caller(actor): Caller,
    at: At,
) -> Result<Json<TenantView>, Problem> {
    Ok(Json(control.resume(&actor, &at.tenant).await?))
}

/// How a tenant's servers are shared; what is `null` has its default.
#[derive(Debug, Serialize, ToSchema)]
#[expect(
    clippy::struct_field_names,
    reason = "a field is named as in proxy.toml"
)]
struct Pool {
    /// `session`, `transaction` or `statement`.
    pool_mode: Option<String>,
    /// Servers for each of its roles.
    pool_size: Option<i32>,
    /// Servers that are kept open.
    min_pool_size: Option<i32>,
    /// Server connections of the cluster that others can't keep from it.
    guaranteed_servers: Option<i32>,
    /// Its part when all want more than there are.
    weight: Option<i32>,
    /// Clients at the same time.
    max_client_connections: Option<i32>,
    /// Servers that sessions may keep.
    max_pinned_servers: Option<i32>,
    /// Transactions that run at the same time, in each proxy.
    max_concurrent_queries: Option<i32>,
    /// Clients that wait for that at the same time.
    max_waiting: Option<i32>,
}

impl From<TenantView> for Pool {
    fn from(view: TenantView) -> Self {
        Self {
            pool_mode: view.pool_mode,
            pool_size: view.pool_size,
            min_pool_size: view.min_pool_size,
            guaranteed_servers: view.guaranteed_servers,
            weight: view.weight,
            max_client_connections: view.max_client_connections,
            max_pinned_servers: view.max_pinned_servers,
            max_concurrent_queries: view.max_concurrent_queries,
            max_waiting: view.max_waiting,
        }
    }
}

/// How a tenant's servers are shared
///
/// What is `null` has its default. What of it is in use, `usage` tells.
#[utoipa::path(get, path = "/api/tenants/{id}/pool", tag = "tenants", operation_id = "get_pool",
    params(("id" = String, Path, description = "The tenant")),
    responses((status = 200, description = "As it is now", body = Pool), Problems))]
async fn pool(
    State(control): State<Control>,
    Caller(actor): Caller,
    at: At,
) -> Result<Json<Pool>, Problem> {
    actor.may(Role::Viewer, &at.tenant)?;
    Ok(Json(control.tenant(&actor, &at.tenant).await?.into()))
}

/// Changes how a tenant's servers are shared
///
/// It takes effect at once, without a lost session. Needs an operator with the role `manager`.
#[utoipa::path(put, path = "/api/tenants/{id}/pool", tag = "tenants", operation_id = "resize_pool",
    params(("id" = String, Path, description = "The tenant")), request_body = PoolChange,
    responses((status = 200, description = "As it is now", body = Pool), Problems))]
async fn resize(
    State(control): State<Control>,
    Caller(actor): Caller,
    at: At,
    Asked(change): Asked<PoolChange>,
) -> Result<Json<Pool>, Problem> {
    Ok(Json(
        control
            .resize_pool(&actor, &at.tenant, change)
            .await?
            .into(),
    ))
}

/// The same as PUT
///
/// With an `Idempotency-Key`, if wanted.
#[utoipa::path(post, path = "/api/tenants/{id}/pool", tag = "tenants", operation_id = "resize_pool_by_post",
    params(("id" = String, Path, description = "The tenant"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and request give the same answer, for a day")),
    request_body = PoolChange,
    responses((status = 200, description = "As it is now", body = Pool), Problems))]
async fn resize_by_post(
    state: State<Control>,
    caller: Caller,
    at: At,
    change: Asked<PoolChange>,
) -> Result<Json<Pool>, Problem> {
    resize(state, caller, at, change).await
}
