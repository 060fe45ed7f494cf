//! Connections: how many, how long, and their end.

use crate::tls::HttpTls;
use axum::{Router, body::Body};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{io, net::IpAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service as _;

/// Connections at the same time; one more waits in the kernel.
const CONNECTIONS_MAX: usize = 256;
/// For the head of a request, the wait for it included.
const HEAD_TIME_MAX: Duration = Duration::from_secs(15);
/// Bytes of the head of a request.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Of a connection, however busy: who does not read answers must not keep a place.
const LIFE_MAX: Duration = Duration::from_mins(5);
/// How long requests under way may take once the end was asked for.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// Once the end was asked for: how long who has just come may take to ask. At a restart another process
/// answers the next ones, and nobody is to see a difference.
const FIRST_WORD_MAX: Duration = Duration::from_millis(500);
/// When no connection can be accepted, for lack of descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// Serves connections until told to stop, and up to [`GRACE`] longer what is under way.
pub(super) async fn run(
    (listener, tls): (TcpListener, Arc<HttpTls>),
    router: Router,
    shutdown: CancellationToken,
    work: TaskTracker,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    let end = CancellationToken::new();
    let accepting = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "the admin listener can't accept");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let peer = Peer(peer.ip().to_canonical());
            let door = (tls.acceptor(), peer, router.clone());
            let serving = serve(stream, door, shutdown.clone(), place);
            connections.spawn(end.clone().run_until_cancelled_owned(serving));
        }
    };
    shutdown.run_until_cancelled(accepting).await;
    connections.close();
    work.close();
    let both = async { tokio::join!(connections.wait(), work.wait()) };
    // A connection that sends half a request must not hold the process up.
    timeout(GRACE, both).await.ok();
    end.cancel();
    Ok(())
}

async fn serve(
    stream: TcpStream,
    (tls, peer, router): (Option<Arc<TlsAcceptor>>, Peer, Router),
    shutdown: CancellationToken,
    place: OwnedSemaphorePermit,
) {
    match tls {
        None => answer(stream, (peer, router), shutdown).await,
        Some(tls) => {
            let handshake = timeout(HEAD_TIME_MAX, tls.accept(stream));
            // Who does not finish it has asked for nothing.
            let soon = async {
                shutdown.cancelled().await;
                sleep(FIRST_WORD_MAX).await;
            };
            let shaken = tokio::select! {
                shaken = handshake => shaken,
                () = soon => return,
            };
            if let Ok(Ok(stream)) = shaken {
                answer(stream, (peer, router), shutdown).await;
            }
        }
    }
    drop(place);
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    (peer, router): (Peer, Router),
    shutdown: CancellationToken,
) {
    let asked = CancellationToken::new();
    let asks = asked.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        asks.cancel();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        router.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // What strangers send wrong is theirs, not ours to log.
        _ = connection.as_mut() => {}
        () = sleep(LIFE_MAX) => {
            connection.as_mut().graceful_shutdown();
            timeout(GRACE, connection).await.ok();
        }
        () = shutdown.cancelled() => {
            let asked = timeout(FIRST_WORD_MAX, asked.cancelled());
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = asked => {}
            }
            connection.as_mut().graceful_shutdown();
            connection.await.ok();
        }
    }
}
