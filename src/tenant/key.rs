//! API keys: what opens a tenant, for whom, until when.

use super::{Caps, KeyId, Secret};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ipnet::IpNet;
use std::{fmt, net::IpAddr, num::NonZeroU32, str::FromStr, time::SystemTime};

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Read and write.
    ReadWrite,
    /// Read only: the session runs as a role without write privilege.
    ReadOnly,
}

impl Scope {
    /// The name in `proxy.toml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWrite => "read_write",
            Self::ReadOnly => "read_only",
        }
    }

    /// The scope of a key with these permissions: `read` without `write` is read only. Any other
    /// word is the business of the tenant's own applications.
    #[must_use]
    pub fn held_to(self, permissions: &[String]) -> Self {
        let has = |word: &str| permissions.iter().any(|permission| permission == word);
        if has("read") && !has("write") {
            Self::ReadOnly
        } else {
            self
        }
    }
}

/// A stored SCRAM-SHA-256 verifier (RFC 5803, PostgreSQL's `pg_authid.rolpassword`).
///
/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`. It is not the key, and the key
/// can't be computed from it; still it is kept out of logs.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramVerifier {
    /// PBKDF2 rounds.
    pub iterations: u32,
    /// PBKDF2 salt.
    pub salt: Box<[u8]>,
    /// `H(ClientKey)`.
    pub stored_key: [u8; 32],
    /// For the server's own proof.
    pub server_key: [u8; 32],
}

impl ScramVerifier {
    /// Of a password that is random and has at least 128 bits: nobody finds such a one by trying, so
    /// one round is enough.
    ///
    /// # Panics
    /// Never: HMAC takes keys of any length.
    pub fn of_random(password: &Secret) -> Self {
        use hmac::{Hmac, KeyInit as _, Mac as _};
        use rand::Rng as _;
        use sha2::{Digest as _, Sha256};
        let mac = |key: &[u8], parts: &[&[u8]]| -> [u8; 32] {
            let mut mac =
                Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
            for part in parts {
                mac.update(part);
            }
            mac.finalize().into_bytes().into()
        };
        let mut salt = [0; 16];
        rand::rng().fill_bytes(&mut salt);
        let first_block = 1_u32.to_be_bytes();
        let salted = mac(password.expose().as_bytes(), &[&salt, &first_block]);
        Self {
            iterations: 1,
            salt: salt.into(),
            stored_key: Sha256::digest(mac(&salted, &[b"Client Key"])).into(),
            server_key: mac(&salted, &[b"Server Key"]),
        }
    }
}

/// Why a text is not a verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not of the form SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>")]
pub struct VerifierError;

impl FromStr for ScramVerifier {
    type Err = VerifierError;

    fn from_str(text: &str) -> Result<Self, VerifierError> {
        let rest = text.strip_prefix("SCRAM-SHA-256$").ok_or(VerifierError)?;
        let (head, keys) = rest.split_once('$').ok_or(VerifierError)?;
        let (iterations, salt) = head.split_once(':').ok_or(VerifierError)?;
        let (stored, server) = keys.split_once(':').ok_or(VerifierError)?;
        let bytes = |text: &str| STANDARD.decode(text).map_err(|_error| VerifierError);
        let key = |text: &str| <[u8; 32]>::try_from(bytes(text)?).map_err(|_error| VerifierError);
        let verifier = Self {
            iterations: iterations.parse().map_err(|_error| VerifierError)?,
            salt: bytes(salt)?.into(),
            stored_key: key(stored)?,
            server_key: key(server)?,
        };
        if verifier.iterations == 0 || verifier.salt.is_empty() {
            return Err(VerifierError);
        }
        Ok(verifier)
    }
}

impl fmt::Display for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encode = |bytes: &[u8]| STANDARD.encode(bytes);
        write!(
            f,
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            encode(&self.salt),
            encode(&self.stored_key),
            encode(&self.server_key)
        )
    }
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Why a key that matched is refused all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRefusal {
    /// Before `not_before`.
    NotYet,
    /// At or after `expires`.
    Expired,
    /// The client's address is not on the allow list.
    Address,
}

/// One API key of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its name, for logs and quotas.
    pub id: KeyId,
    /// What proves it.
    pub verifier: ScramVerifier,
    /// What it may do.
    pub scope: Scope,
    /// Client addresses that may use it; empty: all.
    pub allow: Vec<IpNet>,
    /// Not valid before.
    pub not_before: Option<SystemTime>,
    /// Not valid from then on.
    pub expires: Option<SystemTime>,
    /// Clients that use it at the same time.
    pub max_client_connections: Option<u32>,
    /// New connections in an hour, in each process.
    pub rate_limit_per_hour: Option<NonZeroU32>,
    /// What its clients together may do; their tenant's hold beside it.
    pub caps: Caps,
    /// Whether the registry has it: when it was used last is written there.
    pub is_recorded: bool,
}

impl ApiKey {
    /// Whether the key may be used now, from there. `address` is `None` for a Unix socket, which
    /// an allow list never names.
    ///
    /// # Errors
    /// [`KeyRefusal`] says why not. The client is told 28P01 in any case.
    pub fn admits(&self, now: SystemTime, address: Option<IpAddr>) -> Result<(), KeyRefusal> {
        if self.not_before.is_some_and(|time| now < time) {
            return Err(KeyRefusal::NotYet);
        }
        if self.expires.is_some_and(|time| now >= time) {
            return Err(KeyRefusal::Expired);
        }
        let address = address.map(|address| address.to_canonical());
        let listed = |ip: IpAddr| self.allow.iter().any(|net| net.contains(&ip));
        if self.allow.is_empty() || address.is_some_and(listed) {
            Ok(())
        } else {
            Err(KeyRefusal::Address)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TEXT: &str = "SCRAM-SHA-256$4096:+ol1z4TqkTlAoT7JK8OGeg==$v0QdiS3y5qLZqtUvmFkZHR90DoxFNGBcTYv+yQ3SVy0=:YtR8nVcIDmwhqP6v1wz2nB8BGJrkVnYYxxw+zE7OAPA=";

    fn key(allow: &[&str]) -> ApiKey {
        ApiKey {
            id: KeyId::new("k").unwrap(),
            verifier: TEXT.parse().unwrap(),
            scope: Scope::ReadWrite,
            allow: allow.iter().map(|net| net.parse().unwrap()).collect(),
            not_before: None,
            expires: None,
            max_client_connections: None,
            rate_limit_per_hour: None,
            caps: Caps::default(),
            is_recorded: false,
        }
    }

    #[test]
    fn a_verifier_reads_and_prints_the_same() {
        assert_eq!(TEXT.parse::<ScramVerifier>().unwrap().to_string(), TEXT);
        for bad in [
            "",
            "md5abc",
            "SCRAM-SHA-256$0:YQ==$a:b",
            "SCRAM-SHA-256$4096:YQ==$YQ==:YQ==",
        ] {
            assert_eq!(bad.parse::<ScramVerifier>(), Err(VerifierError));
        }
    }

    #[test]
    fn a_permission_to_read_is_none_to_write() {
        let held = |permissions: &[&str]| {
            let permissions: Vec<_> = permissions.iter().map(|&word| word.to_owned()).collect();
            Scope::ReadWrite.held_to(&permissions)
        };
        assert_eq!(held(&[]), Scope::ReadWrite);
        assert_eq!(held(&["orders"]), Scope::ReadWrite);
        assert_eq!(held(&["write"]), Scope::ReadWrite);
        assert_eq!(held(&["read", "write"]), Scope::ReadWrite);
        assert_eq!(held(&["read", "orders"]), Scope::ReadOnly);
        assert_eq!(Scope::ReadOnly.held_to(&["write".into()]), Scope::ReadOnly);
    }

    #[test]
    fn an_allow_list_admits_its_networks_only() {
        let now = SystemTime::now();
        let key = key(&["10.0.0.0/8"]);
        assert_eq!(key.admits(now, Some("10.1.2.3".parse().unwrap())), Ok(()));
        assert_eq!(
            key.admits(now, Some("::ffff:10.1.2.3".parse().unwrap())),
            Ok(())
        );
        assert_eq!(
            key.admits(now, Some("11.0.0.1".parse().unwrap())),
            Err(KeyRefusal::Address)
        );
        assert_eq!(key.admits(now, None), Err(KeyRefusal::Address));
    }

    #[test]
    fn a_key_is_valid_from_not_before_until_expires() {
        let now = SystemTime::now();
        let second = Duration::from_secs(1);
        let mut key = key(&[]);
        key.not_before = Some(now);
        key.expires = Some(now + second);
        assert_eq!(key.admits(now - second, None), Err(KeyRefusal::NotYet));
        assert_eq!(key.admits(now, None), Ok(()));
        assert_eq!(key.admits(now + second, None), Err(KeyRefusal::Expired));
    }
}
