//! What a client sends to log in, without having the key.
#![no_main]

#[allow(dead_code, reason = "it serves other targets, too")]
#[path = "../../benches/micro/fixture.rs"]
mod fixture;

use libfuzzer_sys::fuzz_target;
use pgusher::{
    auth::{Authenticator, Claim, Conversation, Decoy, Method, Throttle},
    net::{Buffer, Peer, Socket, Stream},
    tenant::{Cluster, ClusterName, Directory, Lookup, ScramVerifier, Tenant},
    wire::frontend,
};
use std::{
    io::Write as _,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Arc, LazyLock},
};
use tokio::sync::watch;

/// One tenant.
struct Only(Arc<Tenant>);

impl Directory for Only {
    fn tenant<'a>(&'a self, _: &'a str) -> Lookup<'a> {
        Box::pin(std::future::ready(Ok(Some(Arc::clone(&self.0)))))
    }

    fn cluster(&self, _: &ClusterName) -> Option<Arc<Cluster>> {
        None
    }

    fn changes(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }
}

/// Made once, as its throttle is dear.
static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(|| {
    let verifiers = [1, 2].map(|byte| ScramVerifier {
        iterations: 1,
        salt: [5; 16].into(),
        stored_key: [byte; 32],
        server_key: [byte; 32],
    });
    let tenant = fixture::tenant(verifiers.into());
    let throttle = Throttle::new(u32::MAX);
    Authenticator::new(Arc::new(Only(tenant)), Decoy::new([0; 32]), throttle)
});

// The first byte: how the rest is framed, and how it is divided into two messages.
fuzz_target!(|bytes: &[u8]| {
    let Some((how, rest)) = bytes.split_first() else {
        return;
    };
    let (first, last) = rest.split_at(rest.len() * usize::from(how >> 2) / 63);
    let mut sent = Vec::new();
    match how % 4 {
        0 => sent.extend_from_slice(rest),
        1 => frontend::password(&mut sent, rest),
        _ => {
            frontend::sasl_initial(&mut sent, "SCRAM-SHA-256", first);
            frontend::password(&mut sent, last);
        }
    }
    let method = if how % 4 == 1 {
        Method::Password
    } else {
        Method::Scram
    };
    if sent.len() < 70_000 {
        fixture::runtime().block_on(log_in(&sent, method));
    }
});

async fn log_in(sent: &[u8], method: Method) {
    let (near, mut far) = UnixStream::pair().unwrap();
    far.write_all(sent).unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    near.set_nonblocking(true).unwrap();
    let mut conversation = Conversation {
        stream: Stream::Plain(Socket::Unix(
            tokio::net::UnixStream::from_std(near).unwrap(),
        )),
        inbox: Buffer::new(fixture::buffers()),
        scram_plus: None,
    };
    let claim = Claim {
        user: "t",
        peer: Peer::Unix,
        method,
    };
    let result = AUTHENTICATOR.authenticate(&mut conversation, claim).await;
    assert!(result.is_err(), "nobody knows a key with these verifiers");
}
