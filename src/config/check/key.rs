//! The API keys of a tenant.

use super::{Check, Checked, caps::GivenCaps};
use crate::{
    config::{error::Fault, location::At, raw},
    tenant::{ApiKey, KeyId, Scope, ScramVerifier},
};
use std::{collections::HashSet, num::NonZeroU32, sync::Arc, time::SystemTime};

impl Check<'_> {
    /// The keys of the tenant at `at`. Its first verifier says which salt the others must have: a
    /// client learns the salt before we learn which of the keys it holds.
    pub(super) fn keys(
        &mut self,
        at: At<'_>,
        keys: &[raw::Key],
        has_read_only_login: bool,
    ) -> Vec<Arc<ApiKey>> {
        let at = at.key("keys");
        let mut seen = HashSet::new();
        let mut first: Option<ScramVerifier> = None;
        let mut checked = Vec::with_capacity(keys.len());
        for (index, key) in keys.iter().enumerate() {
            let at = at.index(index);
            let place = (index + 1).to_string();
            let name = key.id.as_deref().unwrap_or(&place);
            self.unique(at.key("id"), &mut seen, name);
            let Ok(key) = self.key(at, name, key) else {
                continue;
            };
            if key.scope == Scope::ReadOnly && !has_read_only_login {
                self.note(at.key("scope"), Fault::ReadOnlyRole);
            }
            let first = first.get_or_insert_with(|| key.verifier.clone());
            if (first.iterations, &first.salt) != (key.verifier.iterations, &key.verifier.salt) {
                self.note(at.key("verifier"), Fault::VerifierUnlike);
            }
            checked.push(Arc::new(key));
        }
        checked
    }

    fn key(&mut self, at: At<'_>, name: &str, key: &raw::Key) -> Checked<ApiKey> {
        let id = match KeyId::new(name) {
            Ok(id) => Ok(id),
            Err(source) => {
                let value = name.to_owned();
                self.problem(at.key("id"), Fault::Id { value, source })
            }
        };
        let verifier = match &key.verifier {
            None => self.problem(
                at.key("verifier"),
                Fault::Missing("make one with: pgusher key verifier"),
            ),
            Some(text) => match text.0.expose().parse::<ScramVerifier>() {
                Ok(verifier) => Ok(verifier),
                Err(_) => self.problem(at.key("verifier"), Fault::Verifier),
            },
        };
        let allow = self.networks(at.key("allow"), &key.allow);
        let not_before = self.time(at.key("not_before"), key.not_before.as_deref());
        let expires = self.time(at.key("expires"), key.expires.as_deref());
        if let (Ok(Some(not_before)), Ok(Some(expires))) = (&not_before, &expires)
            && expires <= not_before
        {
            self.note(at.key("expires"), Fault::ExpiresFirst);
        }
        let max_client_connections = match key.max_client_connections {
            Some(_) => {
                let at = at.key("max_client_connections");
                Some(self.number(at, key.max_client_connections, 0, 1..=1_000_000)?)
            }
            None => None,
        };
        let rate_limit_per_hour = match key.rate_limit_per_hour {
            Some(_) => {
                let at = at.key("rate_limit_per_hour");
                NonZeroU32::new(self.number(at, key.rate_limit_per_hour, 0, 1..=1_000_000_000)?)
            }
            None => None,
        };
        let caps = GivenCaps::from(key);
        self.caps(at, &caps);
        Ok(ApiKey {
            id: id?,
            verifier: verifier?,
            scope: key.scope.map_or(Scope::ReadWrite, Scope::from),
            allow,
            not_before: not_before?,
            expires: expires?,
            max_client_connections,
            rate_limit_per_hour,
            caps: caps.caps(),
            is_recorded: false,
        })
    }

    fn time(&mut self, at: At<'_>, text: Option<&str>) -> Checked<Option<SystemTime>> {
        let time = text.map(humantime::parse_rfc3339).transpose();
        time.or_else(|_| {
            let value = text.unwrap_or_default().to_owned();
            self.problem(at, Fault::Time { value })
        })
    }
}
