//! From a key to what proves it.

use super::api_key::MintError;
use crate::tenant::ScramVerifier;
use pgwire::api::auth::sasl::scram::{ScramSecret, gen_salted_password};
use rand::{TryRng, rngs::SysRng};

/// PostgreSQL's default. A random key of 256 bits needs no more.
const ITERATIONS: u32 = 4096;
const SALT_BYTES: usize = 16;

/// The verifier of a key: with the salt and iteration count of `like`, else a new salt.
///
/// # Errors
/// [`MintError`].
pub fn verifier(key: &str, like: Option<&ScramVerifier>) -> Result<ScramVerifier, MintError> {
    let (salt, iterations) = if let Some(like) = like {
        (like.salt.clone(), like.iterations)
    } else {
        let mut salt = [0; SALT_BYTES];
        let filled = SysRng.try_fill_bytes(&mut salt);
        filled.map_err(|_error| MintError::Randomness)?;
        (salt.into(), ITERATIONS)
    };
    salted(key, &salt, iterations)
}

/// The verifier of a key with this salt and PostgreSQL's usual iteration count.
///
/// # Errors
/// [`MintError`].
pub(super) fn verifier_with(key: &str, salt: &[u8]) -> Result<ScramVerifier, MintError> {
    salted(key, salt, ITERATIONS)
}

fn salted(key: &str, salt: &[u8], iterations: u32) -> Result<ScramVerifier, MintError> {
    let rounds = iterations as usize;
    let salted = gen_salted_password(key, salt, rounds);
    let secret = ScramSecret::verifier_from_salted_password(salt.to_vec(), salted, rounds);
    let ScramSecret::Verifier {
        stored_key,
        server_key,
        ..
    } = secret
    else {
        return Err(MintError::Library);
    };
    let bytes = |key: Vec<u8>| <[u8; 32]>::try_from(key).map_err(|_key| MintError::Library);
    Ok(ScramVerifier {
        iterations,
        salt: salt.into(),
        stored_key: bytes(stored_key)?,
        server_key: bytes(server_key)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn a_verifier_is_the_one_that_postgresql_clients_make(key in "[ -~]{1,40}|\\PC{1,10}") {
            let theirs = postgres_protocol::password::scram_sha_256(key.as_bytes());
            let theirs: ScramVerifier = theirs.parse().unwrap();
            let ours = verifier(&key, Some(&theirs)).unwrap();
            prop_assert_eq!(ours.to_string(), theirs.to_string());
        }
    }

    #[test]
    fn every_verifier_has_its_own_salt_unless_told() {
        let first = verifier("key", None).unwrap();
        assert_ne!(first.salt, verifier("key", None).unwrap().salt);
        assert_eq!(first.iterations, 4096);
        assert!(verifier("key", Some(&first)).unwrap() == first);
        assert!(verifier("other", Some(&first)).unwrap() != first);
    }
}
