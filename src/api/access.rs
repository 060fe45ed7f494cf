//! `…/users` and `…/api-keys`: who may use a tenant.

use super::{
    Look,
    extract::{Asked, At, Caller, Given, MayAsk, PageQuery},
    problem::{Problem, Problems},
    shown::{ShownKey, shown},
};
use crate::control::{Control, KeyChange, KeyView, Listed, MemberView, NewKey, NewMember};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Look> {
    OpenApiRouter::new()
        .routes(routes!(users, add_user))
        .routes(routes!(remove_user))
        .routes(routes!(keys, create_key))
        .routes(routes!(change_key, revoke_key))
}

/// A tenant's users
#[utoipa::path(get, path = "/api/tenants/{id}/users", tag = "access", operation_id = "list_users",
    params(("id" = String, Path, description = "The tenant"), PageQuery),
    responses((status = 200, description = "As it is now", body = Listed<MemberView>), Problems))]
async fn users(
    State(control): State<Control>,
    Caller(actor): Caller,
    at: At,
    Given(page): Given<PageQuery>,
) -> Result<Json<Listed<MemberView>>, Problem> {
    Ok(Json(
        control
            .list_members(&actor, &at.tenant, &page.into())
            .await?,
    ))
}

/// Adds a user
///
/// Needs the role `manager`, and nobody gives a role above their own.
#[utoipa::path(post, path = "/api/tenants/{id}/users", tag = "access", operation_id = "add_user",
    params(("id" = String, Path, description = "The tenant"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and request give the same answer, for a day")),
    request_body = NewMember,
    responses((status = 201, description = "It is made", body = MemberView), Problems))]
async fn add_user(
    State(control): State<Control>,
    Caller(actor): Caller,
    at: At,
    Asked(new): Asked<NewMember>,
) -> Result<Response, Problem> {
    let added = control.add_member(&actor, &at.tenant, new).await?;
    Ok((StatusCode::CREATED, Json(added)).into_response())
}

/// Removes a user
///
/// Needs the role `manager`, and nobody removes who has a role above theirs.
#[utoipa::path(delete, path = "/api/tenants/{id}/users/{email}", tag = "access", operation_id = "remove_user",
    params(("id" = String, Path, description = "The tenant"), ("email" = String, Path, description = "The user's address")),
    responses((status = 204, description = "They are removed"), Problems))]
async fn remove_user(
    State(control): State<Control>,
    Caller(actor): Caller,
    at: At,
) -> Result<StatusCode, Problem> {
    control.remove_member(&actor, &at.tenant, &at.inner).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A tenant's API keys
///
/// Revoked ones too, the oldest first; never the keys themselves.
#[utoipa::path(get, path = "/api/tenants/{id}/api-keys", tag = "access", operation_id = "list_keys",
    params(("id" = String, Path, description = "The tenant"), PageQuery),
    responses((status = 200, description = "As it is now", body = Listed<KeyView>), Problems))]
async fn keys(
    State(control): State<Control>,
    Caller(actor): Caller,
    at: At,
    Given(page): Given<PageQuery>,
) -> Result<Json<Listed<KeyView>>, Problem> {
    Ok(Json(
        control.list_keys(&actor, &at.tenant, &page.into()).await?,
    ))
}

/// Makes an API key
///
/// It is shown only now. Needs the role `manager`.
#[utoipa::path(post, path = "/api/tenants/{id}/api-keys", tag = "access", operation_id = "create_key",
    params(("id" = String, Path, description = "The tenant"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and request give the same answer, for a day")),
    request_body = Option<NewKey>,
    responses((status = 201, description = "It is made", body = ShownKey), Problems))]
async fn create_key(
    State(control): State<Control>,
    Caller(actor): Caller,
    at: At,
    MayAsk(new): MayAsk<NewKey>,
) -> Result<Response, Problem> {
    let created = control.create_key(&actor, &at.tenant, new).await?;
    Ok((StatusCode::CREATED, shown(created.reveal())).into_response())
}

/// Changes an API key
///
/// Fields that are not given stay; `null` is none, of limits, times and `allow`. Rates and
/// `max_concurrent_queries` hold for sessions that are open, too, as soon as the proxies hear of it; the rest
/// is asked at a login, and a key's sessions end when it expires. One that is revoked or has expired stays so.
/// Needs an operator with the role `manager`.
#[utoipa::path(patch, path = "/api/tenants/{id}/api-keys/{key}", tag = "access", operation_id = "change_key",
    params(("id" = String, Path, description = "The tenant"), ("key" = String, Path, description = "The key's id")),
    request_body = KeyChange,
    responses((status = 200, description = "As it is now", body = KeyView), Problems))]
async fn change_key(
    State(control): State<Control>,
    Caller(actor): Caller,
    at: At,
    Asked(change): Asked<KeyChange>,
) -> Result<Json<KeyView>, Problem> {
    let key = (at.tenant.as_str(), at.inner.as_str());
    Ok(Json(control.change_key(&actor, key, change).await?))
}

/// Revokes an API key
///
/// Its sessions end as soon as the proxies hear of it. Done again, it changes nothing. Needs the
/// role `manager`.
#[utoipa::path(delete, path = "/api/tenants/{id}/api-keys/{key}", tag = "access", operation_id = "revoke_key",
    params(("id" = String, Path, description = "The tenant"), ("key" = String, Path, description = "The key's id")),
    responses((status = 200, description = "As it is now", body = KeyView), Problems))]
async fn revoke_key(
    State(control): State<Control>,
    Caller(actor): Caller,
    at: At,
) -> Result<Json<KeyView>, Problem> {
    Ok(Json(
        control.revoke_key(&actor, &at.tenant, &at.inner).await?,
    ))
}
