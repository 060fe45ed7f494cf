//! What handlers are given: who asks, which tenant, the query, the body. What does not fit is a
//! problem before the handler runs.

use super::problem::Problem;
use crate::{
    control::{Actor, Page},
    tenant::TenantId,
};
use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use utoipa::IntoParams;

/// The longest `after`.
const AFTER_BYTES_MAX: usize = 300;
/// What is told of a body that can't be read.
const MESSAGE_CHARS_MAX: usize = 300;

/// Who asks: as the guard found out.
pub(super) struct Caller(pub(super) Actor);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let actor = parts.extensions.get::<Actor>().cloned();
        // No route without the guard asks for it.
        let missing = || Problem::new(StatusCode::UNAUTHORIZED, "give a token");
        actor.map(Self).ok_or_else(missing)
    }
}

/// The tenant of the path, and what stands behind it.
pub(super) struct At {
    /// A text that an id can be.
    pub(super) tenant: String,
    /// The key or address behind it; empty where the path has none.
    pub(super) inner: String,
}

impl<S: Send + Sync> FromRequestParts<S> for At {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let unknown = || Problem::new(StatusCode::NOT_FOUND, "there is no such tenant");
        let params = params.map_err(|_error| unknown())?;
        let mut params = params.iter();
        let (_, tenant) = params.next().ok_or_else(unknown)?;
        TenantId::new(tenant).map_err(|_error| unknown())?;
        let inner = params.next().map_or("", |(_, value)| value);
        if inner.len() > AFTER_BYTES_MAX || inner.chars().any(char::is_control) {
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                "there is no such thing",
            ));
        }
        Ok(Self {
            tenant: tenant.to_owned(),
            inner: inner.to_owned(),
        })
    }
}

/// Which part of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// Entries at most; 100 where it is not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// What the page before gave as `next`.
    after: Option<String>,
}

impl From<PageQuery> for Page {
    fn from(query: PageQuery) -> Self {
        Self {
            limit: query.limit,
            after: query.after,
        }
    }
}

/// The query of the URL.
pub(super) struct Given<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Given<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        // Texts go into PostgreSQL, which takes no NUL.
        if query.contains('\0') || query.contains("%00") {
            return Err(Problem::invalid("query", "it has a NUL"));
        }
        let read = Query::<T>::from_request_parts(parts, state).await;
        let wrong = |error: axum::extract::rejection::QueryRejection| {
            Problem::invalid("query", short(&error.body_text()))
        };
        read.map(|Query(value)| Self(value)).map_err(wrong)
    }
}

/// The body, which must be JSON.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (headers, body) = read(request, state).await?;
        parse(&headers, &body).map(Self)
    }
}

/// The body, where there is one.
pub(super) struct MayAsk<T>(pub(super) T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for MayAsk<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (headers, body) = read(request, state).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        parse(&headers, &body).map(Self)
    }
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<(HeaderMap, Bytes), Problem> {
    let headers = request.headers().clone();
    // The guard has read it whole.
    let body = Bytes::from_request(request, state).await;
    let body = body.map_err(|_error| Problem::invalid("body", "it can't be read"))?;
    Ok((headers, body))
}

fn parse<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Problem> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
        let detail = "send \"Content-Type: application/json\"";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Problem::invalid("body", short(&error.to_string())))?;
    if has_nul(&value) {
        return Err(Problem::invalid("body", "a text in it has a NUL"));
    }
    serde_json::from_value(value)
        .map_err(|error| Problem::invalid("body", short(&error.to_string())))
}

/// PostgreSQL keeps no NUL, in texts or in JSON. How deep it may be serde bounds.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

fn short(text: &str) -> String {
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_and_has_no_nul_at_any_depth() {
        let mut headers = HeaderMap::new();
        assert!(parse::<Value>(&headers, b"{}").is_err());
        headers.insert(
            header::CONTENT_TYPE,
            "application/json; charset=utf-8".parse().unwrap(),
        );
        assert!(parse::<Value>(&headers, b"{\"a\":[1]}").is_ok());
        for bad in [
            "",
            "{",
            "{\"a\":[{\"b\":\"x\\u0000\"}]}",
            "{\"\\u0000\":1}",
            &"[".repeat(10_000),
        ] {
            assert!(
                parse::<Value>(&headers, bad.as_bytes()).is_err(),
                "{bad:.40}"
            );
        }
    }
}
