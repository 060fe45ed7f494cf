//! `/api/plans`: bundles of limits and monthly quotas, for operators.

use super::{
    Look,
    extract::{Asked, Caller},
    problem::{Problem, Problems},
};
use crate::{
    control::{Control, Listed, PlanView},
    tenant::Plan,
};
use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Look> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, set, remove))
}

/// The plan of the path.
fn named(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let name = path.ok().map(|Path(name)| name);
    let name = name.filter(|name| Plan::is_name(name));
    name.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "there is no such plan"))
}

/// All plans
///
/// Those of the registry, else of `proxy.toml`, else presets. Needs an operator with the role `viewer`.
#[utoipa::path(get, path = "/api/plans", tag = "plans", operation_id = "list_plans",
    responses((status = 200, description = "As they are now", body = Listed<PlanView>), Problems))]
async fn list(
    State(control): State<Control>,
    Caller(actor): Caller,
) -> Result<Json<Listed<PlanView>>, Problem> {
    Ok(Json(control.list_plans(&actor).await?))
}

/// A plan
///
/// Needs an operator with the role `viewer`.
#[utoipa::path(get, path = "/api/plans/{name}", tag = "plans", operation_id = "get_plan",
    params(("name" = String, Path, description = "The plan")),
    responses((status = 200, description = "As it is now", body = PlanView), Problems))]
async fn get(
    State(control): State<Control>,
    Caller(actor): Caller,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<PlanView>, Problem> {
    Ok(Json(control.plan(&actor, &named(name)?).await?))
}

/// Writes a plan
///
/// In the place of the one of its name; it holds at once for the tenants that have it. Needs an operator
/// with the role `admin`.
#[utoipa::path(put, path = "/api/plans/{name}", tag = "plans", operation_id = "set_plan",
    params(("name" = String, Path, description = "1 to 63 of a-z, 0-9, \"_\", \"-\"; not \"custom\"")),
    request_body = Plan,
    responses((status = 200, description = "As it is now", body = PlanView), Problems))]
async fn set(
    State(control): State<Control>,
    Caller(actor): Caller,
    name: Result<Path<String>, PathRejection>,
    Asked(plan): Asked<Plan>,
) -> Result<Json<PlanView>, Problem> {
    let name = named(name)?;
    if !plan.name.is_empty() && plan.name != name {
        return Err(Problem::invalid(
            "name",
            "it is another one than that of the path",
        ));
    }
    let plan = Plan { name, ..plan };
    Ok(Json(control.set_plan(&actor, plan).await?))
}

/// Removes a plan
///
/// From the registry; one of its name in `proxy.toml` or a preset holds then. 409 while tenants have it
/// and there is none. Needs an operator with the role `admin`.
#[utoipa::path(delete, path = "/api/plans/{name}", tag = "plans", operation_id = "remove_plan",
    params(("name" = String, Path, description = "The plan")),
    responses((status = 204, description = "It is removed"), Problems))]
async fn remove(
    State(control): State<Control>,
    Caller(actor): Caller,
    name: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    control.remove_plan(&actor, &named(name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
