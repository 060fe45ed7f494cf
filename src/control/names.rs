//! What a tenant is called: the id that people use, and the opaque names upstream.

use super::ControlError;
use crate::tenant::{ClusterName, IdError, Secret, TenantId, Tier};
use rand::{TryRng as _, rngs::SysRng};
use zeroize::Zeroizing;

/// 260 bits.
const PASSWORD_LENGTH: usize = 52;
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Bytes of the salt that all of a tenant's keys share.
const SALT_BYTES: usize = 16;

/// What is said when the system has no randomness.
pub(super) fn no_randomness() -> ControlError {
    crate::registry::RegistryError::Seal(crate::crypto::SealError::Randomness).into()
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, ControlError> {
    let mut bytes = Zeroizing::new([0; N]);
    let filled = SysRng.try_fill_bytes(&mut *bytes);
    filled.map_err(|_error| no_randomness())?;
    Ok(bytes)
}

/// Five random bits a character: all 32 are as likely.
fn opaque(bytes: &[u8]) -> String {
    let letters = bytes.iter().map(|byte| usize::from(byte % 32));
    letters
        .filter_map(|index| BASE32.get(index))
        .map(|letter| char::from(*letter))
        .collect()
}

/// Everything random of a new tenant's names.
pub(super) fn token() -> Result<String, ControlError> {
    let token = crate::provisioning::new_token();
    Ok(token.map_err(|_error| no_randomness())?.into())
}

/// A new password of an upstream role. Nobody ever types it.
pub(super) fn password() -> Result<Secret, ControlError> {
    Ok(Secret::new(opaque(&*random::<PASSWORD_LENGTH>()?)))
}

/// A new salt for the keys of one tenant.
pub(super) fn salt() -> Result<[u8; SALT_BYTES], ControlError> {
    Ok(*random::<SALT_BYTES>()?)
}

/// Where a tenant will be: its names upstream. They say nothing about who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) token: String,
    pub(super) database: String,
    pub(super) schema: Option<String>,
    pub(super) role: String,
    pub(super) read_only_role: String,
}

impl Names {
    /// The names of a tier; `shared` are the cluster's databases of the tiers schema and row.
    pub(super) fn new(tier: Tier, token: String, shared: (&str, &str)) -> Self {
        let (database, schema) = match tier {
            Tier::Database => (format!("d_{token}"), Some("app".to_owned())),
            Tier::Schema => (shared.0.to_owned(), Some(format!("t_{token}"))),
            Tier::Row => (shared.1.to_owned(), None),
        };
        Self {
            database,
            schema,
            role: format!("t_{token}"),
            read_only_role: format!("r_{token}"),
            token,
        }
    }
}

fn id_problem(text: &str, error: &IdError) -> String {
    let lower = text.to_lowercase();
    if lower != text && TenantId::new(&lower).is_ok() {
        return format!(
            "{error}; PostgreSQL's clients fold case, so it would be {lower:?}: use that"
        );
    }
    error.to_string()
}

/// The id of a tenant to be made.
///
/// # Errors
/// [`ControlError::Invalid`]; where only the case is wrong, it says the id in lower case.
pub(super) fn tenant_id(text: &str) -> Result<TenantId, ControlError> {
    TenantId::new(text).map_err(|error| ControlError::Invalid {
        field: "id".to_owned(),
        problem: id_problem(text, &error),
    })
}

/// The name of a cluster to be added.
///
/// # Errors
/// [`ControlError::Invalid`].
pub(super) fn cluster_name(text: &str) -> Result<ClusterName, ControlError> {
    ClusterName::new(text).map_err(|error| ControlError::Invalid {
        field: "name".to_owned(),
        problem: id_problem(text, &error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_opaque_and_fit_into_an_identifier() {
        let token = token().unwrap();
        assert_eq!(token.len(), 20);
        assert!(token.bytes().all(|byte| BASE32.contains(&byte)), "{token}");
        let shared = ("schemas", "rows");
        let own = Names::new(Tier::Database, token.clone(), shared);
        assert_eq!(own.database, format!("d_{token}"));
        assert_eq!(own.schema.as_deref(), Some("app"));
        let schema = Names::new(Tier::Schema, token.clone(), shared);
        assert_eq!(schema.database, "schemas");
        assert_eq!(schema.schema, Some(format!("t_{token}")));
        let row = Names::new(Tier::Row, token.clone(), shared);
        assert_eq!((row.database.as_str(), row.schema), ("rows", None));
        assert_eq!(row.read_only_role, format!("r_{token}"));
        assert_ne!(password().unwrap(), password().unwrap());
        assert_eq!(password().unwrap().expose().len(), 52);
    }

    #[test]
    fn an_id_in_upper_case_is_refused_with_the_one_that_will_do() {
        let problem = |text| tenant_id(text).unwrap_err().to_string();
        assert!(
            problem("Acme").contains("\"acme\": use that"),
            "{}",
            problem("Acme")
        );
        assert!(!problem("a b").contains("use that"));
        assert!(tenant_id("acme").is_ok());
        assert!(problem("ACME!").contains('!') || problem("ACME!").contains('A'));
    }
}
