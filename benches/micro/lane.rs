//! A real relay between two socket pairs, on one thread: client and server are this bench.

use crate::fixture;
use pgusher::{
    net::{Flow, Socket, Stream},
    pool::TenantPool,
    relay::{Client, End, Lease, Relay},
    tenant::{Address, PoolMode, ReadTarget, Scope, TenantId, UpstreamTls},
    upstream::{Endpoint, Identity, Server, Settings, Suspicion},
};
use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::runtime::Runtime;

/// Statements that a server may have.
const PREPARED_MAX: usize = 500;

/// Bytes that fit in a socket: an answer is written whole before it is relayed.
const SOCKET_BYTES: usize = 1024 * 1024;

/// A client, a server, and their far ends.
pub struct Lane {
    runtime: Runtime,
    client: Client,
    server: Server,
    pool: Arc<TenantPool>,
    far_client: UnixStream,
    far_server: UnixStream,
    scratch: Vec<u8>,
}

impl Lane {
    pub fn new() -> Self {
        let runtime = fixture::runtime();
        let guard = runtime.enter();
        let (near_client, far_client) = stream();
        let (near_server, far_server) = stream();
        let tenant = fixture::tenant(Vec::new());
        let buffers = fixture::buffers();
        let flows = (Flow::new(buffers.clone()), Flow::new(buffers));
        let state = (Settings::none(), Arc::default());
        let client = Client::new(near_client, flows, state, fixture::session(&tenant));
        let endpoint = Arc::new(Endpoint {
            address: Address::Unix(PathBuf::new()),
            tls: UpstreamTls::Disable,
            connector: None,
            connect_timeout: Duration::from_secs(1),
        });
        let id = TenantId::new("t").unwrap();
        let identity = Identity::new(
            (id, Scope::ReadWrite),
            "t",
            fixture::cancel_key(),
            &endpoint,
        );
        let server = Server::new(near_server, identity);
        drop(guard);
        let pool = fixture::pool(&tenant, 1, &runtime);
        Self {
            runtime,
            client,
            server,
            pool,
            far_client,
            far_server,
            scratch: vec![0; SOCKET_BYTES],
        }
    }

    /// Has a client ask and a server answer, so that only relaying is left to do.
    pub fn stage(&mut self, request: &[u8], answer: &[u8]) {
        self.drain();
        self.far_client.write_all(request).unwrap();
        self.far_server.write_all(answer).unwrap();
    }

    /// One transaction as a session does it: idle until bytes come, relay, send, idle.
    pub fn relay(&mut self) {
        let Self {
            runtime,
            client,
            server,
            pool,
            ..
        } = self;
        runtime.block_on(async {
            std::future::poll_fn(|cx| client.to_server.poll_fill(&mut client.stream, cx))
                .await
                .unwrap();
            let lease = Lease {
                reading: &pgusher::relay::Reading::Unsplit,
                mode: PoolMode::Transaction,
                target: ReadTarget::Auto,
                prepared_max: PREPARED_MAX,
                pinned: Suspicion::NONE,
                asked_ms: 0,
                run: None,
            };
            let end = Relay::new(client, server, pool, lease).run().await;
            assert!(matches!(end, Ok(End::Boundary)), "{end:?}");
            std::future::poll_fn(|cx| client.to_client.poll_send(&mut client.stream, cx))
                .await
                .unwrap();
            client.to_client.give_back();
            client.to_server.give_back();
        });
    }

    /// Takes what arrived at the far ends.
    fn drain(&mut self) {
        for end in [&mut self.far_client, &mut self.far_server] {
            while end.read(&mut self.scratch).is_ok_and(|count| count > 0) {}
        }
    }
}

/// A stream of the current runtime, and its far end.
pub fn stream() -> (Stream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    for end in [&near, &far] {
        end.set_nonblocking(true).unwrap();
        socket2::SockRef::from(end)
            .set_send_buffer_size(SOCKET_BYTES)
            .unwrap();
    }
    let near = tokio::net::UnixStream::from_std(near).unwrap();
    (Stream::Plain(Socket::Unix(near)), far)
}
