//! The form of the API keys that pgusher makes: `pgu_<key id>_<secret><checksum>`.
//!
//! The prefix makes a leaked key easy to find, the checksum tells a key from something alike
//! without asking anyone, the id names it without showing it. Any other secret works as well: what
//! decides is the verifier.

use crate::tenant::{KeyId, Secret};
use rand::{TryRng, rngs::SysRng};
use zeroize::Zeroizing;

const PREFIX: &str = "pgu_";
/// What a token of the admin API begins with; otherwise it is formed as a key is.
pub(super) const TOKEN_PREFIX: &str = "pga_";
/// A subset of base62 that is also allowed in a [`KeyId`].
const ID_ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const ID_LENGTH: usize = 8;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SECRET_BYTES: usize = 32;
/// 62^43 > 256^32.
const SECRET_LENGTH: usize = 43;
/// 62^6 > 2^32.
const CHECKSUM_LENGTH: usize = 6;

/// Why no key or verifier could be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// No randomness.
    #[error("the system has no randomness")]
    Randomness,
    /// The SCRAM library made something else.
    #[error("the SCRAM library made no verifier")]
    Library,
}

/// A new key.
#[derive(Debug)]
pub struct Minted {
    /// Not secret.
    pub id: KeyId,
    /// The whole key.
    pub text: Secret,
}

/// Makes a key with 256 random bits.
///
/// # Errors
/// [`MintError::Randomness`].
pub fn mint() -> Result<Minted, MintError> {
    mint_as(PREFIX)
}

/// Makes a key or token that begins with this.
///
/// # Errors
/// [`MintError::Randomness`].
pub(super) fn mint_as(prefix: &str) -> Result<Minted, MintError> {
    let mut id_bytes = [0; 8];
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    let filled = SysRng.try_fill_bytes(&mut id_bytes);
    let filled = filled.and_then(|()| SysRng.try_fill_bytes(&mut *secret));
    filled.map_err(|_error| MintError::Randomness)?;
    // 36^8 ids out of 2^64: the bias is far below anything that matters for a name.
    let id = encode(&mut id_bytes, ID_ALPHABET, ID_LENGTH);
    let secret = Zeroizing::new(encode(&mut *secret, ALPHABET, SECRET_LENGTH));
    let mut text = format!("{prefix}{id}_{}", *secret);
    text.push_str(&checksum(&text));
    Ok(Minted {
        id: KeyId::new(&id).map_err(|_error| MintError::Randomness)?,
        text: Secret::new(text),
    })
}

/// Whether it can be a key or a token that was made here: told without asking anyone.
pub(super) fn has_form(text: &str) -> bool {
    let is_prefixed = text.starts_with(PREFIX) || text.starts_with(TOKEN_PREFIX);
    let at = text.len().saturating_sub(CHECKSUM_LENGTH);
    let parts = text.split_at_checked(at);
    is_prefixed && parts.is_some_and(|(body, sum)| checksum(body) == sum)
}

/// CRC-32 of everything before it.
fn checksum(text: &str) -> String {
    encode(
        &mut crc32(text.as_bytes()).to_be_bytes(),
        ALPHABET,
        CHECKSUM_LENGTH,
    )
}

/// The last `length` digits of a big-endian number, which is used up.
fn encode(number: &mut [u8], alphabet: &[u8], length: usize) -> String {
    let base = alphabet.len() as u32;
    let mut digits: Vec<char> = Vec::with_capacity(length);
    for _ in 0..length {
        let remainder = number.iter_mut().fold(0, |remainder, byte| {
            let value = remainder * 256 + u32::from(*byte);
            *byte = (value / base) as u8;
            value % base
        });
        digits.extend(
            alphabet
                .get(remainder as usize)
                .map(|byte| char::from(*byte)),
        );
    }
    digits.iter().rev().collect()
}

/// CRC-32 as of ISO 3309.
fn crc32(bytes: &[u8]) -> u32 {
    let shift = |crc: u32| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1));
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn a_number_is_written_in_its_base() {
        assert_eq!(encode(&mut [0, 0, 61], ALPHABET, 2), "0z");
        assert_eq!(encode(&mut [0, 62], ALPHABET, 2), "10");
        assert_eq!(encode(&mut u32::MAX.to_be_bytes(), ALPHABET, 6), "4gfFC3");
        assert_eq!(encode(&mut [0xFF; 32], ALPHABET, 43).len(), 43);
        assert!(!encode(&mut [0xFF; 32], ALPHABET, 43).starts_with('0'));
    }

    #[test]
    fn a_key_names_itself_and_proves_its_form() {
        let key = mint().unwrap();
        let text = key.text.expose();
        let rest = text.strip_prefix("pgu_").unwrap();
        let (id, secret) = rest.split_once('_').unwrap();
        assert_eq!(id, key.id.as_str());
        assert_eq!(id.len(), ID_LENGTH);
        assert_eq!(secret.len(), SECRET_LENGTH + CHECKSUM_LENGTH);
        assert!(secret.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let (body, sum) = text.split_at(text.len() - CHECKSUM_LENGTH);
        assert_eq!(checksum(body), sum);
        assert_ne!(mint().unwrap().text, key.text);
        assert!(has_form(text) && has_form(mint_as(TOKEN_PREFIX).unwrap().text.expose()));
        for wrong in [
            "",
            "pgu_",
            body,
            &text.replace("pgu_", "pgx_"),
            &format!("{text}0"),
            "pgu_é",
        ] {
            assert!(!has_form(wrong), "{wrong}");
        }
    }
}
