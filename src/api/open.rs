//! What anybody may ask: a tenant's public face, and the description of the API.

use super::{
    Look,
    extract::At,
    problem::{Problem, Problems},
};
use crate::control::{Control, PublicInfo};
use axum::{Json, extract::State};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Look> {
    OpenApiRouter::new().routes(routes!(info))
}

/// A tenant's public face
///
/// Name, logo and colours, without a token. A tenant that is not served is answered as one that
/// does not exist.
#[utoipa::path(get, path = "/api/tenants/public/{id}/info", tag = "public", operation_id = "get_public_info",
    params(("id" = String, Path, description = "The tenant")), security(()),
    responses((status = 200, description = "As it is now", body = PublicInfo), Problems))]
async fn info(State(control): State<Control>, at: At) -> Result<Json<PublicInfo>, Problem> {
    Ok(Json(control.public_info(&at.tenant).await?))
}
