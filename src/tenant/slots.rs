//! What a tenant needs that has no login of its own: slots, logins that many tenants use in turn.

use super::{Login, Secret};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::{fmt, sync::Arc};
use zeroize::{Zeroize as _, Zeroizing};

/// Bytes of the key that binds a slot to a tenant.
const KEY_BYTES: usize = 32;

/// Connections that the slots of a database have, where nothing else is said.
const CONNECTIONS: u32 = 20;

/// Who leases slots.
const LEASE_ROLE: &str = "pgusher_lease";

/// Takes away what a session can leave on a slot: one Query, so one transaction. All names that are
/// not PostgreSQL's keywords are qualified, and it is pure ASCII.
pub const SLOT_RESET: &str = "CLOSE ALL;SET SESSION AUTHORIZATION DEFAULT;RESET ALL;DEALLOCATE ALL;UNLISTEN *;\
     SELECT pg_catalog.pg_advisory_unlock_all();DISCARD TEMP;DISCARD SEQUENCES;";

/// A tenant that is served through slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    /// The `tenant_id` of its rows: `[a-z2-7]{20}`.
    pub token: Box<str>,
    /// What it shares with all such tenants of its database.
    pub key: Arc<SlotKey>,
}

/// What opens the slots of one database.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotKey {
    mac_key: Zeroizing<[u8; KEY_BYTES]>,
    /// Who may lease a slot, and nothing else.
    pub lease: Login,
    /// Server connections of all its tenants together.
    pub connections: u32,
}

impl fmt::Debug for SlotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotKey")
            .field("lease", &self.lease.role)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

/// A key as it is sealed.
#[derive(Serialize, Deserialize)]
struct Text {
    mac_key: String,
    lease_role: String,
    lease_password: String,
    connections: u32,
}

impl Drop for Text {
    fn drop(&mut self) {
        self.mac_key.zeroize();
        self.lease_password.zeroize();
    }
}

/// Why a text is no key for slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no key for slots")]
pub struct SlotKeyError;

impl SlotKey {
    /// A new one, with a new password for who leases slots; `connections` is 20 where it is `None`.
    pub fn random(connections: Option<u32>) -> Self {
        use rand::Rng as _;
        let mut mac_key = Zeroizing::new([0; KEY_BYTES]);
        rand::rng().fill_bytes(mac_key.as_mut());
        let mut password = Zeroizing::new([0; KEY_BYTES]);
        rand::rng().fill_bytes(password.as_mut());
        Self {
            mac_key,
            lease: Login {
                role: LEASE_ROLE.into(),
                password: Some(Secret::new(hex::encode(password.as_ref()))),
            },
            connections: connections.unwrap_or(CONNECTIONS),
        }
    }

    /// From what [`SlotKey::to_text`] made.
    ///
    /// # Errors
    /// [`SlotKeyError`].
    pub fn from_text(text: &[u8]) -> Result<Self, SlotKeyError> {
        let mut text: Text = serde_json::from_slice(text).map_err(|_error| SlotKeyError)?;
        let mut mac_key = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(&text.mac_key, mac_key.as_mut()).map_err(|_error| SlotKeyError)?;
        Ok(Self {
            mac_key,
            lease: Login {
                role: text.lease_role.as_str().into(),
                password: Some(Secret::new(std::mem::take(&mut text.lease_password))),
            },
            connections: text.connections.max(1),
        })
    }

    /// The whole of it, to be sealed.
    pub fn to_text(&self) -> Zeroizing<String> {
        let password = self.lease.password.as_ref().map(Secret::expose);
        let text = Text {
            mac_key: hex::encode(self.mac_key.as_ref()),
            lease_role: self.lease.role.to_string(),
            lease_password: password.unwrap_or_default().to_owned(),
            connections: self.connections,
        };
        Zeroizing::new(serde_json::to_string(&text).unwrap_or_default())
    }

    /// What binds the slot of this process and role to a tenant, until PostgreSQL's clock has come to
    /// `expiry` (seconds since 1970): the arguments of `ctl.bind`, pure ASCII. A secret until then.
    ///
    /// `token` and `role` are of `[a-z0-9_]`.
    pub fn binding(&self, token: &str, (pid, role): (u32, &str), expiry: i64) -> String {
        let mac = self.mac(&format!("{token}.{pid}.{expiry}.{role}"));
        format!("'{token}',{expiry},pg_catalog.decode('{mac}','hex')")
    }

    fn mac(&self, text: &str) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.expose()).expect("HMAC takes keys of any length");
        mac.update(text.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }

    /// The key itself, for HMAC-SHA256. Never log it.
    pub fn expose(&self) -> &[u8] {
        self.mac_key.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_never_printed() {
        let key = SlotKey::random(Some(7));
        let text = key.to_text();
        assert_eq!(SlotKey::from_text(text.as_bytes()), Ok(key.clone()));
        let printed = format!("{key:?}");
        assert!(!printed.contains(&hex::encode(key.expose())));
        let password = key.lease.password.unwrap();
        assert!(!printed.contains(password.expose()));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(SlotKey::from_text(b"{}"), Err(SlotKeyError));
        let text = SlotKey::random(None)
            .to_text()
            .replace("\"mac_key\":\"", "\"mac_key\":\"x");
        assert_eq!(SlotKey::from_text(text.as_bytes()), Err(SlotKeyError));
    }
}
