//! Uses of API keys find their way into the registry.

use crate::{
    control::Control, frontend::Frontend, registry::write_uses, sessions::SessionHandle,
    tenant::KeyUses,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How often the keys of clients that are connected are noted as used: a session that lasts for days
/// uses its key.
const SESSIONS_INTERVAL: Duration = Duration::from_mins(5);

/// Has uses written until it is ended or dropped.
pub(super) struct Recorder {
    end: DropGuard,
    writing: JoinHandle<()>,
}

impl Recorder {
    /// In tasks of the current runtime.
    pub(super) fn start(control: Control, frontend: Arc<Frontend>) -> Self {
        let end = CancellationToken::new();
        let pool = control.registry.pool.clone();
        let writing = write_uses(pool, Arc::clone(&control.uses), end.clone());
        let writing = tokio::spawn(writing);
        let noting = note_sessions(control, frontend);
        tokio::spawn(end.clone().run_until_cancelled_owned(noting));
        Self {
            end: end.drop_guard(),
            writing,
        }
    }

    /// Writes what is left, within a few seconds.
    pub(super) async fn end(self) {
        drop(self.end);
        if let Err(error) = self.writing.await {
            tracing::error!(%error, "uses of API keys could not be written");
        }
    }
}

async fn note_sessions(control: Control, frontend: Arc<Frontend>) {
    let mut ticks = interval(SESSIONS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for handle in frontend.sessions.all() {
            note(&control.uses, &handle);
        }
    }
}

fn note(uses: &KeyUses, handle: &SessionHandle) {
    let tenant = handle.tenant.load();
    let mut keys = tenant.keys.iter();
    if keys.any(|key| key.id == handle.key_id && key.is_recorded) {
        uses.note(&tenant.id, &handle.key_id);
    }
}
