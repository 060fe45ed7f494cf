//! A slot: a login role of its own that serves one tenant after the other.
//!
//! A [`Slot`] can't be lent. Only [`Slot::bind`] makes a [`Server`] of it, for one tenant, and only
//! [`Server::into_slot`] a slot again. Between the two everything that a session may have left is
//! reset, and PostgreSQL itself is told who the tenant is: by a token that SQL can't forge.

use super::{AskError, Endpoint, Identity, Server, UpstreamError, Welcome, dial::log_in};
use crate::{
    net::{Socket, Stream},
    tenant::{Login, SLOT_RESET, Scope, ScramVerifier, Secret, SlotKey, Slots, Tenant, TenantId},
    wire::CancelKey,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rand::Rng as _;
use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use zeroize::Zeroizing;

/// How long a token is good for. It is used at once; PostgreSQL's clock is asked at login.
const TOKEN_LIFETIME_SECS: i64 = 60;

/// How long a slot may take to be reset and bound. Longer, and another one is faster.
const BIND_TIMEOUT: Duration = Duration::from_secs(5);

/// What a slot is logged in with: nothing of any tenant's.
const APPLICATION: (&str, &str) = ("application_name", "pgusher");

/// Where slots are.
#[derive(Debug)]
pub struct SlotPlace {
    /// The server.
    pub endpoint: Arc<Endpoint>,
    /// The database.
    pub database: Box<str>,
    /// What opens its slots.
    pub key: Arc<SlotKey>,
}

/// A slot that is nobody's.
#[derive(Debug)]
pub struct Slot {
    stream: Stream,
    key: CancelKey,
    role: Box<str>,
    scope: Scope,
    endpoint: Arc<Endpoint>,
    clock_offset_secs: i64,
    /// A tenant has used it since it was logged in.
    is_used: bool,
}

/// What binds a slot to its tenant.
#[derive(Debug)]
pub struct Binding {
    slots: Slots,
    clock_offset_secs: i64,
    /// Whether it is bound, as far as is known.
    pub is_bound: bool,
}

impl Binding {
    /// Binds the slot; nothing in it depends on the session's settings.
    pub(super) fn sql(&self, identity: &Identity) -> String {
        let expiry = now_secs() + self.clock_offset_secs + TOKEN_LIFETIME_SECS;
        let Slots { token, key } = &self.slots;
        let binding = key.binding(token, (identity.key.pid, &identity.role), expiry);
        format!("SELECT ctl.bind({binding})")
    }
}

impl Slot {
    /// Leases a slot's role, which gives it a new password, and logs in as it.
    ///
    /// # Errors
    /// [`UpstreamError`]; at most after twice the endpoint's `connect_timeout`.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connections; the role is leased again after half a minute.
    pub async fn dial(place: &SlotPlace, scope: Scope) -> Result<(Self, Welcome), UpstreamError> {
        let limit = place.endpoint.connect_timeout;
        let timeout = |_elapsed| UpstreamError::Timeout;
        let login = tokio::time::timeout(limit, lease(place, scope));
        let login = login.await.map_err(timeout)??;
        let dialled = tokio::time::timeout(limit, log_in_as(place, &login, scope));
        dialled.await.map_err(timeout)?
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.key.pid
    }

    /// With which privileges it is logged in.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Takes away what the tenant before has left and binds the slot: one round trip. On any error
    /// the connection is closed.
    ///
    /// # Errors
    /// [`UpstreamError`]; [`UpstreamError::Login`] when the tenant has no slots.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn bind(self, tenant: &Tenant) -> Result<Server, UpstreamError> {
        let slots = tenant.placement.slots.clone();
        let slots = slots.ok_or(UpstreamError::Login("the tenant has no slots"))?;
        let owner = (tenant.id.clone(), self.scope);
        let identity = Identity::new(owner, &self.role, self.key, &self.endpoint);
        let binding = Binding {
            slots,
            clock_offset_secs: self.clock_offset_secs,
            is_bound: true,
        };
        let mut sql = String::from(if self.is_used { SLOT_RESET } else { "" });
        sql.push_str(&binding.sql(&identity));
        let mut server = Server::new(self.stream, identity);
        server.binding = Some(binding);
        let bound = server.ask(&sql, BIND_TIMEOUT).await;
        bound.map_err(not_bound)?;
        Ok(server)
    }
}

