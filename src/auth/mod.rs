//! From a user name and a secret to [`Authenticated`]: which tenant, by which key.
//!
//! An unknown tenant, a wrong key, a key that is expired or used from the wrong place look the
//! same: the same messages, the same text, about the same time. Only who proves a live key learns
//! anything more.

mod conversation;
mod decoy;
mod password;
mod scram;
mod throttle;

pub use conversation::{Conversation, ConversationError};
pub use decoy::Decoy;
pub use throttle::Throttle;

use crate::{
    net::Peer,
    tenant::{ApiKey, Directory, ScramVerifier, Status, Tenant},
    wire::{Refusal, SqlState},
};
use std::{sync::Arc, time::SystemTime};

/// How the client proves its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// SCRAM-SHA-256, with channel binding inside TLS.
    Scram,
    /// The key itself as a password.
    Password,
}

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The conversation broke off.
    #[error("the login broke off")]
    Conversation(#[from] ConversationError),
    /// The client is told this.
    #[error("the login was refused: {0}")]
    Refused(Refusal),
    /// The key is not right, or may not be used; the client is told 28P01.
    #[error("the key is not right: {0}")]
    BadKey(&'static str),
}

impl AuthError {
    /// What the client is told; `None` when it has left.
    pub fn refusal(&self, user: &str) -> Option<Refusal> {
        match self {
            Self::Conversation(error) => error.refusal(),
            Self::Refused(refusal) => Some(refusal.clone()),
            Self::BadKey(_) => Some(Refusal::fatal(
                SqlState::BAD_KEY,
                format!("password authentication failed for user \"{user}\""),
            )),
        }
    }
}

/// Proof that a client holds a live key of an active tenant. Only [`Authenticator::authenticate`]
/// makes it.
#[derive(Debug, Clone)]
pub struct Authenticated {
    tenant: Arc<Tenant>,
    key: Arc<ApiKey>,
}

impl Authenticated {
    /// The tenant.
    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// The key.
    pub fn key(&self) -> &Arc<ApiKey> {
        &self.key
    }
}

/// Who asks, from where, how.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The user name: a tenant's id.
    pub user: &'a str,
    /// Where the client is.
    pub peer: Peer,
    /// How it proves its key.
    pub method: Method,
}

/// All that authentication needs.
pub struct Authenticator {
    directory: Arc<dyn Directory>,
    decoy: Decoy,
    throttle: Throttle,
}

impl Authenticator {
    /// Asks this directory.
    pub fn new(directory: Arc<dyn Directory>, decoy: Decoy, throttle: Throttle) -> Self {
        Self {
            directory,
            decoy,
            throttle,
        }
    }

    /// The throttle, to change its limit.
    pub fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// Has the client prove a key.
    ///
    /// # Errors
    /// [`AuthError`].
    ///
    /// # Cancel safety
    /// Not cancel safe: close the connection when the future is dropped.
    pub async fn authenticate(
        &self,
        conversation: &mut Conversation,
        claim: Claim<'_>,
    ) -> Result<Authenticated, AuthError> {
        self.throttle.admit(claim.peer.ip(), claim.user).await?;
        let found = self.directory.tenant(claim.user).await.map_err(|error| {
            // The directory says once that it can't be asked; this would be a line for each login.
            tracing::debug!(%error, "a login can't be checked");
            let text = "pgusher can't check logins at the moment";
            AuthError::Refused(Refusal::fatal(SqlState::NOT_NOW, text))
        })?;
        let result = self.prove(conversation, claim, found).await;
        match result {
            Ok(_) => self.throttle.succeeded(claim.peer.ip(), claim.user),
            Err(AuthError::BadKey(_)) => self.throttle.failed(claim.peer.ip(), claim.user),
            Err(_) => {}
        }
        result
    }

    /// What is known of them by now, as the client took its time; as they were, where that can't be asked.
    async fn as_of_now(
        &self,
        tenant: Arc<Tenant>,
        key: Arc<ApiKey>,
    ) -> Result<(Arc<Tenant>, Arc<ApiKey>), AuthError> {
        let Ok(now) = self.directory.tenant(tenant.id.as_str()).await else {
            return Ok((tenant, key));
        };
        let gone = || AuthError::BadKey("the key is gone");
        let now = now.ok_or_else(gone)?;
        let is_same = |other: &&Arc<ApiKey>| other.id == key.id && other.verifier == key.verifier;
        let key = now.keys.iter().find(is_same).cloned().ok_or_else(gone)?;
        Ok((now, key))
    }

    async fn prove(
        &self,
        conversation: &mut Conversation,
        claim: Claim<'_>,
        found: Option<Arc<Tenant>>,
    ) -> Result<Authenticated, AuthError> {
        let decoy;
        let keys = found
            .as_ref()
            .map(|tenant| tenant.keys.as_slice())
            .unwrap_or_default();
        let mut verifiers: Vec<&ScramVerifier> = keys.iter().map(|key| &key.verifier).collect();
        if verifiers.is_empty() {
            decoy = self.decoy.verifier(claim.user);
            verifiers.push(&decoy);
        }
        let matched = match claim.method {
            Method::Scram => scram::authenticate(conversation, &verifiers).await?,
            Method::Password => password::authenticate(conversation, &verifiers).await?,
        };
        let key = keys.get(matched).map(Arc::clone);
        let (Some(tenant), Some(key)) = (found, key) else {
            return Err(AuthError::BadKey("no such tenant"));
        };
        let (tenant, key) = self.as_of_now(tenant, key).await?;
        key.admits(SystemTime::now(), claim.peer.ip())
            .map_err(|refusal| {
                AuthError::BadKey(match refusal {
                    crate::tenant::KeyRefusal::NotYet => "the key is not valid yet",
                    crate::tenant::KeyRefusal::Expired => "the key has expired",
                    crate::tenant::KeyRefusal::Address => "the address is not on the key's list",
                })
            })?;
        if tenant.status == Status::Suspended {
            let refusal = Refusal::fatal(SqlState::UNAUTHORIZED, "the tenant is suspended");
            return Err(AuthError::Refused(refusal));
        }
        Ok(Authenticated { tenant, key })
    }
}
