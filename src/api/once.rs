//! `Idempotency-Key`: a POST that is sent again is answered again, and not done again.

use super::{guard::assembled, problem::Problem};
use crate::control::{Actor, Begun, Control, RequestHash};
use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::Response,
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

const HEADER: &str = "idempotency-key";
/// Says that an answer is a repetition.
const REPLAYED: &str = "idempotency-replayed";
const KEY_BYTES_MAX: usize = 200;
/// Of an answer that is kept.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Does a request, or answers as it was answered before.
pub(super) async fn run(
    control: &Control,
    actor: &Actor,
    (parts, body): (Parts, Bytes),
    next: Next,
) -> Result<Response, Problem> {
    let Some(key) = key(&parts)? else {
        return Ok(next.run(assembled(parts, body)).await);
    };
    let request = hash(&parts, &body);
    match control.begin_once(actor, (&key, &request)).await? {
        Begun::First => {}
        Begun::Done { status, body } => return Ok(replay(status, &body)),
        Begun::UnderWay => {
            let detail = "a request with this Idempotency-Key is under way; try again";
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        Begun::Another => {
            let detail = "this Idempotency-Key was used for another request; take a new one";
            return Err(Problem::invalid("Idempotency-Key", detail));
        }
    }
    let response = next.run(assembled(parts, body)).await;
    let status = response.status();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        control.give_up_once(actor, &key).await?;
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let unreadable = |_error| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the answer is too long to be kept",
        )
    };
    let body = to_bytes(body, ANSWER_BYTES_MAX).await.map_err(unreadable)?;
    let kept = control
        .finish_once(actor, &key, (status.as_u16(), &body))
        .await;
    if let Err(error) = kept {
        // It is done: that a repetition won't know is no reason to keep its answer back.
        tracing::warn!(%error, "an answer could not be kept for a repetition");
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn key(parts: &Parts) -> Result<Option<String>, Problem> {
    if parts.method != Method::POST {
        return Ok(None);
    }
    let mut values = parts.headers.get_all(HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value
        .to_str()
        .ok()
        .filter(|text| !text.is_empty() && text.len() <= KEY_BYTES_MAX);
    if let (Some(text), None) = (text, values.next()) {
        return Ok(Some(text.to_owned()));
    }
    let detail = format!("it must be one text of 1 to {KEY_BYTES_MAX} visible ASCII characters");
    Err(Problem::invalid("Idempotency-Key", detail))
}

/// Everything that makes a request the same.
fn hash(parts: &Parts, body: &[u8]) -> RequestHash {
    let mut digest = Sha256::new();
    let target = parts
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    for part in [parts.method.as_str().as_bytes(), target.as_bytes(), body] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

fn replay(status: u16, body: &Zeroizing<Vec<u8>>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let is_problem = status.is_client_error();
    let kind = if is_problem {
        super::problem::PROBLEM_JSON
    } else {
        "application/json"
    };
    let mut response = Response::new(Body::from(body.to_vec()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    response
}
