//! New keys, and verifiers of old passwords.

use super::ImportError;
use crate::{
    control::{mint, verifier},
    tenant::{KeyId, ScramVerifier, Secret},
};

/// A key that was made here, to be shown once.
pub(super) struct NewKey {
    pub(super) id: KeyId,
    pub(super) text: Secret,
    pub(super) verifier: ScramVerifier,
}

/// Makes a key; with the salt of `like`, so that both open one tenant.
pub(super) fn create(like: Option<&ScramVerifier>) -> Result<NewKey, ImportError> {
    let key = mint()?;
    let verifier = verifier_of(&key.text, like)?;
    Ok(NewKey {
        id: key.id,
        text: key.text,
        verifier,
    })
}

/// The verifier of a password.
pub(super) fn verifier_of(
    password: &Secret,
    like: Option<&ScramVerifier>,
) -> Result<ScramVerifier, ImportError> {
    Ok(verifier(password.expose(), like)?)
}
