//! API keys, their SCRAM verifiers, and the server certificate: all made for one run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::process;

/// RFC 5802 and PostgreSQL's default.
const ITERATIONS: u32 = 4096;

/// A key with everything SCRAM derives from it, so that ten thousand logins cost one PBKDF2.
#[derive(Clone, Debug)]
pub(crate) struct Credential {
    pub(crate) key: String,
    pub(crate) salt: Vec<u8>,
    pub(crate) iterations: u32,
    pub(crate) client_key: [u8; 32],
    server_key: [u8; 32],
}

impl Credential {
    /// Derives everything from `key`, with a random salt.
    pub(crate) fn new(key: &str) -> Self {
        Self::derive(key, rand::random::<[u8; 16]>().to_vec(), ITERATIONS)
    }

    /// The same key under the salt and the count that a server asks for.
    pub(crate) fn derive(key: &str, salt: Vec<u8>, iterations: u32) -> Self {
        let salted = pbkdf2(key.as_bytes(), &salt, iterations);
        let client_key = hmac(&salted, b"Client Key");
        let server_key = hmac(&salted, b"Server Key");
        Self {
            key: key.to_owned(),
            salt,
            iterations,
            client_key,
            server_key,
        }
    }

    /// As PostgreSQL stores it.
    pub(crate) fn verifier(&self) -> String {
        verifier(&self.salt, &sha256(&self.client_key), &self.server_key)
    }
}

/// A verifier that no key fits: as good as any other for a tenant who never comes.
pub(crate) fn random_verifier() -> String {
    verifier(
        &rand::random::<[u8; 16]>(),
        &rand::random(),
        &rand::random(),
    )
}

fn verifier(salt: &[u8], stored_key: &[u8; 32], server_key: &[u8; 32]) -> String {
    let [salt, stored, server] = [salt, stored_key, server_key].map(|part| STANDARD.encode(part));
    format!("SCRAM-SHA-256${ITERATIONS}:{salt}${stored}:{server}")
}

/// SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// HMAC-SHA-256 (RFC 2104). Keys here are never longer than a block.
pub(crate) fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; 64];
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    let inner = Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x36))
        .chain_update(message);
    let outer = Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c));
    outer.chain_update(inner.finalize()).finalize().into()
}

/// One block of PBKDF2 with HMAC-SHA-256 (RFC 8018).
fn pbkdf2(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut last = hmac(password, &[salt, &1_u32.to_be_bytes()].concat());
    let mut sum = last;
    for _ in 1..iterations {
        last = hmac(password, &last);
        sum.iter_mut().zip(last).for_each(|(to, from)| *to ^= from);
    }
    sum
}

/// A self-signed certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// What the signature in a TLS handshake is made with: most of its cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyType {
    /// ECDSA on P-256.
    P256,
    /// RSA with 2048 bits.
    Rsa2048,
}

impl Certificate {
    /// Makes one with the `openssl` command.
    pub(crate) fn create(folder: &Path, key_type: KeyType) -> Result<Self> {
        let (name, kind): (_, &[&str]) = match key_type {
            KeyType::P256 => ("p256", &["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]),
            KeyType::Rsa2048 => ("rsa2048", &["rsa:2048"]),
        };
        let made = Self {
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        };
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-newkey",
        ]);
        openssl
            .args(kind)
            .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
        openssl
            .arg("-keyout")
            .arg(&made.key)
            .arg("-out")
            .arg(&made.certificate);
        process::output(&mut openssl)?;
        // PgBouncer reads it after it has given up root's rights; it lives as long as the run.
        process::output(Command::new("chmod").arg("644").arg(&made.key))?;
        Ok(made)
    }
}
