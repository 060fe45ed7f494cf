//! A client that has just been admitted: a server confirms its settings, and it is greeted.

use super::{
    Frontend,
    session::{Arrival, CLEAN_TIMEOUT, FAREWELL_TIMEOUT, Session},
};
use crate::{
    admission::{Admitted, trial},
    net::Flow,
    pool::{Checkout, TenantPool},
    relay::Client,
    sessions::{Activity, SessionHandle},
    upstream::{AskError, Said, Settings, UpstreamError, Welcome},
    usage::Figures,
    wire::{Refusal, SqlState, backend},
};
use std::sync::Arc;
use tokio::io::AsyncWriteExt as _;

/// Servers that are asked at a login, where one after the other is lost.
const LOGIN_TRIES_MAX: u32 = 3;

/// Greets a client, or tells it why not.
pub(super) async fn welcome(
    frontend: &Frontend,
    arrival: Box<Arrival>,
    handle: &Arc<SessionHandle>,
) -> Result<(Box<Session>, Admitted), &'static str> {
    let greeted = greet(frontend, &arrival, handle);
    let greeted = tokio::time::timeout_at(arrival.deadline, greeted).await;
    let mut arrival = *arrival;
    let refusal = match greeted {
        Ok(Ok((greeting, pool, state))) => {
            let tenant = handle.tenant.load_full();
            let mut to_client = Flow::new(frontend.buffers.clone());
            to_client.insert(&greeting);
            let flows = (arrival.to_server, to_client);
            let session = Session {
                client: Client::new(arrival.stream, flows, state, Arc::clone(handle)),
                is_skipping: false,
                pool,
                mode: arrival.wishes.pool_mode.unwrap_or(tenant.pool_mode),
                prepared_max: tenant.limits.max_prepared_statements as usize,
                target: arrival.wishes.target.unwrap_or_default(),
                own: None,
                replay: Vec::new(),
                replay_from: 0,
                counted: Figures::default(),
                settings_failures: 0,
                refusals: 0,
            };
            return Ok((Box::new(session), arrival.admitted));
        }
        Ok(Err(refusal)) => refusal,
        Err(_elapsed) => Refusal::fatal(
            SqlState::CANCELED,
            "canceling authentication due to login_timeout",
        ),
    };
    let out = refusal.into_fatal().encode();
    let farewell = async {
        arrival.stream.write_all(&out).await?;
        arrival.stream.shutdown().await
    };
    drop(tokio::time::timeout(FAREWELL_TIMEOUT, farewell).await);
    Err("no server at login")
}

type State = (Arc<Settings>, Arc<Welcome>);

/// Everything up to ReadyForQuery: what the server says of the client's settings, and what it
/// reports, with them in it.
async fn greet(
    frontend: &Frontend,
    arrival: &Arrival,
    handle: &Arc<SessionHandle>,
) -> Result<(Vec<u8>, Arc<TenantPool>, State), Refusal> {
    let tenant = handle.tenant.load_full();
    let cluster = frontend
        .directory
        .cluster(&tenant.placement.cluster)
        .ok_or_else(|| {
            Refusal::fatal(SqlState::NOT_NOW, "the tenant's cluster is not configured")
        })?;
    let pool = frontend
        .pools
        .pool(&tenant, &cluster, handle.scope, &arrival.home)
        .map_err(|error: UpstreamError| error.refusal())?;
    // Of two with one name the client's counts: where it may not, it was refused.
    let usual = tenant.settings_of_sessions().iter().cloned();
    let own = arrival.wishes.settings.iter();
    let own = own.map(|(name, value)| (name.into(), value.into()));
    let wanted = Arc::new(Settings::new(usual.chain(own)));
    let (settings, said) = settle(&pool, handle, &wanted).await?;
    // A reload in this moment leaves the new pool without a server to ask.
    let welcome = if let Some(welcome) = pool.welcome() {
        welcome
    } else {
        settle(&pool, handle, &wanted).await?;
        pool.welcome().unwrap_or_default()
    };
    let mut out = Vec::with_capacity(512);
    backend::authentication_ok(&mut out);
    out.extend_from_slice(&said.notices);
    if let Some(text) = trial::ends_soon(&tenant) {
        backend::notice(&mut out, &text);
    }
    for (name, value) in &welcome.parameters {
        let own = said
            .report
            .iter()
            .rfind(|(n, _)| n.eq_ignore_ascii_case(name));
        backend::parameter_status(&mut out, name, own.map_or(value, |(_, own)| own));
    }
    backend::key_data(&mut out, handle.key.pid, &handle.key.secret);
    backend::ready_idle(&mut out);
    Ok((out, pool, (settings, welcome)))
}

