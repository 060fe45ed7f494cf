//! Verifiers of API keys, as PostgreSQL stores them (RFC 5802, RFC 5803).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// PBKDF2 rounds, PostgreSQL's default.
pub const ITERATIONS: u32 = 4096;

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn salted(secret: &str, salt: &[u8]) -> [u8; 32] {
    let mut round = hmac(secret.as_bytes(), &[salt, &[0, 0, 0, 1]].concat());
    let mut sum = round;
    for _ in 1..ITERATIONS {
        round = hmac(secret.as_bytes(), &round);
        sum.iter_mut()
            .zip(round)
            .for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

/// The verifier of a secret with this salt.
pub fn verifier(secret: &str, salt: &[u8]) -> String {
    let salted = salted(secret, salt);
    let stored_key = Sha256::digest(hmac(&salted, b"Client Key"));
    let server_key = hmac(&salted, b"Server Key");
    format!(
        "SCRAM-SHA-256${ITERATIONS}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key),
        STANDARD.encode(server_key)
    )
}

/// A salt that is a tenant's own, the same for all its keys.
pub fn salt(tenant: &str) -> [u8; 16] {
    let digest = Sha256::digest(tenant.as_bytes());
    *digest
        .first_chunk()
        .expect("a digest is longer than a salt")
}
