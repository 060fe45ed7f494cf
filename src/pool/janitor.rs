//! Looks after idle servers, beside the clients' path.

use super::Pools;
use std::{sync::Arc, time::Duration};

/// How often.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);

/// Closes what was idle for too long, keeps the minimum, forgets unused pools; until it is dropped.
///
/// # Cancel safety
/// Cancel safe.
pub async fn run(pools: Arc<Pools>) {
    let mut interval = tokio::time::interval(ROUND_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let idle_max = pools.idle_max();
        for pool in pools.all() {
            pool.close_stale(idle_max);
            if idle_max.is_none() && pool.config().limits.min_pool_size > 0 {
                // One slow upstream must not hold up the round for the others.
                let lane = pool.home().lane().handle().clone();
                lane.spawn(async move { pool.fill().await });
            }
        }
        pools.forget_unused();
        pools.close_stale_slots();
    }
}
