//! `/api/costs` and `…/costs`: what a month costs whom.

use super::{
    Look,
    extract::{At, Caller, Given},
    problem::{Problem, Problems},
};
use crate::control::{CostMonth, CostReport};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

const CSV: &str = "text/csv";

pub(super) fn routes() -> OpenApiRouter<Look> {
    OpenApiRouter::new()
        .routes(routes!(costs))
        .routes(routes!(tenant_costs))
}

/// How it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// `application/json`
    Json,
    /// `text/csv`: RFC 4180, with headings
    Csv,
}

/// Which month, and how.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CostQuery {
    /// The month in UTC, such as `2026-11`; this one where it is not given.
    #[param(pattern = "^[0-9]{4}-[0-9]{2}$")]
    month: Option<String>,
    /// How it is answered; as the header `Accept` says where it is not given.
    #[param(inline)]
    format: Option<Format>,
}

impl CostQuery {
    fn month(&self) -> Result<CostMonth, Problem> {
        let Some(text) = &self.month else {
            return Ok(CostMonth::of(OffsetDateTime::now_utc()));
        };
        text.parse()
            .map_err(|error: crate::control::NoMonth| Problem::invalid("month", error.to_string()))
    }

    fn answer(&self, headers: &HeaderMap, report: CostReport) -> Response {
        let accepted = headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok());
        let wants_csv = accepted.is_some_and(|accepted| {
            let kinds = accepted.split(',').map(|kind| kind.split(';').next());
            kinds.flatten().map(str::trim).next() == Some(CSV)
        });
        let format = match self.format {
            None if wants_csv => Format::Csv,
            format => format.unwrap_or(Format::Json),
        };
        match format {
            Format::Json => Json(report).into_response(),
            Format::Csv => {
                let kind = "text/csv; charset=utf-8; header=present";
                ([(header::CONTENT_TYPE, kind)], report.csv()).into_response()
            }
        }
    }
}

/// What a month costs each tenant
///
/// By `[prices]` of proxy.toml; 422 where there are none. Needs an operator's token.
#[utoipa::path(get, path = "/api/costs", tag = "figures", operation_id = "list_costs",
    params(CostQuery),
    responses((status = 200, description = "As it is now",
        content((CostReport = "application/json"), (String = "text/csv"))), Problems))]
async fn costs(
    State(look): State<Look>,
    Caller(actor): Caller,
    Given(query): Given<CostQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let report = look.control.costs(&actor, query.month()?).await?;
    Ok(query.answer(&headers, report))
}

/// What a month costs a tenant
///
/// By `[prices]` of proxy.toml; 422 where there are none.
#[utoipa::path(get, path = "/api/tenants/{id}/costs", tag = "figures", operation_id = "get_costs",
    params(("id" = String, Path, description = "The tenant"), CostQuery),
    responses((status = 200, description = "As it is now",
        content((CostReport = "application/json"), (String = "text/csv"))), Problems))]
async fn tenant_costs(
    State(look): State<Look>,
    Caller(actor): Caller,
    at: At,
    Given(query): Given<CostQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let month = query.month()?;
    let report = look.control.tenant_costs(&actor, &at.tenant, month).await?;
    Ok(query.answer(&headers, report))
}