impl Server {
    /// Moves an idle server from the runtime that had it to the current one.
    ///
    /// # Errors
    /// When a runtime can't give it up or take it: the server can only be closed.
    pub fn move_here(&mut self) -> io::Result<()> {
        let socket = self.stream.socket_mut();
        *socket = Socket::attach(socket.detach()?)?;
        Ok(())
    }

    /// Takes a slot from its tenant. What the session has left is still there, and reset when the
    /// slot is bound again. `None` (and closed) when it is no slot, or not clean: a cancel may be on
    /// its way.
    pub fn into_slot(self) -> Option<Slot> {
        if !self.is_clean() {
            return None;
        }
        let clock_offset_secs = self.binding.as_ref()?.clock_offset_secs;
        let identity = Arc::clone(self.identity());
        Some(Slot {
            stream: self.stream,
            key: identity.key.clone(),
            role: identity.role.clone(),
            scope: identity.scope,
            endpoint: Arc::clone(&identity.endpoint),
            clock_offset_secs,
            is_used: true,
        })
    }
}

fn not_bound(error: AskError) -> UpstreamError {
    match error {
        AskError::Io(error) => UpstreamError::Io(error),
        AskError::Timeout => UpstreamError::Timeout,
        AskError::Refused { sqlstate, message } => UpstreamError::Refused { sqlstate, message },
        AskError::Busy | AskError::Protocol | AskError::TooLong => UpstreamError::Protocol,
    }
}

/// Has a slot's role made ready, and returns its login.
async fn lease(place: &SlotPlace, scope: Scope) -> Result<Login, UpstreamError> {
    let mut password = Zeroizing::new([0; 32]);
    rand::rng().fill_bytes(password.as_mut());
    let password = Secret::new(STANDARD.encode(password.as_ref()));
    let kind = match scope {
        Scope::ReadWrite => 's',
        Scope::ReadOnly => 'q',
    };
    let login = &place.key.lease;
    let parameters = [
        ("user", &*login.role),
        ("database", &*place.database),
        APPLICATION,
    ];
    let sql = format!(
        "SELECT ctl.lease('{kind}','{}')",
        ScramVerifier::of_random(&password)
    );
    let limit = place.endpoint.connect_timeout;
    let mut server = asker(place, login, parameters.into_iter()).await?;
    let role = server.ask_text(&sql, limit).await.map_err(not_bound)?;
    Ok(Login {
        role,
        password: Some(password),
    })
}

/// A connection of our own, for one question.
async fn asker<'a>(
    place: &SlotPlace,
    login: &Login,
    parameters: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Server, UpstreamError> {
    let (stream, key, _) = log_in(&place.endpoint, login, parameters).await?;
    let nobody = TenantId::new("nobody");
    let nobody = nobody.map_err(|_error| UpstreamError::Protocol)?;
    let owner = (nobody, Scope::ReadOnly);
    let identity = Identity::new(owner, &login.role, key, &place.endpoint);
    Ok(Server::new(stream, identity))
}

/// Logs in as a slot, and looks whether nobody's settings are on it.
async fn log_in_as(
    place: &SlotPlace,
    login: &Login,
    scope: Scope,
) -> Result<(Slot, Welcome), UpstreamError> {
    let read_only = (scope == Scope::ReadOnly).then_some(("default_transaction_read_only", "on"));
    let parameters = [
        ("user", &*login.role),
        ("database", &*place.database),
        APPLICATION,
    ];
    let parameters = parameters.into_iter().chain(read_only);
    let (stream, key, welcome) = log_in(&place.endpoint, login, parameters).await?;
    let nobody = TenantId::new("nobody");
    let nobody = nobody.map_err(|_error| UpstreamError::Protocol)?;
    let identity = Identity::new((nobody, scope), &login.role, key, &place.endpoint);
    let mut server = Server::new(stream, identity);
    let sql = "BEGIN READ WRITE;SELECT ctl.claim();COMMIT";
    let claimed = server.ask_text(sql, place.endpoint.connect_timeout).await;
    let clock: i64 = claimed
        .map_err(not_bound)?
        .parse()
        .map_err(|_error| UpstreamError::Protocol)?;
    let key = server.identity().key.clone();
    let slot = Slot {
        stream: server.stream,
        key,
        role: login.role.clone(),
        scope,
        endpoint: Arc::clone(&place.endpoint),
        clock_offset_secs: clock - now_secs(),
        is_used: false,
    };
    Ok((slot, welcome))
}

fn now_secs() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}
