//! What stands before every request of `/api` that needs a token: a place, who it is, the whole
//! request, and that the same request is not done twice.

use super::{once, problem::Problem, server::Peer};
use crate::{
    control::{Actor, Control, Role},
    tenant::Secret,
};
use axum::{
    RequestExt as _,
    body::{Body, to_bytes},
    extract::{RawPathParams, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};
use std::{
    error::Error as _,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::task::TaskTracker;

/// Requests under way, those whose client has left included.
const REQUESTS_MAX: usize = 256;
/// Public requests under way: they must not use up the registry.
const PUBLIC_REQUESTS_MAX: usize = 4;
/// Bytes of a body.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// For the body of a request.
const BODY_TIME_MAX: Duration = Duration::from_secs(15);
/// For the answer. What is asked for goes on behind it.
const ANSWER_TIME_MAX: Duration = Duration::from_mins(1);
/// For what goes on behind it. Shorter than a claim of [`Control::begin_once`] lives.
const WORK_TIME_MAX: Duration = Duration::from_mins(10);
/// Wrong tokens from one address in a minute; more are not looked up.
const FAILURES_MAX: u32 = 60;
const FAILURES_WINDOW: Duration = Duration::from_mins(1);
/// Tokens that were right lately are looked up all the same.
const PROVEN_TIME: Duration = Duration::from_hours(1);
const ENTRIES_MAX: u64 = 10_000;

/// Headers by which operators say on which tenant they act.
const TENANT_HEADERS: [&str; 2] = ["x-ultracore-tenant-id", "fineract-platform-tenantid"];

/// What all requests share. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub(super) control: Control,
    places: Arc<Semaphore>,
    public_places: Arc<Semaphore>,
    failures: Cache<IpAddr, Arc<AtomicU32>>,
    proven: Cache<[u8; 32], ()>,
    pub(super) work: TaskTracker,
}

impl Guard {
    pub(super) fn new(control: Control, work: TaskTracker) -> Self {
        let failures = Cache::builder().max_capacity(ENTRIES_MAX);
        let proven = Cache::builder().max_capacity(ENTRIES_MAX);
        Self {
            control,
            places: Arc::new(Semaphore::new(REQUESTS_MAX)),
            public_places: Arc::new(Semaphore::new(PUBLIC_REQUESTS_MAX)),
            failures: failures.time_to_live(FAILURES_WINDOW).build(),
            proven: proven.time_to_live(PROVEN_TIME).build(),
            work,
        }
    }

    /// Who sends this request.
    async fn actor(&self, headers: &HeaderMap, address: IpAddr) -> Result<Actor, Problem> {
        let wrong = |detail: &str| Problem::new(StatusCode::UNAUTHORIZED, detail);
        let token = bearer(headers).ok_or_else(|| {
            wrong("give a token: \"Authorization: Bearer pga_…\"; `pgusher token create` makes one")
        })?;
        let hash: [u8; 32] = Sha256::digest(token.expose().as_bytes()).into();
        let failures = self
            .failures
            .get(&address)
            .map_or(0, |count| count.load(Relaxed));
        if failures >= FAILURES_MAX && !self.proven.contains_key(&hash) {
            let detail = "too many wrong tokens from this address; try again in a minute";
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail));
        }
        if let Some(actor) = self.control.authenticate(&token, address).await? {
            self.proven.insert(hash, ());
            return Ok(actor);
        }
        self.proven.invalidate(&hash);
        self.failures
            .get_with(address, Arc::default)
            .fetch_add(1, Relaxed);
        tracing::info!(client = %address, "admin API: wrong token");
        Err(wrong("the token is not valid, or no longer"))
    }
}

fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, more) = (values.next()?, values.next());
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let is_one = scheme.eq_ignore_ascii_case("bearer") && more.is_none();
    is_one.then(|| Secret::new(token.trim().to_owned()))
}

/// For everything that needs a token.
pub(super) async fn protect(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let answer = timeout(ANSWER_TIME_MAX, admit(guard, request, next)).await;
    let late = |_elapsed| {
        let detail =
            "it goes on; ask for its outcome later, with the same Idempotency-Key if it had one";
        Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, detail))
    };
    sealed(answer.unwrap_or_else(late).into_response())
}

/// For what anybody may ask: few at a time.
pub(super) async fn bound(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let Ok(_place) = guard.public_places.try_acquire() else {
        return busy().into_response();
    };
    let answer = timeout(ANSWER_TIME_MAX, next.run(request)).await;
    let late = |_elapsed| Problem::new(StatusCode::GATEWAY_TIMEOUT, "try again").into_response();
    sealed(answer.unwrap_or_else(late))
}

fn busy() -> Problem {
    let detail = "too many requests are under way; try again";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}

/// Nothing of this is to be kept on the way, or taken for anything but what it says it is.
fn sealed(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

async fn admit(guard: Guard, mut request: Request, next: Next) -> Result<Response, Problem> {
    let place = Arc::clone(&guard.places).try_acquire_owned();
    let place = place.map_err(|_error| busy())?;
    let address = request.extensions().get::<Peer>().map(|peer| peer.0);
    let address = address.unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let actor = guard.actor(request.headers(), address).await?;
    let params = request.extract_parts::<RawPathParams>().await;
    let id = params
        .as_ref()
        .ok()
        .and_then(|params| params.iter().find(|(name, _)| *name == "id"));
    let id = id.map(|(_, value)| value);
    names_the_same(request.headers(), id)?;
    if let Some(id) = id {
        // Another's tenant is as one that does not exist, whatever is asked of it.
        actor.may(Role::Viewer, id)?;
    }
    let (mut parts, body) = whole(request).await?;
    parts.extensions.insert(actor.clone());
    // Behind here nothing ends because a client has left: what is begun is done.
    let tracker = guard.work.clone();
    let working = tracker.spawn(timeout(WORK_TIME_MAX, async move {
        let answer = once::run(&guard.control, &actor, (parts, body), next).await;
        drop(place);
        answer
    }));
    match working.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_elapsed)) => Err(Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            "it took too long",
        )),
        Err(error) => {
            tracing::error!(%error, "a request of the admin API failed");
            let detail = "the request could not be ended; the log says more";
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail))
        }
    }
}

/// That the headers which name a tenant name the path's.
fn names_the_same(headers: &HeaderMap, id: Option<&str>) -> Result<(), Problem> {
    let path = id.map(str::as_bytes);
    for name in TENANT_HEADERS {
        let mut values = headers.get_all(name).iter();
        if values.any(|value| Some(value.as_bytes()) != path) {
            let detail = format!("the header {name} names another tenant than the path");
            return Err(Problem::invalid(name, detail));
        }
    }
    Ok(())
}

/// The request with its whole body.
async fn whole(request: Request) -> Result<(Parts, axum::body::Bytes), Problem> {
    let (parts, body) = request.into_parts();
    let read = timeout(BODY_TIME_MAX, to_bytes(body, BODY_BYTES_MAX)).await;
    let read = read.map_err(|_elapsed| {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come within 15 s",
        )
    })?;
    let body = read.map_err(|error| {
        if error
            .source()
            .is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>)
        {
            let detail = format!("the body has more than {BODY_BYTES_MAX} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
        } else {
            Problem::invalid("body", "the body can't be read to its end")
        }
    })?;
    Ok((parts, body))
}

/// The request again, for the handler.
pub(super) fn assembled(parts: Parts, body: axum::body::Bytes) -> Request {
    Request::from_parts(parts, Body::from(body))
}
