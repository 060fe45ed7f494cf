//! Secrets of the registry: sealed on the way in, opened on the way out.

use super::ControlError;
use crate::{
    crypto::{Keyring, Purpose, Sealed},
    registry::RegistryError,
    tenant::Secret,
};

/// What a tenant's password of the role that reads and writes is sealed for.
pub(super) const PASSWORD: &str = "password";
/// What a tenant's password of the role that reads is sealed for.
pub(super) const READ_ONLY_PASSWORD: &str = "read_only_password";
/// What a cluster's admin password is sealed for.
pub(super) const ADMIN: &str = "admin";

pub(super) fn seal(
    keyring: &Keyring,
    owner: &str,
    what: &str,
    secret: &Secret,
) -> Result<Vec<u8>, ControlError> {
    let sealed = keyring.seal(Purpose { owner, what }, secret.expose().as_bytes());
    Ok(sealed.map_err(RegistryError::from)?)
}

pub(super) fn open(
    keyring: &Keyring,
    owner: &str,
    what: &str,
    sealed: &[u8],
) -> Result<Secret, ControlError> {
    let opened = keyring.open(Purpose { owner, what }, Sealed(sealed));
    let opened = opened.map_err(|source| RegistryError::Open {
        owner: owner.replace(':', " "),
        what: what.to_owned(),
        source,
    })?;
    let text = String::from_utf8(opened.to_vec()).map_err(|_error| RegistryError::Row {
        what: format!("{what} of {owner}"),
        problem: "it is no text".to_owned(),
    })?;
    Ok(Secret::new(text))
}
