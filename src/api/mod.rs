//! HTTP for operators and tenants: `/metrics`, `/healthz`, `/readyz`, and the admin API below
//! `/api`, a thin surface over [`crate::control`]: what is asked is read, done there, and answered.
//!
//! A request of the admin API passes the *guard* (a place, who it is, the whole body), then *once*
//! (`Idempotency-Key`), then its handler. What has begun goes on when the client leaves.

mod access;
#[expect(
    unused_qualifications,
    reason = "the macro of utoipa names what it is given in full"
)]
mod costs;
#[expect(
    unused_qualifications,
    reason = "the macro of utoipa names what it is given in full"
)]
mod entries;
mod extract;
#[expect(
    unused_qualifications,
    reason = "the macro of utoipa names what it is given in full"
)]
mod figures;
mod guard;
mod live;
mod once;
mod open;
mod openapi;
mod plans;
mod probes;
mod problem;
mod server;
mod shown;
#[expect(
    unused_qualifications,
    reason = "the macro of utoipa names what it is given in full"
)]
mod tenants;

pub use live::{Live, LiveTenant, NothingLive};
pub use problem::Problem;

use crate::{control::Control, telemetry::Metrics, tls::HttpTls};
use axum::{Router, extract::FromRef, http::StatusCode};
use guard::Guard;
use std::{fmt, io, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How often kept answers that are too old are removed.
const FORGET_EVERY: Duration = Duration::from_hours(1);

/// What the handlers need.
#[derive(Clone)]
pub struct Api {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/readyz`: whether new clients are welcome. Called per request; must not block.
    pub is_ready: Arc<dyn Fn() -> bool + Send + Sync>,
    /// The use cases; without a registry there are none, and `/api` says so.
    pub control: Option<Control>,
    /// What the data plane knows now.
    pub live: Arc<dyn Live>,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("metrics", &self.metrics)
            .field("control", &self.control)
            .field("live", &self.live)
            .finish_non_exhaustive()
    }
}

/// What the handlers of the admin API look at.
#[derive(Clone, Debug)]
struct Look {
    control: Control,
    live: Arc<dyn Live>,
}

impl FromRef<Look> for Control {
    fn from_ref(look: &Look) -> Self {
        look.control.clone()
    }
}

/// Answers requests, over TLS where there is some, until told to stop, and up to two seconds longer
/// for those under way.
///
/// # Errors
/// When the listener fails for good.
///
/// # Cancel safety
/// Dropping it stops listening; connections end by their own limits.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<HttpTls>,
    api: Api,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let work = TaskTracker::new();
    if let Some(control) = api.control.clone() {
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(forget(control)));
    }
    let router = router(api, &work);
    server::run((listener, tls), router, shutdown, work).await
}

fn router(api: Api, work: &TaskTracker) -> Router {
    let admin = match &api.control {
        Some(control) => {
            let guard = Guard::new(control.clone(), work.clone());
            let look = Look {
                control: control.clone(),
                live: Arc::clone(&api.live),
            };
            openapi::router(look, guard)
        }
        None => openapi::without_registry(),
    };
    let unknown = || async { Problem::new(StatusCode::NOT_FOUND, "there is no such path") };
    let not_so = || async {
        let detail = "this path has other methods: see the header Allow and /api/openapi.json";
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
    };
    probes::router(api)
        .merge(openapi::described())
        .merge(admin)
        .fallback(unknown)
        .method_not_allowed_fallback(not_so)
}

/// Removes answers that were kept for repetitions, once they are a day old.
async fn forget(control: Control) {
    let mut ticks = interval(FORGET_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = control.forget_answers().await {
            tracing::debug!(%error, "old answers were not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::SocketAddr,
        sync::atomic::{AtomicBool, Ordering},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        task::JoinHandle,
        time::timeout,
    };

    struct Server {
        address: SocketAddr,
        is_ready: Arc<AtomicBool>,
        stop: CancellationToken,
        task: JoinHandle<io::Result<()>>,
    }

    async fn server() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let is_ready = Arc::new(AtomicBool::new(false));
        let answer = Arc::clone(&is_ready);
        let api = Api {
            metrics: Metrics::new().unwrap(),
            is_ready: Arc::new(move || answer.load(Ordering::Relaxed)),
            control: None,
            live: Arc::new(NothingLive),
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, Arc::default(), api, stop.clone()));
        Server {
            address,
            is_ready,
            stop,
            task,
        }
    }

    async fn request(address: SocketAddr, line: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn health_is_ok_and_readiness_is_as_told() {
        let server = server().await;
        let answer = request(server.address, "GET /healthz").await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"),
            "{answer}"
        );
        let answer = request(server.address, "GET /readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        server.is_ready.store(true, Ordering::Relaxed);
        let answer = request(server.address, "GET /readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    #[tokio::test]
    async fn metrics_come_as_prometheus_reads_them_and_nothing_else_is_there() {
        let server = server().await;
        let answer = request(server.address, "GET /metrics").await;
        assert!(
            answer.contains("content-type: text/plain; version=0.0.4"),
            "{answer}"
        );
        assert!(answer.contains("pgusher_build_info{version="), "{answer}");
        let answer = request(server.address, "GET /").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        let answer = request(server.address, "POST /metrics").await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    }

    #[tokio::test]
    async fn half_a_request_does_not_hold_the_end_up() {
        let server = server().await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /healthz HT").await.unwrap();
        // The next answer proves that the first connection was accepted, too.
        request(server.address, "GET /healthz").await;
        server.stop.cancel();
        let ended = timeout(server::GRACE * 5, server.task).await;
        ended.expect("it ends in time").unwrap().unwrap();
    }
}