/// Has a server confirm settings that were not seen before, and learns how it spells them. Once
/// they are known, and the server's own parameters too, a login needs no server.
async fn settle(
    pool: &TenantPool,
    handle: &Arc<SessionHandle>,
    wanted: &Arc<Settings>,
) -> Result<(Arc<Settings>, Said), Refusal> {
    if pool.welcome().is_some()
        && let Some(known) = pool.confirmed(wanted)
    {
        return Ok(known);
    }
    handle.enter(Activity::Waiting);
    for _ in 1..LOGIN_TRIES_MAX {
        let checkout = pool.checkout(handle).await;
        let checkout = checkout.map_err(|error| error.refusal())?;
        match settle_on(checkout, pool, wanted).await {
            // An idle server may have been ended before this is noticed: another one is asked.
            Err(error) if error.is_loss() => {}
            settled => return settled.map_err(|error| invalid(&error)),
        }
    }
    let checkout = pool.checkout(handle).await;
    let checkout = checkout.map_err(|error| error.refusal())?;
    let settled = settle_on(checkout, pool, wanted).await;
    settled.map_err(|error| invalid(&error))
}

async fn settle_on(
    mut checkout: Checkout,
    pool: &TenantPool,
    wanted: &Arc<Settings>,
) -> Result<(Arc<Settings>, Said), AskError> {
    pool.learn_welcome(checkout.welcome());
    let server = checkout.server();
    let sql = server.applied.sql_towards(wanted);
    let before = Arc::clone(&server.applied);
    let mut said = Said::default();
    if !sql.is_empty() {
        said = server.ask_aloud(&sql, CLEAN_TIMEOUT).await?;
    }
    let welcome = pool.welcome().unwrap_or_default();
    let report = &mut said.report;
    report.retain(|(name, _)| wanted.value(name).is_some());
    // What is not reported has not changed, however the client spells it.
    for (name, _) in wanted.iter() {
        let is_silent = !report.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let now = before.value(name).or_else(|| welcome.value(name));
        if let Some(now) = now.filter(|_| is_silent && welcome.value(name).is_some()) {
            report.push((name.into(), now.into()));
        }
    }
    let settings = wanted.as_reported(report, |name, value| welcome.value(name) == Some(value));
    let settings = Arc::new(settings);
    let spelled = wanted.as_reported(report, |_name, _value| false);
    server.applied = if spelled == *settings {
        Arc::clone(&settings)
    } else {
        Arc::new(spelled)
    };
    checkout.release(pool);
    pool.confirm(Arc::clone(wanted), (Arc::clone(&settings), said.clone()));
    Ok((settings, said))
}

/// PostgreSQL's own words about a setting, as it would have them at startup.
fn invalid(error: &AskError) -> Refusal {
    match error {
        AskError::Refused { sqlstate, message } => {
            let known = [
                "22023", "42704", "42501", "55P02", "0A000", "22P02", "42602",
            ];
            let code = known
                .into_iter()
                .find(|code| code == sqlstate)
                .unwrap_or("22023");
            Refusal::fatal(SqlState(code), message.clone())
        }
        _ => UpstreamError::Protocol.refusal(),
    }
}
