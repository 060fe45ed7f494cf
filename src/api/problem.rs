//! What went wrong, as RFC 9457 has it: `application/problem+json`.

use crate::control::ControlError;
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::{
    IntoResponses, PartialSchema, ToSchema,
    openapi::{ContentBuilder, Ref, RefOr, Response as Described, ResponseBuilder},
};

/// The media type.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// What went wrong. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:pgusher:problem:<name>`; stays the same for the same kind of problem.
    #[serde(rename = "type")]
    kind: String,
    /// In a few words, the same for the same kind.
    title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What happened this time, and the way out.
    detail: String,
    /// The field that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// Seconds until it may be tried again, where that is known.
    #[serde(skip)]
    retry_after: Option<u64>,
}

/// Every kind of problem: status, name, title.
const KINDS: [(StatusCode, &str, &str); 14] = [
    (
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "A valid token is needed",
    ),
    (
        StatusCode::FORBIDDEN,
        "forbidden",
        "The token may not do this",
    ),
    (StatusCode::NOT_FOUND, "not-found", "There is no such thing"),
    (
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "The method is not for this path",
    ),
    (
        StatusCode::REQUEST_TIMEOUT,
        "slow-request",
        "The request did not come in time",
    ),
    (
        StatusCode::CONFLICT,
        "conflict",
        "Its state does not allow this",
    ),
    (
        StatusCode::PAYLOAD_TOO_LARGE,
        "too-large",
        "The request is too large",
    ),
    (
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "no-json",
        "The body must be JSON",
    ),
    (
        StatusCode::UNPROCESSABLE_ENTITY,
        "invalid",
        "What was given can't be",
    ),
    (
        StatusCode::TOO_MANY_REQUESTS,
        "too-many",
        "Too many requests",
    ),
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "Something is wrong here",
    ),
    (
        StatusCode::BAD_GATEWAY,
        "upstream",
        "The tenant's cluster did not do it",
    ),
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "unavailable",
        "It can't be done now",
    ),
    (
        StatusCode::GATEWAY_TIMEOUT,
        "slow",
        "It takes longer than a request may",
    ),
];

impl Problem {
    /// A problem of this status, with its details.
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let kind = KINDS.iter().find(|kind| kind.0 == status);
        let (_, name, title) = kind.unwrap_or(&KINDS[10]);
        Self {
            kind: format!("urn:pgusher:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            field: None,
            retry_after: None,
        }
    }

    /// What was given can't be.
    pub(super) fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            field: Some(field.into()),
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
        }
    }

    fn code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn headers(&self) -> Option<(header::HeaderName, HeaderValue)> {
        let value = HeaderValue::from_static;
        match self.code() {
            StatusCode::UNAUTHORIZED => {
                Some((header::WWW_AUTHENTICATE, value("Bearer realm=\"pgusher\"")))
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let seconds = HeaderValue::from(self.retry_after.unwrap_or(60));
                Some((header::RETRY_AFTER, seconds))
            }
            StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, value("1"))),
            _ => None,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.code(), Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.extend(self.headers());
        response
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        let text = error.to_string();
        match error {
            ControlError::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, text),
            ControlError::Conflict(_) => Self::new(StatusCode::CONFLICT, text),
            ControlError::Invalid { field, .. } => Self::invalid(field, text),
            ControlError::Forbidden(_) => Self::new(StatusCode::FORBIDDEN, text),
            ControlError::TooOften(often) => Self {
                retry_after: Some(often.wait.as_secs()),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, text)
            },
            ControlError::Registry(error) => {
                let sqlstate = error.sqlstate();
                let sqlstate = sqlstate.as_deref().unwrap_or_default();
                // Its end, its lack of resources, a lost connection: it may pass.
                let is_passing = ["08", "53", "57P"]
                    .iter()
                    .any(|class| sqlstate.starts_with(class));
                tracing::warn!(%error, sqlstate, "a request needs the registry");
                if error.is_unavailable() || is_passing {
                    let detail = "the registry does not answer; try again";
                    Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
                } else {
                    let detail = "the registry can't be used as it is; the log says more";
                    Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
                }
            }
            ControlError::Upstream { what, source } => {
                // The cause may tell of roles and addresses of the cluster: it is the operator's.
                tracing::warn!(what, %source, "a request needs the tenant's cluster");
                Self::new(StatusCode::BAD_GATEWAY, what)
            }
        }
    }
}

/// For the description of the API: any operation can end with any of these.
pub(super) struct Problems;

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        let reference = Ref::from_schema_name(Problem::name());
        let described = |title: &str| {
            let content = ContentBuilder::new()
                .schema(Some(reference.clone()))
                .build();
            let response = ResponseBuilder::new().description(title);
            RefOr::T(response.content(PROBLEM_JSON, content).build())
        };
        let entries = KINDS
            .iter()
            .filter(|kind| kind.0 != StatusCode::METHOD_NOT_ALLOWED);
        entries
            .map(|(status, _, title)| (status.as_u16().to_string(), described(title)))
            .collect()
    }
}

/// The schema of a problem, which [`Problems`] refers to.
pub(super) fn schema() -> (String, RefOr<utoipa::openapi::schema::Schema>) {
    (Problem::name().into_owned(), Problem::schema())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_its_kind_and_no_more_than_the_error_does() {
        let forbidden = Problem::from(ControlError::Forbidden("the role admin".into()));
        assert_eq!(forbidden.kind, "urn:pgusher:problem:forbidden");
        assert_eq!(
            (forbidden.status, &*forbidden.detail),
            (403, "this needs the role admin")
        );
        let registry = ControlError::from(sqlx::Error::PoolTimedOut);
        assert_eq!(Problem::from(registry).status, 503);
        let upstream = ControlError::Upstream {
            what: "cluster \"main\" does not answer".into(),
            source: "password=hunter2".into(),
        };
        let told = serde_json::to_string(&Problem::from(upstream)).unwrap();
        assert!(
            told.contains("does not answer") && !told.contains("hunter2"),
            "{told}"
        );
    }
}
