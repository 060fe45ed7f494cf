//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677) against stored verifiers.
//!
//! pgwire speaks SCRAM and checks the first verifier; a tenant's other keys share its salt and
//! iteration count, so the one proof that the client sends is tried against each.

use super::{AuthError, Conversation, ConversationError};
use crate::{
    net::Stream,
    tenant::ScramVerifier,
    wire::{Refusal, SqlState, backend, read},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use pgwire::{
    api::auth::sasl::scram::{ScramSecret, ScramServerAuth},
    error::PgWireError,
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

const SCRAM: &str = "SCRAM-SHA-256";
const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Has the client prove a key; returns which verifier it proved.
pub(super) async fn authenticate(
    conversation: &mut Conversation,
    verifiers: &[&ScramVerifier],
) -> Result<usize, AuthError> {
    let server = conversation.scram_server();
    let mut out = Vec::with_capacity(64);
    let mechanisms: &[&str] = if server.supports_channel_binding() {
        &[SCRAM_PLUS, SCRAM]
    } else {
        &[SCRAM]
    };
    backend::authentication_sasl(&mut out, mechanisms);
    conversation
        .send(&out)
        .await
        .map_err(ConversationError::Io)?;

    let initial = conversation.receive_password().await?;
    let (mechanism, first) = initial_response(&initial).ok_or(ConversationError::Unexpected)?;
    if first.contains(&0) {
        return Err(ConversationError::Unexpected.into());
    }
    if !mechanisms.contains(&mechanism) || (mechanism == SCRAM_PLUS) != first.starts_with(b"p=") {
        return Err(ConversationError::Unexpected.into());
    }
    let main = verifiers
        .first()
        .ok_or(AuthError::BadKey("no key to try"))?;
    let (server_first, waiting) = server
        .on_client_first_message_with_secret(first, secret(main))
        .map_err(|error| negotiation_error(&error))?;
    out.clear();
    backend::authentication_sasl_continue(&mut out, server_first.clone());
    conversation
        .send(&out)
        .await
        .map_err(ConversationError::Io)?;

    let client_final = conversation.receive_password().await?;
    let (matched, server_final) = match waiting.on_client_final_message(&client_final) {
        Ok(server_final) => (0, server_final),
        Err(PgWireError::InvalidPassword(_)) => {
            let proof = Proof::new(first, &server_first, &client_final)
                .ok_or(ConversationError::Unexpected)?;
            proof
                .matching(verifiers)
                .ok_or(AuthError::BadKey("no key matches the proof"))?
        }
        Err(_) => return Err(ConversationError::Unexpected.into()),
    };
    out.clear();
    backend::authentication_sasl_final(&mut out, server_final);
    conversation
        .send(&out)
        .await
        .map_err(ConversationError::Io)?;
    Ok(matched)
}

/// A client that believes we offer no channel binding was lied to on the way.
fn negotiation_error(error: &PgWireError) -> AuthError {
    match error {
        PgWireError::InvalidScramMessage(text) if text.contains("downgrade") => {
            AuthError::Refused(Refusal::fatal(
                SqlState::UNAUTHORIZED,
                "SCRAM channel binding negotiation error",
            ))
        }
        _ => ConversationError::Unexpected.into(),
    }
}

impl Conversation {
    /// Offers channel binding inside TLS.
    fn scram_server(&self) -> ScramServerAuth {
        match (&self.stream, &self.scram_plus) {
            (Stream::Tls(_), Some(server)) => server.clone(),
            _ => ScramServerAuth::new(),
        }
    }
}

fn secret(verifier: &ScramVerifier) -> ScramSecret {
    ScramSecret::Verifier {
        salt: verifier.salt.to_vec(),
        iterations: verifier.iterations as usize,
        stored_key: verifier.stored_key.to_vec(),
        server_key: verifier.server_key.to_vec(),
    }
}

/// Mechanism and data of a SASLInitialResponse.
fn initial_response(body: &[u8]) -> Option<(&str, &[u8])> {
    let (mechanism, rest) = read::cstr(body)?;
    let length = read::u32_at_front(rest)? as usize;
    let data = rest.get(4..)?;
    (data.len() == length).then_some((std::str::from_utf8(mechanism).ok()?, data))
}

/// What a client's final message proves, for keys other than the first.
struct Proof {
    auth_message: Vec<u8>,
    proof: [u8; 32],
}

impl Proof {
    fn new(client_first: &[u8], server_first: &str, client_final: &[u8]) -> Option<Self> {
        let bare_at = client_first
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == b',')
            .nth(1)?
            .0
            + 1;
        let at = client_final
            .windows(3)
            .rposition(|window| window == b",p=")?;
        let proof = STANDARD
            .decode(client_final.get(at + 3..)?)
            .ok()?
            .try_into()
            .ok()?;
        let parts = [
            client_first.get(bare_at..)?,
            server_first.as_bytes(),
            client_final.get(..at)?,
        ];
        Some(Self {
            auth_message: parts.join(&b','),
            proof,
        })
    }

    /// Which verifier the proof is right for, and the server's own proof.
    fn matching(&self, verifiers: &[&ScramVerifier]) -> Option<(usize, String)> {
        let is_it = |verifier: &&ScramVerifier| {
            let signature = self.sign(&verifier.stored_key);
            let mut client_key = [0; 32];
            for (out, (a, b)) in client_key.iter_mut().zip(self.proof.iter().zip(signature)) {
                *out = a ^ b;
            }
            let stored: [u8; 32] = Sha256::digest(client_key).into();
            bool::from(stored.ct_eq(&verifier.stored_key))
        };
        let matched = verifiers.iter().position(is_it)?;
        let server_key = &verifiers.get(matched)?.server_key;
        Some((
            matched,
            format!("v={}", STANDARD.encode(self.sign(server_key))),
        ))
    }

    fn sign(&self, key: &[u8; 32]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes any key length");
        mac.update(&self.auth_message);
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use proptest::prelude::*;

    /// Verifiers of several keys with one salt, as `pgusher key verifier --like` makes them.
    fn verifiers(keys: &[&str]) -> Vec<ScramVerifier> {
        let salt = [5_u8; 16];
        keys.iter()
            .map(|key| {
                let salted = pgwire::api::auth::sasl::scram::gen_salted_password(key, &salt, 4096);
                let derive = |purpose: &[u8]| -> [u8; 32] {
                    let mut mac = Hmac::<Sha256>::new_from_slice(&salted).unwrap();
                    mac.update(purpose);
                    mac.finalize().into_bytes().into()
                };
                ScramVerifier {
                    iterations: 4096,
                    salt: salt.into(),
                    stored_key: Sha256::digest(derive(b"Client Key")).into(),
                    server_key: derive(b"Server Key"),
                }
            })
            .collect()
    }

    #[test]
    fn each_of_several_keys_is_proven_and_the_server_proves_itself() {
        let stored = verifiers(&["one", "two", "three"]);
        let stored: Vec<_> = stored.iter().collect();
        for (at, key) in ["one", "two", "three", "four"].iter().enumerate() {
            let mut client = ScramSha256::new(key.as_bytes(), ChannelBinding::unsupported());
            let first = client.message().to_vec();
            let (server_first, waiting) = ScramServerAuth::new()
                .on_client_first_message_with_secret(&first, secret(stored[0]))
                .unwrap();
            client.update(server_first.as_bytes()).unwrap();
            let last = client.message().to_vec();
            let by_pgwire = waiting.on_client_final_message(&last).ok();
            let proof = Proof::new(&first, &server_first, &last).unwrap();
            match proof.matching(&stored) {
                Some((matched, server_final)) => {
                    assert_eq!(matched, at);
                    assert_eq!(by_pgwire.is_some(), at == 0);
                    client.finish(server_final.as_bytes()).unwrap();
                }
                None => assert_eq!(at, 3),
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_messages_never_panic(
            first in proptest::collection::vec(any::<u8>(), 0..80),
            last in proptest::collection::vec(any::<u8>(), 0..80),
            text in "[nyp]=?[a-z-]{0,8},(a=x)?,(m=.)?n=[a-z]*,r=[!-~]{0,9}(,p=.*)?",
        ) {
            let stored = verifiers(&["one"]);
            for message in [&first[..], text.as_bytes()] {
                let _ = initial_response(message);
                let server = ScramServerAuth::new();
                if let Ok((_, waiting)) =
                    server.on_client_first_message_with_secret(message, secret(&stored[0]))
                {
                    drop(waiting.on_client_final_message(&last));
                    drop(waiting.on_client_final_message(text.as_bytes()));
                }
                drop(Proof::new(message, "r=x", &last));
            }
        }
    }
}
