//! `…/config`: a tenant's configuration for its applications.

use super::{
    Look,
    extract::{Asked, At, Caller, Given},
    problem::{Problem, Problems},
};
use crate::control::{Control, EntryKind, EntryView, Listed, NewEntry, Page};
use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Look> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, set, remove))
}

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only those of this type.
    #[serde(rename = "type")]
    #[param(rename = "type", inline)]
    kind: Option<EntryKind>,
    /// Entries at most; 100 where it is not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// What the page before gave as `next`.
    after: Option<String>,
}

/// A tenant's configuration
///
/// In the order of the keys. The value of a sensitive entry is never shown.
#[utoipa::path(get, path = "/api/tenants/{id}/config", tag = "config", operation_id = "list_entries",
    params(("id" = String, Path, description = "The tenant"), Which),
    responses((status = 200, description = "As it is now", body = Listed<EntryView>), Problems))]
async fn list(
    State(control): State<Control>,
    Caller(actor): Caller,
    at: At,
    Given(which): Given<Which>,
) -> Result<Json<Listed<EntryView>>, Problem> {
    let page = Page {
        limit: which.limit,
        after: which.after,
    };
    let listed = control
        .list_entries(&actor, &at.tenant, (which.kind, &page))
        .await?;
    Ok(Json(listed))
}

/// One entry
///
/// The value of a sensitive one is never shown.
#[utoipa::path(get, path = "/api/tenants/{id}/config/{key}", tag = "config", operation_id = "get_entry",
    params(("id" = String, Path, description = "The tenant"), ("key" = String, Path, description = "The entry")),
    responses((status = 200, description = "As it is now", body = EntryView), Problems))]
async fn get(
    State(control): State<Control>,
    Caller(actor): Caller,
    at: At,
) -> Result<Json<EntryView>, Problem> {
    Ok(Json(control.entry(&actor, &at.tenant, &at.inner).await?))
}

/// Writes an entry
///
/// Needs the role `user`; `manager` where it is sensitive, or was.
#[utoipa::path(put, path = "/api/tenants/{id}/config/{key}", tag = "config", operation_id = "set_entry",
    params(("id" = String, Path, description = "The tenant"),
        ("key" = String, Path, description = "1 to 128 of a-z, A-Z, 0-9, \"_\", \".\", \"-\"")),
    request_body = NewEntry,
    responses((status = 200, description = "As it is now", body = EntryView), Problems))]
async fn set(
    State(control): State<Control>,
    Caller(actor): Caller,
    at: At,
    Asked(new): Asked<NewEntry>,
) -> Result<Json<EntryView>, Problem> {
    Ok(Json(
        control
            .set_entry(&actor, &at.tenant, (&at.inner, new))
            .await?,
    ))
}

/// Removes an entry
///
/// Needs the role `user`; `manager` where it is sensitive.
#[utoipa::path(delete, path = "/api/tenants/{id}/config/{key}", tag = "config", operation_id = "remove_entry",
    params(("id" = String, Path, description = "The tenant"), ("key" = String, Path, description = "The entry")),
    responses((status = 204, description = "It is removed"), Problems))]
async fn remove(
    State(control): State<Control>,
    Caller(actor): Caller,
    at: At,
) -> Result<StatusCode, Problem> {
    control.remove_entry(&actor, &at.tenant, &at.inner).await?;
    Ok(StatusCode::NO_CONTENT)
}
