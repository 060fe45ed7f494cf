//! From a connection to an admitted client, on the login threads.

use super::{
    Frontend, Wishes,
    handshake::{self, Handshake},
    session::{self, Arrival},
};
use crate::{
    admission::{self, Admitted},
    auth::{AuthError, Claim, Conversation, Method},
    net::{Flow, Peer, Socket},
    sessions::{self, CancelOutcome},
    wire::{PROTOCOL_MINOR_MAX, Refusal, SqlState, StartupPacket, backend},
};
use std::{sync::Arc, time::Duration};

/// How long a refused client may take to read why.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves a connection up to the moment when it moves to the relaying threads.
pub(super) async fn serve(frontend: Arc<Frontend>, socket: Socket, peer: Peer) {
    let door = frontend.door.load_full();
    let deadline = tokio::time::Instant::now() + door.login_timeout;
    let opened = handshake::open(socket, &frontend.tls, &door, &frontend.buffers);
    let handshake = match tokio::time::timeout_at(deadline, opened).await {
        Ok(Ok(handshake)) => handshake,
        Ok(Err(error)) => {
            tracing::info!(client = %peer, %error, "client rejected");
            count("handshake");
            if let Some((conversation, refusal)) = error.refusal() {
                refuse(*conversation, &refusal).await;
            }
            return;
        }
        Err(_elapsed) => {
            count("timeout");
            return;
        }
    };
    match handshake {
        Handshake::Cancel(conversation, key) => {
            let outcome = match sessions::cancel(&frontend.sessions, &key).await {
                CancelOutcome::Unknown => frontend.predecessors.cancel(&key).await,
                outcome => outcome,
            };
            metrics::counter!("pgusher_cancels_total", "result" => outcome.as_str()).increment(1);
            drop(conversation);
        }
        Handshake::Startup(conversation, packet) => {
            Box::pin(start(frontend, *conversation, packet, (peer, deadline))).await;
        }
    }
}

pub(super) fn count(result: &'static str) {
    metrics::counter!("pgusher_logins_total", "result" => result).increment(1);
}

async fn refuse(mut conversation: Conversation, refusal: &Refusal) {
    use tokio::io::AsyncWriteExt as _;
    let farewell = async {
        conversation.send(&refusal.encode()).await?;
        conversation.stream.shutdown().await
    };
    drop(tokio::time::timeout(REFUSAL_TIMEOUT, farewell).await);
}

/// Why a client is turned away: what it is told, what the log says, the metric's label.
struct Rejected {
    refusal: Option<Refusal>,
    reason: String,
    label: &'static str,
}

impl Rejected {
    fn new(refusal: Refusal, label: &'static str) -> Self {
        let reason = refusal.to_string();
        Self {
            refusal: Some(refusal),
            reason,
            label,
        }
    }
}

async fn start(
    frontend: Arc<Frontend>,
    mut conversation: Conversation,
    packet: StartupPacket,
    (peer, deadline): (Peer, tokio::time::Instant),
) {
    let admitted = admit(&frontend, &mut conversation, &packet, peer);
    let rejected = match tokio::time::timeout_at(deadline, admitted).await {
        Ok(Ok((admitted, wishes))) => {
            let Conversation { stream, inbox, .. } = conversation;
            let home = frontend.lanes.home(&admitted.authenticated().tenant().id);
            let arrival = Box::new(Arrival {
                stream,
                to_server: Flow::starting_with(inbox),
                admitted,
                home,
                wishes,
                minor: packet.minor,
                peer,
                deadline,
            });
            move_to_lane(&frontend, arrival);
            return;
        }
        Ok(Err(rejected)) => rejected,
        Err(_elapsed) => {
            let text = "canceling authentication due to login_timeout";
            Rejected::new(Refusal::fatal(SqlState::CANCELED, text), "timeout")
        }
    };
    let user = packet.parameter("user").unwrap_or_default();
    tracing::info!(client = %peer, user, reason = %rejected.reason, "client rejected");
    count(rejected.label);
    if let Some(refusal) = &rejected.refusal {
        refuse(conversation, refusal).await;
    }
}

