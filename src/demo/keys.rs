//! API keys and opaque names.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// What PostgreSQL and its drivers use.
const ITERATIONS: u32 = 4096;

/// A new salt, for all keys of one tenant.
pub(super) fn new_salt() -> [u8; 16] {
    rand::random()
}

/// A new API key: `pgu_<8 characters: its id>_<32 random bytes><CRC-32 of what stands before>`.
pub(super) fn new_key() -> String {
    let id: [u8; 6] = rand::random();
    let secret: [u8; 32] = rand::random();
    let text = format!("pgu_{}_{}", base62(&id, 8), base62(&secret, 43));
    let checksum = crc32(text.as_bytes());
    text + &base62(&checksum.to_be_bytes(), 6)
}

/// What a server stores instead of the key (RFC 5803). A tenant's keys share the salt.
pub(super) fn verifier(key: &str, salt: &[u8]) -> String {
    let salted = salted_password(key.as_bytes(), salt);
    let stored = Sha256::digest(hmac(&salted, &[b"Client Key"]));
    let server = hmac(&salted, &[b"Server Key"]);
    format!(
        "SCRAM-SHA-256${ITERATIONS}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored),
        STANDARD.encode(server)
    )
}

/// A name or password of `[a-z2-7]` with 5 random bits a character.
pub(super) fn opaque(length: usize) -> String {
    let character = || {
        let index = usize::from(rand::random::<u8>() % 32);
        char::from(*BASE32.get(index).expect("a remainder of 32"))
    };
    (0..length).map(|_| character()).collect()
}

/// PBKDF2-HMAC-SHA-256 of one block (RFC 5802, `Hi`).
fn salted_password(key: &[u8], salt: &[u8]) -> [u8; 32] {
    let mut block = hmac(key, &[salt, &1u32.to_be_bytes()]);
    let mut sum = block;
    for _ in 1..ITERATIONS {
        block = hmac(key, &[&block]);
        for (byte, other) in sum.iter_mut().zip(block) {
            *byte ^= other;
        }
    }
    sum
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// The bytes as a number in base 62, padded to `width` digits.
fn base62(bytes: &[u8], width: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec![b'0'; width];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0u16;
        for byte in &mut number {
            let dividend = remainder << 8 | u16::from(*byte);
            *byte = (dividend / 62) as u8;
            remainder = dividend % 62;
        }
        *digit = *BASE62
            .get(usize::from(remainder))
            .expect("a remainder of 62");
    }
    digits.into_iter().map(char::from).collect()
}

/// CRC-32 (IEEE 802.3).
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1));
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_documented_form_and_is_new_each_time() {
        let key = new_key();
        let (head, checksum) = key.split_at(key.len() - 6);
        assert_eq!(key.len(), 4 + 8 + 1 + 43 + 6);
        assert_eq!(checksum, base62(&crc32(head.as_bytes()).to_be_bytes(), 6));
        assert_ne!(key, new_key());
    }

    #[test]
    fn the_checksum_is_the_usual_crc32() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_verifier_is_the_one_that_postgresql_makes() {
        let made = postgres_protocol::password::scram_sha_256(b"pgu_key");
        let salt = made.split([':', '$']).nth(2).unwrap();
        let salt = STANDARD.decode(salt).unwrap();
        assert_eq!(verifier("pgu_key", &salt), made);
    }
}
