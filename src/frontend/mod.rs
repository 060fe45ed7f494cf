//! Clients come in here: listener, handshake, login, and the loop of a session.
//!
//! Handshakes and logins run on threads of their own: a storm of them must not touch relaying.
//! What comes out of a login is an [`crate::admission::Admitted`]; with it the socket moves to the
//! relaying threads, where the session's task owns it until the end.

mod arrivals;
mod batch;
mod channels;
mod greeting;
mod handshake;
mod idle;
mod limits;
mod listener;
mod login;
mod own;
mod parameters;
mod session;
mod settle;
mod split;

pub use arrivals::Arrivals;
pub use listener::{Bound, bind};
pub use parameters::{ParameterError, Wishes};

use crate::{
    admission::Admission,
    auth::Authenticator,
    net::BufferPool,
    pool::{Lanes, Pools},
    sessions::{Predecessors, Sessions},
    tenant::Directory,
    tls::ServerTls,
};
use arc_swap::ArcSwap;
use std::{sync::Arc, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What clients meet at the door. Changes live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// From accept to the end of the login.
    pub login_timeout: Duration,
    /// Whether TLS is offered.
    pub tls_offered: bool,
    /// Whether a client without TLS is refused.
    pub tls_required: bool,
    /// Whether a key may be sent as a password outside TLS.
    pub allow_plaintext_password: bool,
}

/// All that serving clients needs, shared by every connection.
pub struct Frontend {
    /// Who is served.
    pub directory: Arc<dyn Directory>,
    /// Proves keys.
    pub authenticator: Authenticator,
    /// Counts clients.
    pub admission: Admission,
    /// Lends servers.
    pub pools: Arc<Pools>,
    /// Knows all sessions.
    pub sessions: Arc<Sessions>,
    /// TLS towards clients.
    pub tls: Arc<ServerTls>,
    /// Lends memory.
    pub buffers: BufferPool,
    /// What clients meet at the door.
    pub door: ArcSwap<Door>,
    /// Connections that are not logged in yet.
    pub arrivals: Arrivals,
    /// The threads that relay.
    pub lanes: Lanes,
    /// All sessions' tasks.
    pub tasks: TaskTracker,
    /// No more connections are taken.
    pub closing: CancellationToken,
    /// Another process takes the connections; sessions go on here until they leave.
    pub retired: CancellationToken,
    /// Has the processes before this one cancel what their sessions do.
    pub predecessors: Predecessors,
}
