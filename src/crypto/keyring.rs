//! The master keys.

use crate::tenant::Secret;
use aes_gcm::{Aes256Gcm, Key, KeyInit as _};
use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rand::{TryRng as _, rngs::SysRng};
use std::{collections::BTreeMap, fmt, sync::Arc};
use zeroize::Zeroizing;

/// Bytes of a master key.
const KEY_BYTES: usize = 32;

/// Why a text is no keyring. No variant holds a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// Nothing in it.
    #[error("there is no master key in it; make one: pgusher secrets key")]
    Empty,
    /// A line of another form.
    #[error(
        "line {0} is not of the form \"<number> <32 bytes in base64>\"; make one: pgusher secrets key"
    )]
    Line(usize),
    /// Two keys of one number.
    #[error("the number {0} stands there twice")]
    Twice(u32),
    /// No randomness.
    #[error("the system has no randomness")]
    Randomness,
}

/// Keys by number.
pub(super) type Keys = BTreeMap<u32, Aes256Gcm>;

/// The master keys by number. The one with the highest number seals; all of them open. They can be
/// replaced while in use, so that a new key needs no restart.
pub struct Keyring {
    keys: ArcSwap<Keys>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys.load().keys()).finish()
    }
}

impl Keyring {
    /// Reads the keys: a line each, `<number> <32 bytes in base64>`. Empty lines and lines that
    /// begin with `#` are skipped.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let mut keys = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (number, key) = read_line(line).ok_or(KeyringError::Line(index + 1))?;
            let key = Key::<Aes256Gcm>::from(*key);
            if keys.insert(number, Aes256Gcm::new(&key)).is_some() {
                return Err(KeyringError::Twice(number));
            }
        }
        if keys.is_empty() {
            return Err(KeyringError::Empty);
        }
        Ok(Self {
            keys: ArcSwap::from_pointee(keys),
        })
    }

    /// A line with a new key of this number, for the operator to keep.
    ///
    /// # Errors
    /// [`KeyringError::Randomness`].
    pub fn new_line(number: u32) -> Result<Secret, KeyringError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        SysRng
            .try_fill_bytes(&mut *key)
            .map_err(|_error| KeyringError::Randomness)?;
        let text = Zeroizing::new(STANDARD.encode(*key));
        Ok(Secret::new(format!("{number} {}", *text)))
    }

    /// The number of the key that seals.
    pub fn current(&self) -> u32 {
        let keys = self.keys.load();
        keys.last_key_value().map_or(0, |(number, _)| *number)
    }

    /// Takes the keys of another keyring over, in place of its own.
    pub fn replace(&self, other: &Self) {
        self.keys.store(other.keys.load_full());
    }

    /// The keys as they are now.
    pub(super) fn keys(&self) -> Arc<Keys> {
        self.keys.load_full()
    }
}

fn read_line(line: &str) -> Option<(u32, Zeroizing<[u8; KEY_BYTES]>)> {
    let (number, key) = line.split_once(char::is_whitespace)?;
    let key = Zeroizing::new(STANDARD.decode(key.trim()).ok()?);
    let key = Zeroizing::new(<[u8; KEY_BYTES]>::try_from(key.as_slice()).ok()?);
    Some((number.parse().ok()?, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_number_seals() {
        let [one, seven] = [1, 7].map(|number| Keyring::new_line(number).unwrap());
        let text = format!("# ours\n\n{}\n  {}\n", seven.expose(), one.expose());
        assert_eq!(Keyring::parse(&text).unwrap().current(), 7);
        assert_eq!(format!("{:?}", Keyring::parse(&text).unwrap()), "{1, 7}");
    }

    #[test]
    fn what_is_no_keyring_is_said() {
        let line = Keyring::new_line(1).unwrap();
        let twice = format!("{0}\n{0}", line.expose());
        for (text, error) in [
            ("", KeyringError::Empty),
            ("# only words", KeyringError::Empty),
            ("1 c2hvcnQ=", KeyringError::Line(1)),
            ("hunter2", KeyringError::Line(1)),
            (&twice, KeyringError::Twice(1)),
        ] {
            assert_eq!(Keyring::parse(text).unwrap_err(), error, "{text}");
        }
    }
}
