//! HTTP for operators: `/metrics`, `/healthz`, `/readyz`. It reads, and changes nothing.

use crate::telemetry::{Metrics, metrics::CONTENT_TYPE};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use std::{fmt, future::IntoFuture, io, sync::Arc, time::Duration};
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long requests under way may take once the end was asked for.
const GRACE: Duration = Duration::from_secs(2);

/// What the handlers need.
#[derive(Clone)]
pub struct Api {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/readyz`: whether new clients are welcome. Called per request; must not block.
    pub is_ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("metrics", &self.metrics)
            .finish_non_exhaustive()
    }
}

/// Answers requests until told to stop, and up to two seconds longer for those under way.
///
/// # Errors
/// When the listener fails for good.
///
/// # Cancel safety
/// Dropping it drops all connections.
pub async fn serve(listener: TcpListener, api: Api, shutdown: CancellationToken) -> io::Result<()> {
    let stop = shutdown.clone().cancelled_owned();
    let server = axum::serve(listener, router(api)).with_graceful_shutdown(stop);
    let mut server = Box::pin(server.into_future());
    tokio::select! {
        result = &mut server => return result,
        () = shutdown.cancelled() => {}
    }
    // A connection that sends half a request must not hold the process up.
    timeout(GRACE, server).await.unwrap_or(Ok(()))
}

fn router(api: Api) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(api)
}

async fn metrics(State(api): State<Api>) -> Response {
    match api.metrics.render().await {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics can't be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn ready(State(api): State<Api>) -> (StatusCode, &'static str) {
    if (api.is_ready)() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
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
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, api, stop.clone()));
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
        let ended = timeout(GRACE * 5, server.task).await;
        ended.expect("it ends in time").unwrap().unwrap();
    }
}
