//! Uses of API keys, and what tenants use, find their way into the registry.

use crate::{
    config::Usage,
    control::Control,
    frontend::Frontend,
    registry::{Keeping, write_usage, write_uses},
    sessions::SessionHandle,
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

/// Has both written until it is ended or dropped.
pub(super) struct Recorder {
    end: DropGuard,
    writing: JoinHandle<()>,
    metering: Option<JoinHandle<()>>,
}

impl Recorder {
    /// In tasks of the current runtime.
    pub(super) fn start(control: Control, frontend: Arc<Frontend>, usage: Usage) -> Self {
        let end = CancellationToken::new();
        let pool = control.registry.pool.clone();
        let writing = write_uses(pool, Arc::clone(&control.uses), end.clone());
        let writing = tokio::spawn(writing);
        let metering = usage.flush_interval.map(|flush_interval| {
            let keeping = Keeping {
                flush_interval,
                retention: usage.retention,
            };
            let pool = control.registry.pool.clone();
            let book = Arc::clone(&frontend.sessions.usage);
            tokio::spawn(write_usage(pool, book, keeping, end.clone()))
        });
        let noting = note_sessions(control, frontend);
        tokio::spawn(end.clone().run_until_cancelled_owned(noting));
        Self {
            end: end.drop_guard(),
            writing,
            metering,
        }
    }

    /// Writes what is left, within a few seconds.
    pub(super) async fn end(self) {
        drop(self.end);
        if let Err(error) = self.writing.await {
            tracing::error!(%error, "uses of API keys could not be written");
        }
        if let Some(metering) = self.metering
            && let Err(error) = metering.await
        {
            tracing::error!(%error, "what tenants use could not be written");
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