async fn admit(
    frontend: &Frontend,
    conversation: &mut Conversation,
    packet: &StartupPacket,
    peer: Peer,
) -> Result<(Admitted, Wishes), Rejected> {
    let too_many = |full: admission::Full| Rejected::new(full.refusal(), "too_many");
    if packet.needs_negotiation() {
        let mut out = Vec::with_capacity(64);
        let minor = packet.minor.min(PROTOCOL_MINOR_MAX);
        backend::negotiate(&mut out, minor, &packet.unknown_options);
        let sent = conversation.send(&out).await;
        sent.map_err(|error| broken_off(&AuthError::Conversation(error.into()), ""))?;
    }
    let wishes =
        Wishes::new(packet).map_err(|error| Rejected::new(error.refusal(), "parameters"))?;
    // Nobody takes a place of the process before it has shown a key.
    frontend.admission.look(peer).map_err(too_many)?;
    let may_send_password =
        conversation.stream.is_tls() || frontend.door.load().allow_plaintext_password;
    if wishes.method == Method::Password && !may_send_password {
        let text = "pgusher.auth=password is allowed inside TLS only";
        return Err(Rejected::new(
            Refusal::fatal(SqlState::UNAUTHORIZED, text),
            "parameters",
        ));
    }
    let claim = Claim {
        user: &wishes.user,
        peer,
        method: wishes.method,
    };
    let authenticated = frontend
        .authenticator
        .authenticate(conversation, claim)
        .await
        .map_err(|error| broken_off(&error, &wishes.user))?;
    let entered = frontend.admission.enter(peer).map_err(too_many)?;
    let tenant = Arc::clone(authenticated.tenant());
    if !tenant.serves_database(&wishes.database) {
        let text = format!("database \"{}\" does not exist", wishes.database);
        let refusal = Refusal::fatal(SqlState::NO_DATABASE, text)
            .with_detail("Give the tenant's id as the database, or leave it out.");
        return Err(Rejected::new(refusal, "database"));
    }
    wishes
        .check(&tenant)
        .map_err(|error| Rejected::new(error.refusal(), "parameters"))?;
    let on_trial = admission::trial::goes_on(&tenant);
    on_trial.map_err(|refusal| Rejected::new(refusal, "too_many"))?;
    let restraints = frontend
        .admission
        .restraints(authenticated.tenant(), &authenticated.key().id);
    let turn = restraints.login();
    let wait = turn.map_err(|refusal| Rejected::new(refusal.into_fatal(), "too_many"))?;
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    let admitted = frontend
        .admission
        .admit(entered, authenticated)
        .map_err(too_many)?;
    Ok((admitted, wishes))
}

fn broken_off(error: &AuthError, user: &str) -> Rejected {
    let label = match error {
        AuthError::BadKey(_) => "bad_key",
        AuthError::Refused(_) => "refused",
        AuthError::Conversation(_) => "broken_off",
    };
    Rejected {
        refusal: error.refusal(user),
        reason: error.to_string(),
        label,
    }
}

/// Hands the socket from the login threads to the tenant's own.
fn move_to_lane(frontend: &Arc<Frontend>, mut arrival: Box<Arrival>) {
    let detached = match arrival.stream.socket_mut().detach() {
        Ok(detached) => detached,
        Err(error) => {
            tracing::error!(%error, "a client could not be moved to its thread");
            return;
        }
    };
    count("ok");
    let tenant = arrival.admitted.authenticated().tenant().id.clone();
    let home = Arc::clone(&arrival.home);
    let lane = home.lane().handle().clone();
    let frontend = Arc::clone(frontend);
    let tasks = frontend.tasks.clone();
    let task = async move {
        match Socket::attach(detached) {
            Ok(socket) => *arrival.stream.socket_mut() = socket,
            Err(error) => {
                tracing::error!(%error, "a client could not be moved to its thread");
                return;
            }
        }
        session::begin(frontend, arrival).await;
    };
    // Held once, not in each of the futures around it.
    let task = Box::pin(task);
    let task = async move { home.lane().turns().take_turns(tenant, task).await };
    tasks.spawn_on(task, &lane);
}
