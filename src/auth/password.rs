//! The key itself as a password: inside TLS, or where the operator allows it in plain.

use super::{AuthError, Conversation};
use crate::{tenant::ScramVerifier, wire::backend};
use hmac::{Hmac, KeyInit as _, Mac as _};
use pgwire::api::auth::sasl::scram::gen_salted_password;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Longest password that is hashed, in bytes.
const PASSWORD_BYTES_MAX: usize = 4096;

/// Asks for the password; returns which verifier it is right for. Takes about a millisecond of
/// CPU time: runs on the login threads.
pub(super) async fn authenticate(
    conversation: &mut Conversation,
    verifiers: &[&ScramVerifier],
) -> Result<usize, AuthError> {
    let mut out = Vec::with_capacity(16);
    backend::authentication_password(&mut out);
    conversation
        .send(&out)
        .await
        .map_err(super::ConversationError::Io)?;
    let body = conversation.receive_password().await?;
    let password = body.strip_suffix(b"\0").unwrap_or(&body);
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(AuthError::BadKey("the password is too long"));
    }
    let password = std::str::from_utf8(password)
        .map_err(|_error| AuthError::BadKey("the password is not valid UTF-8"))?;
    matching(password, verifiers).ok_or(AuthError::BadKey("no key matches the password"))
}

/// Which verifier a password is right for. All share salt and iterations.
fn matching(password: &str, verifiers: &[&ScramVerifier]) -> Option<usize> {
    let first = verifiers.first()?;
    let salted = gen_salted_password(password, &first.salt, first.iterations as usize);
    let mut mac = Hmac::<Sha256>::new_from_slice(&salted).expect("HMAC takes any key length");
    mac.update(b"Client Key");
    let stored_key: [u8; 32] = Sha256::digest(mac.finalize().into_bytes()).into();
    let is_it = |verifier: &&ScramVerifier| bool::from(verifier.stored_key.ct_eq(&stored_key));
    verifiers.iter().position(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_matches_its_own_verifier_only() {
        let text = postgres_protocol::password::scram_sha_256(b"pgu_secret");
        let verifier: ScramVerifier = text.parse().unwrap();
        assert_eq!(matching("pgu_secret", &[&verifier]), Some(0));
        assert_eq!(matching("pgu_other", &[&verifier]), None);
    }
}
