//! What the data plane tells when it is asked: one look at everything per scrape.

use crate::{
    frontend::Frontend,
    telemetry::{Collect, names},
};
use metrics::{counter, gauge};
use std::sync::Arc;

/// The data plane's numbers.
pub(super) struct Gauges(pub(super) Arc<Frontend>);

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
impl Collect for Gauges {
    fn collect(&self) {
        let totals = self.0.sessions.totals();
        counter!(names::TRANSACTIONS_TOTAL).absolute(totals.transactions);
        counter!(names::QUERIES_TOTAL).absolute(totals.queries);
        counter!(names::RELAY_BYTES_TOTAL, names::DIRECTION => names::CLIENT)
            .absolute(totals.client_bytes);
        counter!(names::RELAY_BYTES_TOTAL, names::DIRECTION => names::SERVER)
            .absolute(totals.server_bytes);
        gauge!(names::CLIENT_CONNECTIONS).set(f64::from(self.0.admission.count()));
        let (mut active, mut idle, mut waiting, mut pinned) = (0, 0, 0, 0);
        for pool in self.0.pools.all() {
            let occupancy = pool.occupancy();
            active += occupancy.active;
            idle += occupancy.idle;
            waiting += occupancy.waiting;
            pinned += pool.pinned();
        }
        idle += self.0.pools.idle_slots();
        gauge!(names::SERVER_CONNECTIONS, names::STATE => names::ACTIVE).set(active as f64);
        gauge!(names::SERVER_CONNECTIONS, names::STATE => names::IDLE).set(idle as f64);
        gauge!(names::CLIENTS_WAITING).set(waiting as f64);
        let for_places = self.0.pools.waiting_for_places();
        gauge!(names::BUDGET_WAITING).set(for_places as f64);
        gauge!(names::PINNED_SERVERS).set(f64::from(pinned));
        self.running();
    }
}

impl Gauges {
    /// What runs on each server, where that is bounded.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn running(&self) {
        for (cluster, address, load) in self.0.pools.running() {
            let server = address.map_or_else(|| "primary".to_owned(), |at| at.to_string());
            let labels = [
                (names::CLUSTER, cluster.to_string()),
                (names::SERVER_ADDRESS, server),
            ];
            gauge!(names::RUNNING_STATEMENTS_LIMIT, &labels).set(f64::from(load.limit));
            gauge!(names::RUNNING_WAITING, &labels).set(load.waiting as f64);
            for (state, count) in [
                (names::COUNTED, load.running),
                (names::EXCUSED, load.excused),
            ] {
                let [cluster, server] = labels.clone();
                let state = (names::STATE, state.to_owned());
                gauge!(names::RUNNING_STATEMENTS, &[cluster, server, state]).set(f64::from(count));
            }
        }
    }
}
