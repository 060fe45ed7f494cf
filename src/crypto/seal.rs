//! Sealing and opening.

use super::Keyring;
use aes_gcm::{
    Nonce,
    aead::{Aead as _, Payload},
};
use rand::{TryRng as _, rngs::SysRng};
use zeroize::Zeroizing;

/// First byte of everything sealed: the form that follows.
const FORM: u8 = 1;
/// Form, number of the key.
const HEAD_BYTES: usize = 5;
/// 96 bits, random for each sealing. Rotate long before 2^32 sealings under one key.
const NONCE_BYTES: usize = 12;

/// Whose secret it is, and what it is for. Both are bound to what is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purpose<'a> {
    /// `tenant:acme`, `cluster:main`.
    pub owner: &'a str,
    /// `password`, `read_only_password`, `admin`, `entry:smtp.password`, `slots:…`, `snapshot`.
    pub what: &'a str,
}

impl Purpose<'_> {
    /// The additional data: everything with its length, so that no two purposes look alike.
    fn bound(&self, number: u32) -> Vec<u8> {
        let mut data = b"pgusher".to_vec();
        data.extend(number.to_be_bytes());
        for part in [self.owner, self.what] {
            data.extend((part.len() as u64).to_be_bytes());
            data.extend(part.as_bytes());
        }
        data
    }
}

/// Nothing could be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// No randomness.
    #[error("the system has no randomness")]
    Randomness,
    /// Too long.
    #[error("it is too long to be sealed")]
    Length,
}

/// What is sealed can't be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not of our form.
    #[error("this was not sealed by pgusher")]
    Form,
    /// The key is gone.
    #[error(
        "it was sealed under master key {0}, which is not in the keyring; put that key back, nothing else opens it"
    )]
    Key(u32),
    /// The tag is wrong.
    #[error(
        "it does not open with master key {0}: that is another key than the one that sealed it, or the value was changed or moved"
    )]
    Tag(u32),
}

/// A sealed value: form (1 byte), number of the key (4), nonce (12), ciphertext and tag.
#[derive(Debug, Clone, Copy)]
pub struct Sealed<'a>(pub &'a [u8]);

impl Sealed<'_> {
    /// The number of the key that opens it.
    ///
    /// # Errors
    /// [`OpenError::Form`].
    pub fn key(self) -> Result<u32, OpenError> {
        match self.0.split_at_checked(HEAD_BYTES) {
            Some(([FORM, number @ ..], rest)) if rest.len() > NONCE_BYTES => {
                let number = <[u8; 4]>::try_from(number).map_err(|_error| OpenError::Form)?;
                Ok(u32::from_be_bytes(number))
            }
            _ => Err(OpenError::Form),
        }
    }
}

impl Keyring {
    /// Seals a value for a purpose, under the newest key and a random nonce.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(&self, purpose: Purpose<'_>, value: &[u8]) -> Result<Vec<u8>, SealError> {
        let keys = self.keys();
        let (number, key) = keys.last_key_value().ok_or(SealError::Randomness)?;
        let mut nonce = [0; NONCE_BYTES];
        SysRng
            .try_fill_bytes(&mut nonce)
            .map_err(|_error| SealError::Randomness)?;
        let payload = Payload {
            msg: value,
            aad: &purpose.bound(*number),
        };
        let sealed = key
            .encrypt(&Nonce::from(nonce), payload)
            .map_err(|_error| SealError::Length)?;
        let mut bytes = vec![FORM];
        bytes.extend(number.to_be_bytes());
        bytes.extend(nonce);
        bytes.extend(sealed);
        Ok(bytes)
    }

    /// Opens what was sealed for this purpose.
    ///
    /// # Errors
    /// [`OpenError`] says which key is missing or wrong.
    pub fn open(
        &self,
        purpose: Purpose<'_>,
        sealed: Sealed<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let number = sealed.key()?;
        let keys = self.keys();
        let key = keys.get(&number).ok_or(OpenError::Key(number))?;
        let rest = sealed.0.get(HEAD_BYTES..).unwrap_or_default();
        let (nonce, body) = rest.split_first_chunk().ok_or(OpenError::Form)?;
        let payload = Payload {
            msg: body,
            aad: &purpose.bound(number),
        };
        let value = key.decrypt(&Nonce::from(*nonce), payload);
        value
            .map(Zeroizing::new)
            .map_err(|_error| OpenError::Tag(number))
    }

    /// Whether it is sealed under the newest key.
    pub fn is_current(&self, sealed: Sealed<'_>) -> bool {
        sealed.key() == Ok(self.current())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: Purpose<'_> = Purpose {
        owner: "tenant:acme",
        what: "password",
    };

    fn keyring(numbers: &[u32]) -> (Keyring, String) {
        let lines = numbers
            .iter()
            .map(|number| Keyring::new_line(*number).unwrap().expose().to_owned());
        let text = lines.collect::<Vec<_>>().join("\n");
        (Keyring::parse(&text).unwrap(), text)
    }

    #[test]
    fn what_is_sealed_opens_for_its_purpose_alone() {
        let (keyring, _) = keyring(&[1]);
        let sealed = keyring.seal(ACME, b"hunter2").unwrap();
        assert_eq!(**keyring.open(ACME, Sealed(&sealed)).unwrap(), *b"hunter2");
        for other in [
            Purpose {
                owner: "tenant:initech",
                ..ACME
            },
            Purpose {
                what: "read_only_password",
                ..ACME
            },
            Purpose {
                owner: "tenant:acmep",
                what: "assword",
            },
        ] {
            let opened = keyring.open(other, Sealed(&sealed));
            assert_eq!(opened.unwrap_err(), OpenError::Tag(1), "{other:?}");
        }
    }

    #[test]
    fn every_changed_bit_shows() {
        let (keyring, _) = keyring(&[1]);
        let sealed = keyring.seal(ACME, b"hunter2").unwrap();
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(
                keyring.open(ACME, Sealed(&changed)).is_err(),
                "byte {index}"
            );
            assert!(keyring.open(ACME, Sealed(&sealed[..index])).is_err());
        }
    }

    #[test]
    fn a_nonce_is_never_used_twice() {
        let (keyring, _) = keyring(&[1]);
        let [one, two] = [(); 2].map(|()| keyring.seal(ACME, b"hunter2").unwrap());
        assert_ne!(one, two);
    }

    #[test]
    fn the_older_key_opens_until_it_is_taken_away() {
        let (old, line) = keyring(&[1]);
        let sealed = old.seal(ACME, b"hunter2").unwrap();
        let new = Keyring::new_line(2).unwrap();
        let both = Keyring::parse(&format!("{line}\n{}", new.expose())).unwrap();
        assert_eq!(**both.open(ACME, Sealed(&sealed)).unwrap(), *b"hunter2");
        assert!(!both.is_current(Sealed(&sealed)));
        assert!(both.is_current(Sealed(&both.seal(ACME, b"").unwrap())));
        let alone = Keyring::parse(new.expose()).unwrap();
        let opened = alone.open(ACME, Sealed(&sealed));
        assert_eq!(opened.unwrap_err(), OpenError::Key(1));
        alone.replace(&both);
        assert!(alone.open(ACME, Sealed(&sealed)).is_ok());
        let (other, _) = keyring(&[1]);
        let opened = other.open(ACME, Sealed(&sealed));
        assert_eq!(opened.unwrap_err(), OpenError::Tag(1));
    }
}
