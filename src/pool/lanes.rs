//! Which thread a tenant lives on.
//!
//! A tenant's sessions and its server connections are all on one thread: whoever waits for a
//! server is woken by its own thread, no byte crosses cores, and a flood of one tenant's stays on
//! one core. The price: one tenant can use one core. On it, tenants take turns ([`Rota`]). Who comes
//! finds its [`Home`] where the fewest live.

use super::Rota;
use crate::{limits::Forgetful, tenant::TenantId};
use parking_lot::Mutex;
use std::{
    iter,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::runtime::Handle;

/// A relaying thread, a runtime of its own.
#[derive(Debug, Clone)]
pub struct Lane {
    handle: Handle,
    turns: Arc<Rota<TenantId>>,
    tenants: Arc<AtomicUsize>,
}

impl Lane {
    /// A thread with this runtime, and the turns that are taken on it.
    pub fn new(handle: Handle, turns: Arc<Rota<TenantId>>) -> Self {
        handle.spawn(Arc::clone(&turns).drive());
        Self {
            handle,
            turns,
            tenants: Arc::default(),
        }
    }

    /// Its runtime.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The turns that tenants take on it.
    pub fn turns(&self) -> &Arc<Rota<TenantId>> {
        &self.turns
    }
}

/// A tenant's place on a thread. Its sessions and its pools hold it: it lives there until the last of
/// them is gone.
#[derive(Debug)]
pub struct Home(Lane);

impl Home {
    fn on(lane: &Lane) -> Self {
        lane.tenants.fetch_add(1, Relaxed);
        Self(lane.clone())
    }

    /// The thread.
    pub fn lane(&self) -> &Lane {
        &self.0
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.0.tenants.fetch_sub(1, Relaxed);
    }
}

/// The relaying threads. At least one.
#[derive(Debug, Clone)]
pub struct Lanes {
    first: Lane,
    others: Arc<[Lane]>,
    homes: Arc<Mutex<Forgetful<TenantId, Weak<Home>>>>,
}

impl Lanes {
    /// These threads. Of those that are equally full the first is the last to be lived on: it may have other
    /// things to do.
    pub fn new(first: Lane, others: Vec<Lane>) -> Self {
        Self {
            first,
            others: others.into(),
            homes: Arc::default(),
        }
    }

    /// Where the tenant lives; if nowhere, on the thread where the fewest do from now on.
    pub fn home(&self, tenant: &TenantId) -> Arc<Home> {
        let new = || Arc::new(Home::on(self.emptiest()));
        self.homes.lock().shared(tenant, new)
    }

    fn emptiest(&self) -> &Lane {
        let all = self.others.iter().chain(iter::once(&self.first));
        all.min_by_key(|lane| lane.tenants.load(Relaxed))
            .unwrap_or(&self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::{Builder, Runtime};

    /// Threads that nobody runs, and their runtimes.
    fn lanes(count: usize) -> (Lanes, Vec<Runtime>) {
        let runtime = || Builder::new_current_thread().build().unwrap();
        let runtimes: Vec<_> = iter::repeat_with(runtime).take(count).collect();
        let lane = |it: &Runtime| Lane::new(it.handle().clone(), Arc::default());
        let mut all: Vec<_> = runtimes.iter().map(lane).collect();
        let first = all.remove(0);
        (Lanes::new(first, all), runtimes)
    }

    fn tenant(n: usize) -> TenantId {
        TenantId::new(&format!("t{n}")).unwrap()
    }

    fn lives_on(lanes: &Lanes) -> Vec<usize> {
        let all = iter::once(&lanes.first).chain(lanes.others.iter());
        all.map(|lane| lane.tenants.load(Relaxed)).collect()
    }

    #[test]
    fn tenants_are_spread_evenly() {
        let (lanes, _runtimes) = lanes(3);
        let homes: Vec<_> = (0..10).map(|n| lanes.home(&tenant(n))).collect();
        assert_eq!(lives_on(&lanes), [3, 4, 3]);
        drop(homes);
        assert_eq!(lives_on(&lanes), [0, 0, 0]);
    }

    #[test]
    fn a_tenant_lives_in_one_place_until_its_last_is_gone() {
        let (lanes, _runtimes) = lanes(2);
        let here = |home: &Home| home.lane().handle().id();
        let first = lanes.home(&tenant(0));
        let other = lanes.home(&tenant(1));
        assert_ne!(here(&first), here(&other));
        let second = lanes.home(&tenant(0));
        assert!(Arc::ptr_eq(&first, &second));
        drop(first);
        // Its thread is no longer the emptiest, but it lives there.
        let more: Vec<_> = (2..5).map(|n| lanes.home(&tenant(n))).collect();
        assert_eq!(lives_on(&lanes), [2, 3]);
        assert!(Arc::ptr_eq(&second, &lanes.home(&tenant(0))));
        let was = here(&second);
        drop(second);
        drop(more);
        let come = [lanes.home(&tenant(5)), lanes.home(&tenant(6))];
        assert!(come.iter().all(|home| here(home) == was));
        assert_ne!(
            here(&lanes.home(&tenant(0))),
            was,
            "it has no home any more"
        );
    }

    #[test]
    fn who_has_gone_makes_room_for_who_comes() {
        let (lanes, _runtimes) = lanes(2);
        let mut homes: Vec<_> = (0..8).map(|n| lanes.home(&tenant(n))).collect();
        let lane = homes[0].lane().handle().id();
        homes.retain(|home| home.lane().handle().id() == lane);
        let come: Vec<_> = (10..14).map(|n| lanes.home(&tenant(n))).collect();
        assert!(come.iter().all(|home| home.lane().handle().id() != lane));
        assert_eq!(lives_on(&lanes), [4, 4]);
    }

    #[test]
    fn ten_thousand_that_come_and_go_are_forgotten() {
        let (lanes, _runtimes) = lanes(2);
        for n in 0..10_000 {
            drop(lanes.home(&tenant(n)));
        }
        let remembered = lanes.homes.lock().len();
        assert!(remembered <= 128, "{remembered}");
    }
}
