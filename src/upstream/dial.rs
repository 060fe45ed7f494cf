//! From an address to a server that is ready: connect, TLS, startup, login.

use super::{Endpoint, Identity, Server, Settings, UpstreamError};
use crate::{
    net::Stream,
    tenant::{Login, Scope, Tenant},
    tls,
    wire::{CancelKey, HEADER_BYTES, frontend, peek, read, tag::backend as tag},
};
use postgres_protocol::authentication::{
    md5_hash,
    sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256},
};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Longest message that is read before the server is ready.
const LOGIN_MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Messages read before the server must be ready.
const LOGIN_MESSAGES_MAX: usize = 1000;

/// What a server reports about itself when it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Welcome {
    /// `ParameterStatus`, in the order they came.
    pub parameters: Vec<(Box<str>, Box<str>)>,
}

impl Welcome {
    /// The value of a parameter.
    pub fn value(&self, name: &str) -> Option<&str> {
        let found = self
            .parameters
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| &**value)
    }
}

/// Connects and logs in as the tenant. The tenant's context goes with the StartupMessage, so that
/// `RESET ALL` and `DISCARD ALL` return to it; so do settings of a client's `own`, which only a
/// server that it has for itself may have.
///
/// # Errors
/// [`UpstreamError`]; at most after the endpoint's `connect_timeout`.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn dial(
    endpoint: &Arc<Endpoint>,
    tenant: &Tenant,
    (scope, own): (Scope, &Settings),
) -> Result<(Server, Welcome), UpstreamError> {
    tokio::time::timeout(
        endpoint.connect_timeout,
        dial_unbounded(endpoint, tenant, (scope, own)),
    )
    .await
    .map_err(|_elapsed| UpstreamError::Timeout)?
}

async fn dial_unbounded(
    endpoint: &Arc<Endpoint>,
    tenant: &Tenant,
    (scope, own): (Scope, &Settings),
) -> Result<(Server, Welcome), UpstreamError> {
    let login = tenant
        .login(scope)
        .ok_or(UpstreamError::Login("the tenant has no such role"))?;
    let facts = tenant.facts(scope);
    let facts = facts.iter().map(|(name, value)| (*name, &**value));
    let parameters = startup_parameters(tenant, login, scope);
    let parameters = parameters.chain(facts).chain(own.iter());
    let (stream, key, welcome) = log_in(endpoint, login, parameters).await?;
    let identity = Identity::new((tenant.id.clone(), scope), &login.role, key, endpoint);
    Ok((Server::new(stream, identity), welcome))
}

/// Connects and logs in; no time limit of its own.
pub(super) async fn log_in<'a>(
    endpoint: &Endpoint,
    login: &Login,
    parameters: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(Stream, CancelKey, Welcome), UpstreamError> {
    let mut stream = endpoint.connect().await?;
    let mut out = Vec::with_capacity(256);
    frontend::startup(&mut out, parameters);
    send(&mut stream, &out).await?;
    authenticate(&mut stream, login).await?;
    let (key, welcome) = await_ready(&mut stream).await?;
    Ok((stream, key, welcome))
}

fn startup_parameters<'a>(
    tenant: &'a Tenant,
    login: &'a Login,
    scope: Scope,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let read_only = (scope == Scope::ReadOnly).then_some(("default_transaction_read_only", "on"));
    let settings = tenant
        .settings
        .iter()
        .map(|(name, value)| (&**name, &**value));
    [
        ("user", &*login.role),
        ("database", &*tenant.placement.database),
    ]
    .into_iter()
    .chain(settings)
    .chain(read_only)
}

async fn send(stream: &mut Stream, bytes: &[u8]) -> Result<(), UpstreamError> {
    stream.write_all(bytes).await?;
    stream.flush().await?;
    Ok(())
}

async fn receive(stream: &mut Stream) -> Result<(u8, Vec<u8>), UpstreamError> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let header = peek(&header)
        .ok()
        .flatten()
        .ok_or(UpstreamError::Protocol)?;
    if header.message_bytes > LOGIN_MESSAGE_BYTES_MAX {
        return Err(UpstreamError::Protocol);
    }
    let mut body = vec![0; header.message_bytes - HEADER_BYTES];
    stream.read_exact(&mut body).await?;
    match header.tag {
        tag::ERROR => Err(refused(&body)),
        tag => Ok((tag, body)),
    }
}

fn refused(body: &[u8]) -> UpstreamError {
    let field = |kind| {
        String::from_utf8_lossy(read::error_field(body, kind).unwrap_or_default()).into_owned()
    };
    UpstreamError::Refused {
        sqlstate: field(b'C'),
        message: field(b'M'),
    }
}

