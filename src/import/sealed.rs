//! Passwords that others sealed under a master password. What is found in their tables is opened
//! here once, and sealed anew under our keyring.

use crate::tenant::Secret;
use aes_gcm::{Aes256Gcm, Key, KeyInit as _, Nonce, aead::Aead as _};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use cbc::cipher::{BlockModeDecrypt as _, KeyIvInit as _, block_padding::Pkcs7};
use pbkdf2::pbkdf2_hmac_array;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

const AES_BLOCK: usize = 16;
const NONCE: usize = 12;
const FINERACT_ROUNDS: u32 = 65_536;
const ULTRACORE_ROUNDS: u32 = 100_000;
/// The same in every UltraCore.
const ULTRACORE_SALT: &[u8] = b"ultracore_multitenancy_salt_v1";

/// Fineract's form: base64 of IV (16 bytes), salt (16), AES-256-CBC with PKCS#7 padding; the key is
/// PBKDF2-HMAC-SHA-1 of the master password with 65,536 rounds.
pub(super) struct Fineract(Zeroizing<Vec<u8>>);

/// Why a password was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unopened {
    /// It has not the form of a sealed one.
    Form,
    /// Another master password, or it was changed.
    Wrong,
}

impl Fineract {
    /// `None` when the text is not of this form.
    pub(super) fn read(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).ok()?);
        let body = bytes.len().checked_sub(2 * AES_BLOCK)?;
        (body > 0 && body % AES_BLOCK == 0).then_some(Self(bytes))
    }

    /// There is no tag: a wrong master password shows by padding and text that make no sense, once
    /// in about a billion times it does not.
    pub(super) fn open(&self, master: &Secret) -> Result<Secret, Unopened> {
        let (iv, rest) = self.0.split_at_checked(AES_BLOCK).ok_or(Unopened::Form)?;
        let (salt, body) = rest.split_at_checked(AES_BLOCK).ok_or(Unopened::Form)?;
        let key = pbkdf2_hmac_array::<Sha1, 32>(master.expose().as_bytes(), salt, FINERACT_ROUNDS);
        let key = Zeroizing::new(key);
        let cipher = cbc::Decryptor::<aes::Aes256>::new_from_slices(&*key, iv);
        let cipher = cipher.map_err(|_error| Unopened::Form)?;
        let mut body = Zeroizing::new(body.to_vec());
        let opened = cipher.decrypt_padded::<Pkcs7>(&mut body);
        text(opened.map_err(|_error| Unopened::Wrong)?)
    }
}

/// UltraCore's form: base64 of nonce (12 bytes), AES-256-GCM without additional data; the key is
/// PBKDF2-HMAC-SHA-256 of the master password with a fixed salt and 100,000 rounds.
pub(super) struct UltraCore {
    cipher: Aes256Gcm,
    /// SHA-256 of the master password: its table has it in hex to compare with.
    hash: [u8; 32],
}

impl UltraCore {
    pub(super) fn new(master: &Secret) -> Self {
        let bytes = master.expose().as_bytes();
        let key = pbkdf2_hmac_array::<Sha256, 32>(bytes, ULTRACORE_SALT, ULTRACORE_ROUNDS);
        let key = Zeroizing::new(key);
        Self {
            cipher: Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key)),
            hash: Sha256::digest(bytes).into(),
        }
    }

    /// Whether this is the master password that the hash is of.
    pub(super) fn is_of(&self, hash: &str) -> bool {
        let byte = |at: usize| u8::from_str_radix(hash.trim().get(2 * at..2 * at + 2)?, 16).ok();
        let theirs: Option<Vec<u8>> = (0..32).map(byte).collect();
        theirs.is_some_and(|theirs| self.hash.ct_eq(&theirs).into())
    }

    pub(super) fn open(&self, sealed: &str) -> Result<Secret, Unopened> {
        let bytes = STANDARD.decode(sealed.trim());
        let bytes = bytes.map_err(|_error| Unopened::Form)?;
        let (nonce, body) = bytes.split_first_chunk::<NONCE>().ok_or(Unopened::Form)?;
        let opened = self.cipher.decrypt(&Nonce::from(*nonce), body);
        text(&Zeroizing::new(opened.map_err(|_error| Unopened::Wrong)?))
    }
}

/// A password is a text without control characters.
fn text(bytes: &[u8]) -> Result<Secret, Unopened> {
    let text = std::str::from_utf8(bytes).map_err(|_error| Unopened::Wrong)?;
    if text.chars().any(char::is_control) {
        return Err(Unopened::Wrong);
    }
    Ok(Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    /// From apache/fineract, `EncryptionUtilTest`.
    const PUBLISHED: &str = "Oy/ah382msZT9ZAYBmQgsIXJYOdkB5MoF+3XMkQVkcZTduNSam3+0VpGYOGyXojs";

    #[test]
    fn what_fineract_published_opens() {
        let sealed = Fineract::read(PUBLISHED).unwrap();
        assert_eq!(
            sealed.open(&secret("fineract")).unwrap().expose(),
            "postgres"
        );
        let wrong = sealed.open(&secret("Fineract")).unwrap_err();
        assert_eq!(wrong, Unopened::Wrong);
    }

    #[test]
    fn what_is_no_sealed_password_is_told_apart() {
        for text in [
            "",
            "mysql",
            "c2hvcnQ=",
            "a long password with spaces in it, and more of it",
        ] {
            assert!(Fineract::read(text).is_none(), "{text}");
        }
        let core = UltraCore::new(&secret("m"));
        for text in ["", "mysql!", "c2hvcnQ="] {
            assert_eq!(core.open(text).unwrap_err(), Unopened::Form, "{text}");
        }
    }

    /// Made with Python's `cryptography` 48, by the steps of UltraCore's `PasswordEncryption`.
    const BY_PYTHON: &str = "AQIDBAUGBwgJCgsMXY7jRzp+GXAbgrkUkg0fpMUNymft2zfpiBH1";

    #[test]
    fn what_pythons_cryptography_sealed_opens() {
        let core = UltraCore::new(&secret("ultra-master"));
        assert_eq!(core.open(BY_PYTHON).unwrap().expose(), "pässword-1");
        let other = UltraCore::new(&secret("other"));
        assert_eq!(other.open(BY_PYTHON).unwrap_err(), Unopened::Wrong);
        let hash = "fae05e15a780a1903831cd66942ad6d70375378fa40b2d1a853e98ed4c13ea8a";
        assert!(core.is_of(hash) && !other.is_of(hash) && !core.is_of(""));
    }
}
