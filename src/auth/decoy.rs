//! What an unknown tenant's login is held against, so that it looks like a known one's.

use crate::tenant::ScramVerifier;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Rounds and salt length that [`crate::tenant::ScramVerifier`]s have by default, here and in
/// PostgreSQL.
const ITERATIONS: u32 = 4096;
const SALT_BYTES: usize = 16;

/// Makes verifiers that nothing matches: for one name always the same salt.
pub struct Decoy([u8; 32]);

impl Decoy {
    /// From a seed. With the same seed the salts are the same after a restart.
    pub fn new(seed: [u8; 32]) -> Self {
        Self(seed)
    }

    /// From a random seed.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The verifier of a name.
    pub fn verifier(&self, name: &str) -> ScramVerifier {
        let salt = self.derive(b"salt", name);
        ScramVerifier {
            iterations: ITERATIONS,
            salt: salt.get(..SALT_BYTES).unwrap_or(&salt).into(),
            stored_key: self.derive(b"stored key", name),
            server_key: self.derive(b"server key", name),
        }
    }

    fn derive(&self, purpose: &[u8], name: &str) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes any key length");
        mac.update(purpose);
        mac.update(&[0]);
        mac.update(name.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_salt_and_names_differ() {
        let decoy = Decoy::new([7; 32]);
        assert_eq!(decoy.verifier("a"), decoy.verifier("a"));
        assert_ne!(decoy.verifier("a").salt, decoy.verifier("b").salt);
        assert_eq!(decoy.verifier("a").salt.len(), 16);
    }
}