async fn authenticate(stream: &mut Stream, login: &Login) -> Result<(), UpstreamError> {
    loop {
        let (tag, body) = receive(stream).await?;
        match (tag, read::u32_at_front(&body)) {
            (tag::NOTICE | tag::NEGOTIATE, _) => {}
            (tag::AUTHENTICATION, Some(0)) => return Ok(()),
            (tag::AUTHENTICATION, Some(3)) => {
                let password = password(login)?;
                answer(stream, &[password.as_bytes(), b"\0"].concat()).await?;
            }
            (tag::AUTHENTICATION, Some(5)) => {
                let salt = body.get(4..).and_then(|salt| salt.first_chunk::<4>());
                let salt = *salt.ok_or(UpstreamError::Protocol)?;
                let hash = md5_hash(login.role.as_bytes(), password(login)?.as_bytes(), salt);
                answer(stream, &[hash.as_bytes(), b"\0"].concat()).await?;
            }
            (tag::AUTHENTICATION, Some(10)) => {
                let mechanisms = body.get(4..).unwrap_or_default();
                scram(stream, login, mechanisms).await?;
            }
            (tag::AUTHENTICATION, _) => {
                return Err(UpstreamError::Login(
                    "PostgreSQL asks for a method that pgusher lacks",
                ));
            }
            _ => return Err(UpstreamError::Protocol),
        }
    }
}

fn password(login: &Login) -> Result<&str, UpstreamError> {
    let missing = UpstreamError::Login("PostgreSQL asks for a password and none is configured");
    login
        .password
        .as_ref()
        .map(crate::tenant::Secret::expose)
        .ok_or(missing)
}

async fn answer(stream: &mut Stream, data: &[u8]) -> Result<(), UpstreamError> {
    let mut out = Vec::with_capacity(HEADER_BYTES + data.len());
    frontend::password(&mut out, data);
    send(stream, &out).await
}

/// SCRAM-SHA-256, bound to the TLS channel where both sides can.
async fn scram(stream: &mut Stream, login: &Login, offered: &[u8]) -> Result<(), UpstreamError> {
    let offers = |name: &str| {
        offered
            .split(|b| *b == 0)
            .any(|offer| offer == name.as_bytes())
    };
    let binding = tls::peer_end_point(stream);
    let (mechanism, channel) = match binding {
        Some(digest) if offers(SCRAM_SHA_256_PLUS) => (
            SCRAM_SHA_256_PLUS,
            ChannelBinding::tls_server_end_point(digest),
        ),
        Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
        None => (SCRAM_SHA_256, ChannelBinding::unsupported()),
    };
    if !offers(mechanism) {
        return Err(UpstreamError::Login(
            "PostgreSQL offers no SASL method that pgusher has",
        ));
    }
    let mut scram = ScramSha256::new(password(login)?.as_bytes(), channel);
    let mut out = Vec::with_capacity(128);
    frontend::sasl_initial(&mut out, mechanism, scram.message());
    send(stream, &out).await?;
    let challenge = sasl_reply(stream, 11).await?;
    // PBKDF2 takes about a millisecond: not on a thread that relays.
    let scram = tokio::task::spawn_blocking(move || scram.update(&challenge).map(|()| scram));
    let mut scram = scram
        .await
        .map_err(|_panic| UpstreamError::Login("SCRAM failed"))??;
    answer(stream, scram.message()).await?;
    let proof = sasl_reply(stream, 12).await?;
    scram
        .finish(&proof)
        .map_err(|_error| UpstreamError::Login("PostgreSQL did not prove itself"))
}

async fn sasl_reply(stream: &mut Stream, kind: u32) -> Result<Vec<u8>, UpstreamError> {
    let (tag, mut body) = receive(stream).await?;
    if tag != tag::AUTHENTICATION || read::u32_at_front(&body) != Some(kind) {
        return Err(UpstreamError::Protocol);
    }
    Ok(body.split_off(4))
}

async fn await_ready(stream: &mut Stream) -> Result<(CancelKey, Welcome), UpstreamError> {
    let mut welcome = Welcome::default();
    let mut key = CancelKey {
        pid: 0,
        secret: Box::default(),
    };
    for _ in 0..LOGIN_MESSAGES_MAX {
        let (tag, body) = receive(stream).await?;
        match tag {
            tag::PARAMETER_STATUS => {
                let (name, value) = read::parameter_status(&body).ok_or(UpstreamError::Protocol)?;
                welcome.parameters.push((name.into(), value.into()));
            }
            tag::KEY_DATA => {
                let pid = read::u32_at_front(&body).ok_or(UpstreamError::Protocol)?;
                key = CancelKey {
                    pid,
                    secret: body.get(4..).unwrap_or_default().into(),
                };
            }
            tag::READY => return Ok((key, welcome)),
            tag::NOTICE => {}
            _ => return Err(UpstreamError::Protocol),
        }
    }
    Err(UpstreamError::Protocol)
}
