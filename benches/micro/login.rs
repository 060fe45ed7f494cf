//! A login by SCRAM: both ends on one thread, the client's keys derived before.

use crate::{fixture, lane};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use divan::Bencher;
use hmac::{Hmac, KeyInit as _, Mac as _};
use pgusher::{
    auth::{Authenticator, Claim, Conversation, Decoy, Method, Throttle},
    net::{Buffer, Peer},
    tenant::{Cluster, ClusterName, Directory, Lookup, ScramVerifier, Tenant},
    wire::{HEADER_BYTES, frontend, peek},
};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::watch,
};

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

/// What a client keeps of its key.
struct ClientKey([u8; 32]);

impl ClientKey {
    fn verifier(&self) -> ScramVerifier {
        ScramVerifier {
            iterations: 4096,
            salt: [5; 16].into(),
            stored_key: Sha256::digest(self.0).into(),
            server_key: [9; 32],
        }
    }

    async fn log_in(&self, stream: &mut UnixStream) {
        let mut out = Vec::new();
        read_message(stream).await;
        frontend::sasl_initial(&mut out, "SCRAM-SHA-256", b"n,,n=,r=fourteen bytes");
        stream.write_all(&out).await.unwrap();
        let challenge = read_message(stream).await;
        let server_first = std::str::from_utf8(&challenge[4..]).unwrap();
        let nonce = server_first.split(',').next().unwrap();
        let signed = format!("n=,r=fourteen bytes,{server_first},c=biws,{nonce}");
        let stored_key = Sha256::digest(self.0);
        let mut proof: [u8; 32] = Hmac::<Sha256>::new_from_slice(&stored_key)
            .unwrap()
            .chain_update(signed)
            .finalize()
            .into_bytes()
            .into();
        proof
            .iter_mut()
            .zip(self.0)
            .for_each(|(to, from)| *to ^= from);
        let last = format!("c=biws,{nonce},p={}", STANDARD.encode(proof));
        out.clear();
        frontend::password(&mut out, last.as_bytes());
        stream.write_all(&out).await.unwrap();
        read_message(stream).await;
    }
}

async fn read_message(stream: &mut UnixStream) -> Vec<u8> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await.unwrap();
    let header = peek(&header).unwrap().unwrap();
    let mut body = vec![0; header.message_bytes - HEADER_BYTES];
    stream.read_exact(&mut body).await.unwrap();
    body
}

/// With the tenant's first key, and with its third: the one proof is tried against each.
#[divan::bench(args = [1, 3])]
fn scram_with_key(bencher: Bencher<'_, '_>, which: u8) {
    let keys: Vec<_> = (1..=3).map(|byte| ClientKey([byte; 32])).collect();
    let tenant = fixture::tenant(keys.iter().map(ClientKey::verifier).collect());
    let key = keys.get(usize::from(which) - 1).unwrap();
    let authenticator =
        Authenticator::new(Arc::new(Only(tenant)), Decoy::random(), Throttle::new(30));
    let runtime = fixture::runtime();
    let guard = runtime.enter();
    let (stream, far) = lane::stream();
    let mut far = UnixStream::from_std(far).unwrap();
    drop(guard);
    let mut conversation = Conversation {
        stream,
        inbox: Buffer::new(fixture::buffers()),
        scram_plus: None,
    };
    let claim = Claim {
        user: "t",
        peer: Peer::Unix,
        method: Method::Scram,
    };
    bencher.bench_local(|| {
        runtime.block_on(async {
            let server = authenticator.authenticate(&mut conversation, claim);
            let (authenticated, ()) = tokio::join!(server, key.log_in(&mut far));
            authenticated.unwrap();
        });
    });
}
