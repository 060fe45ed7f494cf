//! SCRAM-SHA-256 from the client's side (RFC 5802), with keys that are derived already.
//!
//! The server's signature isn't checked: this client only has to make the server do its work.

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Client, Message, message};
use crate::credential::{Credential, hmac, sha256};

const MECHANISM: &[u8] = b"SCRAM-SHA-256\0";

/// From the server's offer to its last message; AuthenticationOk is left to the caller.
pub(super) fn run(client: &mut Client, credential: &Credential) -> Result<()> {
    let nonce = STANDARD.encode(rand::random::<[u8; 18]>());
    let first_bare = format!("n=,r={nonce}");
    let first = format!("n,,{first_bare}");
    let length = u32::try_from(first.len())?.to_be_bytes();
    client.send(&message(b'p', &[MECHANISM, &length, first.as_bytes()]))?;

    let server_first = expect(client, 11)?;
    let last = client_last(credential, &first_bare, &nonce, &server_first)?;
    client.send(&message(b'p', &[last.as_bytes()]))?;
    expect(client, 12).map(drop)
}

fn client_last(
    credential: &Credential,
    first_bare: &str,
    nonce: &str,
    server_first: &str,
) -> Result<String> {
    let field = |name: &str| {
        let found = server_first
            .split(',')
            .find_map(|field| field.strip_prefix(name));
        found.with_context(|| format!("no {name} in {server_first:?}"))
    };
    let both_nonces = field("r=")?;
    if !both_nonces.starts_with(nonce) {
        bail!("the server's nonce doesn't begin with ours");
    }
    let salt = STANDARD.decode(field("s=")?)?;
    let iterations = field("i=")?.parse()?;
    let other;
    let credential = if salt == credential.salt && iterations == credential.iterations {
        credential
    } else {
        other = Credential::derive(&credential.key, salt, iterations);
        &other
    };
    let without_proof = format!("c=biws,r={both_nonces}");
    let signed = format!("{first_bare},{server_first},{without_proof}");
    let mut proof = hmac(&sha256(&credential.client_key), signed.as_bytes());
    proof
        .iter_mut()
        .zip(credential.client_key)
        .for_each(|(to, from)| *to ^= from);
    Ok(format!("{without_proof},p={}", STANDARD.encode(proof)))
}

/// The text of an authentication message of this kind.
fn expect(client: &mut Client, kind: u32) -> Result<String> {
    let Message { tag, body } = client.read_message()?;
    match body.split_first_chunk::<4>() {
        Some((found, text)) if tag == b'R' && u32::from_be_bytes(*found) == kind => {
            Ok(String::from_utf8(text.to_vec())?)
        }
        _ => bail!("no authentication message {kind}"),
    }
}
