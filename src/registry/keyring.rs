//! Whether the master keys are those of this registry.

use super::{Registry, RegistryError};
use crate::crypto::{Purpose, Sealed};

/// Some of what is sealed: whose, what, and itself. A few, as one may be damaged.
const SAMPLES: &str = "\
    (SELECT 'cluster:' || name, 'admin', admin_password FROM pgusher.cluster
     WHERE admin_password IS NOT NULL ORDER BY updated_at DESC LIMIT 3)
    UNION ALL
    (SELECT 'tenant:' || id, 'password', password FROM pgusher.tenant
     WHERE password IS NOT NULL ORDER BY updated_at DESC LIMIT 5)";

impl Registry {
    /// That the keyring opens what is in the registry. What is sealed with other keys, nobody who
    /// has the right ones can open: so it is asked before something new is sealed.
    ///
    /// # Errors
    /// [`RegistryError::OtherKeys`], or the registry's own.
    ///
    /// # Cancel safety
    /// Cancel safe: it reads.
    pub async fn check_keyring(&self) -> Result<(), RegistryError> {
        let samples = sqlx::query_as::<_, (String, String, Vec<u8>)>(SAMPLES);
        let samples = samples.fetch_all(&self.pool).await?;
        let mut first = None;
        for (owner, what, sealed) in &samples {
            match self.keyring.open(Purpose { owner, what }, Sealed(sealed)) {
                Ok(_) => return Ok(()),
                Err(source) => first = first.or(Some(source)),
            }
        }
        first.map_or(Ok(()), |source| Err(RegistryError::OtherKeys(source)))
    }
}
