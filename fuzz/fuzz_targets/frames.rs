//! What a client and a server send, through a real relay, in every pool mode.
#![no_main]

#[path = "../../benches/micro/fixture.rs"]
mod fixture;

use libfuzzer_sys::fuzz_target;
use pgusher::{
    net::{Flow, Socket, Stream},
    pool::TenantPool,
    relay::{Client, End, Farewell, Relay},
    tenant::{Address, PoolMode, Scope, Tenant, TenantId, UpstreamTls},
    upstream::{Endpoint, Identity, Server, Settings},
};
use std::{
    future::poll_fn,
    io::Write as _,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Arc, LazyLock},
    time::Duration,
};

/// Bytes of one side: they fit into a socket.
const SIDE_BYTES_MAX: usize = 16 * 1024;

/// Transactions of one session; each uses up some bytes.
const TRANSACTIONS_MAX: usize = 10_000;

// Made once, as they are dear.
static TENANT: LazyLock<Arc<Tenant>> = LazyLock::new(|| fixture::tenant(Vec::new()));
static POOL: LazyLock<Arc<TenantPool>> = LazyLock::new(|| fixture::pool(&TENANT, 1));

// The first byte says the mode, the second how much of the rest is the client's.
fuzz_target!(|bytes: &[u8]| {
    let Some((&[mode, share], rest)) = bytes.split_first_chunk() else {
        return;
    };
    let mode = match mode % 3 {
        0 => PoolMode::Transaction,
        1 => PoolMode::Session,
        _ => PoolMode::Statement,
    };
    let (from_client, from_server) = rest.split_at(rest.len() * usize::from(share) / 255);
    if from_client.len().max(from_server.len()) <= SIDE_BYTES_MAX {
        let relay = relay(mode, from_client, from_server);
        let ended = fixture::runtime()
            .block_on(async { tokio::time::timeout(Duration::from_secs(20), relay).await });
        ended.expect("the relay ends when both have left");
    }
});

async fn relay(mode: PoolMode, from_client: &[u8], from_server: &[u8]) {
    let tenant = &*TENANT;
    let pool = &*POOL;
    let buffers = fixture::buffers();
    let flows = (Flow::new(buffers.clone()), Flow::new(buffers));
    let state = (Settings::none(), Arc::default());
    let (near_client, _far_client) = stream(from_client);
    let (near_server, _far_server) = stream(from_server);
    let mut client = Client::new(near_client, flows, state, fixture::session(tenant));
    let endpoint = Arc::new(Endpoint {
        address: Address::Unix("/nowhere".into()),
        tls: UpstreamTls::Disable,
        connector: None,
        connect_timeout: Duration::from_secs(1),
    });
    let id = TenantId::new("t").unwrap();
    let identity = Identity::new((id, Scope::ReadWrite), "t", fixture::cancel_key(), &endpoint);
    let mut server = Server::new(near_server, identity);
    for _ in 0..TRANSACTIONS_MAX {
        if client.to_server.unscanned().is_empty() {
            let came = poll_fn(|cx| client.to_server.poll_fill(&mut client.stream, cx)).await;
            if came.unwrap_or(0) == 0 {
                return;
            }
        }
        // Two statements at most, so that some go.
        let lease = (mode, 2);
        match Relay::new(&mut client, &mut server, pool, lease)
            .run()
            .await
        {
            Ok(End::Boundary) => assert!(server.replies.is_empty(), "a server that owes nothing"),
            Ok(End::ClientLeft(_)) => {
                let mut relay = Relay::resume(&mut client, &mut server, pool, lease);
                // Both have left: nothing more than an end is asked for.
                drop(relay.depart(Farewell::Gone).await);
                return;
            }
            Err(_) => return,
        }
    }
}

/// A stream from which these bytes come, and then its end; with its far end.
fn stream(bytes: &[u8]) -> (Stream, UnixStream) {
    let (near, mut far) = UnixStream::pair().unwrap();
    far.write_all(bytes).unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    near.set_nonblocking(true).unwrap();
    let near = tokio::net::UnixStream::from_std(near).unwrap();
    (Stream::Plain(Socket::Unix(near)), far)
}
