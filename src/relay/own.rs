//! `pgusher.*`: what a client may know about its own session, read like any other setting.
//!
//! The values are put on the server ahead of a text that names one, in the same write; so PostgreSQL
//! itself answers `SHOW`, `current_setting` and unknown names, in every protocol and transaction
//! state. Nothing believes them: a client that sets one deceives itself until it asks again.

use super::{Relay, standing};
use crate::{
    sessions::SessionHandle,
    upstream::{Expect, Settings, TxStatus},
    wire::frontend,
};
use serde_json::{Map, Value, json};

const USAGE: &str = "pgusher.usage";
const QUOTA: &str = "pgusher.quota";

const OF_THIS_PROCESS: &str = "of this process of pgusher alone";

impl Relay<'_> {
    /// Tells the server the session's own facts, where a question for one may be next. `false` when
    /// the message must wait for answers first.
    pub(super) fn tell_own(&mut self) -> bool {
        self.say_first(|relay| Some(Settings::default().sql_towards(&relay.own())))
    }

    /// Sends SQL of ours ahead of the client's next message, where that is possible. `false` when the
    /// message must wait for answers first.
    pub(super) fn say_first(&mut self, sql: impl FnOnce(&mut Self) -> Option<String>) -> bool {
        // A batch without its Sync is one transaction, and so is a copy: nothing of ours can stand within.
        let replies = &self.server.replies;
        let is_within = replies.needs_sync() || replies.is_copy_in();
        if self.server.status == TxStatus::Failed || is_within {
            return true;
        }
        if self.server.replies.owes_ready() {
            self.barrier = true;
            return false;
        }
        if let Some(sql) = sql(self) {
            frontend::query(self.client.to_server.insertion(), &sql);
            self.server.replies.push(Expect::Injected);
            self.server.unnamed = 0;
        }
        true
    }

    fn own(&self) -> Settings {
        let handle = &self.client.handle;
        let tenant = handle.tenant.load();
        let pin: Vec<&str> = self.pinned.names().collect();
        let now = [
            ("pgusher.key", handle.key_id.to_string()),
            ("pgusher.pool_mode", self.mode.to_string()),
            ("pgusher.pin", pin.join(", ")),
            ("pgusher.target", self.target.as_str().to_owned()),
            (USAGE, usage(handle)),
            (QUOTA, standing::quota(handle)),
        ];
        let facts = tenant.facts(handle.scope).into_iter().chain(now);
        Settings::new(facts.map(|(name, value)| (name.into(), value.into())))
    }
}

/// What a client is told that may run nothing any more; `None` for any other name.
pub fn value(handle: &SessionHandle, name: &str) -> Option<(&'static str, String)> {
    match name {
        QUOTA => Some((QUOTA, standing::quota(handle))),
        USAGE => Some((USAGE, usage(handle))),
        _ => None,
    }
}

/// What the tenant uses in this process, as JSON.
fn usage(handle: &SessionHandle) -> String {
    let Some(meter) = handle.meter() else {
        return String::new();
    };
    let total = meter.total(handle.key.pid);
    let figures = total.amount.figures.named();
    let figures = figures.map(|(name, value)| (name.to_owned(), json!(value)));
    let errors = total.amount.errors.iter();
    let errors = errors.map(|(code, count)| (code.to_string(), json!(count)));
    let since = humantime::format_rfc3339_seconds(total.since).to_string();
    let mut told: Map<String, Value> = figures.collect();
    told.insert("errors".to_owned(), Value::Object(errors.collect()));
    told.insert("connections".to_owned(), json!(total.connections));
    let peak = total.amount.connections_peak;
    told.insert("connections_peak".to_owned(), json!(peak));
    told.insert("since".to_owned(), json!(since));
    told.insert("note".to_owned(), json!(OF_THIS_PROCESS));
    Value::Object(told).to_string()
}
